"""One-pass statistics against two-pass sums written out sample by sample."""

import math

import numpy as np
import pytest
import torch

from gnc_models.metrics.class_statistics import ClassStatistics, check_labels


def samples(num_samples=300, feature_dim=5, num_classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_samples, feature_dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (num_samples,), generator=generator)
    labels[:num_classes] = torch.arange(num_classes)
    return features, labels


def ref_statistics(features, labels, num_classes):
    """Every definition written out with exact sums, one sample at a time."""
    rows, labels = features.double().tolist(), labels.tolist()
    dim = len(rows[0])
    groups = [[row for row, label in zip(rows, labels, strict=True) if label == k] for k in range(num_classes)]
    means = [[math.fsum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    scatter = np.zeros((dim, dim))
    squares = [0.0] * num_classes
    for row, label in zip(rows, labels, strict=True):
        deviation = np.array(row) - np.array(means[label])
        scatter += np.outer(deviation, deviation)
        squares[label] += float(deviation @ deviation)
    return [len(group) for group in groups], np.array(means), np.array(squares), scatter


def assert_same(first, second, rtol=1e-11):
    assert torch.equal(first.counts, second.counts)
    for name in ("means", "square_deviations", "scatter", "norm_mean", "norm_square_deviation"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=rtol, atol=1e-13)


def test_one_batch_equals_the_definitions():
    features, labels = samples()
    found = ClassStatistics(7, 5).update(features, labels)
    counts, means, squares, scatter = ref_statistics(features, labels, 7)
    assert found.counts.tolist() == counts
    np.testing.assert_allclose(found.means, means, rtol=1e-12)
    np.testing.assert_allclose(found.square_deviations, squares, rtol=1e-12)
    np.testing.assert_allclose(found.scatter, scatter, rtol=1e-11, atol=1e-12)
    norms = np.linalg.norm(features, axis=1)
    assert float(found.norm_mean) == pytest.approx(norms.mean(), rel=1e-14)
    assert float(found.norm_square_deviation / 300) == pytest.approx(norms.var(), rel=1e-12)


@pytest.mark.parametrize("sizes", [[1] * 300, [100, 0, 200], [7, 293]])
def test_batches_of_any_size_equal_one_pass(sizes):
    features, labels = samples()
    whole, parts = ClassStatistics(7, 5).update(features, labels), ClassStatistics(7, 5)
    for part, label in zip(features.split(sizes), labels.split(sizes), strict=True):
        parts.update(part, label)
    assert_same(parts, whole)


def test_merging_equals_one_pass_in_any_order_and_with_classes_missing_from_a_part():
    features, labels = samples()
    order = labels.argsort()
    features, labels = features[order], labels[order]  # each part sees few of the classes
    parts = [ClassStatistics(7, 5).update(features[i : i + 60], labels[i : i + 60]) for i in range(0, 300, 60)]
    forward, backward = ClassStatistics(7, 5), ClassStatistics(7, 5)
    for part in parts:
        forward.merge(part)
    for part in reversed(parts):
        backward.merge(part)
    whole = ClassStatistics(7, 5).update(features, labels)
    assert_same(forward, whole)
    assert_same(backward, whole)
    assert_same(ClassStatistics(7, 5).merge(whole), whole, rtol=0)


def test_spread_of_1e_6_around_long_means_keeps_its_digits():
    """A sum of squares minus a square of sums would have no digit left: 1e-12 beside 1e4."""
    generator = torch.Generator().manual_seed(1)
    means = 100 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    labels = torch.arange(4).repeat(500)
    noise = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    for k in range(4):
        noise[labels == k] -= noise[labels == k].mean(0)
    found = ClassStatistics(4, 3)
    for part in range(0, 2000, 128):
        chunk = slice(part, part + 128)
        found.update(means[labels[chunk]] + 1e-6 * noise[chunk], labels[chunk])
    exact = 1e-12 * noise.T @ noise
    torch.testing.assert_close(found.scatter, exact, rtol=1e-4, atol=1e-4 * float(exact.diagonal().mean()))


def test_coinciding_samples_have_no_spread_at_all():
    features = torch.full((900, 3), 0.1, dtype=torch.float64)
    found = ClassStatistics(2, 3).update(features, torch.arange(900) % 2)
    assert float(found.square_deviations.sum()) < 1e-29
    assert found.has_spread


def test_float32_features_are_summed_in_float64():
    features, labels = samples()
    narrow = features.float()
    assert_same(
        ClassStatistics(7, 5).update(narrow, labels), ClassStatistics(7, 5).update(narrow.double(), labels), rtol=0
    )


def test_one_sample_a_class_has_no_spread_to_speak_of():
    assert not ClassStatistics(4, 2).update(torch.randn(4, 2), torch.arange(4)).has_spread


def test_between_covariance_weighs_classes_equally_whatever_their_counts():
    features = torch.tensor([[0.0], [0.0], [0.0], [3.0]], dtype=torch.float64)
    found = ClassStatistics(2, 1).update(features, torch.tensor([0, 0, 0, 1]))
    assert float(found.between_covariance) == pytest.approx(2.25)


def test_a_class_without_samples_is_named():
    found = ClassStatistics(9, 2).update(torch.randn(2, 2), torch.tensor([0, 8]))
    with pytest.raises(ValueError, match="none of 7 classes: 1, 2, 3, 4, 5 and 2 more"):
        found.check_every_class()


@pytest.mark.parametrize(
    ("features", "labels", "text"),
    [
        (torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), "features must have 2 columns"),
        (torch.zeros(2, 2), torch.tensor([0, 5]), r"labels must be in 0\.\.4, got 5"),
        (torch.zeros(2, 2), torch.tensor([0, -1]), r"labels must be in 0\.\.4, got -1"),
    ],
)
def test_bad_batches_are_refused(features, labels, text):
    with pytest.raises(ValueError, match=text):
        ClassStatistics(5, 2).update(features, labels)


@pytest.mark.parametrize(
    "labels", [torch.zeros(2, dtype=torch.int64), torch.zeros(3), torch.zeros(3, dtype=torch.bool)]
)
def test_labels_are_one_integer_a_sample(labels):
    with pytest.raises(ValueError, match="labels must be 3 integers, one per sample, got shape"):
        check_labels(labels, 3, 5)


def test_statistics_of_other_classes_are_not_merged():
    with pytest.raises(ValueError, match="same classes and dimension"):
        ClassStatistics(5, 2).merge(ClassStatistics(4, 2))


def test_batches_that_name_few_of_many_classes_equal_one_pass():
    features, labels = samples(num_samples=900, num_classes=800)
    whole, parts = ClassStatistics(1_000, 5).update(features, labels), ClassStatistics(1_000, 5)
    for part in torch.arange(900).split(60):
        parts.update(features[part], labels[part])
    assert_same(parts, whole)
