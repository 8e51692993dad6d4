"""Chunked cross-entropy: the numbers of the dense one, without its memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from gnc_models.classifiers.classifier import NORMALIZATIONS, make_classifier
from gnc_models.losses.chunked import chunked_cross_entropy
from gnc_models.losses.loss import make_loss

ROOT = Path(__file__).parents[3]
SHAPES = [(252, 507, 123), (1, 2, 2), (7, 3, 5), (64, 1000, 3)]  # batch, classes, dim


def draw(batch, classes, dim, dtype, seed=0):
    torch.manual_seed(seed)
    features = torch.randn(batch, dim, dtype=dtype, requires_grad=True)
    weight = (0.5 * torch.randn(classes, dim, dtype=dtype)).requires_grad_()
    return features, weight, torch.randint(classes, (batch,))


def ref_cross_entropy(features, weight, labels, *, temperature, normalises_rows):
    rows = functional.normalize(weight, dim=1) if normalises_rows else weight
    return functional.cross_entropy(features @ rows.T / temperature, labels)


def value_and_gradients(function, features, weight, labels, **settings):
    features.grad = weight.grad = None
    value = function(features, weight, labels, **settings)
    (3 * value).backward()  # a slope other than 1
    return value.detach(), features.grad, weight.grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalises_rows", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_value_and_gradients_are_those_of_dense_cross_entropy(shape, normalises_rows, dtype, tolerance):
    drawn, settings = draw(*shape, dtype), {"temperature": 0.2, "normalises_rows": normalises_rows}
    found = value_and_gradients(chunked_cross_entropy, *drawn, **settings)
    expected = value_and_gradients(ref_cross_entropy, *drawn, **settings)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).norm() <= tolerance * max(theirs.norm(), 1e-3)


@pytest.mark.parametrize("chunk_entries", [1, 506, 507, 5000, 252 * 507, 10**9])
def test_chunk_size_changes_nothing_but_rounding(chunk_entries):
    drawn = draw(252, 507, 123, torch.float64)
    settings = {"temperature": 0.2, "normalises_rows": True}
    whole = value_and_gradients(chunked_cross_entropy, *drawn, **settings)
    cut = value_and_gradients(chunked_cross_entropy, *drawn, **settings, chunk_entries=chunk_entries)
    for ours, theirs in zip(cut, whole, strict=True):
        assert (ours - theirs).norm() <= 1e-13 * theirs.norm()


@pytest.mark.parametrize("normalises_rows", [True, False])
def test_gradients_are_those_of_finite_differences(normalises_rows):
    features, weight, labels = draw(5, 7, 3, torch.float64)

    def value(features, weight):
        return chunked_cross_entropy(
            features, weight, labels, temperature=0.4, normalises_rows=normalises_rows, chunk_entries=14
        )

    assert torch.autograd.gradcheck(value, [features, weight])


def test_huge_logits_do_not_overflow():
    features, weight, labels = draw(6, 9, 4, torch.float32)
    settings = {"temperature": 1e-6, "normalises_rows": False}
    found = value_and_gradients(chunked_cross_entropy, features, weight, labels, **settings)
    expected = value_and_gradients(ref_cross_entropy, features, weight, labels, **settings)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.isfinite().all()
        assert torch.allclose(ours, theirs, rtol=1e-5)


def test_no_gradient_is_taken_where_none_can_be_asked_for(monkeypatch):
    features, weight, labels = draw(6, 9, 4, torch.float64)
    monkeypatch.setattr("gnc_models.losses.chunked._remove_radial", lambda *_: pytest.fail("took a gradient"))
    with torch.no_grad():
        chunked_cross_entropy(features, weight, labels, temperature=0.5, normalises_rows=True)


def test_only_gradients_that_are_wanted_are_computed_and_a_graph_can_be_kept():
    features, weight, labels = draw(6, 9, 4, torch.float64)
    settings = {"temperature": 0.5, "normalises_rows": True}
    chunked_cross_entropy(features, weight.detach(), labels, **settings).backward()
    first = features.grad.clone()
    features.grad = None
    value = chunked_cross_entropy(features, weight, labels, **settings)
    value.backward(retain_graph=True)
    assert torch.equal(features.grad, first)
    value.backward()
    assert torch.equal(features.grad, 2 * first)
    with torch.no_grad():
        assert torch.equal(chunked_cross_entropy(features, weight, labels, **settings), value)
    value = chunked_cross_entropy(features, weight, labels, **settings)
    (slope,) = torch.autograd.grad(value**2, features, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("classifier", ["linear", "fixed"])
def test_setting_chunked_is_the_same_loss_for_every_classifier(normalization, classifier):
    torch.manual_seed(0)
    head = make_classifier(
        classifier,
        6,
        4,
        normalization=normalization,
        temperature=None if normalization == "none" else 0.2,
        init_norm=0.7,
        **({"code": "random"} if classifier == "fixed" else {}),
    ).double()
    features, labels = torch.randn(9, 4, dtype=torch.float64, requires_grad=True), torch.arange(9) % 6
    results = []
    for form in ("dense", "chunked"):
        features.grad = head.weight.grad = None
        value = make_loss("cross_entropy", num_classes=6, feature_dim=4, cross_entropy=form)(
            features, labels, head, head.temperature
        )
        value.backward()
        results.append((value.detach(), features.grad, head.weight.grad))
    assert (results[0][2] is None) == (classifier == "fixed")
    for ours, theirs in zip(*results, strict=True):
        assert ours is theirs is None or torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def measured(way, classes, batch):
    sizes = ["--classes", str(classes), "--dim", "16", "--batch", str(batch), "--steps", "1"]
    command = [sys.executable, "-m", "benchmarks.chunked", "--here", "--way", way, *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def test_peak_memory_in_a_process_of_its_own_stays_bounded_where_dense_does_not():
    """64 million logits are 256 MiB: dense holds them and their gradient, chunked a buffer of 64 MiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"peak memory cannot be reset here: {error}")
    dense, chunked = measured("dense", 32_000, 2_048), measured("chunked", 32_000, 2_048)
    assert chunked["first_loss"] == pytest.approx(dense["first_loss"], rel=1e-5)
    assert dense["peak_above_mib"] > 2 * 250
    assert chunked["peak_above_mib"] < 64 + 40
