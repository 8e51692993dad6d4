"""The unconstrained-feature optimum: right loss and gradient, stored values found again, alive where the loss underflows."""

import math

import pytest
import torch

from gnc_models.codes.search import random_codes
from gnc_models.codes.unconstrained_features import (
    SHAKE,
    _hopped,
    _ladders,
    _lowest,
    _lowest_apart,
    code_from_optimum,
    cold_loss,
    optimise_unconstrained,
)
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.log_space import log_softplus
from gnc_models.references.margin import reference_margin
from gnc_models.references.tables import tabulated_optimum

torch.set_num_threads(1)


@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.07])
def test_cold_loss_and_gradient_equal_autograd_of_cross_entropy(temperature: float):
    points = random_codes(14, 4, starts=2, seed=0).requires_grad_()
    weights, features = points.chunk(2, dim=1)
    logits = features @ weights.mT / temperature
    losses = torch.stack([torch.nn.functional.cross_entropy(z, torch.arange(7)) for z in logits])
    expected = temperature * losses.log()
    (gradient,) = torch.autograd.grad(expected.sum(), points)
    value, got = cold_loss(torch.tensor([9.0, temperature]).double())(points.detach(), torch.tensor([1, 1]))
    assert torch.allclose(value, expected.detach(), atol=1e-12)
    assert torch.allclose(got, gradient, atol=1e-12)


def test_tied_rows_have_the_loss_of_equal_w_and_h_and_both_their_gradients():
    rows, temperatures = random_codes(7, 4, starts=2, seed=0), torch.tensor([0.1, 0.5], dtype=torch.float64)
    starts = torch.arange(2)
    value, gradient = cold_loss(temperatures, tied=True)(rows, starts)
    free_value, free = cold_loss(temperatures)(rows.repeat(1, 2, 1), starts)
    assert torch.allclose(value, free_value, atol=1e-13)
    assert torch.allclose(gradient, free[:, :7] + free[:, 7:], atol=1e-13)


def test_ladders_lead_from_a_third_of_the_temperature_or_from_one_towards_it():
    ladders = _ladders(0.1, 5)
    assert ladders[0, ::2].tolist() == pytest.approx([0.1 / 3, 0.1, 1.0])
    assert (ladders.diff(dim=0)[:, :2] > 0).all()
    assert (ladders.diff(dim=0)[:, 3:] < 0).all()
    assert ((ladders[-1] > 0.08) & (ladders[-1] < 0.15)).all()
    assert (_ladders(2.0, 3) <= 2.0).all()  # never warmer than a temperature above one


def test_hops_move_a_few_rows_and_never_end_higher():
    rows = random_codes(30, 4, starts=3, seed=0)
    generator = torch.Generator().manual_seed(1)
    moved, shaken = (_hopped(rows, moves, generator) for moves in (8, 0))
    assert ((moved != rows).any(-1).sum(1) == 8).all()
    for hopped in (moved, shaken):
        assert torch.allclose(hopped.norm(dim=-1), torch.ones(3, 30).double())
    # three of four coordinates of the noise are tangent
    assert (shaken - rows).square().sum(-1).mean().sqrt() == pytest.approx(SHAKE * math.sqrt(3 / 4), rel=0.2)
    plain, hopped = (optimise_unconstrained(40, 4, 0.1, starts=2, hops=hops, seed=2) for hops in (0, 6))
    assert hopped.loss < plain.loss * (1 - 1e-6)  # two starts alone do not end at the lowest minimum here
    assert optimise_unconstrained(40, 4, 0.1, starts=2, hops=6, seed=2).loss == hopped.loss


def test_of_starts_that_end_at_one_minimum_one_hops():
    values = torch.tensor([3.0, 1.0, 2.0, 1.0 + 1e-9, 3.0], dtype=torch.float64)
    assert values[_lowest_apart(values, 1e-6)].tolist() == [1.0, 2.0, 3.0]


def test_log_softplus_survives_where_the_loss_underflows():
    odds = torch.tensor([-800.0, -31.0, -29.0, 0.0, 50.0], dtype=torch.float64)
    expected = [-800.0, -31.0, math.log(math.log1p(math.exp(-29))), math.log(math.log(2)), math.log(50.0)]
    assert torch.allclose(log_softplus(odds), torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(
    ("num_classes", "feature_dim", "temperature"),
    [(8, 2, 0.1), (12, 3, 0.1), (24, 3, 0.3), (24, 3, 0.1), (24, 3, 0.05)],
)
def test_stored_optima_are_found_again(num_classes: int, feature_dim: int, temperature: float):
    stored = tabulated_optimum(num_classes, feature_dim, temperature)
    found = optimise_unconstrained(num_classes, feature_dim, temperature, starts=6, seed=5)
    assert found.loss == pytest.approx(stored.loss, rel=1e-6)
    assert found.margin == pytest.approx(stored.margin, abs=1e-5)
    assert found.margin_low <= found.margin <= found.margin_high
    assert 1 <= found.found <= found.starts == 6


def test_the_range_spans_the_minima_near_the_lowest_loss_and_the_lowest_are_counted():
    rows = torch.stack([random_codes(6, 3, starts=1, seed=seed)[0].repeat(2, 1) for seed in range(4)])
    log_losses = torch.tensor([0.0, 5e-7, 5e-5, 5e-4], dtype=torch.float64) - 3.0
    found = _lowest(rows, 0.1 * log_losses, 0.1, 9)
    margins = [one_vs_rest_margins(row[:6], mode="min").minimum[0] for row in rows[:3]]
    assert (found.starts, found.found, found.margin) == (9, 2, margins[0])
    assert (found.margin_low, found.margin_high) == (min(margins), max(margins))
    assert found.loss == pytest.approx(math.exp(-3.0))


def test_features_line_up_with_rows_at_the_optimum():
    # self-duality: 1 - cos at most 1e-7
    found = optimise_unconstrained(12, 3, 0.1, starts=2, seed=0)
    assert (1 - (found.weights * found.features).sum(1)).max() < 1e-7


def test_very_low_temperature_tends_to_the_best_code():
    found = optimise_unconstrained(12, 3, 0.01, starts=4, seed=0)
    assert found.loss < 1e-20
    assert found.margin == pytest.approx(reference_margin(12, 3).lower, abs=1e-4)


def test_warm_optimum_of_a_simplex_is_the_closed_form():
    for temperature in (1.0, 0.1):
        found = optimise_unconstrained(5, 4, temperature, starts=2, seed=0)
        closed = tabulated_optimum(5, 4, temperature)
        assert found.loss == pytest.approx(closed.loss, rel=1e-9)
        assert found.margin == pytest.approx(closed.margin, abs=1e-5)


def test_values_out_of_range_are_refused():
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            optimise_unconstrained(5, 3, temperature)
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        optimise_unconstrained(1, 3, 0.1)
    with pytest.raises(ValueError, match="hops must be at least 0"):
        optimise_unconstrained(5, 3, 0.1, hops=-1)


def test_an_optimum_turned_into_a_code_is_as_good_as_its_margin_and_polishing_loses_nothing():
    optimum = optimise_unconstrained(12, 4, 0.1, starts=4, seed=0)
    code = code_from_optimum(12, 4, 0.1, starts=4, seed=0)
    assert code.margin_lower >= optimum.margin - 1e-9
    assert code.margin_lower == pytest.approx(0.75, abs=1e-6)
