"""Every column against a slow twin that loops over samples and pairs, closed forms, and what must not matter."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import psi
from scipy.stats import spearmanr

import gnc_models.geometry.pairwise
from gnc_models.geometry.pairwise import measure_energy, nearest_rows, squared_distances
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.collapse import measure_collapse
from gnc_models.metrics.variability import distance_columns, quotient_columns, ratio_columns
from study.design.columns import Measurement
from tests.gnc_models.geometry.test_margins import ref_margin_bounds
from tests.gnc_models.known_codes import orthoplex, polygon, random_rows, rotated, simplex

MODES = ("both", "features", "weights", "none")
TRAINERS_OWN = {
    *("custom", "epoch", "step", "terminal", "train_loss", "train_accuracy", "test_accuracy", "unseen_accuracy"),
    *(
        "wall_seconds",
        "peak_memory_bytes",
        "objective",
        "label_entropy",
        "loss_above_entropy",
        "fgsm_accuracy",
        "pgd_accuracy",
    ),
    *("layer_names", "layer_gnc1_quotient", "layer_cdnv", "layer_ncc_accuracy", "stationary", "stationary_step"),
}


def trained_like(num_classes=9, feature_dim=4, samples=6, noise=0.15, seed=0):
    """Features around their classifier rows, of various lengths, in float32 as networks give them."""
    generator = torch.Generator().manual_seed(seed)
    weights = random_rows(num_classes, feature_dim, seed) * (
        0.5 + torch.rand(num_classes, 1, generator=generator, dtype=torch.float64)
    )
    labels = torch.arange(num_classes).repeat_interleave(samples)
    features = weights[labels] + noise * torch.randn(len(labels), feature_dim, generator=generator, dtype=torch.float64)
    features *= 1 + torch.rand(len(labels), 1, generator=generator, dtype=torch.float64)
    return features.float(), labels, weights.float()


def measure(features, labels, weights, mode="both", **options):
    return measure_collapse(
        features,
        labels,
        weights,
        normalization=mode,
        temperature=None if mode == "none" else 0.1,
        test_features=options.pop("test_features", features),
        test_labels=options.pop("test_labels", labels),
        **options,
    )


def assert_equal(found, expected, *, rel, absolute=1e-12):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(value, rel=rel, abs=absolute), name


# --- the slow twin -----------------------------------------------------------------------------------------------


def ref_collapse(features, labels, weights, mode):
    """The definitions of docs/metrics.md, one sample and one pair at a time."""
    raw, y, w = features.double().numpy(), labels.numpy(), weights.double().numpy()
    length = lambda v: math.sqrt(float(v @ v))
    h = np.array([v / length(v) for v in raw])
    u = np.array([v / length(v) for v in w])
    seen = h if mode in ("both", "features") else raw
    rows = u if mode in ("both", "weights") else w
    K, n = len(w), len(y)
    classes, others = range(K), [[j for j in range(K) if j != k] for k in range(K)]
    mean = lambda x, k: x[y == k].mean(0)
    mu = np.array([mean(seen, k) for k in classes])
    unit_mu = np.array([mean(h, k) / length(mean(h, k)) for k in classes])
    centred = mu - mu.mean(0)
    within = sum(np.outer(x - mu[k], x - mu[k]) for x, k in zip(seen, y, strict=True)) / n
    between = sum(np.outer(c, c) for c in centred) / K
    ratio, rank = float(np.trace(within @ np.linalg.pinv(between))), int(np.linalg.matrix_rank(between))
    variance = [np.mean([length(x - mu[k]) ** 2 for x in seen[y == k]]) for k in classes]
    gap = lambda a, b: length(mu[a] - mu[b]) ** 2
    kernels = [
        -math.log(length(centred[a] / length(centred[a]) - centred[b] / length(centred[b])))
        for a in classes
        for b in classes
        if a < b
    ]
    slack = lambda k, v: min(float((u[k] - u[j]) @ v) for j in others[k])
    samples = [slack(k, x) for x, k in zip(h, y, strict=True)]
    nearest = [min(classes, key=lambda k: length(x - mu[k])) for x in seen]
    chosen = [int(np.argmax(rows @ x)) for x in seen]
    margin = lambda x: [ref_margin_bounds(torch.from_numpy(x), k)[1] for k in classes]
    own, means = margin(u), margin(np.array([m / length(m) for m in mu]))
    cosine = lambda a, b: float(a @ b) / (length(a) * length(b))
    norms, lengths = [length(v) for v in w], [length(v) for v in raw]
    shifted = w - w.mean(0)
    rms = lambda values: math.sqrt(np.mean(np.square(values)))
    free = mode in ("features", "none")
    hull = min(margin(shifted)) / rms([length(v) for v in shifted]) if free else None
    angular = min(margin(np.array([v / length(v) for v in shifted]))) if free else None
    wrong = [
        [float(rows[j] @ x) / (1.0 if mode == "none" else 0.1) for j in others[k]] for x, k in zip(seen, y, strict=True)
    ]
    active = [math.exp(entropy(np.exp(np.array(z) - max(z)))) for z in wrong]
    pairs = [(a, b) for a in classes for b in classes if a < b]
    mean_distances = [length(unit_of(mu[a]) - unit_of(mu[b])) for a, b in pairs]
    row_distances = [length(u[a] - u[b]) for a, b in pairs]
    within_distances = [
        [length(p - q) for i, p in enumerate(h[y == k]) for q in h[y == k][:i]] for k in classes if sum(y == k) > 1
    ]
    spread = [k for k in classes if sum(y == k) > 1]
    scale = (rms(norms) if free else 1.0) * (rms(lengths) if mode in ("weights", "none") else 1.0)
    return {
        "gnc1_pinv": ratio / K,
        "gnc1_rank": ratio / rank,
        "gnc1_quotient": float(np.trace(within) / np.trace(between)),
        "trace_within": np.mean([length(x - mean(h, k)) ** 2 for x, k in zip(h, y, strict=True)]),
        "cdnv": np.mean([(variance[a] + variance[b]) / (2 * gap(a, b)) for a in classes for b in others[a]]),
        "cdnv_nearest": np.mean([variance[k] / min(gap(k, j) for j in others[k]) for k in classes]),
        **dict.fromkeys(("margin_min_lower", "margin_min_upper"), min(own)),
        "margin_mean": np.mean(own),
        "margin_q05": np.quantile(own, 0.05),
        "margin_q50": np.quantile(own, 0.5),
        "margin_q95": np.quantile(own, 0.95),
        **dict.fromkeys(("mean_margin_min_lower", "mean_margin_min_upper"), min(means)),
        "mean_direction_margin_min": min(slack(k, unit_mu[k]) for k in classes),
        "sample_margin_min": min(samples),
        "sample_margin_q01": np.quantile(samples, 0.01),
        "max_cosine": max(float(u[a] @ u[b]) for a in classes for b in others[a]),
        "log_energy_mean": np.mean(kernels),
        "log_energy_var": np.var(kernels),
        "gnc3": np.mean([1 - cosine(centred[k], w[k]) for k in classes]),
        "gnc3_uncentred": np.mean([1 - cosine(mu[k], w[k]) for k in classes]),
        "ncc_agreement": np.mean([a == b for a, b in zip(nearest, chosen, strict=True)]),
        "ncc_test_accuracy": np.mean([a == b for a, b in zip(nearest, y, strict=True)]),
        "weight_norm_mean": np.mean(norms),
        "weight_norm_cv": np.std(norms) / np.mean(norms),
        "feature_norm_mean": np.mean(lengths),
        "feature_norm_cv": np.std(lengths) / np.mean(lengths),
        **dict.fromkeys(("hull_margin_min_lower", "hull_margin_min_upper"), hull),
        **dict.fromkeys(("centred_margin_min_lower", "centred_margin_min_upper"), angular),
        "effective_temperature": None if mode == "both" else (1.0 if mode == "none" else 0.1) / scale,
        "trace_within_balanced": np.mean([np.mean([length(x - mean(h, k)) ** 2 for x in h[y == k]]) for k in spread]),
        "gnc1_quotient_balanced": np.mean([variance[k] for k in spread]) / float(np.trace(between)),
        **{f"margin_share_{e}": np.mean([m > (1 + e / 100) * min(own) for m in own]) for e in (1, 5, 20)},
        **ref_by_count(own, u, [int(sum(y == k)) for k in classes]),
        "active_classes": np.mean(active),
        "mean_riesz_energy": np.mean([r**-2 for r in mean_distances]),
        "mean_min_distance": min(mean_distances),
        "weight_riesz_energy": np.mean([r**-2 for r in row_distances]),
        "weight_log_energy": np.mean([-math.log(r) for r in row_distances]),
        "weight_min_distance": min(row_distances),
        "within_log_energy": np.mean([np.mean([-math.log(r) for r in rs]) for rs in within_distances]),
        "within_distance": np.mean([np.mean(rs) for rs in within_distances]),
        "gnc3_uniform": np.var([cosine(centred[k], w[k]) for k in classes]),
        "gnc3_uniform_uncentred": np.var([cosine(mu[k], w[k]) for k in classes]),
        "gnc3_cross": np.var([cosine(centred[j], w[k]) for k in classes for j in others[k]]),
        "feature_effective_rank": ref_effective_rank(seen),
        "weight_effective_rank": ref_effective_rank(u),
        "ood_deviation": None,
        "input_correlation": None,
        **ref_sample_weighted(mu, within, w, [int(sum(y == k)) for k in classes]),
        **ref_simplex(centred, rows),
        "rattler_count": ref_rattlers(u, own),
    }


def ref_sample_weighted(means, within, rows, counts):
    """The global mean as that of all samples."""
    centred = means - np.average(means, axis=0, weights=counts)
    between = centred.T @ centred / len(means)
    cosines = [row @ c / math.sqrt((row @ row) * (c @ c)) for row, c in zip(rows, centred, strict=True)]
    return {
        "gnc1_pinv_weighted": float(np.trace(within @ np.linalg.pinv(between, rcond=1e-13))) / len(means),
        "gnc1_quotient_weighted": float(np.trace(within) / np.trace(between)),
        "gnc3_weighted": 1 - np.mean(cosines),
    }


def ref_simplex(centred, rows):
    """Matrices of all pairs of classes."""
    K = len(rows)
    pairs = ~np.eye(K, dtype=bool)
    cosines = lambda x: np.array([[unit_of(a) @ unit_of(b) for b in x] for a in x])[pairs]
    simplex_gram = np.eye(K) - np.ones((K, K)) / K
    error = lambda m: np.linalg.norm(m / np.linalg.norm(m) - simplex_gram / np.linalg.norm(simplex_gram))
    norms = np.linalg.norm(centred, axis=1)
    return {
        "mean_equinorm": np.std(norms) / np.mean(norms),
        "mean_equiangularity": np.std(cosines(centred)),
        "mean_angle_gap": np.mean(np.abs(cosines(centred) + 1 / (K - 1))),
        "weight_equiangularity": np.std(cosines(rows)),
        "weight_angle_gap": np.mean(np.abs(cosines(rows) + 1 / (K - 1))),
        "mean_etf_error": error(centred @ centred.T),
        "weight_etf_error": error(rows @ rows.T),
        "duality_error": error(rows @ centred.T),
        "self_duality_distance": np.linalg.norm(rows / np.linalg.norm(rows) - centred / np.linalg.norm(centred)),
    }


def ref_rattlers(unit_rows, margins):
    """Classes above the minimum without which no class at the minimum moves."""
    least = [k for k, margin in enumerate(margins) if margin <= min(margins) * (1 + 1e-7)]

    def without(gone, k):
        rows = np.delete(unit_rows, gone, axis=0)
        return ref_margin_bounds(torch.from_numpy(rows), k - (gone < k))[1]

    return sum(
        all(without(gone, k) <= margins[k] * (1 + 1e-7) for k in least)
        for gone in range(len(margins))
        if gone not in least
    )


def unit_of(vector):
    return vector / math.sqrt(float(vector @ vector))


def entropy(weights):
    shares = weights / weights.sum()
    return -sum(p * math.log(p) for p in shares if p > 0)


def ref_effective_rank(matrix):
    return math.exp(entropy(np.linalg.svd(matrix, compute_uv=False)))


def ref_by_count(margins, unit_rows, counts):
    """Rarest and most frequent third, a class as frequent as the last of its third included."""
    third, names = len(counts) // 3, ("min_lower", "min_upper", "q50")
    limits = sorted(counts)[third - 1], sorted(counts)[-third]
    found = dict.fromkeys(f"margin_{group}_{name}" for group in ("rare", "frequent") for name in names)
    found |= {"weight_rare_cosine": None, "weight_frequent_cosine": None, "margin_count_correlation": None}
    if third == 0 or limits[0] == limits[1]:
        return found
    found["margin_count_correlation"] = float(spearmanr(margins, counts).statistic)
    rare, frequent = (
        [k for k, n in enumerate(counts) if n <= limits[0]],
        [k for k, n in enumerate(counts) if n >= limits[1]],
    )
    for group, members in (("rare", rare), ("frequent", frequent)):
        least = min(margins[k] for k in members)
        found |= {f"margin_{group}_min_lower": least, f"margin_{group}_min_upper": least}
        found[f"margin_{group}_q50"] = np.median([margins[k] for k in members])
        cosines = [float(unit_rows[a] @ unit_rows[b]) for a in members for b in members if a != b]
        found[f"weight_{group}_cosine"] = np.mean(cosines) if cosines else None
    return found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(9, 4), (4, 7), (2, 2)])
def test_every_column_equals_its_slow_twin(shape, mode, seed):
    features, labels, weights = trained_like(*shape, noise=0.3, seed=seed)
    found = measure(features, labels, weights, mode, tolerance=1e-9).values
    expected = ref_collapse(features, labels, weights, mode)
    assert_equal(found, expected, rel=1e-8)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mode", MODES)
def test_every_column_equals_its_slow_twin_under_a_long_tail(mode, seed):
    features, labels, weights = trained_like(10, 4, samples=9, noise=0.3, seed=seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([torch.arange(9) < n for n in (1 + order % 7).tolist()])  # counts 1 to 7, three of them twice
    features, labels = features[kept], labels[kept]
    found = measure(features, labels, weights, mode, tolerance=1e-9).values
    assert found["margin_count_correlation"] is not None
    assert_equal(found, ref_collapse(features, labels, weights, mode), rel=1e-8)


def test_the_columns_are_those_of_a_measurement_that_the_trainer_does_not_know():
    names = {field.name for field in dataclasses.fields(Measurement)} - TRAINERS_OWN
    assert measure(*trained_like()).values.keys() == names


@pytest.mark.parametrize("mode", MODES)
def test_small_tiles_change_nothing(mode, monkeypatch):
    batch = trained_like(30, 5)
    whole = measure(*batch, mode).values
    monkeypatch.setattr(gnc_models.geometry.pairwise, "TILE_ENTRIES", 307)
    tiled = measure(*batch, mode).values
    assert_equal(tiled, whole, rel=1e-9, absolute=1e-13)


# --- closed forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_perfect_collapse_onto_a_simplex(mode):
    weights, labels = simplex(6, 9), torch.arange(6).repeat(4)
    found = measure(weights[labels], labels, weights, mode).values
    for name in ("gnc1_pinv", "gnc1_rank", "gnc1_quotient", "cdnv", "cdnv_nearest", "trace_within"):
        assert found[name] == pytest.approx(0, abs=1e-25), name
    for name in ("gnc3", "gnc3_uncentred", "weight_norm_cv", "feature_norm_cv", "log_energy_var"):
        assert found[name] == pytest.approx(0, abs=1e-14), name
    ladder = ("margin_min_lower", "margin_q05", "mean_margin_min_upper", "mean_direction_margin_min")
    for name in (*ladder, "sample_margin_min", "sample_margin_q01"):
        assert found[name] == pytest.approx(6 / 5, rel=1e-12), name
    assert found["max_cosine"] == pytest.approx(-1 / 5, rel=1e-12)
    assert found["log_energy_mean"] == pytest.approx(-math.log(2 * 6 / 5) / 2, rel=1e-12)
    assert found["ncc_agreement"] == found["ncc_test_accuracy"] == 1.0


def test_an_orthoplex_has_its_energies_and_cosine():
    dim, weights, labels = 5, orthoplex(5), torch.arange(10).repeat(2)
    found = measure(weights[labels], labels, weights).values
    share = 1 / (2 * dim - 1)  # of the pairs that are antipodal
    mean = -share * math.log(2) - (1 - share) * math.log(2) / 2
    assert found["log_energy_mean"] == pytest.approx(mean, rel=1e-12)
    assert found["log_energy_var"] == pytest.approx(share * (1 - share) * (math.log(2) / 2) ** 2, rel=1e-9)
    assert found["max_cosine"] == pytest.approx(0, abs=1e-15)
    assert found["margin_min_lower"] == pytest.approx(1, rel=1e-12)


def test_a_polygon_has_its_energies():
    """The distances from one of K equally spaced points to the others have the product K."""
    mean, _ = measure_energy(polygon(101))
    assert mean == pytest.approx(-math.log(101) / 100, rel=1e-12)
    square, _ = measure_energy(polygon(101), exponent=2.0)
    assert square == pytest.approx((101**2 - 1) / 12 / 100, rel=1e-12)
    negative, _ = measure_energy(polygon(101), exponent=-1.0)
    assert negative == pytest.approx(-2 / math.tan(math.pi / 202) / 100, rel=1e-12)


@pytest.mark.parametrize("dim", [6, 64])
def test_uniform_points_have_the_expected_energies(dim):
    groups = [random_rows(300, dim, seed) for seed in range(10)]
    for exponent, expected in (
        (0.0, -math.log(2) + (psi(dim - 1) - psi((dim - 1) / 2)) / 2),
        (2.0, (dim - 2) / (2 * (dim - 3))),
    ):
        found = np.array([measure_energy(points, exponent=exponent)[0] for points in groups])
        assert abs(found.mean() - expected) < 4 * found.std(ddof=1) / math.sqrt(len(found))
        assert found.std() < 0.01 * abs(expected)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_variability_is_right_to_one_percent_at_noise_1e_6(offset):
    means = simplex(5, 8) + offset
    labels = torch.arange(5).repeat(200)
    noise = torch.randn(1000, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for k in range(5):
        noise[labels == k] -= noise[labels == k].mean(0)
    within = 1e-12 * float(noise.square().sum() / 1000)
    statistics = ClassStatistics(5, 8)
    for part in range(0, 1000, 300):
        statistics.update(means[labels[part : part + 300]] + 1e-6 * noise[part : part + 300], labels[part : part + 300])
    found = {
        **ratio_columns(statistics, tuple(torch.linalg.eigh(statistics.between_covariance))),
        **quotient_columns(statistics),
        **distance_columns(statistics),
    }
    assert found["gnc1_quotient"] == pytest.approx(within, rel=0.01)  # a simplex of unit rows has tr Sigma_B = 1
    assert found["cdnv"] == pytest.approx(within / (2 * 5 / 4), rel=0.01)
    # Sigma_B of a simplex is a projection to 4 dimensions, divided by 4
    kept = 1e-12 * float((noise @ torch.linalg.pinv(simplex(5, 8)) @ simplex(5, 8)).square().sum() / 1000)
    assert found["gnc1_rank"] == pytest.approx(kept, rel=0.01)
    assert found["gnc1_pinv"] == pytest.approx(kept * 4 / 5, rel=0.01)


# --- what must hold, and what must not matter --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", MODES)
def test_the_ladder_descends(mode, seed):
    found = measure(*trained_like(12, 6, noise=0.02 * seed, seed=seed), mode).values
    assert found["margin_min_upper"] >= found["mean_direction_margin_min"]
    assert found["mean_direction_margin_min"] >= found["sample_margin_min"] or found["mean_direction_margin_min"] < 0
    assert found["sample_margin_q01"] >= found["sample_margin_min"]


@pytest.mark.parametrize("mode", MODES)
def test_rotation_class_order_and_sample_order_do_not_matter(mode):
    features, labels, weights = trained_like(12, 6)
    found = measure(features.double(), labels, weights.double(), mode).values
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    samples = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
    moved = measure(
        rotated(features.double(), 3)[samples],
        order.argsort()[labels][samples],
        rotated(weights.double(), 3)[order],
        mode,
    ).values
    assert_equal(moved, found, rel=2e-6)


def test_scale_does_not_matter_where_the_head_takes_it_out():
    features, labels, weights = trained_like()
    lengths = torch.rand(len(labels), 1, generator=torch.Generator().manual_seed(5)) + 0.5
    features, weights = features.double(), weights.double()
    found = measure(features, labels, weights).values
    moved = measure(lengths * features, labels, 7 * weights).values
    assert moved.pop("weight_norm_mean") == pytest.approx(7 * found.pop("weight_norm_mean"), rel=1e-12)
    for name in ("feature_norm_mean", "feature_norm_cv"):
        assert moved.pop(name) != pytest.approx(found.pop(name), rel=1e-3)
    assert_equal(moved, found, rel=2e-6)


def test_a_common_shift_of_the_rows_does_not_move_their_hull_and_centred_margins():
    features, labels, weights = (x.double() if x.is_floating_point() else x for x in trained_like())
    found = measure(features, labels, weights, "none").values
    moved = measure(features, labels, weights + torch.tensor([1.0, -2.0, 0.5, 3.0]), "none").values
    for name in ("hull_margin_min_lower", "hull_margin_min_upper", "centred_margin_min_lower"):
        assert moved[name] == pytest.approx(found[name], rel=2e-6), name
    assert moved["margin_min_lower"] != pytest.approx(found["margin_min_lower"], rel=0.1)


@pytest.mark.parametrize("mode", MODES)
def test_columns_are_null_exactly_where_they_do_not_exist(mode):
    found = measure(*trained_like(), mode).values
    absent = {name for name, value in found.items() if value is None}
    of_free_rows = {name for name in found if name.startswith(("hull_margin", "centred_margin"))}
    of_unequal_counts = {name for name in found if "_rare_" in name or "_frequent_" in name}
    of_unequal_counts |= {"margin_count_correlation"}
    not_given = {"ood_deviation", "input_correlation"}
    assert absent == of_unequal_counts | not_given | (of_free_rows if mode in ("both", "weights") else set()) | (
        {"effective_temperature"} if mode == "both" else set()
    )


def test_one_sample_a_class_leaves_variability_unknown_rather_than_zero():
    features, labels, weights = trained_like(samples=1)
    found = measure(features, labels, weights).values
    for name in ("gnc1_pinv", "gnc1_rank", "gnc1_quotient", "trace_within", "cdnv", "cdnv_nearest"):
        assert found[name] is None, name
    for name in (
        *("trace_within_balanced", "gnc1_quotient_balanced", "within_log_energy", "within_distance"),
        *("gnc1_pinv_weighted", "gnc1_quotient_weighted"),
    ):
        assert found[name] is None, name
    assert found["margin_min_lower"] > 0


def test_coinciding_class_means_leave_distances_and_energies_unknown():
    weights, labels = simplex(4, 3), torch.arange(4).repeat(2)
    means = weights.clone()
    means[1] = means[0]
    found = measure(means[labels], labels, weights).values
    for name in ("cdnv", "cdnv_nearest", "log_energy_mean", "log_energy_var"):
        assert found[name] is None, name
    assert found["mean_riesz_energy"] is None
    assert found["mean_min_distance"] == 0.0
    assert found["mean_margin_min_lower"] == 0.0
    assert found["mean_margin_min_upper"] == pytest.approx(0, abs=1e-14)
    assert found["gnc1_quotient"] == pytest.approx(0, abs=1e-25)


def test_nearly_coinciding_points_keep_the_digits_of_their_distance():
    points = torch.tensor([[1.0, 0.0], [1.0, 1e-9], [0.0, 1.0]], dtype=torch.float64)
    squares = torch.cat([tile for _, tile in squared_distances(points)])
    assert float(squares[0, 1]) == pytest.approx(1e-18, rel=1e-12)
    assert squares.diagonal().isinf().all()


def test_the_nearest_mean_is_found_far_from_the_origin():
    rows = torch.tensor([[0.0, 0.0], [1e-3, 0.0]], dtype=torch.float64) + 1e6
    points = rows + torch.tensor([4e-4, 0.0], dtype=torch.float64) * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert nearest_rows(points, rows).tolist() == [0, 1]


def test_class_means_and_margins_come_back_with_the_values():
    features, labels, weights = trained_like()
    found = measure(features, labels, weights, "none")
    torch.testing.assert_close(found.class_means[2], features[labels == 2].double().mean(0))
    assert found.values["margin_min_lower"] == found.margins.minimum[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"temperature": None}, "temperature must be above 0 and finite, and None with normalization 'none', got None"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"labels": torch.tensor([0, 1, 2, 3, 4, 5])}, r"labels must be in 0\.\.4, got 5"),
        ({"labels": torch.tensor([0, 1, 2, 3, 3, 3])}, "none of 1 classes: 4"),
        ({"features": torch.full((6, 3), math.nan)}, "features must be finite, got NaN or infinity in 6 of 6 rows"),
        ({"features": torch.zeros(6, 3)}, "features must not all be zero"),
        ({"weights": torch.eye(5, 3)}, "weights must have no row of zeros, got 2, the first is 3"),
        (
            {"test_features": torch.zeros(0, 3), "test_labels": torch.zeros(0, dtype=torch.int64)},
            "test_features must have at least one row, got none",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(change, text):
    arguments = {
        "features": torch.ones(6, 3),
        "labels": torch.tensor([0, 1, 2, 3, 4, 4]),
        "weights": torch.ones(5, 3),
        "normalization": "both",
        "temperature": 0.1,
        "test_features": torch.ones(6, 3),
        "test_labels": torch.tensor([0, 1, 2, 3, 4, 4]),
    } | change
    with pytest.raises(ValueError, match=text) as error:
        measure_collapse(**arguments)
    assert "\n" not in str(error.value)
