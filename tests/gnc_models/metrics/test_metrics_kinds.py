"""The optional and the newer measures one kind at a time: closed forms, what is refused, and what is null."""

import math

import numpy as np
import pytest
import torch

import gnc_models.geometry.pairwise
import gnc_models.metrics.collapse
from gnc_models.metrics.alignment import input_correlation
from gnc_models.metrics.norms import effective_rank
from gnc_models.metrics.samples import active_classes
from gnc_models.metrics.separation import rare_and_frequent
from tests.gnc_models.known_codes import orthoplex, polygon, random_rows, rotated, simplex
from tests.gnc_models.metrics.test_metrics import MODES, assert_equal, measure, trained_like


def collapsed(rows, counts=None):
    """Features that are their classifier rows, with the given samples of each class (2 if none are given)."""
    counts = torch.full((len(rows),), 2) if counts is None else torch.tensor(counts)
    labels = torch.arange(len(rows)).repeat_interleave(counts)
    return rows[labels], labels, rows


# --- uniformity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 8])
def test_an_orthoplex_has_its_energies_and_separation(dim):
    found = measure(*collapsed(orthoplex(dim))).values
    antipodal = 1 / (2 * dim - 1)  # share of the pairs; their squared distance is 4, of all others 2
    riesz = antipodal / 4 + (1 - antipodal) / 2
    log_energy = -(antipodal * math.log(4) + (1 - antipodal) * math.log(2)) / 2
    for kind in ("mean", "weight"):
        assert found[f"{kind}_riesz_energy"] == pytest.approx(riesz, rel=1e-12)
        assert found[f"{kind}_min_distance"] == pytest.approx(math.sqrt(2), rel=1e-12)
    assert found["weight_log_energy"] == pytest.approx(log_energy, rel=1e-12)


def test_features_of_a_class_at_two_points_have_the_energy_of_their_distance():
    angle = 1e-7  # where 2 - 2 cos would have lost every digit
    turned = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    features = torch.cat([turned, 3 * turned.flip(1)])  # lengths do not matter
    found = measure(features, torch.tensor([0, 0, 1, 1]), torch.eye(2)).values
    assert found["within_distance"] == pytest.approx(2 * math.sin(angle / 2), rel=1e-7)
    assert found["within_log_energy"] == pytest.approx(-math.log(2 * math.sin(angle / 2)), rel=1e-9)


def test_a_close_pair_keeps_its_digits_beside_far_samples():
    angles = (0.0, 1e-8, 1.0)
    features = torch.tensor([[math.cos(a), math.sin(a)] for a in angles], dtype=torch.float64).repeat(2, 1)
    found = measure(features, torch.arange(2).repeat_interleave(3), torch.eye(2)).values
    chords = [2 * math.sin((b - a) / 2) for a in angles for b in angles if a < b]
    assert found["within_log_energy"] == pytest.approx(-np.mean(np.log(chords)), rel=1e-8)
    assert found["within_distance"] == pytest.approx(np.mean(chords), rel=1e-12)


def test_coinciding_samples_have_a_distance_and_no_energy():
    found = measure(*collapsed(random_rows(5, 3, 0))).values
    assert found["within_log_energy"] is None
    assert found["within_distance"] == 0.0


def test_a_large_class_is_thinned_evenly():
    count, kept = 150, 64
    features = torch.randn(2 * count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(2).repeat(count)
    found = measure(features, labels, torch.eye(2, 3)).values
    expected = []
    for k in range(2):
        own = features[labels == k]
        points = own[[i * count // kept for i in range(kept)]]
        points = points / points.norm(dim=1, keepdim=True)
        expected.append(np.mean([float((points[a] - points[b]).norm()) for a in range(kept) for b in range(a)]))
    assert found["within_distance"] == pytest.approx(np.mean(expected), rel=1e-12)


def test_classes_of_every_size_enter_the_within_class_energy_alike():
    point = lambda degrees: [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]
    # a class of one sample is left out; one pair at 60 degrees (distance 1), and three points 120 degrees apart
    features = torch.tensor([point(a) for a in (0, 10, 70, 5, 125, 245)], dtype=torch.float64)
    found = measure(features, torch.tensor([0, 1, 1, 2, 2, 2]), polygon(3)).values
    assert found["within_distance"] == pytest.approx((1 + math.sqrt(3)) / 2, rel=1e-12)
    assert found["within_log_energy"] == pytest.approx(-math.log(3) / 4, rel=1e-12)


# --- duality, no class, likeness of inputs -----------------------------------------------------------------------


def test_duality_is_uniform_where_every_mean_is_turned_from_its_row_by_the_same_angle():
    rows, angle = polygon(7), 0.3
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    features, labels, _ = collapsed(rows @ turn)
    found = measure(features, labels, rows).values
    assert found["gnc3"] == pytest.approx(1 - math.cos(angle), rel=1e-12)
    assert found["gnc3_uniform"] == pytest.approx(0, abs=1e-30)
    # cosines of 2 pi j / 7 + angle, j != 0: they add up to -cos(angle), their squares to 7/2 - cos(angle)^2
    mean, square = -math.cos(angle) / 6, (3.5 - math.cos(angle) ** 2) / 6
    assert found["gnc3_cross"] == pytest.approx(square - mean**2, rel=1e-12)


def test_one_turned_mean_has_the_variance_of_two_values():
    rows = torch.eye(4, dtype=torch.float64)
    means = rows.clone()
    means[0] = torch.tensor([0.6, 0.8, 0.0, 0.0], dtype=torch.float64)
    features, labels, _ = collapsed(means)
    found = measure(features, labels, rows).values
    assert found["gnc3_uniform_uncentred"] == pytest.approx(0.4**2 * 3 / 16, rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_samples_of_no_class_deviate_by_their_cosines(mode):
    rows = simplex(6, 9)
    batch = collapsed(rows)
    like_one = measure(*batch, mode, ood_features=rows[:1].repeat(3, 1)).values
    assert like_one["ood_deviation"] == pytest.approx((1 + 5 / 5) / 6, rel=1e-12)
    off = torch.linalg.svd(rows)[2][-2:]  # outside the span of the means
    assert measure(*batch, mode, ood_features=off).values["ood_deviation"] == pytest.approx(0, abs=1e-15)
    opposite = torch.cat([rows[:1], -rows[:1]])
    assert measure(*batch, mode, ood_features=opposite).values["ood_deviation"] is None


def test_rows_laid_out_like_their_inputs_correlate_fully():
    rows = polygon(9)
    inputs = 5 + 0.1 * rotated(torch.nn.functional.pad(rows, (0, 3)), 2)
    found = measure(*collapsed(rows), class_inputs=inputs).values
    assert found["input_correlation"] == pytest.approx(1, rel=1e-12)
    shuffled = inputs[torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    assert measure(*collapsed(rows), class_inputs=shuffled).values["input_correlation"] < 0.9


@pytest.mark.parametrize("entries", [1 << 18, 50])
def test_the_correlation_with_inputs_equals_that_of_all_pairs(entries, monkeypatch):
    monkeypatch.setattr(gnc_models.geometry.pairwise, "TILE_ENTRIES", entries)
    rows, inputs = random_rows(12, 4, 0), random_rows(12, 30, 1) + 2
    centred = (inputs - inputs.mean(0)).numpy()
    likeness = [
        float(centred[a] @ centred[b]) / math.sqrt(float(centred[a] @ centred[a]) * float(centred[b] @ centred[b]))
        for a in range(12)
        for b in range(a)
    ]
    gram = [float(rows[a] @ rows[b]) for a in range(12) for b in range(a)]
    assert input_correlation(rows, inputs) == pytest.approx(np.corrcoef(likeness, gram)[0, 1], rel=1e-10)


def test_a_simplex_has_no_assignment_to_correlate():
    assert input_correlation(simplex(5, 8), random_rows(5, 20, 0)) is None
    assert input_correlation(random_rows(5, 8, 0), torch.ones(5, 3)) is None


# --- dimensions and competition ----------------------------------------------------------------------------------


def test_effective_ranks_of_known_codes():
    assert measure(*collapsed(simplex(6, 9))).values["weight_effective_rank"] == pytest.approx(5, rel=1e-7)
    found = measure(*collapsed(orthoplex(4))).values
    assert found["weight_effective_rank"] == pytest.approx(4, rel=1e-12)
    assert found["feature_effective_rank"] == pytest.approx(4, rel=1e-12)
    # singular values 3 and 1: shares 3/4 and 1/4
    gram = torch.diag(torch.tensor([9.0, 1.0, 0.0], dtype=torch.float64))
    assert effective_rank(gram) == pytest.approx(4 / 3**0.75, rel=1e-12)


def test_equal_wrong_logits_make_every_other_class_active_and_one_ahead_makes_it_one():
    found = measure(*collapsed(simplex(6, 9))).values
    assert found["active_classes"] == pytest.approx(5, rel=1e-6)
    logits = torch.tensor([[7.0, 2.0, 2.0, 2.0 - 1e6], [1e6, -3e4, 3e4, 0.0]], dtype=torch.float64)
    assert active_classes(logits, torch.tensor([0, 0])).tolist() == pytest.approx([2, 1], rel=1e-12)
    logits = torch.tensor([[0.0, math.log(3), 0.0]], dtype=torch.float64)
    assert active_classes(logits, torch.tensor([2])).tolist() == pytest.approx([4 / 3**0.75], rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_fewer_classes_compete_at_a_lower_temperature_where_the_head_has_one(mode):
    features, labels, weights = trained_like(12, 5)
    options = {"normalization": mode, "test_features": features, "test_labels": labels}
    if mode == "none":
        # without a temperature longer rows do what a lower temperature does
        cold = measure(features, labels, 10 * weights, "none").values["active_classes"]
        assert cold < measure(features, labels, weights, "none").values["active_classes"]
        return
    found = [
        gnc_models.metrics.collapse.measure_collapse(features, labels, weights, temperature=t, **options).values[
            "active_classes"
        ]
        for t in (1e-4, 0.1, 1e4)
    ]
    assert found[0] < found[1] < found[2]
    assert found[0] == pytest.approx(1, abs=1e-2)
    assert found[2] == pytest.approx(11, rel=1e-3)


# --- long tail ---------------------------------------------------------------------------------------------------


def test_shares_of_the_margin_curve_count_the_classes_above_the_closest_pair():
    close = torch.tensor([[math.cos(0.1), 0.0, 0.0, 0.0, math.sin(0.1)]], dtype=torch.float64)
    rows = torch.cat([torch.eye(4, 5, dtype=torch.float64), close])
    found = measure(*collapsed(rows)).values
    assert [found[f"margin_share_{e}"] for e in (1, 5, 20)] == pytest.approx([3 / 5] * 3)
    # all equal: none is above, though intervals differ by rounding
    found = measure(*collapsed(orthoplex(3))).values
    assert [found[f"margin_share_{e}"] for e in (1, 5, 20)] == [0, 0, 0]


def test_a_balanced_within_class_variance_is_that_of_the_classes_not_of_the_samples():
    offset = lambda size, n: torch.tensor([[0.0, 0.0, (-1.0) ** i * size] for i in range(n)], dtype=torch.float64)
    rows = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]], dtype=torch.float64)
    features = torch.cat([rows[:1] + offset(1, 8), rows[1:] + offset(3, 2)])
    labels = torch.tensor([0] * 8 + [1] * 2)
    found = measure(features, labels, rows, "none").values
    between = 8.0  # both means are sqrt(8) from their average
    assert found["gnc1_quotient"] == pytest.approx((0.8 * 1 + 0.2 * 9) / between, rel=1e-12)
    assert found["gnc1_quotient_balanced"] == pytest.approx((1 + 9) / 2 / between, rel=1e-12)
    # on the sphere: variances 1/17 and 9/25
    assert found["trace_within_balanced"] == pytest.approx((1 / 17 + 9 / 25) / 2, rel=1e-12)


def test_rows_of_rare_classes_that_fell_together_show_as_minority_collapse():
    frequent, rare = simplex(4, 5), torch.eye(5, dtype=torch.float64)[:1].repeat(2, 1)
    rows = torch.cat([frequent, rare])
    features, labels, _ = collapsed(random_rows(6, 5, 0), [9, 9, 9, 9, 2, 2])
    found = measure(features, labels, rows).values
    assert found["weight_rare_cosine"] == pytest.approx(1, rel=1e-12)
    assert found["weight_frequent_cosine"] == pytest.approx(-1 / 3, rel=1e-12)
    assert found["margin_rare_min_upper"] == pytest.approx(0, abs=1e-12)
    assert found["margin_frequent_min_lower"] > 0.3
    assert found["margin_count_correlation"] > 0.5


@pytest.mark.parametrize(
    ("counts", "rare", "frequent"),
    [
        ([5, 5, 5, 5, 5, 5], None, None),
        ([5, 9, 9, 9, 9, 9], None, None),  # the last of the rarest third is as frequent as the others
        ([1, 2, 3, 4, 5, 6], [0, 1], [4, 5]),
        ([6, 2, 1, 4, 5, 3], [1, 2], [0, 4]),
        ([2, 2, 2, 9, 9, 9], [0, 1, 2], [3, 4, 5]),  # ties join their third
        ([1, 7], None, None),  # a third of two classes is none
        ([0, 3, 8], [0], [2]),
    ],
)
def test_which_classes_are_rare_and_frequent(counts, rare, frequent):
    found = rare_and_frequent(torch.tensor(counts))
    expected = None if rare is None else [rare, frequent]
    assert (None if found is None else [members.nonzero()[:, 0].tolist() for members in found]) == expected


def test_equal_margins_have_no_correlation_with_counts():
    features, labels, rows = collapsed(orthoplex(3), [1, 2, 3, 4, 5, 6])
    assert measure(features, labels, rows).values["margin_count_correlation"] is None


# --- classes and samples that do not count, no test set ----------------------------------------------------------


OF_ROWS = ("margin_min_lower", "margin_q50", "max_cosine", "weight_norm_mean", "weight_riesz_energy")
OF_MEANS = (
    *("gnc1_pinv", "gnc1_rank", "gnc1_quotient", "trace_within", "cdnv", "cdnv_nearest", "log_energy_mean"),
    *("mean_margin_min_lower", "mean_riesz_energy", "within_log_energy", "gnc3", "gnc3_uncentred", "gnc3_uniform"),
    *("gnc3_cross", "feature_effective_rank", "feature_norm_mean", "gnc1_quotient_balanced", "input_correlation"),
)


@pytest.mark.parametrize("mode", MODES)
def test_absent_classes_leave_the_means_and_keep_the_margins(mode):
    features, labels, weights = trained_like(9, 4)
    inputs = random_rows(9, 20, 3)
    present = torch.tensor([0, 2, 3, 5, 6, 8])
    kept = torch.isin(labels, present)
    some = features[kept], labels[kept], weights
    found = measure(*some, mode, absent_classes=True, class_inputs=inputs)
    renumbered = torch.searchsorted(present, labels[kept])
    among = measure(features[kept], renumbered, weights[present], mode, class_inputs=inputs[present]).values
    full = measure(features, labels, weights, mode).values
    assert_equal({n: found.values[n] for n in OF_MEANS}, {n: among[n] for n in OF_MEANS}, rel=1e-5)
    assert {n: found.values[n] for n in OF_ROWS} == {n: full[n] for n in OF_ROWS}
    assert found.values["mean_direction_margin_min"] >= full["mean_direction_margin_min"]
    assert bool(found.class_means[[1, 4, 7]].isnan().all())
    torch.testing.assert_close(
        found.class_means[present], measure(features, labels, weights, mode).class_means[present]
    )
    with pytest.raises(ValueError, match="none of 3 classes: 1, 4, 7"):
        measure(*some, mode)


def test_test_samples_of_an_absent_class_are_left_out():
    rows = torch.eye(4, dtype=torch.float64)
    features, labels, _ = collapsed(rows[:3])
    for wrong, accuracy in ((1, 2 / 3), (0, 1.0)):
        test = {"test_features": rows, "test_labels": torch.tensor([wrong, 1, 2, 3])}
        found = measure(features, labels, rows, **test, absent_classes=True).values
        assert found["ncc_test_accuracy"] == accuracy
    assert found["ncc_agreement"] == 1.0


def test_only_counted_samples_enter_and_counts_are_of_all():
    features, labels, weights = trained_like(9, 4, samples=6)
    counted = torch.arange(len(labels)) % 6 < torch.arange(9).repeat_interleave(6) % 4 + 1
    spoiled = torch.where(counted.unsqueeze(1), features, 100 + features.flip(0))
    found = measure(spoiled, labels, weights, counted=counted, test_features=features, test_labels=labels).values
    alone = measure(features[counted], labels[counted], weights, test_features=features, test_labels=labels).values
    by_count = {name for name in found if "_rare_" in name or "_frequent_" in name} | {"margin_count_correlation"}
    assert {n: v for n, v in found.items() if n not in by_count} == {
        n: v for n, v in alone.items() if n not in by_count
    }
    assert all(found[name] is None for name in by_count)  # 6 of each class, though 1 to 4 are counted
    assert all(alone[name] is not None for name in by_count)


def test_without_a_test_set_its_accuracy_is_null_and_nothing_else():
    features, labels, weights = trained_like()
    found = measure(features, labels, weights, test_features=None, test_labels=None).values
    assert found["ncc_test_accuracy"] is None
    assert found | {"ncc_test_accuracy": 0} == measure(features, labels, weights).values | {"ncc_test_accuracy": 0}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"counted": torch.zeros(54, dtype=torch.bool)}, "counted must be 54 booleans, one per sample and some true"),
        ({"test_labels": None}, "test_features and test_labels must be given together or not at all"),
        ({"ood_features": torch.full((2, 4), math.inf)}, "ood_features must be finite"),
        ({"counted": torch.arange(54) < 6, "absent_classes": True}, "at least 2 classes, got 1"),
    ],
)
def test_bad_options_are_refused_in_one_line(change, text):
    with pytest.raises(ValueError, match=text) as error:
        measure(*trained_like(), **change)
    assert "\n" not in str(error.value)
