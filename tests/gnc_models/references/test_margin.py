"""The reference interval holds, never falls below a table it rests on, and is closed under what keeps a margin."""

import math
import subprocess
import sys

import numpy as np
import pytest

from gnc_models.constructions.explicit import KISSING
from gnc_models.references.closed_forms import theorem_bounds
from gnc_models.references.margin import (
    BUILT_CODES,
    MOST_ROWS,
    PUBLISHED,
    REFERENCE_VERSION,
    SHARP_CODES,
    TABLE_ROUNDING,
    known_codes,
    levenshtein_margin_bound,
    margin_score,
    margin_score_bounds,
    reference_margin,
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


@pytest.fixture
def without_layers(monkeypatch):
    """Codes in layers take seconds for many rows, only raise lower ends, and are monotone by tests of their own."""
    monkeypatch.setattr("gnc_models.references.margin.layered_margin", lambda num_classes, feature_dim: 0.0)


# Published arrangements with cosine 1/2: dimensions, rows, source. Those of other angles are in the tables.
KISSING_NUMBERS = [
    (3, 12, "icosahedron"),
    (4, 24, "24-cell"),
    (5, 40, "D5"),
    (6, 72, "E6"),
    (7, 126, "E7"),
    (8, 240, "E8"),
    (9, 306, "Leech and Sloane 1971"),
    (10, 510, "arXiv 2207.08266"),
    (11, 604, "arXiv 2606.10402"),
    (12, 841, "arXiv 2606.18984"),
    (13, 1154, "Zinoviev and Ericson 1999"),
    (14, 1606, "Zinoviev and Ericson 1999"),
    (14, 1932, "arXiv 2207.08266"),
    (15, 2564, "Conway and Sloane, chapter 5"),
    (16, 4320, "Barnes and Wall 1959"),
    (17, 5730, "arXiv 2411.04916"),
    (18, 7654, "arXiv 2411.04916"),
    (18, 8358, "github alexlegeartis/KissingNumbers"),
    (19, 11692, "arXiv 2411.04916"),
    (19, 11948, "arXiv 2603.10425"),
    (20, 19448, "arXiv 2411.04916"),
    (21, 29768, "arXiv 2411.04916"),
    (22, 49896, "Leech 1967"),
    (23, 93150, "Leech 1967"),
    (24, 196560, "Leech 1967"),
]


@pytest.mark.parametrize(("feature_dim", "num_classes", "source"), KISSING_NUMBERS)
def test_no_reference_is_below_a_published_kissing_arrangement(
    without_layers, feature_dim: int, num_classes: int, source: str
):
    for size in ((num_classes, feature_dim), (num_classes - 1, feature_dim), (num_classes, feature_dim + 1)):
        assert reference_margin(*size).lower >= 0.5 - 1e-11, source


def test_sums_of_new_arrangements_are_counted(without_layers):
    # E6 beside the arrangement of 13 dimensions, two E6, and three pairs beside the one of 18
    for num_classes, feature_dim in ((1226, 19), (144, 12), (8364, 21)):
        assert reference_margin(num_classes, feature_dim).lower >= 0.5


@pytest.mark.parametrize(("feature_dim", "most"), MOST_ROWS.items())
def test_more_rows_than_a_proven_kissing_bound_have_a_smaller_margin_than_a_half(
    without_layers, feature_dim: int, most: int
):
    for num_classes, dim in ((most + 1, feature_dim), (most + 1, feature_dim - 1), (2 * most, feature_dim)):
        assert reference_margin(num_classes, dim).upper <= 0.5
    # Levenshtein's bound alone says less at most of these
    assert reference_margin(most, feature_dim).upper >= 0.5


def test_kissing_bounds_lower_what_levenshtein_leaves_open():
    assert {d for d, most in MOST_ROWS.items() if levenshtein_margin_bound(most + 1, d) > 0.5} == set(MOST_ROWS) - {
        8,
        24,
    }


def test_no_known_arrangement_is_larger_than_a_proven_bound():
    assert list(MOST_ROWS.values()) == sorted(MOST_ROWS.values())
    for dim, size, _ in (*PUBLISHED, *((dim, size, name) for name, dim, size, _ in KISSING), *KISSING_NUMBERS):
        assert size <= MOST_ROWS[dim]


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


def test_reference_is_monotone_around_every_known_code(without_layers):
    sizes = {(code.num_classes, code.feature_dim) for code in known_codes() if 3 <= code.feature_dim <= 64}
    for num_classes, feature_dim in sorted(sizes)[::5]:
        here = reference_margin(num_classes, feature_dim)
        steps = [
            (num_classes + 1, feature_dim, 1),
            (num_classes, feature_dim + 1, -1),
            (num_classes - 1, feature_dim, -1),
        ]
        for classes, dim, sign in steps:
            other = reference_margin(classes, dim)
            assert sign * (here.lower - other.lower) >= -2 * TABLE_ROUNDING, (num_classes, feature_dim, classes, dim)
            assert sign * (here.upper - other.upper) >= -2 * TABLE_ROUNDING, (num_classes, feature_dim, classes, dim)


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
    assert REFERENCE_VERSION.startswith("3.")
    assert len(REFERENCE_VERSION.partition("+")[0]) == 10
    kissing = {name for name, *_ in KISSING}
    assert {name for *_, name in BUILT_CODES} == {"Leech lattice section", "quadratic forms", "extended Gold"} | kissing


def test_a_size_that_is_no_whole_number_is_refused():
    asked = "import gnc; gnc.reference_margin(12.5, 3)"  # elsewhere, since the tests check types themselves
    ended = subprocess.run([sys.executable, "-c", asked], check=False, capture_output=True, text=True)
    assert ended.stderr.endswith("ValueError: num_classes must be a whole number, got 12.5.\n")


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


def test_score_of_intervals_spans_the_scores_within_them():
    rng = np.random.default_rng(0)
    margins, nulls = (
        np.sort(rng.uniform(0.3, 0.8, (2, 200)), axis=0),
        np.sort(rng.uniform(0.05, 0.29, (2, 200)), axis=0),
    )
    least, most = margin_score_bounds(*margins, tuple(nulls), 0.7)  # above the best one in part
    ends = []
    for share in np.linspace(0, 1, 11):
        for part in np.linspace(0, 1, 11):
            score = margin_score(
                margins[0] + share * (margins[1] - margins[0]), nulls[0] + part * (nulls[1] - nulls[0]), 0.7
            )
            assert (least - 1e-12 <= score).all()
            assert (score <= most + 1e-12).all()
            ends.append(score)
    assert np.min(ends, axis=0) == pytest.approx(least)
    assert np.max(ends, axis=0) == pytest.approx(most)


def test_score_of_intervals_is_absent_where_the_best_lies_within_the_null():
    for null, best in (((0.2, 0.5), 0.4), ((None, None), 0.4), ((0.1, 0.2), None)):
        assert all(math.isnan(end) for end in margin_score_bounds(0.3, 0.31, null, best))
