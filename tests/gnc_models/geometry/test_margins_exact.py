"""Margins in exact arithmetic: rows so close, so far apart, so long or so short that rounding decides."""

import math
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch

import gnc_models.geometry.margin_search
from gnc_models.geometry.margins import Margins, margins_of_directions, one_vs_rest_margins
from gnc_models.geometry.pairwise import row_norms, unit
from tests.gnc_models.known_codes import KINDS


def look_alikes(groups: int, size: int, feature_dim: int, spread: float, *, seed: int, single: bool) -> torch.Tensor:
    """Groups of unit rows that differ by about `spread`."""
    generator = np.random.default_rng(seed)

    def directions(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    centres = np.repeat(directions(generator.normal(size=(groups, feature_dim))), size, axis=0)
    rows = directions(centres + spread * generator.normal(size=centres.shape))
    return torch.from_numpy(rows.astype(np.float32) if single else rows).double()


def squared_distance(weights: torch.Tensor, margins: Margins, k: int) -> Fraction:
    """Of a row to the hull point that its certificate names, without rounding."""
    used = margins.support_rows[k] >= 0
    shares = [Fraction(x) for x in margins.coefficients[k][used].tolist()]
    rows = [[Fraction(x) for x in row] for row in weights[margins.support_rows[k][used]].tolist()]
    total = sum(shares)
    point = [sum(s * row[i] for s, row in zip(shares, rows, strict=True)) / total for i in range(weights.shape[1])]
    return sum((Fraction(x) - y) ** 2 for x, y in zip(weights[k].tolist(), point, strict=True))


def assert_holds(weights: torch.Tensor, margins: Margins) -> None:
    """No upper bound is below the distance of its own hull point, no lower bound above it."""
    assert margins.lower.isfinite().all()
    assert (margins.lower >= 0).all()
    supported = (margins.support_rows >= 0).any(1)
    torch.testing.assert_close(margins.coefficients.sum(1), supported.double())
    for k in supported.nonzero()[:, 0].tolist():
        square = squared_distance(weights, margins, k)
        assert Fraction(float(margins.lower[k])) ** 2 <= square
        assert square <= Fraction(float(margins.upper[k])) ** 2


@pytest.mark.parametrize(
    ("groups", "size", "feature_dim", "spread", "seed", "single"),
    [
        (20, 10, 4, 1e-8, 0, True),
        (60, 10, 3, 1e-9, 1, True),
        (30, 15, 6, 1e-10, 2, True),
        (10, 8, 2, 1e-14, 2, False),
        (60, 10, 3, 1e-14, 0, False),
    ],
)
def test_intervals_hold_where_rows_differ_by_little_more_than_rounding(groups, size, feature_dim, spread, seed, single):
    weights = look_alikes(groups, size, feature_dim, spread, seed=seed, single=single)
    assert_holds(weights, one_vs_rest_margins(weights))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("feature_dim", [2, 5])
def test_intervals_hold_on_every_kind_of_rows(kind, feature_dim):
    weights = KINDS[kind](120, feature_dim, seed=30)
    assert_holds(weights, one_vs_rest_margins(weights))


@pytest.mark.parametrize(("feature_dim", "spread"), [(64, 1e-7), (64, 3e-6), (128, 1e-5)])
def test_the_smallest_margin_of_look_alikes_is_found_to_the_tolerance(feature_dim, spread):
    weights = look_alikes(40, 20, feature_dim, spread, seed=64, single=True)
    lower, upper = one_vs_rest_margins(weights, mode="min").minimum
    assert upper - lower <= 1e-6 * upper


@pytest.mark.parametrize("exponent", [-1060, -600, -510, -500, 500, 510, 600, 1020])
def test_any_scale_gives_the_same_margins_in_its_own_unit(exponent):
    weights = torch.round(KINDS["random"](60, 3, seed=31) * 2**12) / 2**12  # few digits: exact at every scale
    half = exponent // 2
    scaled = weights * 2.0**half * 2.0 ** (exponent - half)
    found, expected = one_vs_rest_margins(scaled), one_vs_rest_margins(weights)
    assert found.rounds == expected.rounds
    assert_holds(scaled, found)
    back = found.upper * 2.0**-half * 2.0 ** (half - exponent)
    # the smallest number above 0 is 2^-1074
    torch.testing.assert_close(back, expected.upper, rtol=1e-14, atol=max(2.0 ** (-1073 - exponent), 1e-300))


@pytest.mark.parametrize("small", [1e-30, 1e-100, 1e-155, 1e-160, 1e-200, 1e-310])
@pytest.mark.parametrize("mode", ["all", "min"])
def test_rows_of_very_different_lengths_have_intervals_that_hold(small, mode):
    weights = KINDS["random"](24, 3, seed=32)
    weights[:4] *= small
    weights[4] = 0.0
    found = one_vs_rest_margins(weights, mode=mode)
    every = one_vs_rest_margins(weights)
    assert_holds(weights, every)
    assert (found.lower <= every.upper).all()
    assert (found.upper >= every.lower).all()


@pytest.mark.parametrize(("seed", "spread"), [(1, 1e-6), (0, 1e-2)])
def test_full_working_sets_go_on_where_members_are_far_away(seed, spread):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(5, 8))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    which = generator.integers(0, 5, 600)
    lengths = 10.0 ** generator.uniform(-8, 8, size=(5, 1))
    rows = centres[which] * lengths[which] * (1 + spread * generator.normal(size=(600, 8)))
    assert one_vs_rest_margins(torch.from_numpy(rows), tolerance=1e-12).rounds < 50


@pytest.mark.parametrize("seed", range(3))
def test_a_warm_start_leaves_no_certificate_that_is_not_of_these_rows(seed, monkeypatch):
    monkeypatch.setattr(gnc_models.geometry.margin_search, "BATCH_ENTRIES", 1)
    weights = KINDS["random"](200, 8, seed=seed)
    weights[7] = weights[90] + 1e-4 * weights[3]
    elsewhere = one_vs_rest_margins(KINDS["random"](200, 11, seed=seed + 50))
    found = one_vs_rest_margins(weights, mode="min", warm_start=elsewhere)
    assert_holds(weights, found)
    assert (found.support_rows < 0).all(1).any()  # ruled out before they were solved
    turned = replace(elsewhere, support_rows=found.support_rows.flip(0), coefficients=found.coefficients.flip(0))
    assert_holds(weights, one_vs_rest_margins(weights, warm_start=turned))


def test_a_row_too_short_for_its_own_direction_is_not_given_a_margin_it_does_not_have():
    weights = torch.tensor([[1e-170, 0.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    for mode in ("all", "min"):
        found = one_vs_rest_margins(weights, mode=mode)
        assert 1 - 1e-9 < float(found.lower[0]) <= 1.0 <= float(found.upper[0])


def test_rows_that_only_scaling_makes_equal_have_an_interval_that_holds():
    weights = torch.tensor([[1e308, 0.0], [0.0, 1e-20], [0.0, 1.1e-20]], dtype=torch.float64)
    for mode in ("all", "min"):
        found = one_vs_rest_margins(weights, mode=mode)
        assert float(found.lower[1]) == 0.0
        assert float(found.upper[1]) >= 1e-21


def test_a_margin_beyond_the_largest_number_is_bounded_by_it():
    found = one_vs_rest_margins(torch.tensor([[1.5e308], [-1.5e308]], dtype=torch.float64))
    assert 1.797e308 < found.minimum[0] < found.minimum[1] == math.inf


# --- directions --------------------------------------------------------------------------------------------------


def test_unit_rows_and_lengths_do_not_depend_on_scale():
    rows = KINDS["random"](9, 4, seed=33)
    for factor in (2.0**-1000, 2.0**-60, 2.0**60, 2.0**1000):
        assert torch.equal(unit(rows * factor), unit(rows))
        assert torch.equal(row_norms(rows * factor), row_norms(rows) * factor)
    assert torch.equal(unit(torch.zeros(1, 3)), torch.zeros(1, 3, dtype=torch.float64))
    assert unit(torch.tensor([[math.nan, 1.0]])).isnan().all()


def test_margins_of_directions_hold_that_of_the_exact_directions():
    rows = [[1.0, 1e-9, 0.3], [3.3, 3.1e-9, 0.99 + 1e-9]]
    found = margins_of_directions(torch.tensor(rows, dtype=torch.float64))
    with localcontext(prec=60):
        units = []
        for row in rows:
            exact = [Decimal(x) for x in row]
            length = sum(x * x for x in exact).sqrt()
            units.append([x / length for x in exact])
        distance = sum((a - b) ** 2 for a, b in zip(*units, strict=True)).sqrt()
        assert Decimal(found.minimum[0]) <= distance <= Decimal(found.minimum[1])
    assert found.minimum[1] - found.minimum[0] < 1e-14


def test_a_row_of_zeros_has_no_direction():
    with pytest.raises(ValueError, match="no row of zeros, which has no direction, got row 1"):
        margins_of_directions(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
