"""Collapse at a layer: the same as at the last one, memory that a wide layer needs, and what does not exist."""

import pytest
import torch

import gnc_models.geometry.pairwise
from gnc_models.metrics.layers import layer_columns, measure_layer
from tests.gnc_models.known_codes import random_rows, simplex
from tests.gnc_models.metrics.test_metrics import measure, trained_like


@pytest.mark.parametrize("entries", [1 << 18, 60])
def test_the_last_layer_is_measured_as_by_the_columns(entries, monkeypatch):
    features, labels, weights = trained_like(12, 5, noise=0.4)
    expected = measure(features, labels, weights, "none").values
    monkeypatch.setattr(gnc_models.geometry.pairwise, "TILE_ENTRIES", entries)
    found = measure_layer(features, labels, 12)
    assert found["gnc1_quotient"] == pytest.approx(expected["gnc1_quotient"], rel=1e-12)
    assert found["cdnv"] == pytest.approx(expected["cdnv"], rel=1e-12)
    assert found["ncc_accuracy"] == expected["ncc_test_accuracy"] < 1


def test_a_planted_ratio_is_found_far_from_the_origin():
    means, noise = simplex(4, 3), 1e-3
    step = noise * torch.eye(3, dtype=torch.float64)
    features = torch.cat([1e3 + mean + sign * row for mean in means for sign in (1, -1) for row in step]).view(-1, 3)
    found = measure_layer(features, torch.arange(4).repeat_interleave(6), 4)
    assert found["gnc1_quotient"] == pytest.approx(noise**2, rel=1e-9)
    assert found["cdnv"] == pytest.approx(noise**2 / (8 / 3), rel=1e-9)
    assert found["ncc_accuracy"] == 1.0


def test_a_wide_layer_needs_no_matrix_of_its_width():
    # a covariance would take 320 GB
    rows = random_rows(3, 200_000, 0).float()
    features = rows.repeat(4, 1) + 1e-3 * random_rows(12, 200_000, 1).float()
    found = measure_layer(features, torch.arange(3).repeat(4), 3)
    assert found["gnc1_quotient"] == pytest.approx(0.75e-6 / (2 / 3), rel=0.02)
    assert found["ncc_accuracy"] == 1.0


def test_what_does_not_exist_is_null_and_absent_classes_are_left_out():
    features, labels, _ = trained_like(6, 4)
    assert measure_layer(features, labels * 3, 20) == measure_layer(features, labels, 6)
    alone = measure_layer(features[::6], labels[::6], 6)
    assert (alone["gnc1_quotient"], alone["cdnv"], alone["ncc_accuracy"]) == (None, None, 1.0)
    same = measure_layer(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), 2)
    assert (same["gnc1_quotient"], same["cdnv"]) == (None, None)


def test_columns_list_the_layers_in_their_order():
    names = ("gnc1_quotient", "cdnv", "ncc_accuracy")
    layers = [dict(zip(names, found, strict=True)) for found in ((2.0, 1.0, 0.5), (None, None, 1.0))]
    assert layer_columns(layers) == {
        "layer_gnc1_quotient": [2.0, None],
        "layer_cdnv": [1.0, None],
        "layer_ncc_accuracy": [0.5, 1.0],
    }


@pytest.mark.parametrize(
    ("features", "labels", "text"),
    [
        (torch.full((2, 3), torch.nan), [0, 1], "features must be a finite matrix"),
        (torch.ones(2, 3), [0, 4], r"labels must be in 0\.\.3, got 4"),
        (torch.ones(2, 3), [1, 1], "labels must name at least 2 classes, got 1"),
    ],
)
def test_bad_layers_are_refused(features, labels, text):
    with pytest.raises(ValueError, match=text):
        measure_layer(features, torch.tensor(labels), 4)
