"""Null, bound and spacing of hyperspherical energies against integrals, codes that attain them, and random points."""

import math

import pytest
from scipy.integrate import quad

from gnc_models.geometry.pairwise import max_cosine, measure_energy
from gnc_models.references.energy import (
    energy_references,
    log_energy_bound,
    riesz_energy_bound,
    separation_bound,
    uniform_log_energy,
    uniform_riesz_energy,
)
from tests.gnc_models.known_codes import icosahedron, orthoplex, polygon, random_rows, simplex


def ref_expectation(kernel, dim):
    """Mean of a kernel of the squared distance over the cosine of two uniform points, density (1 - t^2)^((d-3)/2)."""
    # t = -cos(angle) takes the ends' singularities out of the weight
    weight = lambda angle: math.sin(angle) ** (dim - 2)
    value = lambda angle: kernel(2 + 2 * math.cos(angle)) * weight(angle)
    return quad(value, 0, math.pi, limit=200)[0] / quad(weight, 0, math.pi)[0]


@pytest.mark.parametrize("dim", [2, 3, 4, 5, 10, 64])
def test_uniform_points_have_the_energies_of_the_integral(dim):
    assert uniform_log_energy(dim) == pytest.approx(ref_expectation(lambda s: -math.log(s) / 2, dim), abs=1e-8)
    if dim > 3:
        assert uniform_riesz_energy(dim) == pytest.approx(ref_expectation(lambda s: 1 / s, dim), rel=1e-6)
    else:
        assert uniform_riesz_energy(dim) == math.inf


def test_uniform_log_energies_known_in_closed_form():
    assert uniform_log_energy(2) == pytest.approx(0, abs=1e-14)
    assert uniform_log_energy(3) == pytest.approx(0.5 - math.log(2), rel=1e-13)
    assert uniform_log_energy(64) == pytest.approx(-0.3426, abs=5e-5)
    assert uniform_log_energy(100_000) == pytest.approx(-math.log(2) / 2, abs=1e-5)


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 2), (4, 3), (6, 9)])
def test_the_simplex_attains_the_bounds(num_classes, dim):
    points = simplex(num_classes, dim)
    assert measure_energy(points)[0] == pytest.approx(log_energy_bound(num_classes), rel=1e-12)
    assert measure_energy(points, exponent=2.0)[0] == pytest.approx(riesz_energy_bound(num_classes), rel=1e-12)


@pytest.mark.parametrize("points", [random_rows(20, 3, 0), random_rows(7, 30, 1), orthoplex(4), polygon(9)])
def test_no_points_are_below_the_bounds_and_beyond_the_simplex_none_reach_them(points):
    assert measure_energy(points)[0] > log_energy_bound(len(points)) + 1e-3
    assert measure_energy(points, exponent=2.0)[0] > riesz_energy_bound(len(points)) + 1e-3


@pytest.mark.parametrize("points", [simplex(4, 3), simplex(5, 9), orthoplex(5), polygon(7), icosahedron()])
def test_the_widest_spacing_is_that_of_the_best_codes(points):
    closest = math.sqrt(2 - 2 * max_cosine(points))
    assert separation_bound(*points.shape) == pytest.approx(closest, rel=1e-9)


def test_references_are_null_where_they_do_not_exist():
    absent = lambda *size: {name for name, value in energy_references(*size).items() if value is None}
    assert absent(100, 10) == set()
    assert absent(12, 3) == absent(8, 2) == {"uniform_riesz_energy"}
    assert absent(2, 1) == {"uniform_log_energy", "uniform_riesz_energy", "separation_bound"}
    assert energy_references(100, 10)["uniform_riesz_energy"] == pytest.approx(8 / 14, rel=1e-15)


def test_sizes_without_a_null_or_a_bound_are_refused():
    with pytest.raises(ValueError, match="feature_dim must be at least 2, got 1"):
        uniform_log_energy(1)
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        riesz_energy_bound(1)
