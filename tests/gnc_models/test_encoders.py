"""Every encoder on every shape it takes: features, gradients, and the linear map at the end."""

import pytest
import torch
from torch import nn

from gnc_models.encoders import ENCODERS, _ChannelsLast, make_encoder

CASES = [
    ("small_resnet", (1, 16, 16), 4, 1),
    ("small_resnet", (1, 32, 32), 6, 2),
    ("small_resnet", (3, 20, 16), 4, 1),
    ("mlp", (11,), 16, 1),
    ("mlp", (11,), 16, 3),
    ("mlp", (1, 16, 16), 8, 2),
    ("resnet18", (1, 16, 16), None, None),
    ("resnet18", (3, 12, 20), None, None),
]
every_case = pytest.mark.parametrize(("name", "input_shape", "width", "depth"), CASES)


def build(name, input_shape, width, depth, *, feature_dim=5, seed=0):
    torch.manual_seed(seed)
    return make_encoder(name, input_shape=input_shape, feature_dim=feature_dim, width=width, depth=depth)


def batch(input_shape, size=4):
    return torch.randn(size, *input_shape, generator=torch.Generator().manual_seed(1))


def test_every_encoder_is_tested_here():
    assert {case[0] for case in CASES} == set(ENCODERS)


@every_case
@pytest.mark.parametrize("feature_dim", [2, 10])
def test_features_have_the_dimension_asked_for(name, input_shape, width, depth, feature_dim):
    features = build(name, input_shape, width, depth, feature_dim=feature_dim)(batch(input_shape))
    assert features.shape == (4, feature_dim)
    assert features.isfinite().all()
    assert features.std(dim=0).min() > 1e-3


@every_case
def test_gradient_reaches_every_parameter(name, input_shape, width, depth):
    encoder = build(name, input_shape, width, depth)
    encoder(batch(input_shape)).square().sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


@every_case
def test_last_layer_is_a_linear_map(name, input_shape, width, depth):
    encoder = build(name, input_shape, width, depth).eval()
    last = list(encoder.modules())[-1]
    assert isinstance(last, nn.Linear)
    inputs, before = batch(input_shape), encoder(batch(input_shape))
    with torch.no_grad():
        last.weight *= -2
        last.bias *= -2
    assert torch.allclose(encoder(inputs), -2 * before, rtol=1e-4, atol=1e-5)


@every_case
def test_same_seed_gives_the_same_network_and_another_seed_another(name, input_shape, width, depth):
    first, again, other = (build(name, input_shape, width, depth, seed=seed) for seed in (0, 0, 1))
    inputs = batch(input_shape)
    assert torch.equal(first(inputs), again(inputs))
    assert not torch.allclose(first(inputs), other(inputs))


@every_case
def test_evaluation_does_not_mix_samples(name, input_shape, width, depth):
    encoder, inputs = build(name, input_shape, width, depth).eval(), batch(input_shape)
    assert torch.allclose(encoder(inputs)[:2], encoder(inputs[:2]), rtol=1e-4, atol=1e-5)


@every_case
def test_parameters_are_contiguous_as_checkpoints_hold_them(name, input_shape, width, depth):
    assert all(parameter.is_contiguous() for parameter in build(name, input_shape, width, depth).parameters())


def test_memory_layout_of_activations_changes_no_feature():
    encoder, inputs = build("small_resnet", (1, 16, 16), 4, 1).double(), batch((1, 16, 16)).double()
    laid_out = encoder(inputs)
    plain = nn.Sequential(*[layer for layer in encoder if not isinstance(layer, _ChannelsLast)])
    assert len(plain) == len(encoder) - 1
    assert torch.allclose(plain(inputs), laid_out, rtol=1e-10, atol=1e-12)


def test_small_resnet_widens_and_halves_from_stage_to_stage():
    encoder = build("small_resnet", (1, 32, 32), 6, 2)
    shapes = []
    for layer in encoder:
        if type(layer).__name__ == "_BasicBlock":
            layer.register_forward_hook(lambda _layer, _inputs, output: shapes.append(tuple(output.shape[1:])))
    encoder(batch((1, 32, 32)))
    assert shapes == [(6, 16, 16)] * 2 + [(12, 8, 8)] * 2 + [(24, 4, 4)] * 2


def test_resnet18_keeps_small_images_large():
    encoder = build("resnet18", (1, 16, 16), None, None)
    shapes = []
    encoder.layer1.register_forward_hook(lambda _layer, _inputs, output: shapes.append(tuple(output.shape[1:])))
    encoder(batch((1, 16, 16), 2))
    assert shapes == [(64, 16, 16)]


@pytest.mark.parametrize(
    ("name", "width", "depth", "message"),
    [
        ("vgg", 4, 1, "encoder must be one of .*got 'vgg'"),
        ("small_resnet", None, 1, "width must be at least 1 .*got None"),
        ("small_resnet", 4, 0, "depth must be at least 1 .*got 0"),
        ("mlp", 4, None, "depth must be at least 1 .*got None"),
        ("resnet18", 4, None, "width must be left out for resnet18, got 4"),
        ("resnet18", None, 2, "depth must be left out for resnet18, got 2"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(name, width, depth, message):
    with pytest.raises(ValueError, match=message):
        build(name, (1, 16, 16), width, depth)


@pytest.mark.parametrize("name", ["small_resnet", "resnet18"])
def test_vectors_are_refused_where_images_are_needed(name):
    width, depth = (4, 1) if name == "small_resnet" else (None, None)
    with pytest.raises(ValueError, match=rf"input_shape must be \(channels, height, width\) for {name}, got \(11,\)"):
        build(name, (11,), width, depth)


def test_feature_dim_of_zero_is_refused():
    with pytest.raises(ValueError, match="feature_dim must be at least 1, got 0"):
        build("mlp", (11,), 4, 1, feature_dim=0)
