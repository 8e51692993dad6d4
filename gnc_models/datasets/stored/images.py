"""CIFAR, MNIST, FashionMNIST and EMNIST, read as torchvision stores them. Downloads nothing."""

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnc_models.datasets.samples.dataset import Dataset, label_counted
from gnc_models.datasets.samples.draws import Draw, draw_classes, draw_samples
from gnc_models.datasets.stored.formats import read_batches, read_idx_images, read_names
from gnc_models.datasets.stored.layouts import STORED_SETS, find_files


def make_stored(name: str, wanted: Draw, *, data_root: Path | None) -> Dataset:
    """Images of a stored set: training samples from its training split, test samples from its test split.
    Grey images are `[samples, 1, 28, 28]`, divided by the root mean square of the set's pixels, so that the background
    stays 0, what shifts and crops fill with. Colour images are `[samples, 3, 32, 32]`, less the mean and divided by the
    deviation of each channel. Both are constants, so that no sample depends on which others are drawn. emnist is its
    balanced split, turned as stored. ValueError: more classes or samples than there are, or files that are not theirs.
    """
    stored = STORED_SETS[name]
    train, test = (_read(name, data_root, files) for files in (stored.train_files, stored.test_files))
    names = stored.names
    if isinstance(names, str):
        names = read_names(find_files(name, data_root, stored.meta_files)[0], names)
    classes = draw_classes(len(names), wanted.num_classes, wanted.data_seed, origin=name)

    def take(split: tuple[np.ndarray, np.ndarray], is_test: bool) -> tuple[Tensor, list[int]]:
        images, labels = split
        members = [np.flatnonzero(labels == k) for k in classes]
        drawn = draw_samples(wanted, is_test, members, classes, names)
        normalised = normalise(torch.from_numpy(images[np.concatenate(drawn)]), stored.mean, stored.deviation)
        return normalised, [len(chosen) for chosen in drawn]

    class_names = tuple(names[label] for label in classes)
    return label_counted(take(train, False), take(test, True), class_names)


make_cifar10, make_cifar100, make_mnist, make_fashion_mnist, make_emnist = (
    partial(make_stored, name) for name in ("cifar10", "cifar100", "mnist", "fashion_mnist", "emnist")
)


def normalise(images: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    """Bytes `[samples, channels, height, width]` as float32 of about unit power, by constants on a scale from 0 to 1.
    One channel: `x / sqrt(mean^2 + deviation^2)`, which leaves 0 in place. Several: `(x - mean) / deviation` of each.
    """
    scaled = images.float().div_(255)  # in place from here: these are the largest tensors of a study
    if len(mean) == 1:
        return scaled.div_(float(np.hypot(mean[0], deviation[0])))
    return scaled.sub_(torch.tensor(mean).view(-1, 1, 1)).div_(torch.tensor(deviation).view(-1, 1, 1))


def _read(name: str, data_root: Path | None, files: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    paths = find_files(name, data_root, files)
    return _read_once(name, tuple(paths), tuple(path.stat().st_mtime_ns for path in paths))


@lru_cache(maxsize=2)  # both splits of the set that a process's trials share
def _read_once(name: str, paths: tuple[Path, ...], _changed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    read = read_batches if name.startswith("cifar") else read_idx_images
    return read(list(paths))
