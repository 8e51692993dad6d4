"""FGSM and PGD on models whose worst case is known, inside ball and limits, at temperatures that blind a gradient."""

import pytest
import torch
from torch import nn

from gnc_models.metrics.adversarial import attack_accuracy

RADII = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


def two_classes(dtype=torch.float64, seed=0):
    """A linear model, inputs in [0, 1], and the radius at which each input's class is lost."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, 12, generator=generator, dtype=dtype)
    inputs = torch.rand(300, 12, generator=generator, dtype=dtype)
    labels = torch.randint(0, 2, (300,), generator=generator)
    gap = weights[1] - weights[0]
    margin = (inputs @ gap) * (2 * labels - 1)
    return lambda x: x @ weights.T, inputs, labels, margin / gap.abs().sum()


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("start", [None, 3])
def test_the_worst_case_of_a_linear_model_is_reached(steps, start):
    model, inputs, labels, lost_at = two_classes()
    found = []
    for radius in RADII:
        generator = None if start is None else torch.Generator().manual_seed(start)
        found.append(attack_accuracy(model, inputs, labels, radius=radius, steps=steps, generator=generator))
        assert found[-1] == float((lost_at > radius).double().mean())
    assert found == sorted(found, reverse=True)
    assert found[0] > found[2] > 0  # the radii tell


def test_more_steps_are_never_weaker_on_a_linear_model():
    model, inputs, labels, _ = two_classes()
    for radius in RADII:
        fast, slow = (attack_accuracy(model, inputs, labels, radius=radius, steps=steps) for steps in (1, 10))
        assert slow <= fast


def test_a_curved_model_yields_to_steps_where_one_step_overshoots():
    # class 1 is ahead only within 0.1 of 0.1; one step of 0.5 jumps over it
    hill = lambda x: torch.stack([torch.zeros_like(x[:, 0]), 0.009 - (x[:, 0] - 0.1).square()], 1)
    inputs, labels = torch.zeros(1, 1), torch.tensor([0])
    assert attack_accuracy(hill, inputs, labels, radius=0.5, steps=1) == 1.0
    assert attack_accuracy(hill, inputs, labels, radius=0.5, steps=40) == 0.0


@pytest.mark.parametrize("start", [None, 0])
def test_moved_inputs_stay_in_the_ball_and_the_limits(start):
    _, inputs, labels, _ = two_classes(torch.float32)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 2))
    seen = []
    model = lambda x: network(seen.append(x.detach()) or x)
    generator = None if start is None else torch.Generator().manual_seed(start)
    attack_accuracy(model, inputs, labels, radius=0.3, steps=5, limits=(0.0, 1.0), generator=generator, batch_size=300)
    assert len(seen) == 6
    assert torch.equal(seen[0], inputs) == (start is None)
    for moved in seen[start is None :]:
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
        assert float((moved - inputs).abs().max()) <= 0.3 + 1e-6
    assert float((seen[-1] - inputs).abs().max()) == pytest.approx(0.3, abs=1e-6)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_start_is_drawn_from_the_generator_alone():
    _, inputs, labels, _ = two_classes(torch.float32)
    first_inputs = []
    for seed in (1, 1, 2):
        seen = []
        model = lambda x, seen=seen: (seen.append(x.detach()), x[:, :2])[1]
        attack_accuracy(model, inputs, labels, radius=0.2, steps=2, generator=torch.Generator().manual_seed(seed))
        first_inputs.append(seen[0])
    assert torch.equal(first_inputs[0], first_inputs[1])
    assert not torch.equal(first_inputs[0], first_inputs[2])


@pytest.mark.parametrize("steps", [1, 5])
def test_a_low_temperature_does_not_hide_the_direction(steps):
    model, inputs, labels, lost_at = two_classes(torch.float32)
    cold = lambda x: model(x) / 1e-3
    right = inputs[lost_at > 0], labels[lost_at > 0]
    # plain cross-entropy has no gradient left at most of these inputs
    free = right[0].clone().requires_grad_(True)
    nn.functional.cross_entropy(cold(free), right[1], reduction="sum").backward()
    assert float((free.grad == 0).all(1).double().mean()) > 0.5
    for radius in RADII[1:]:
        expected = attack_accuracy(model, *right, radius=radius, steps=steps)
        assert attack_accuracy(cold, *right, radius=radius, steps=steps) == expected < 1


def test_the_batch_size_does_not_matter():
    model, inputs, labels, _ = two_classes()
    found = {attack_accuracy(model, inputs, labels, radius=0.1, steps=3, batch_size=size) for size in (7, 300, 1000)}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": torch.zeros(3, 2, dtype=torch.int64)}, r"inputs must be .* got 3 of torch.int64"),
        ({"inputs": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.int64)}, "at least one .* got 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(change, text):
    arguments = {"inputs": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 1]), "radius": 0.1} | change
    with pytest.raises(ValueError, match=text) as error:
        attack_accuracy(lambda x: x, **arguments)
    assert "\n" not in str(error.value)
