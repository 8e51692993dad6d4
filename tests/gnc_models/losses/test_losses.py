"""What every loss promises, inherited by each member of the family, and what only some of them do."""

import inspect
import math

import pytest
import torch
from torch import nn

from gnc_models.catalog.members import LOSSES, load
from gnc_models.catalog.members import LOSSES as MEMBERS
from gnc_models.classifiers.classifier import NORMALIZATIONS, make_classifier
from gnc_models.losses.loss import make_loss
from tests.gnc_models.ref_losses import REFERENCES, Batch

SETTINGS = {
    "label_smoothing": {"label_smoothing": 0.2},
    "focal": {"focal_gamma": 1.5},
    "hug_mhe": {"inter_weight": 0.3, "intra_weight": 0.7},
    "hug_mhs": {"inter_weight": 0.3, "intra_weight": 0.7},
    "hug_mgd": {"inter_weight": 0.3, "intra_weight": 0.7, "kernel_width": 0.8, "logdet_eps": 0.02},
    "cosface": {"margin_penalty": 0.3},
    "arcface": {"margin_penalty": 0.4},
}
DTYPES = (torch.float32, torch.float64)
CLASSES, DIM = 5, 3

every_loss = pytest.mark.parametrize("name", LOSSES)
every_pair = pytest.mark.parametrize(
    ("name", "normalization"),
    [
        (n, z)
        for n in LOSSES
        for z in NORMALIZATIONS
        if z == "both" or MEMBERS[n].only_both != MEMBERS["cosface"].only_both
    ],
)


def build(name, **changed):
    return make_loss(name, num_classes=CLASSES, feature_dim=DIM, **(SETTINGS.get(name, {}) | changed))


def make_rows(normalization="both", temperature=0.3, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    temperature = None if normalization == "none" else temperature
    head = make_classifier(
        "linear", CLASSES, DIM, normalization=normalization, temperature=temperature, init_norm=0.6
    ).to(dtype)
    return head


def make_batch(dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(11, DIM, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.tensor([0, 1, 2, 0, 3, 1, 0, 2, 1, 0, 3])  # class 4 has no sample, the others 2 to 4
    return features.requires_grad_(), labels


def as_lists(features, labels, head):
    return Batch(
        features.tolist(),
        labels.tolist(),
        head.weight.tolist(),
        head.normalises_features,
        head.normalises_weights,
        head.temperature,
    )


def test_every_loss_has_a_slow_twin():
    assert set(REFERENCES) == set(LOSSES)


@every_pair
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_is_that_of_the_slow_twin(name, normalization, dtype):
    head, (features, labels) = make_rows(normalization, dtype=dtype), make_batch(dtype)
    value = build(name)(features, labels, head, head.temperature)
    expected = REFERENCES[name](as_lists(features, labels, head), **SETTINGS.get(name, {}))
    assert value.shape == ()
    assert value.dtype == dtype
    assert value.item() == pytest.approx(expected, rel=1e-11 if dtype == torch.float64 else 2e-5)


@every_pair
def test_gradient_of_the_features_is_that_of_finite_differences(name, normalization):
    head, (features, labels) = make_rows(normalization), make_batch()
    loss = build(name)
    assert torch.autograd.gradcheck(lambda h: loss(h, labels, head, head.temperature), [features])
    loss(features, labels, head, head.temperature).backward()
    assert features.grad.abs().max() > 1e-4


@every_loss
def test_rows_get_a_gradient_unless_the_catalog_says_otherwise(name):
    head, (features, labels) = make_rows(), make_batch()
    build(name)(features, labels, head, 0.3).backward()
    moved = head.weight.grad is not None and bool(head.weight.grad.abs().max() > 1e-4)
    assert moved == MEMBERS[name].moves_rows


@every_loss
def test_temperature_matters_unless_the_catalog_says_otherwise(name):
    head, (features, labels) = make_rows(), make_batch()
    warm, cold = (build(name)(features, labels, head, temperature).item() for temperature in (0.5, 0.1))
    assert (warm == cold) == (name == "hardmax" or name.startswith("hug_"))


@every_loss
def test_a_loss_is_the_mean_over_its_samples_unless_the_catalog_says_otherwise(name):
    head, (features, labels) = make_rows(), make_batch()
    loss = build(name)
    parts = [loss(features[at], labels[at], head, 0.3).item() * len(labels[at]) for at in (slice(4), slice(4, None))]
    is_mean = sum(parts) == pytest.approx(loss(features, labels, head, 0.3).item() * len(labels), rel=1e-12)
    assert is_mean == (not MEMBERS[name].across_samples)


@every_pair
def test_order_of_samples_and_names_of_classes_do_not_matter(name, normalization):
    head, (features, labels) = make_rows(normalization), make_batch()
    loss, order, names = build(name), torch.randperm(len(labels)), torch.randperm(CLASSES)
    value = loss(features, labels, head, head.temperature).item()
    assert loss(features[order], labels[order], head, head.temperature).item() == pytest.approx(value, rel=1e-12)
    with torch.no_grad():
        head.weight[names] = head.weight.clone()
    assert loss(features, names[labels], head, head.temperature).item() == pytest.approx(value, rel=1e-12)


@every_pair
def test_turning_features_and_rows_together_changes_nothing(name, normalization):
    head, (features, labels) = make_rows(normalization), make_batch()
    loss = build(name)
    value = loss(features, labels, head, head.temperature).item()
    turn = torch.linalg.qr(torch.randn(DIM, DIM, dtype=torch.float64))[0]
    with torch.no_grad():
        head.weight.copy_(head.weight @ turn)
    assert loss(features @ turn, labels, head, head.temperature).item() == pytest.approx(value, rel=1e-11)


@every_pair
def test_length_of_what_is_normalised_does_not_matter(name, normalization):
    head, (features, labels) = make_rows(normalization), make_batch()
    loss = build(name)
    value = loss(features, labels, head, head.temperature).item()
    longer = loss(3 * features, labels, head, head.temperature).item()
    assert (longer == pytest.approx(value, rel=1e-11)) == head.normalises_features
    with torch.no_grad():
        head.weight *= 3
    longer = loss(features, labels, head, head.temperature).item()
    assert (longer == pytest.approx(value, rel=1e-11)) == head.normalises_weights


@every_loss
def test_loss_has_no_state_and_draws_no_random_number(name):
    before = torch.random.get_rng_state()
    loss = build(name)
    assert isinstance(loss, nn.Module)
    assert list(loss.parameters()) == []
    assert dict(loss.state_dict()) == {}
    build(name).load_state_dict(loss.state_dict())
    head, (features, labels) = make_rows(), make_batch()
    before_call = torch.random.get_rng_state()
    first, again = loss(features, labels, head, 0.3), build(name)(features, labels, head, 0.3)
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before_call)
    torch.random.set_rng_state(before)
    build(name)
    assert torch.equal(torch.random.get_rng_state(), before)


@every_loss
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_descent_lowers_the_loss(name, dtype):
    head, (features, labels) = make_rows(dtype=dtype), make_batch(dtype)
    loss = build(name)
    optimizer = torch.optim.SGD([features, head.weight], lr=0.01)
    values = []
    for _ in range(60):
        value = loss(features, labels, head, 0.3)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
    assert features.isfinite().all()
    assert head.weight.isfinite().all()


@every_loss
def test_collapsed_features_give_a_finite_loss_and_gradient(name):
    head, (_, labels) = make_rows(dtype=torch.float32), make_batch()
    features = (2 * head.weight[labels]).detach().requires_grad_()  # every cosine with the own row is 1
    value = build(name)(features, labels, head, 0.3)
    value.backward()
    assert value.isfinite()
    assert features.grad.isfinite().all()
    assert head.weight.grad is None or head.weight.grad.isfinite().all()


@every_loss
def test_autocast_costs_no_digits_but_those_of_dense_logits(name):
    head, (features, labels) = make_rows(dtype=torch.float32), make_batch(torch.float32)
    loss = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(features.bfloat16(), labels, head, 0.3)
    plain = loss(features.bfloat16().float(), labels, head, 0.3)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain) == (name != "cross_entropy")
    assert cast.item() == pytest.approx(plain.item(), rel=0.02)


@pytest.mark.parametrize("classifier", ["class_mean", "fixed"])
@every_loss
def test_every_loss_trains_features_against_rows_that_no_gradient_moves(name, classifier):
    torch.manual_seed(0)
    settings = {"code": "random"} if classifier == "fixed" else {}
    head = make_classifier(classifier, CLASSES, DIM, normalization="both", temperature=0.3, init_norm=0.5, **settings)
    features, labels = make_batch(torch.float32)
    build(name)(features, labels, head, 0.3).backward()
    assert features.grad.abs().max() > 1e-4
    assert head.weight.grad is None


def test_cross_entropy_is_to_the_bit_what_training_computed_before():
    head, (features, labels) = make_rows(dtype=torch.float32), make_batch(torch.float32)
    assert torch.equal(
        build("cross_entropy")(features, labels, head, 0.3), nn.functional.cross_entropy(head(features), labels)
    )


def separated(temperature, dtype=torch.float32):
    """Two opposite rows, each with a feature on it: the gap is 2 and the cross-entropy log(1 + exp(-2 / temperature))."""
    head = make_classifier("linear", 2, 2, normalization="both", temperature=temperature, init_norm=0.5).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    return head, torch.tensor([[1.0, 0.2], [-1.0, 0.2]], dtype=dtype, requires_grad=True), torch.tensor([0, 1])


def test_log_cross_entropy_is_right_where_the_cross_entropy_underflows():
    temperature = 2 / (40 * math.log(10)) / math.sqrt(1.04)
    head, features, labels = separated(temperature)
    size = {"num_classes": 2, "feature_dim": 2}
    plain = make_loss("cross_entropy", **size)(features, labels, head, temperature)
    assert plain.item() == 0.0
    value = make_loss("log_cross_entropy", **size)(features, labels, head, temperature)
    value.backward()
    log10 = value.item() / temperature / math.log(10)
    assert log10 == pytest.approx(-40, rel=1e-6)
    # the value is -2 cos(angle); each of the two samples has half of it, and cos has slope sin(angle) / length
    assert features.grad.norm(dim=1).tolist() == pytest.approx([0.2 / 1.04] * 2, rel=1e-5)


def test_log_cross_entropy_has_the_gradient_of_the_logarithm():
    head, (features, labels) = make_rows(), make_batch()
    build("log_cross_entropy")(features, labels, head, 0.3).backward()
    found = features.grad.clone()
    features.grad = None
    (0.3 * build("cross_entropy")(features, labels, head, 0.3).log()).backward()
    assert torch.allclose(found, features.grad, rtol=1e-10, atol=1e-13)


def test_log_cross_entropy_tends_to_hardmax_where_every_sample_is_on_its_side():
    head, (_, labels) = make_rows(), make_batch()
    features = head.weight[labels].detach() + 0.02 * make_batch()[0].detach()
    features.requires_grad_()
    limit = build("hardmax")(features, labels, head, 0.3)
    limit.backward()
    slope, gaps = features.grad.clone(), []
    assert limit.item() < -0.05
    for temperature in (1e-2, 1e-3, 1e-4):
        features.grad = None
        value = build("log_cross_entropy")(features, labels, head, temperature)
        value.backward()
        gaps.append(abs(value.item() - limit.item()))
        # between one sample with one wrong class and all of them
        assert gaps[-1] <= temperature * max(math.log(len(labels)), math.log(CLASSES - 1))
    assert gaps[0] > gaps[1] > gaps[2]
    assert torch.allclose(features.grad, slope, atol=1e-6)


def test_log_cross_entropy_tends_to_zero_where_a_sample_is_on_the_wrong_side():
    head, (features, labels) = make_rows(), make_batch()
    assert build("hardmax")(features, labels, head, 0.3).item() > 0.5
    values = [build("log_cross_entropy")(features, labels, head, t).item() for t in (1e-2, 1e-4, 1e-6)]
    assert values[0] > values[1] > values[2] > 0
    assert values[2] < 2e-5


def test_label_smoothing_is_smallest_at_logits_of_its_closed_form():
    # softmax = 1 - s + s/K for the label: logit gap log((1 - s + s/K) / (s/K)); the loss there is the entropy
    smoothing, gap = 0.2, math.log((0.8 + 0.04) / 0.04)
    head = make_classifier("linear", 5, 5, normalization="none", temperature=None, init_norm=1.0).double()
    with torch.no_grad():
        head.weight.copy_(torch.eye(5))
    features = (gap * torch.eye(5, dtype=torch.float64)).requires_grad_()
    loss = make_loss("label_smoothing", num_classes=5, feature_dim=5, label_smoothing=smoothing)
    value = loss(features, torch.arange(5), head, 1.0)
    value.backward()
    assert value.item() == pytest.approx(-0.84 * math.log(0.84) - 4 * 0.04 * math.log(0.04), rel=1e-12)
    assert features.grad.abs().max().item() == pytest.approx(0, abs=1e-15)


def test_focal_loss_of_two_equal_logits_and_of_a_sure_sample():
    head, features, labels = separated(1.0, torch.float64)
    flat = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    for gamma in (0.5, 2.0, 5.0):
        loss = make_loss("focal", num_classes=2, feature_dim=2, focal_gamma=gamma)
        assert loss(flat, labels, head, 1.0).item() == pytest.approx(0.5**gamma * math.log(2), rel=1e-12)
        features.grad = None
        loss(features, labels, head, 1e-4).backward()
        assert features.grad.isfinite().all()


def test_squared_error_is_zero_at_one_hot_logits_and_one_half_at_none():
    head = make_classifier("linear", 4, 4, normalization="none", temperature=None, init_norm=1.0)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4))
    loss = make_loss("mse", num_classes=4, feature_dim=4)
    assert loss(torch.eye(4), torch.arange(4), head, 1.0).item() == 0.0
    assert loss(torch.zeros(4, 4), torch.arange(4), head, 1.0).item() == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("focal", {"focal_gamma": 0.0}, "focal_gamma must be above 0, got 0.0. For 0 use loss 'cross_entropy'"),
        ("focal", {"focal_gamma": math.nan}, "focal_gamma must be above 0, got nan"),
        ("hug_mhe", {"inter_weight": -0.1}, "inter_weight must be above 0, got -0.1"),
        ("hug_mhs", {"intra_weight": 0.0}, "intra_weight must be above 0, got 0.0"),
        ("hug_mgd", {"logdet_eps": 1e-12}, "logdet_eps must be above 1e-10, got 1e-12"),
        ("cosface", {"margin_penalty": 0.0}, "margin_penalty must be above 0 and below 2, got 0.0"),
        ("arcface", {"margin_penalty": 3.2}, "margin_penalty must be above 0 and below 3.14159, got 3.2"),
    ],
)
def test_bad_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build(name, **settings)


@every_loss
def test_only_the_epsilon_of_the_determinant_has_no_default(name):
    parameters = inspect.signature(load("gnc_models.losses", LOSSES[name].made_by)).parameters
    required = {key for key, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    assert required - {"num_classes", "feature_dim"} == ({"logdet_eps"} if name == "hug_mgd" else set())
