"""Lookups give stored numbers, and know where they end."""

import math

import numpy as np
import pytest

from gnc_models.references.margin import reference_margin
from gnc_models.references.tables import best_code_points, read_table, tabulated_optimum

OPTIMA = read_table("unconstrained_optima.csv")


@pytest.mark.parametrize(("num_classes", "feature_dim", "temperature"), [(12, 3, t) for t in (1.0, 0.3, 0.1, 0.05)])
def test_icosahedron_is_the_optimum_of_the_model(num_classes: int, feature_dim: int, temperature: float):
    found = tabulated_optimum(num_classes, feature_dim, temperature)
    assert found.margin == pytest.approx(1 - 1 / math.sqrt(5), abs=1e-5)
    cosines = np.array([1 / math.sqrt(5)] * 5 + [-1 / math.sqrt(5)] * 5 + [-1.0])
    loss = math.log1p(np.exp((cosines - 1) / temperature).sum())
    assert found.loss == pytest.approx(loss, rel=1e-6)


def test_octagon_is_the_optimum_of_the_model():
    found = tabulated_optimum(8, 2, 0.1)
    gaps = np.cos(2 * math.pi * np.arange(1, 8) / 8) - 1
    assert found.margin == pytest.approx(0.292893, abs=1e-5)
    assert found.loss == pytest.approx(math.log1p(np.exp(gaps / 0.1).sum()), rel=1e-6)


def test_optimum_at_24_classes_is_below_the_best_code():
    for temperature, margin in ((0.1, 0.271357), (0.05, 0.274301)):
        found = tabulated_optimum(24, 3, temperature)
        assert found.margin == pytest.approx(margin, abs=1e-5)
        assert found.margin < reference_margin(24, 3).lower


def test_simplex_optimum_is_in_closed_form():
    found = tabulated_optimum(5, 10, 0.2)
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
    assert tabulated_optimum(24, 3, 0.1 + 1e-9) == tabulated_optimum(24, 3, 0.1)
    assert tabulated_optimum(24, 3, 0.1001) is None
    assert tabulated_optimum(23, 3, 0.1) is None


def test_drawn_points_are_the_codes_they_stand_for():
    for num_classes, feature_dim in ((8, 2), (12, 2), (2, 3), (4, 3), (5, 3), (6, 3), (12, 3), (24, 3), (48, 3)):
        points = best_code_points(num_classes, feature_dim)
        cosines = points @ points.T - 2 * np.eye(num_classes)
        reference = reference_margin(num_classes, feature_dim)
        assert points.shape == (num_classes, feature_dim)
        assert 1 - cosines.max() >= reference.lower - 1e-6


def test_points_are_absent_where_not_stored():
    assert best_code_points(15, 7) is None
    assert best_code_points(100_000, 3) is None
