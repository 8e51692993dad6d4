"""Data sets by name: labelled tensors in, nothing else needed. Knows torch, numpy and Pillow; no network, no Ray.

`make_dataset` gives every sample of a study's training, test and unseen sets as tensors on the CPU, nested in the
number of classes and in the samples of each class, so that a larger study contains the smaller one bit for bit.
"""

from collections.abc import Callable
from typing import Any

from gnc_models.datasets.augmentation import AUGMENTATIONS, augment
from gnc_models.datasets.dataset import Dataset
from gnc_models.datasets.glyphs import make_glyphs
from gnc_models.datasets.synthetic import make_synthetic

__all__ = ["AUGMENTATIONS", "DATASETS", "Dataset", "augment", "make_dataset"]

DATASETS: dict[str, Callable[..., Dataset]] = {"glyphs": make_glyphs, "synthetic": make_synthetic}


def make_dataset(
    name: str,
    *,
    num_classes: int,
    samples_per_class: int,
    test_samples_per_class: int,
    data_seed: int,
    **settings: Any,
) -> Dataset:
    """The data set of that name, the same tensors for the same arguments on every machine with the same packages.

    Args:
        name: a name in `DATASETS`.
        num_classes: classes, the first ones of an order that `data_seed` draws.
        samples_per_class: training samples of each class.
        test_samples_per_class: test samples of each class, and of each class of the unseen set where there is one.
        data_seed: chooses classes and samples.
        settings: `resolution` and `unseen_family` for glyphs, `input_dim` and `noise` for synthetic; None counts as
            not given.
    Returns:
        Training, test and unseen samples, sorted by class, with the names of the classes and a digest.
    Raises:
        ValueError: an unknown name, fewer than 2 or more classes than the data set has, fewer than 1 sample.
        TypeError: a setting that the data set does not read.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {sorted(DATASETS)}, got {name!r}.")
    for count, least, value in (
        ("num_classes", 2, num_classes),
        ("samples_per_class", 1, samples_per_class),
        ("test_samples_per_class", 1, test_samples_per_class),
        ("data_seed", 0, data_seed),
    ):
        if value < least:
            raise ValueError(f"{count} must be at least {least}, got {value!r}.")
    return DATASETS[name](
        num_classes=num_classes,
        samples_per_class=samples_per_class,
        test_samples_per_class=test_samples_per_class,
        data_seed=data_seed,
        **{setting: value for setting, value in settings.items() if value is not None},
    )
