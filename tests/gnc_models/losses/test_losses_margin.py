"""Losses from pytorch-metric-learning: on the classifier's rows, and safe where collapse leads."""

import math

import pytest
import torch

from gnc_models.classifiers.classifier import make_classifier
from gnc_models.losses.loss import make_loss


def build(name, **settings):
    return make_loss(name, num_classes=4, feature_dim=3, **settings)


def head_of(dtype=torch.float64):
    torch.manual_seed(0)
    return make_classifier("linear", 4, 3, normalization="both", temperature=0.1, init_norm=0.5).to(dtype)


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(10, 3, generator=generator, dtype=dtype)
    return features.requires_grad_(), torch.arange(10) % 4


@pytest.mark.parametrize("name", ["cosface", "arcface"])
def test_rows_that_are_trained_are_those_of_the_classifier(name):
    head, (features, labels) = head_of(), batch()
    loss = build(name)

    def value(rows):
        original, head.weight.data = head.weight.data, rows.data
        found = loss(features, labels, head, 0.2).item()
        head.weight.data = original
        return found

    loss(features, labels, head, 0.2).backward()
    step = 1e-6 * torch.randn(4, 3, dtype=torch.float64)
    change = (value(head.weight + step) - value(head.weight - step)) / 2
    assert change == pytest.approx(float((head.weight.grad * step).sum()), rel=1e-6)
    # rows matter through their direction alone
    assert (head.weight.grad * head.weight).sum(1).tolist() == pytest.approx([0.0] * 4, abs=1e-12)


@pytest.mark.parametrize("name", ["cosface", "arcface"])
def test_without_a_margin_left_it_is_the_cross_entropy(name):
    head, (features, labels) = head_of(), batch()
    plain = build("cross_entropy")(features, labels, head, 0.3).item()
    small = build(name, margin_penalty=1e-9)(features, labels, head, 0.3).item()
    assert small == pytest.approx(plain, rel=1e-7)
    larger = [build(name, margin_penalty=m)(features, labels, head, 0.3).item() for m in (0.1, 0.3, 0.5)]
    assert plain < larger[0] < larger[1] < larger[2]


def test_arcface_margin_is_in_radians_and_passes_pi_as_the_library_has_it():
    head, labels = head_of(), torch.arange(4)
    features = (-head.weight).detach() + 0.01  # nearly opposite its row: angle + 0.5 is above pi
    cosines = torch.nn.functional.normalize(features, dim=1) @ torch.nn.functional.normalize(head.weight, dim=1).T
    own = cosines.diagonal() - 0.5 * math.sin(0.5)
    logits = (cosines - cosines.diagonal().diag() + own.diag()) / 0.3
    assert (cosines.diagonal().arccos() + 0.5 > math.pi).all()
    value = build("arcface", margin_penalty=0.5)(features, labels, head, 0.3)
    assert value.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arcface_gradient_is_finite_on_the_own_row_and_opposite_to_it(dtype):
    head = head_of(dtype)
    features = torch.cat([head.weight, -head.weight]).detach().requires_grad_()
    build("arcface")(features, torch.arange(4).repeat(2), head, 0.05).backward()
    assert features.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_supervised_contrastive_leaves_out_samples_without_another_of_their_class():
    head, (features, _) = head_of(), batch()
    loss, labels = build("supervised_contrastive"), torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])
    cosines = torch.nn.functional.normalize(features[:8], dim=1)
    cosines = (cosines @ cosines.T / 0.2).fill_diagonal_(-torch.inf)
    shares = cosines.log_softmax(1)
    positives = (labels[:, None] == labels).fill_diagonal_(False)
    each = -torch.where(positives, shares, 0.0).sum(1)[:7] / positives.sum(1)[:7]
    assert loss(features[:8], labels, head, 0.2).item() == pytest.approx(each.mean().item(), rel=1e-9)


def test_supervised_contrastive_of_a_batch_without_pairs_is_zero_and_can_be_differentiated():
    head, (features, _) = head_of(), batch()
    value = build("supervised_contrastive")(features[:4], torch.arange(4), head, 0.2)
    value.backward()
    assert value.item() == 0.0
    assert features.grad.abs().max() == 0.0
