"""Mixtures of Student distributions: one part alone, the share between the ends, and parts without a spread."""

import numpy as np
import pytest
from scipy.stats import t as student_t

from analysis.statistics.inference import Expected, Weight, mixed_interval


def test_one_part_has_the_ends_of_its_own_distribution():
    part = Expected(np.array([1.0, 2.0]), np.array([0.5, 0.1]), 3)
    mean, low, high = mixed_interval([(part, Weight(7.0, 7.0))], 0.9)
    half = student_t.ppf(0.95, 3) * part.spread
    assert mean == pytest.approx(part.middle)
    assert low == pytest.approx(part.middle - half)
    assert high == pytest.approx(part.middle + half)


def test_the_ends_hold_the_level_of_draws_from_the_mixture():
    parts = [
        (Expected(np.array([0.0]), np.array([0.1]), 4), Weight(1.0, 3.0)),
        (Expected(np.array([1.0]), np.array([0.3]), 2.5), Weight(3.0, 1.0)),
    ]
    mean, (low,), (high,) = mixed_interval(parts, 0.9)
    assert mean == pytest.approx([0.25])  # 3 over the square of 3 beside 1: shares of 1 and 3 quarters
    below, above = (
        sum(w.interval / 4 * tail((end - p.middle[0]) / p.spread[0], p.degrees) for p, w in parts)
        for tail, end in ((student_t.cdf, low), (student_t.sf, high))
    )
    assert (below, above) == pytest.approx((0.05, 0.05), abs=1e-9)


def test_parts_without_a_spread_are_points():
    parts = [(Expected(np.array([x]), np.zeros(1), 5), Weight()) for x in (0.0, 1.0)]
    assert np.ravel(mixed_interval(parts, 0.9)) == pytest.approx([0.5, 0.0, 1.0], abs=1e-9)


def test_the_mean_lies_within_the_ends():
    near, far = (Expected(np.array([x]), np.array([0.01]), 5) for x in (0.0, 1.0))
    mean, low, high = mixed_interval([(near, Weight(1.0, 99.0)), (far, Weight(99.0, 1.0))], 0.9)
    assert low[0] < 0.1
    assert 0.9 < mean[0] == high[0]
