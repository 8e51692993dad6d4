"""Every encoder with every normalization layer it can have: one contract; then what is particular to each."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from gnc_models.catalog.members import ENCODERS as MEMBERS
from gnc_models.encoders.building_blocks import MAP_NORMS, VECTOR_NORMS, ChannelOffset, even_parts
from gnc_models.encoders.registry import ENCODERS, feature_stages, make_encoder
from gnc_models.encoders.small import BasicBlock, ChannelsLast

NORMS = {"batch", "group", "layer", "none"}
SMALL = [
    ("small_resnet", (1, 16, 16), {"width": 16, "depth": 1}),
    ("small_resnet", (3, 20, 16), {"width": 5, "depth": 2}),
    ("mlp", (11,), {"width": 16, "depth": 3}),
    ("mlp", (1, 16, 16), {"width": 8, "depth": 1}),
    ("vit", (1, 16, 16), {"width": 64, "depth": 2}),
    ("vit", (3, 28, 28), {"width": 12, "depth": 1}),
    ("transformer", (9,), {"width": 64, "depth": 2, "vocabulary": 30}),
]
FREE = ("unconstrained", (1,), {"num_samples": 20})
LARGE = [(name, (1, 16, 16), {}) for name in ENCODERS if name not in {case[0] for case in [*SMALL, FREE]}]
# Every norm layer is tested in every small network and in one large one; building the others takes a second each.
LAYERED = [
    (*case, norm)
    for case in SMALL + LARGE
    for norm in MEMBERS[case[0]].norm_layers
    if case not in LARGE or case[0] == "resnet18" or norm in {"batch", "none"}
]
FAMILY = [*LAYERED, (*FREE, None)]
QUICK = [case for case in FAMILY if case[:3] not in LARGE]
# Group and layer norm start as batch norm does, so what is drawn is tested without them where building is slow.
DRAWN = [*QUICK, *[case for case in LAYERED if case[:3] in LARGE and case[3] in {"batch", "none"}]]
FITTED = [case for case in QUICK if case[1] in {(1, 16, 16), (9,), (1,)}]
FEATURE_DIM = 5


def named(case):
    name, shape, _, norm = case
    return f"{name}-{'x'.join(map(str, shape))}-{norm}"


def build(case, *, seed=0, feature_dim=FEATURE_DIM):
    name, input_shape, settings, norm_layer = case
    torch.manual_seed(seed)
    return make_encoder(name, input_shape=input_shape, feature_dim=feature_dim, norm_layer=norm_layer, **settings)


def batch(case, size=4):
    _, input_shape, settings, _ = case
    generator = torch.Generator().manual_seed(1)
    if "num_samples" in settings:
        return torch.randperm(settings["num_samples"], generator=generator)[:size, None]
    if "vocabulary" in settings:
        return torch.randint(settings["vocabulary"], (size, *input_shape), generator=generator)
    return torch.randn(size, *input_shape, generator=generator)


def agree(features, others):
    """To single precision, in the unit of the features: an untrained mobilenet_v2's are 1e-10 in evaluation mode."""
    return bool((features - others).abs().max() <= 1e-4 * features.abs().max())


class Member:
    """An encoder, its features of one batch in training mode and their gradients: tests that write take a copy."""

    def __init__(self, case):
        self.case, self.inputs, self.encoder = case, batch(case), build(case)
        self.features = self.encoder(self.inputs)
        self.features.square().sum().backward()


# pytest groups tests by what a module's fixture is given, so one member is held at a time and built once.
@pytest.fixture(scope="module", params=FAMILY, ids=named)
def member(request):
    return Member(request.param)


every_layered_member = pytest.mark.parametrize("member", LAYERED, ids=named, indirect=True, scope="module")


# The contract of the family


def test_every_encoder_is_tested_here():
    assert {case[0] for case in FAMILY} == set(ENCODERS)


def test_features_have_the_dimension_asked_for_and_differ_between_samples(member):
    assert member.features.shape == (4, FEATURE_DIM)
    assert member.features.dtype == torch.float32
    assert member.features.isfinite().all()
    assert member.features.std(dim=0).min() > 1e-3


def test_gradient_reaches_every_parameter(member):
    parameters = member.encoder.named_parameters()
    silent = [name for name, p in parameters if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


@every_layered_member
@torch.no_grad()
def test_last_layer_is_a_linear_map(member):
    encoder = copy.deepcopy(member.encoder).eval()
    last = list(encoder.modules())[-1]
    assert isinstance(last, nn.Linear)
    before = encoder(member.inputs)
    last.weight *= -2
    last.bias *= -2
    assert agree(encoder(member.inputs), -2 * before)


@torch.no_grad()
def test_evaluation_does_not_mix_samples(member):
    encoder = copy.deepcopy(member.encoder).eval()
    assert agree(encoder(member.inputs)[:2], encoder(member.inputs[:2]))


@torch.no_grad()
def test_training_mixes_samples_through_batch_norm_alone(member):
    part = copy.deepcopy(member.encoder)(member.inputs[:2])
    assert agree(member.features[:2], part) == (member.case[3] != "batch")


def test_parameters_are_contiguous_as_checkpoints_hold_them(member):
    assert all(parameter.is_contiguous() for parameter in member.encoder.parameters())


@every_layered_member
@torch.no_grad()
def test_stages_are_passed_in_their_order_and_end_in_the_features(member):
    encoder, passed = copy.deepcopy(member.encoder).eval(), []
    stages = feature_stages(member.case[0], encoder)
    assert len(stages) >= 2
    for name, module in stages:
        module.register_forward_hook(lambda _module, _inputs, output, name=name: passed.append((name, output.clone())))
    features = encoder(member.inputs)
    assert [name for name, _ in passed] == [name for name, _ in stages]
    assert len({name for name, _ in stages}) == len(stages)
    assert all(len(output) == len(features) for _, output in passed)
    assert passed[-1][0] == "features"
    assert torch.equal(passed[-1][1], features)


@pytest.mark.parametrize("case", DRAWN, ids=named)
@torch.no_grad()
def test_seed_decides_the_network_and_its_state_makes_another_equal(case):
    first, again, other = build(case), build(case), build(case, seed=1).eval()
    state = first.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())
    assert list(again.eval().state_dict()) == list(other.state_dict()) == list(state)
    features = again(batch(case))
    assert not agree(other(batch(case)), features)
    other.load_state_dict(state)
    assert torch.equal(other(batch(case)), features)


@pytest.mark.parametrize("case", FITTED, ids=named)
def test_eighty_steps_fit_a_batch(case):
    encoder, inputs = build(case), batch(case, 8)
    classifier = nn.Linear(FEATURE_DIM, 8)
    optimizer = torch.optim.Adam([*encoder.parameters(), *classifier.parameters()], lr=0.01)
    losses = []
    for _ in range(80):
        loss = nn.functional.cross_entropy(classifier(encoder(inputs)), torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("case", [case for case in QUICK if case[:3] != FREE], ids=named)
@torch.no_grad()
def test_other_precisions_stay_near(case):
    encoder, inputs = build(case).eval(), batch(case)
    single = encoder(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(inputs)
    double = encoder.double()(inputs.double() if inputs.is_floating_point() else inputs)
    assert (half.dtype, double.dtype) == (torch.bfloat16, torch.float64)
    assert torch.allclose(half.float(), single, rtol=0.1, atol=0.1)
    assert agree(double.float(), single)


# Normalization layers


def norms_of(encoder):
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, ChannelOffset)
    return {name: layer for name, layer in encoder.named_modules() if isinstance(layer, kinds)}


@every_layered_member
def test_every_normalization_layer_is_of_the_kind_asked_for(member):
    name, shape, settings, norm = member.case
    with torch.device("meta"):
        own = norms_of(build((name, shape, settings, MEMBERS[name].norm_layers[0])))
    layers = norms_of(member.encoder)
    assert list(layers) == list(own)
    offered = VECTOR_NORMS if name in {"mlp", "vit", "transformer"} else MAP_NORMS
    for layer in layers.values():
        wanted = offered[norm](len(layer.bias))
        assert type(layer) is type(wanted)
        assert getattr(layer, "num_groups", 0) == getattr(wanted, "num_groups", 0)


def test_groups_divide_the_channels_and_hold_eight_or_all():
    for channels in (4, 5, 8, 16, 24, 64, 144, 512, 1280, 2048):
        groups = MAP_NORMS["group"](channels).num_groups
        assert channels % groups == 0
        assert groups <= 32
        assert channels // groups >= min(8, channels)
    assert [MAP_NORMS["group"](channels).num_groups for channels in (5, 16, 64, 2048)] == [1, 2, 8, 32]


@pytest.mark.parametrize("norm", sorted(NORMS - {"batch"}))
def test_layer_over_maps_and_vectors_agrees(norm):
    vectors = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    over_maps, over_vectors = MAP_NORMS[norm](24), VECTOR_NORMS[norm](24)
    assert torch.allclose(over_maps(vectors[:, :, None, None])[:, :, 0, 0], over_vectors(vectors), atol=1e-6)


@torch.no_grad()
def stage_scales(name, encoder, inputs):
    scales = []
    for _, module in feature_stages(name, encoder)[:-1]:
        module.register_forward_hook(lambda _module, _inputs, output: scales.append(output.square().mean().sqrt()))
    encoder(inputs)
    return scales


@pytest.mark.parametrize("case", [case for case in LAYERED if case[3] == "none"], ids=named)
def test_without_normalization_the_scale_is_kept_from_stage_to_stage(case):
    scales = stage_scales(case[0], build(case), batch(case))
    assert all(0.3 < scale < 4 for scale in scales), scales


@torch.no_grad()
def test_residual_branches_at_full_scale_would_grow_instead():
    case = ("resnet34", (1, 16, 16), {}, "none")
    encoder = build(case)
    for block in encoder.modules():
        if hasattr(block, "conv2"):
            block.conv2.weight *= 16**0.5
    assert stage_scales(case[0], encoder, batch(case))[-1] > 10


# torchvision's networks


@pytest.mark.parametrize("name", [case[0] for case in LARGE])
@torch.no_grad()
def test_large_networks_keep_small_images_large(name):
    encoder = build((name, (3, 32, 32), {}, "batch")).eval()
    sides = []
    for _, module in feature_stages(name, encoder)[:-1]:
        module.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
    for side in (16, 28, 32):
        sides.clear()
        assert encoder(torch.zeros(2, 3, side, side)).shape == (2, FEATURE_DIM)
        assert sides[0] == side
        assert sides[-1] in (side // 8, side // 8 + 1)


def test_resnet18_takes_oblong_images():
    encoder = build(("resnet18", (3, 12, 20), {}, "batch"))
    assert encoder(torch.randn(2, 3, 12, 20)).shape == (2, FEATURE_DIM)


@pytest.mark.parametrize("name", [case[0] for case in LARGE])
def test_large_networks_are_torchvisions_but_for_the_stem(name):
    original = getattr(models, {"resnext50": "resnext50_32x4d"}.get(name, name))
    with torch.device("meta"):
        published = {key: value.shape for key, value in original(num_classes=FEATURE_DIM).state_dict().items()}
        encoder = build((name, (1, 16, 16), {}, "batch"))
    ours = {key: value.shape for key, value in encoder.state_dict().items()}
    assert list(ours) == list(published)
    assert len([key for key in ours if ours[key] != published[key]]) == 1


# Small networks


def test_memory_layout_of_activations_changes_no_feature():
    case = ("small_resnet", (1, 16, 16), {"width": 4, "depth": 1}, "batch")
    encoder, inputs = build(case).double(), batch(case).double()
    laid_out = encoder(inputs)
    plain = nn.Sequential(*[layer for layer in encoder if not isinstance(layer, ChannelsLast)])
    assert len(plain) == len(encoder) - 1
    assert torch.allclose(plain(inputs), laid_out, rtol=1e-10, atol=1e-12)


def test_small_resnet_widens_and_halves_from_stage_to_stage():
    encoder = build(("small_resnet", (1, 32, 32), {"width": 6, "depth": 2}, "batch"))
    shapes = []
    for layer in encoder:
        if isinstance(layer, BasicBlock):
            layer.register_forward_hook(lambda _layer, _inputs, output: shapes.append(tuple(output.shape[1:])))
    encoder(torch.zeros(2, 1, 32, 32))
    assert shapes == [(6, 16, 16)] * 2 + [(12, 8, 8)] * 2 + [(24, 4, 4)] * 2


def test_names_that_kept_models_use_stay():
    small = build(("small_resnet", (1, 16, 16), {"width": 4, "depth": 1}, None)).state_dict()
    mlp = build(("mlp", (11,), {"width": 4, "depth": 1}, None)).state_dict()
    assert {"0.weight", "2.running_mean", "4.conv1.weight", "5.norm2.bias", "6.shortcut.0.weight", "9.bias"} <= set(
        small
    )
    assert {"1.weight", "2.weight", "2.running_var", "4.weight", "4.bias"} <= set(mlp)


@pytest.mark.parametrize(("size", "parts"), [(64, 2), (96, 3), (48, 1), (33, 1), (7, 1), (128, 4)])
def test_attention_heads_share_the_width_evenly(size, parts):
    assert even_parts(size, least=32, most=size) == parts


# Transformers


def patches_in_another_order(images, patch=4):
    tiles = images.unfold(2, patch, patch).unfold(3, patch, patch)  # batch, channels, rows, columns, patch, patch
    return tiles.flip(2).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


@torch.no_grad()
def test_vit_knows_the_place_of_a_patch_by_its_embedding_alone():
    case = ("vit", (1, 16, 16), {"width": 64, "depth": 2}, "layer")
    encoder, images = build(case).eval(), batch(case)
    moved = patches_in_another_order(images)
    assert not torch.allclose(encoder(images), encoder(moved), atol=1e-3)
    encoder.encoder.pos_embedding.zero_()
    assert torch.allclose(encoder(images), encoder(moved), atol=1e-5)


@torch.no_grad()
def test_no_state_of_the_transformer_depends_on_a_later_token():
    case = ("transformer", (9,), {"width": 64, "depth": 2, "vocabulary": 30}, None)
    encoder, tokens = build(case).eval(), batch(case)
    before = encoder.hidden(tokens)
    for place in range(9):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 30
        moved = (encoder.hidden(changed) - before).abs().amax(dim=(0, 2))
        assert moved[:place].max() < 1e-6 if place else True
        assert moved[place:].min() > 1e-5


@torch.no_grad()
def test_transformer_reads_the_order_of_tokens():
    case = ("transformer", (9,), {"width": 64, "depth": 1, "vocabulary": 30}, None)
    encoder, tokens = build(case).eval(), batch(case)
    swapped = tokens[:, [3, 1, 2, 0, *range(4, 9)]]
    assert not torch.allclose(encoder(tokens), encoder(swapped), atol=1e-6)
    encoder.positions.zero_()
    assert torch.allclose(encoder(tokens), encoder(swapped), atol=1e-6)


# Unconstrained features


def test_free_features_are_rows_that_only_their_own_sample_moves():
    encoder = build(("unconstrained", (1,), {"num_samples": 6}, None))
    features = encoder(torch.tensor([4, 0, 4]))
    assert torch.equal(features, encoder.features[[4, 0, 4]])
    assert torch.equal(features, encoder(torch.tensor([[4], [0], [4]])))
    features.sum().backward()
    assert encoder.features.grad[:, 0].tolist() == [1, 0, 0, 0, 2, 0]


def test_free_features_start_with_mean_square_norm_one():
    encoder = build(("unconstrained", (1,), {"num_samples": 4000}, None), feature_dim=20)
    assert encoder.features.square().sum(1).mean().item() == pytest.approx(1, abs=0.02)


# Refusals


@pytest.mark.parametrize(
    ("name", "input_shape", "settings", "message"),
    [
        ("resnext50", (3, 7, 16), {}, r"at least 8 pixels per side for resnext50, got \(3, 7, 16\)"),
        ("vit", (1, 16, 20), {"width": 4, "depth": 1}, r"square with a multiple of 4 .*got \(1, 16, 20\)"),
        ("vit", (1, 18, 18), {"width": 4, "depth": 1}, r"square with a multiple of 4 .*got \(1, 18, 18\)"),
        ("transformer", (1, 8, 8), {"width": 4, "depth": 1, "vocabulary": 9}, r"input_shape must be \(length,\)"),
        ("unconstrained", (3,), {"num_samples": 4}, r"input_shape must be \(1,\) for unconstrained, got \(3,\)"),
        *[(name, (11,), s, rf"must be \(channels, height, width\) for {name}, got \(11,\)") for name, _, s in LARGE],
    ],
)
def test_inputs_of_another_shape_are_refused(name, input_shape, settings, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(name, input_shape=input_shape, feature_dim=5, **settings)


def test_stages_of_free_features_are_refused():
    with pytest.raises(ValueError, match="encoder must have layers, got 'unconstrained'"):
        feature_stages("unconstrained", build(("unconstrained", (1,), {"num_samples": 3}, None)))
