"""Distances from a simplex: what a simplex gives, what no code in few dimensions can go below, and what does not matter."""

import math

import pytest
import torch

from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.collapse import measure_collapse
from gnc_models.metrics.separation import margin_columns
from gnc_models.metrics.simplex import duality_columns, mean_columns, row_columns, simplex_error, simplex_error_floor
from tests.gnc_models.known_codes import orthoplex, polygon, random_rows, rotated, simplex


def simplex_columns(statistics: ClassStatistics, rows: torch.Tensor) -> dict[str, float | None]:
    return {**mean_columns(statistics), **row_columns(rows), **duality_columns(statistics, rows)}


def statistics_of(means: torch.Tensor) -> ClassStatistics:
    return ClassStatistics(*means.shape).update(means, torch.arange(len(means)))


@pytest.mark.parametrize(("num_classes", "feature_dim"), [(2, 1), (4, 3), (5, 16)])
def test_a_turned_and_shifted_simplex_is_one(num_classes, feature_dim):
    rows = rotated(simplex(num_classes, feature_dim), 3)
    found = simplex_columns(statistics_of(7 * rows + 0.3), 0.2 * rows)
    assert found.keys() >= {"mean_etf_error", "weight_angle_gap"}
    for name, value in found.items():
        assert value == pytest.approx(0, abs=1e-14), name


@pytest.mark.parametrize("mode", ["both", "weights", "features", "none"])
def test_rows_are_as_long_as_the_head_uses_them(mode):
    labels = torch.arange(5).repeat(3)
    lengths = torch.tensor([0.3, 1.0, 2.0, 5.0, 0.7], dtype=torch.float64)
    rows, features = simplex(5, 4) * lengths.unsqueeze(1), simplex(5, 4)[labels]
    temperature = None if mode == "none" else 0.1
    found = measure_collapse(features, labels, rows, normalization=mode, temperature=temperature).values
    for name in ("weight_etf_error", "duality_error", "self_duality_distance"):
        if mode in ("both", "weights"):
            assert found[name] == pytest.approx(0, abs=1e-14), name
        else:
            assert found[name] > 0.1
    # of the diagonal matrix of lengths L, L S is S as far as its direction allows
    share = float(lengths.mean() / lengths.square().mean().sqrt())
    expected = math.sqrt(2 - 2 * share) if mode in ("features", "none") else 0
    assert found["self_duality_distance"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("num_classes", "feature_dim"), [(3, 1), (8, 2), (8, 4), (12, 3), (20, 10)])
def test_no_rows_fall_below_the_floor_and_tight_frames_reach_it(num_classes, feature_dim):
    floor = simplex_error_floor(num_classes, feature_dim)
    assert floor > 0.1
    for seed in range(20):
        rows = random_rows(num_classes, feature_dim, seed)
        assert simplex_error(rows, rows) >= floor
        assert simplex_error(rows, random_rows(num_classes, feature_dim, seed + 100)) >= floor
    # columns of a projection that leaves out the constant vector: a frame that is tight and centred
    axes = torch.linalg.qr(simplex(num_classes, num_classes - 1))[0][:, :feature_dim]
    assert simplex_error(axes, 3 * axes) == pytest.approx(floor, rel=1e-12)


def test_the_floor_is_zero_up_to_one_class_more_than_dimensions():
    assert simplex_error_floor(11, 10) == 0
    assert simplex_error_floor(12, 10) == pytest.approx(math.sqrt(2 - 2 * math.sqrt(10 / 11)), rel=1e-12)
    with pytest.raises(ValueError, match="num_classes must be at least 2 and feature_dim at least 1"):
        simplex_error_floor(1, 3)


def test_rows_that_vanish_have_no_error_and_means_at_their_average_no_angle():
    assert simplex_error(torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)) is None
    means = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    found = simplex_columns(statistics_of(means), simplex(3, 2))
    assert found["mean_equiangularity"] is found["duality_error"] is None
    assert found["weight_equiangularity"] is not None


def test_equal_counts_give_the_same_number_whichever_mean_is_the_global_one():
    rows = random_rows(6, 3, 0)
    labels = torch.arange(6).repeat(4)
    features = rows[labels] + 0.1 * random_rows(24, 3, 1)
    found = measure_collapse(features, labels, rows, normalization="none", temperature=None).values
    assert found["gnc1_pinv_weighted"] == found["gnc1_pinv"]
    assert found["gnc1_quotient_weighted"] == found["gnc1_quotient"]


@pytest.mark.parametrize("rows", [polygon(7), orthoplex(3), simplex(5, 4)], ids=["polygon", "orthoplex", "simplex"])
def test_a_code_of_equal_margins_has_no_rattler(rows):
    assert margin_columns(one_vs_rest_margins(rows))["rattler_count"] == 0


def test_rows_far_from_the_closest_pair_are_rattlers_and_can_be_left_out():
    rows = polygon(12)
    rows[1] = torch.tensor([math.cos(0.1), math.sin(0.1)], dtype=torch.float64)  # near row 0
    margins = one_vs_rest_margins(rows)
    free = int(margin_columns(margins)["rattler_count"])
    assert free == 9  # row 0 is the least; it lies nearest to the chord between rows 1 and 11
    least = margins.minimum[1]
    for gone in range(2, 11):
        kept = torch.arange(12) != gone
        assert one_vs_rest_margins(rows[kept]).minimum[1] == pytest.approx(least, rel=1e-9)
