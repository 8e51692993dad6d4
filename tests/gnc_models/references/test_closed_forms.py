"""Levenshtein's bound, the GNC theorem and Rankin's bounds against published columns and known limits."""

import itertools
import math

import pytest

from gnc_models.references.closed_forms import (
    asymptotic_exponent,
    levenshtein_margin_bound,
    polygon_margin,
    simplex_orthoplex_bound,
    theorem_bounds,
)
from gnc_models.references.tables import read_table

TABLE = [
    (int(row["num_classes"]), int(row["feature_dim"]), {k: row[k] for k in row})
    for row in read_table("best_known_codes.csv")
]


def test_levenshtein_equals_the_published_column():
    # the column is min(Levenshtein, Rankin), carries six decimals and lacks one row, (d=3, K=1080)
    for num_classes, feature_dim, row in TABLE:
        if row["levenshtein_upper"] == "nan":
            continue
        bound = min(
            levenshtein_margin_bound(num_classes, feature_dim), simplex_orthoplex_bound(num_classes, feature_dim)
        )
        assert bound == pytest.approx(float(row["levenshtein_upper"]), abs=6e-7), (num_classes, feature_dim)


def test_theorem_equals_the_published_columns():
    for num_classes, feature_dim, row in TABLE:
        lower, upper = theorem_bounds(num_classes, feature_dim)
        assert lower == pytest.approx(float(row["theorem_lower"]), abs=6e-6)
        assert upper == pytest.approx(float(row["theorem_upper"]), abs=1.1e-5)


def test_theorem_is_very_loose_at_ten_dimensions():
    lower, upper = theorem_bounds(100, 10)
    assert lower == pytest.approx(0.170, abs=5e-4)
    assert upper == pytest.approx(1.505, abs=5e-4)


@pytest.mark.parametrize(
    ("num_classes", "feature_dim", "margin"),
    [
        (2, 7, 2.0),
        (8, 7, 8 / 7),
        (14, 7, 1.0),
        (12, 3, 1 - 1 / math.sqrt(5)),
        (16, 5, 4 / 5),
        (27, 6, 3 / 4),
        (56, 7, 2 / 3),
        (240, 8, 1 / 2),
        (552, 23, 4 / 5),
        (4600, 23, 2 / 3),
        (196560, 24, 1 / 2),
    ],
)
def test_levenshtein_is_met_by_sharp_codes(num_classes: int, feature_dim: int, margin: float):
    bound = levenshtein_margin_bound(num_classes, feature_dim)
    assert margin <= bound <= margin + 1e-9


@pytest.mark.parametrize("feature_dim", [3, 4, 7, 10, 64, 512])
def test_levenshtein_falls_with_every_class(feature_dim: int):
    bounds = [levenshtein_margin_bound(k, feature_dim) for k in range(2, 150)]
    assert all(a > b for a, b in itertools.pairwise(bounds))


def test_levenshtein_stays_above_the_planar_packing_limit():
    # rho* K -> 4 pi / sqrt(3) in three dimensions
    for num_classes in (1_000, 10_000, 100_000):
        assert levenshtein_margin_bound(num_classes, 3) * num_classes > 4 * math.pi / math.sqrt(3)


def test_polygon_margin_is_one_minus_its_cosine():
    for num_classes in range(2, 50):
        assert polygon_margin(num_classes) == pytest.approx(1 - math.cos(2 * math.pi / num_classes), abs=1e-15)


def test_exponent_is_the_theorem_lower_bound_s():
    for feature_dim in (2, 3, 10, 64):
        few, many = theorem_bounds(10**6, feature_dim)[0], theorem_bounds(10**7, feature_dim)[0]
        assert math.log10(many / few) == pytest.approx(asymptotic_exponent(feature_dim), abs=1e-12)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        levenshtein_margin_bound(1, 3)
    with pytest.raises(ValueError, match="feature_dim must be at least 2"):
        levenshtein_margin_bound(5, 1)
    with pytest.raises(ValueError, match="feature_dim must be at least 2"):
        theorem_bounds(5, 1)
    with pytest.raises(ValueError, match="feature_dim must be at least 2"):
        asymptotic_exponent(1)
