"""Lookups give stored numbers, interpolate within their stated error, and know where they end."""

import math

import numpy as np
import pytest

from gnc_models.references.margin import reference_margin
from gnc_models.references.tables import (
    best_code_points,
    monotone_cubic,
    random_margin,
    read_table,
    unconstrained_optimum,
)

QUICKSTART = [(8, 2), (12, 2), (12, 3), (24, 3), (48, 3), (50, 10), (100, 10), (200, 10)]
RANDOM = {(int(r["num_classes"]), int(r["feature_dim"])): r for r in read_table("random_margins.csv")}
OPTIMA = read_table("unconstrained_optima.csv")


@pytest.mark.parametrize(("num_classes", "feature_dim"), QUICKSTART)
def test_quickstart_sizes_have_a_random_null(num_classes: int, feature_dim: int):
    stored = RANDOM[num_classes, feature_dim]
    assert int(stored["draws"]) >= 20
    assert random_margin(num_classes, feature_dim) == pytest.approx(float(stored["margin_median"]), rel=1e-12)


def test_random_rows_stay_below_the_reference():
    for (num_classes, feature_dim), row in RANDOM.items():
        low, middle, high = (float(row[f"margin_{name}"]) for name in ("low", "median", "high"))
        assert low <= middle <= high
        assert high <= reference_margin(num_classes, feature_dim).upper + 1e-9
        assert float(row["best_margin"]) <= reference_margin(num_classes, feature_dim).lower + 1e-12


def test_random_null_at_ten_and_hundred():
    assert 0.26 <= random_margin(100, 10) <= 0.29


def test_random_null_is_absent_outside_the_table():
    assert random_margin(100, 1) is None
    assert random_margin(3, 10) is None
    assert random_margin(10**7, 10) is None
    assert random_margin(100, 10**5) is None


def test_random_null_is_not_guessed_between_dimensions_far_apart(monkeypatch):
    line = np.log([100.0, 1000.0]), np.log([0.5, 0.4])
    monkeypatch.setattr("gnc_models.references.tables._random_grid", lambda: {64: line, 128: line, 768: line})
    assert random_margin(300, 100) == pytest.approx(math.sqrt(0.2) * 10 ** ((0.5 - math.log10(3)) * math.log10(5 / 4)))
    assert random_margin(300, 300) is None
    assert random_margin(1000, 768) == pytest.approx(0.4)


def test_monotone_cubic_reproduces_lines_and_never_overshoots():
    knots = np.array([0.0, 1.0, 2.5, 3.0])
    assert monotone_cubic(knots, 3 * knots + 1, 1.7) == pytest.approx(6.1)
    steps = np.array([0.0, 0.0, 1.0, 1.0])
    inside = [monotone_cubic(knots, steps, x) for x in np.linspace(0, 3, 31)]
    assert min(inside) >= 0
    assert max(inside) <= 1


@pytest.mark.parametrize(("num_classes", "feature_dim", "temperature"), [(12, 3, t) for t in (1.0, 0.3, 0.1, 0.05)])
def test_icosahedron_is_the_optimum_of_the_model(num_classes: int, feature_dim: int, temperature: float):
    found = unconstrained_optimum(num_classes, feature_dim, temperature)
    assert found.margin == pytest.approx(1 - 1 / math.sqrt(5), abs=1e-5)
    cosines = np.array([1 / math.sqrt(5)] * 5 + [-1 / math.sqrt(5)] * 5 + [-1.0])
    loss = math.log1p(np.exp((cosines - 1) / temperature).sum())
    assert found.loss == pytest.approx(loss, rel=1e-6)


def test_octagon_is_the_optimum_of_the_model():
    found = unconstrained_optimum(8, 2, 0.1)
    gaps = np.cos(2 * math.pi * np.arange(1, 8) / 8) - 1
    assert found.margin == pytest.approx(0.292893, abs=1e-5)
    assert found.loss == pytest.approx(math.log1p(np.exp(gaps / 0.1).sum()), rel=1e-6)


def test_optimum_at_24_classes_is_below_the_best_code():
    for temperature, margin in ((0.1, 0.271357), (0.05, 0.274301)):
        found = unconstrained_optimum(24, 3, temperature)
        assert found.margin == pytest.approx(margin, abs=1e-5)
        assert found.margin < reference_margin(24, 3).lower


def test_simplex_optimum_is_in_closed_form():
    found = unconstrained_optimum(5, 10, 0.2)
    assert found.margin == 1.25
    assert found.loss == pytest.approx(math.log1p(4 * math.exp(-1.25 / 0.2)))
    assert found.starts == 0


def test_stored_optima_are_consistent():
    for row in OPTIMA:
        num_classes, feature_dim, temperature = (
            int(row["num_classes"]),
            int(row["feature_dim"]),
            float(row["temperature"]),
        )
        low, margin, high = (float(row[name]) for name in ("margin_low", "margin", "margin_high"))
        assert low <= margin + 1e-9
        assert margin <= high + 1e-9
        assert high <= reference_margin(num_classes, feature_dim).upper + 1e-6, row
        # what the model reached is a code the project found: the best known one may not be worse
        assert high <= reference_margin(num_classes, feature_dim).lower * (1 + 1e-6), row
        # some class has a margin of at most rho*, and W = H = the best code has a loss of at most the second bound
        reference = reference_margin(num_classes, feature_dim)
        assert float(row["loss"]) >= math.log1p(math.exp(-reference.upper / temperature)) / num_classes
        assert float(row["loss"]) <= math.log1p((num_classes - 1) * math.exp(-reference.lower / temperature)) * (
            1 + 1e-9
        )


def test_optima_are_looked_up_to_six_digits_and_absent_elsewhere():
    assert unconstrained_optimum(24, 3, 0.1 + 1e-9) == unconstrained_optimum(24, 3, 0.1)
    assert unconstrained_optimum(24, 3, 0.1001) is None
    assert unconstrained_optimum(23, 3, 0.1) is None


def test_drawn_points_are_the_codes_they_stand_for():
    for num_classes, feature_dim in ((8, 2), (12, 2), (12, 3), (24, 3), (48, 3)):
        points = best_code_points(num_classes, feature_dim)
        cosines = points @ points.T - 2 * np.eye(num_classes)
        reference = reference_margin(num_classes, feature_dim)
        assert points.shape == (num_classes, feature_dim)
        assert 1 - cosines.max() >= reference.lower - 1e-6


def test_points_are_absent_where_not_stored():
    assert best_code_points(13, 7) is None
    assert best_code_points(100_000, 3) is None


def test_interpolation_error_is_as_stated_at_held_out_sizes():
    # docs/margins.md states these; a held-out size lies twice as far from its neighbours as a size asked for
    along_classes, along_dims = held_out_errors()
    assert np.quantile(along_classes, 0.9) < 0.02
    assert max(along_classes) < 0.05
    assert np.quantile(along_dims, 0.9) < 0.02
    assert max(along_dims) < 0.07


def held_out_errors() -> tuple[list[float], list[float]]:
    """Distance between stored medians and what the other rows of their line, or of their column, give."""
    along_classes, along_dims = [], []
    by_dim, by_size = {}, {}
    for (num_classes, feature_dim), row in RANDOM.items():
        median = math.log(float(row["margin_median"]))
        by_dim.setdefault(feature_dim, []).append((math.log(num_classes), median))
        by_size.setdefault(num_classes, []).append((math.log(feature_dim), median))
    for lines, errors in ((by_dim, along_classes), (by_size, along_dims)):
        for line in lines.values():
            knots, values = np.array(sorted(line)).T
            for i in range(1, len(knots) - 1):
                guess = monotone_cubic(np.delete(knots, i), np.delete(values, i), knots[i])
                errors.append(abs(math.exp(guess) - math.exp(values[i])))
    return along_classes, along_dims
