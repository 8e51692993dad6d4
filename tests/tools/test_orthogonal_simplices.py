"""Closed forms of free features between d + 2 and 2 d classes, against rows that are made, brute force and a search."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar

from gnc_models.codes.unconstrained_features import cold_loss, optimise_unconstrained
from gnc_models.geometry.margins import one_vs_rest_margins
from tools.orthogonal_simplices import (
    balance_switch,
    best_split,
    even_split,
    push_switch,
    pushed_cold_loss,
    simplices,
    split_cold_loss,
    split_switches,
)
from tools.phase_diagram import group_order, phases_of, search


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (3, 4, 4), (2, 2, 7), (5, 6)])
@pytest.mark.parametrize("temperature", [0.02, 0.3, 2.0])
def test_the_loss_of_simplices_is_that_of_their_rows_and_their_margin_is_one(sizes, temperature):
    rows = torch.from_numpy(simplices(sizes))
    value, _ = cold_loss(torch.tensor([temperature], dtype=torch.float64), tied=True)(rows[None], torch.tensor([0]))
    assert split_cold_loss(sizes, temperature) == pytest.approx(float(value), abs=1e-13)
    lower, upper = one_vs_rest_margins(rows, mode="min").minimum
    assert lower <= 1 <= upper
    alike = math.prod(map(math.factorial, [sizes.count(size) for size in set(sizes)]))
    assert group_order(rows.repeat(2, 1)) == math.prod(map(math.factorial, sizes)) * alike


@pytest.mark.parametrize(("num_classes", "feature_dim"), [(6, 4), (9, 6), (12, 8), (13, 9)])
def test_no_partition_is_better_than_the_best_split(num_classes, feature_dim):
    parts = num_classes - feature_dim
    every = [s for s in itertools.combinations_with_replacement(range(2, num_classes), parts) if sum(s) == num_classes]
    for temperature in np.geomspace(2, 0.02, 25):
        best = best_split(num_classes, feature_dim, temperature)
        assert split_cold_loss(best, temperature) <= min(split_cold_loss(s, temperature) for s in every) + 1e-14


def test_switches_are_where_both_sides_have_the_same_loss_and_no_third_is_lower():
    found = split_switches(11, 8)
    assert [sizes for _, *pair in found for sizes in pair] == [(3, 4, 4), (2, 4, 5), (2, 4, 5), (2, 2, 7)]
    for temperature, above, below in found:
        assert split_cold_loss(above, temperature) == pytest.approx(split_cold_loss(below, temperature), abs=1e-12)
    assert split_switches(12, 6) == []


@pytest.mark.parametrize("feature_dim", [4, 5, 8, 12])
def test_the_switch_to_a_pair_agrees_with_thirty_digits(feature_dim):
    def cold(sizes, tau):
        count = sum(sizes)
        return sum(
            p * mpmath.log1p((p - 1) * mpmath.exp(-mpmath.mpf(p) / (p - 1) / tau) + (count - p) * mpmath.exp(-1 / tau))
            for p in sizes
        )

    even = even_split(feature_dim + 2, feature_dim)
    with mpmath.workdps(30):
        exact = mpmath.findroot(
            lambda tau: cold(even, tau) - cold((2, feature_dim), tau), (0.4, 0.5), solver="anderson"
        )
    assert balance_switch(feature_dim) == pytest.approx(float(exact), abs=1e-12)


def test_the_switch_to_a_pair_has_the_limit_that_is_stated():
    limit = 1 / brentq(lambda x: x * x / 4 - math.exp(-x) + 1 - x, 2, 3, xtol=1e-15)
    assert limit == pytest.approx(0.391094, abs=1e-6)
    # the rest falls like 1 / d
    assert 10_000 * (balance_switch(10_000) - limit) == pytest.approx(1_000 * (balance_switch(1_000) - limit), rel=0.02)
    falling = [balance_switch(d) for d in (4, 6, 8, 10, 12, 50, 100, 1000)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] > limit


def pushed_sum(angles, dim, tau):
    """Sum over the classes of the losses of two pairs and a pushed simplex, in whatever arithmetic."""
    pair, pair_feature, push, push_feature = angles
    sin, cos, exp, simplex = mpmath.sin, mpmath.cos, mpmath.exp, dim - 2
    own_pair, own = cos(pair - pair_feature), cos(push - push_feature)
    of_pair = exp((sin(pair_feature) * sin(pair) - cos(pair_feature) * cos(pair) - own_pair) / tau)
    of_pair += 2 * exp((sin(pair_feature) * sin(pair) - own_pair) / tau)
    of_pair += simplex * exp((sin(pair_feature) * sin(push) - own_pair) / tau)
    other = sin(push_feature) * sin(push) - cos(push_feature) * cos(push) / (simplex - 1)
    of_simplex = (simplex - 1) * exp((other - own) / tau) + 4 * exp((sin(push_feature) * sin(pair) - own) / tau)
    return 4 * mpmath.log1p(of_pair) + simplex * mpmath.log1p(of_simplex)


@pytest.mark.parametrize("feature_dim", [4, 8])
def test_the_switch_to_the_pushed_arrangement_agrees_with_thirty_digits(feature_dim):
    """Four angles at which the loss is stationary and the temperature at which it equals the split's: five equations."""

    def equations(*unknown):
        *angles, tau = unknown
        slopes = [
            mpmath.diff(lambda x, i=i: pushed_sum([*angles[:i], x, *angles[i + 1 :]], feature_dim, tau), angles[i])
            for i in range(4)
        ]
        split = sum(
            p
            * mpmath.log1p(
                (p - 1) * mpmath.exp(-mpmath.mpf(p) / (p - 1) / tau) + (feature_dim + 2 - p) * mpmath.exp(-1 / tau)
            )
            for p in (2, feature_dim)
        )
        scale = mpmath.exp(1 / tau)  # of the losses
        return [scale * slope for slope in slopes] + [scale * (pushed_sum(angles, feature_dim, tau) - split)]

    switch = push_switch(feature_dim)
    pair = math.acos(pushed_cold_loss(feature_dim, switch)[1])
    push = minimize_scalar(lambda x: float(pushed_sum((pair, pair, x, x), feature_dim, switch)), bounds=(-1, 0)).x
    with mpmath.workdps(30):
        exact = mpmath.findroot(equations, (pair, pair, push, push, switch), tol=1e-18)
    assert switch == pytest.approx(float(exact[4]), rel=1e-9)


def test_the_switch_to_the_pushed_arrangement_follows_the_law_that_is_stated():
    """`1 / (d tau)` nears `log d - log log d - log(4 / (m^2 + 2 m))`, where `exp(m) = m + 2`, and slowly."""
    m = brentq(lambda m: math.exp(m) - m - 2, 0.5, 2)
    law = lambda dim: math.log(dim) - math.log(math.log(dim)) - math.log(4 / (m * m + 2 * m))
    assert math.log(4 / (m * m + 2 * m)) == pytest.approx(0.103655, abs=1e-6)
    missed = [1 / (dim * push_switch(dim)) - law(dim) for dim in (100, 1000, 10_000)]
    assert missed == sorted(missed, reverse=True)
    assert missed == pytest.approx([1.30, 0.989, 0.764], abs=0.01)


@pytest.mark.parametrize(("feature_dim", "temperature"), [(3, 0.1), (5, 0.05)])
def test_the_pushed_arrangement_is_what_a_search_finds(feature_dim, temperature):
    optimum = optimise_unconstrained(feature_dim + 2, feature_dim, temperature, starts=12)
    value, margin = pushed_cold_loss(feature_dim, temperature)
    assert value == pytest.approx(temperature * math.log(optimum.loss), abs=1e-10)
    assert margin == pytest.approx(optimum.margin, abs=1e-6)


def test_a_search_over_all_temperatures_finds_the_switch_by_itself():
    """Five classes in three dimensions: the triangular bipyramid above, the square pyramid below."""
    warm, cold = phases_of(search(5, 3, starts=4, hops=1))
    assert cold.hot == pytest.approx(push_switch(3), rel=1e-6)
    assert [group_order(phase.at_cold) for phase in (warm, cold)] == [12, 8]
