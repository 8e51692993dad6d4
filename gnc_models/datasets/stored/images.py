"""CIFAR, MNIST, FashionMNIST and EMNIST, read as torchvision stores them. Downloads nothing."""

import string
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnc_models.datasets.samples.dataset import Dataset, label_counted
from gnc_models.datasets.samples.draws import draw_classes, draw_samples
from gnc_models.datasets.stored.formats import read_batches, read_idx_images, read_names
from gnc_models.datasets.stored.layouts import STORED_SETS, find_files


@dataclass(frozen=True)
class _Pixels:
    """Commonly published mean and standard deviation of a set's training pixels, on a scale from 0 to 1."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    names: tuple[str, ...] | str  # of the classes; one text: the member of the set's meta file that holds them


_DIGITS = tuple(string.digits)
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# letters whose two cases look alike are one class, under the upper one
_CHARACTERS = tuple(sorted({*string.digits, *string.ascii_uppercase, *"abdefghnqrt"}))

_PIXELS = {
    "mnist": _Pixels((0.1307,), (0.3081,), _DIGITS),
    "fashion_mnist": _Pixels((0.2860,), (0.3530,), _CLOTHES),
    "emnist": _Pixels((0.1751,), (0.3332,), _CHARACTERS),
    "cifar10": _Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "label_names"),
    "cifar100": _Pixels((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "fine_label_names"),
}


def make_stored(
    name: str,
    *,
    num_classes: int,
    samples_per_class: int | None,
    test_samples_per_class: int,
    data_seed: int,
    data_root: Path | None,
) -> Dataset:
    """Images of a stored set: training samples from its training split, test samples from its test split.

    Grey images are `[samples, 1, 28, 28]`, divided by the root mean square of the set's pixels, so that the background
    stays 0, what shifts and crops fill with. Colour images are `[samples, 3, 32, 32]`, less the mean and divided by the
    deviation of each channel. Both are constants, so that no sample depends on which others are drawn. emnist is its
    balanced split, turned as stored. ValueError: more classes or samples than there are, or files that are not theirs.
    """
    stored, pixels = STORED_SETS[name], _PIXELS[name]
    train, test = (_read(name, data_root, files) for files in (stored.train_files, stored.test_files))
    names = pixels.names
    if isinstance(names, str):
        names = read_names(find_files(name, data_root, stored.meta_files)[0], names)
    classes = draw_classes(len(names), num_classes, data_seed, origin=name)

    def take(split: tuple[np.ndarray, np.ndarray], samples: int | None, is_test: bool) -> tuple[Tensor, list[int]]:
        images, labels = split
        drawn = [draw_samples(np.flatnonzero(labels == k), samples, data_seed, k, names[k], is_test) for k in classes]
        normalised = normalise(torch.from_numpy(images[np.concatenate(drawn)]), pixels.mean, pixels.deviation)
        return normalised, [len(chosen) for chosen in drawn]

    class_names = tuple(names[label] for label in classes)
    return label_counted(take(train, samples_per_class, False), take(test, test_samples_per_class, True), class_names)


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
