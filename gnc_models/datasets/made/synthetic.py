"""Sets of as many classes as wanted: Gaussian clouds around random points of the unit sphere, and mere indices."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gnc_models.datasets.samples.dataset import Dataset, label_samples
from gnc_models.datasets.samples.draws import Draw

# Streams of random numbers; a stream's number never changes, or stored digests would.
_CENTRES, _TRAIN, _TEST = 0, 1, 2


def _samples(centres: np.ndarray, noise: float, samples: int, data_seed: int, stream: int) -> Tensor:
    """`[classes, samples, dim]` around the centres; one stream for each sample index, so that both numbers nest."""
    num_classes, input_dim = centres.shape
    drawn = np.empty((num_classes, samples, input_dim), dtype=np.float32)
    for index in range(samples):
        normal = np.random.default_rng([data_seed, stream, index]).standard_normal((num_classes, input_dim))
        drawn[:, index] = centres + noise / np.sqrt(input_dim) * normal
    return torch.from_numpy(drawn)


def make_synthetic(wanted: Draw, *, input_dim: int, noise: float) -> Dataset:
    """Classes with centres uniform on the unit sphere, plus Gaussian noise, its root mean square distance from them."""
    num_classes, samples_per_class, test_samples_per_class, data_seed = wanted
    # one row after the other from one stream: more classes begin with the same rows
    rows = np.random.default_rng([data_seed, _CENTRES]).standard_normal((num_classes, input_dim))
    centres = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    train = _samples(centres, noise, samples_per_class, data_seed, _TRAIN)
    test = _samples(centres, noise, test_samples_per_class, data_seed, _TEST)
    return label_samples(train, test, tuple(str(index) for index in range(num_classes)))


def make_indices(wanted: Draw) -> Dataset:
    """Inputs 0 to samples - 1 as int64 `[samples, 1]`, sorted by class; there is no test set, and no draw."""
    labels = torch.arange(wanted.num_classes).repeat_interleave(wanted.samples_per_class)
    names = tuple(str(index) for index in range(wanted.num_classes))
    return number_samples(Dataset(labels[:, None], labels, None, None, None, None, names))


def number_samples(dataset: Dataset) -> Dataset:
    """The data set with its training samples numbered from 0 without gaps, as after a long tail took some away."""
    return replace(dataset, train_inputs=torch.arange(len(dataset.train_labels))[:, None])
