"""Samples that are nothing but their number: what the unconstrained encoder looks its free features up by."""

from dataclasses import replace

import torch

from gnc_models.datasets.samples.dataset import Dataset
from gnc_models.datasets.samples.draws import Draw


def make_indices(wanted: Draw) -> Dataset:
    """Inputs 0 to samples - 1 as int64 `[samples, 1]`, sorted by class; there is no test set, and no draw."""
    labels = torch.arange(wanted.num_classes).repeat_interleave(wanted.samples_per_class)
    names = tuple(str(index) for index in range(wanted.num_classes))
    return number_samples(Dataset(labels[:, None], labels, None, None, None, None, names))


def number_samples(dataset: Dataset) -> Dataset:
    """The data set with its training samples numbered from 0 without gaps, as after a long tail took some away."""
    return replace(dataset, train_inputs=torch.arange(len(dataset.train_labels))[:, None])
