"""The reference interval holds, never falls below a table it rests on, and is closed under what keeps a margin."""

import math
import subprocess
import sys

import numpy as np
import pytest

from gnc_models.references.margin import (
    BUILT_CODES,
    REFERENCE_VERSION,
    SHARP_CODES,
    TABLE_ROUNDING,
    known_codes,
    levenshtein_margin_bound,
    margin_score,
    reference_margin,
    theorem_bounds,
)
from gnc_models.references.tables import read_table

GRID = [(k, d) for d in (1, 2, 3, 4, 5, 7, 8, 10, 11, 16, 24, 33, 64, 100, 128, 512) for k in (2, 3, 5, 9, 12, 40, 100)]
GRID += [(k, d) for d in (2, 3, 8, 10, 24, 64, 128, 512, 768) for k in (250, 1_000, 4_224, 10_000, 50_257)]


@pytest.mark.parametrize("table", ["best_known_codes.csv", "found_codes.csv"])
def test_reference_is_never_below_a_table(table: str):
    column = "one_minus_max_cos" if table.startswith("best") else "margin"
    for row in read_table(table):
        reference = reference_margin(int(row["num_classes"]), int(row["feature_dim"]))
        assert reference.lower >= float(row[column]) - 2 * TABLE_ROUNDING, row
        assert float(row[column]) - TABLE_ROUNDING <= reference.upper, row


def test_every_single_code_respects_levenshtein():
    for code in known_codes():
        if code.feature_dim > 1:
            bound = levenshtein_margin_bound(code.num_classes, code.feature_dim)
            assert code.margin <= bound + 1e-9, code


def test_reference_is_an_interval_everywhere():
    for num_classes, feature_dim in GRID:
        reference = reference_margin(num_classes, feature_dim)
        assert 0 <= reference.lower <= reference.upper <= 2, (num_classes, feature_dim, reference)
        assert reference.source
        if feature_dim >= 2:
            assert reference.lower > 0
            assert reference.lower >= theorem_bounds(num_classes, feature_dim)[0]


def test_reference_falls_in_classes_and_rises_in_dimensions():
    for num_classes, feature_dim in GRID:
        here = reference_margin(num_classes, feature_dim)
        more_classes = reference_margin(num_classes + 1, feature_dim)
        more_dims = reference_margin(num_classes, feature_dim + 1)
        # proven table values are widened by their rounding, exact forms are not
        slack = 2 * TABLE_ROUNDING
        assert more_classes.lower <= here.lower + slack
        assert more_classes.upper <= here.upper + slack
        assert more_dims.lower >= here.lower - slack
        assert more_dims.upper >= here.upper - slack


def test_direct_sums_are_counted():
    # two E8 root systems on orthogonal subspaces: 480 rows, cosine 1/2
    both = reference_margin(480, 16)
    assert both.lower >= 0.5
    # three copies of the 21-dimensional code of 112 rows and a pair
    assert reference_margin(338, 64).lower >= 8 / 9
    assert "direct sum" in reference_margin(338, 64).source


def test_inheritance_is_named():
    inherited = reference_margin(10_000, 512)
    assert inherited.lower == pytest.approx(1 - 31 / 511)
    assert inherited.source.startswith("inherited from (d=511, K=262144): Gold")


@pytest.mark.parametrize(("feature_dim", "num_classes", "cosine", "name"), SHARP_CODES)
def test_sharp_codes_are_known_exactly(feature_dim: int, num_classes: int, cosine: float, name: str):
    reference = reference_margin(num_classes, feature_dim)
    assert reference.lower == pytest.approx(1 - cosine, abs=1e-15)
    assert reference.upper == pytest.approx(1 - cosine, abs=1e-15)


def test_sharp_codes_other_than_the_four_dimensional_ones_meet_levenshtein():
    for feature_dim, num_classes, cosine, name in SHARP_CODES:
        if feature_dim != 4:
            assert levenshtein_margin_bound(num_classes, feature_dim) == pytest.approx(1 - cosine, abs=1e-9), name


@pytest.mark.parametrize(
    ("num_classes", "feature_dim", "value"),
    [
        (8, 2, 1 - math.cos(math.pi / 4)),
        (4, 3, 4 / 3),
        (5, 3, 1.0),
        (6, 3, 1.0),
        (2, 1, 2.0),
        (3, 1, 0.0),
        (1000, 512, 1.0),
    ],
)
def test_closed_forms_are_exact(num_classes: int, feature_dim: int, value: float):
    reference = reference_margin(num_classes, feature_dim)
    assert (reference.lower, reference.upper) == (pytest.approx(value), pytest.approx(value))


def test_paper_s_plotted_optimal_lines_are_not_optimal():
    plotted = {(100, 10): 0.614, (100, 20): 0.812, (100, 30): 0.889, (200, 10): 0.505, (1000, 512): 0.915}
    for (num_classes, feature_dim), value in plotted.items():
        assert reference_margin(num_classes, feature_dim).lower > value + 0.02


def test_kerdock_codes_are_proven_and_near_levenshtein():
    for feature_dim, below in ((16, 0.012), (64, 0.0025), (256, 0.0012)):
        num_classes = feature_dim * (feature_dim + 2)
        reference = reference_margin(num_classes, feature_dim)
        assert reference.lower == reference.upper == 1 - feature_dim**-0.5
        assert reference.lower >= levenshtein_margin_bound(num_classes, feature_dim) * (1 - below)


def test_version_names_the_tables():
    assert REFERENCE_VERSION.startswith("2.")
    assert len(REFERENCE_VERSION.partition("+")[0]) == 10
    assert {name for *_, name in BUILT_CODES} == {"Leech lattice section", "quadratic forms", "extended Gold"}


def test_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        reference_margin(1, 3)
    with pytest.raises(ValueError, match="feature_dim must be at least 1, got 0"):
        reference_margin(3, 0)


def test_bounds_start_without_torch_and_scipy():
    code = "import sys, gnc_models.references.margin; print([m for m in ('torch', 'scipy', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_direct_sum_equals_a_search_over_all_splits():
    # two parts, every split, against the knapsack that also allows more parts
    for num_classes, feature_dim in ((60, 10), (150, 12), (333, 17)):
        best = 0.0
        for dim in range(1, feature_dim):
            sizes = np.arange(2, num_classes - 1)
            parts = [
                min(ref_single(int(k), dim), ref_single(num_classes - int(k), feature_dim - dim), 1.0) for k in sizes
            ]
            best = max(best, *parts)
        assert reference_margin(num_classes, feature_dim).lower >= best


def ref_single(num_classes: int, feature_dim: int) -> float:
    fitting = [c.margin for c in known_codes() if c.num_classes >= num_classes and c.feature_dim <= feature_dim]
    return max(fitting, default=0.0)


def test_score_is_0_for_random_rows_1_for_the_best_and_absent_without_a_scale():
    assert [margin_score(x, 0.25, 0.75) for x in (0.25, 0.5, 0.75)] == [0.0, 0.5, 1.0]
    absent = ((0.5, None, 0.75), (0.5, 0.25, None), (0.5, 0.75, 0.75), (0.5, 0.75, 0.25), (np.nan, 0.25, 0.75))
    assert all(math.isnan(margin_score(*values)) for values in absent)
    lower, null, best = np.array([0.5, 0.5, 0.5]), np.array([0.25, np.nan, 0.75]), np.array([0.75, 0.75, 0.25])
    assert margin_score(lower, null, best) == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
