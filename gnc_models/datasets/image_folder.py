"""Any folder with one folder of images a class, such as Tiny-ImageNet or faces, at one resolution."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gnc_models.datasets.dataset import Dataset, label_samples
from gnc_models.datasets.selection import draw_classes, draw_samples
from gnc_models.datasets.stored import normalise
from gnc_models.stored_sets import IMAGE_SUFFIXES, TEST_FOLDERS, MissingData, list_classes, missing_data

# mean and deviation of ImageNet's training pixels, as torchvision's documentation of its models gives them
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEST_IMAGES = 5  # one image in so many is for testing where there is no test folder


def make_image_folder(
    *,
    num_classes: int,
    samples_per_class: int,
    test_samples_per_class: int,
    data_seed: int,
    data_root: Path | None,
    folder: str,
    resolution: int,
) -> Dataset:
    """Images `[samples, 3, resolution, resolution]`, red, green and blue, less ImageNet's mean over its deviation.

    Training classes are the folders in `folder/train`, test classes those in `folder/test` or `folder/val`, images
    anywhere below them. Without a train folder the classes are the folders in `folder`, and without a test folder one
    image in five of each class, chosen by a hash of its name and `data_seed`, is a test image.

    Args:
        num_classes: the first ones of the seed's order of the class folders, sorted by name.
        samples_per_class: the first ones of the seed's order of each class's training images.
        test_samples_per_class: likewise of its test images.
        data_seed: draws these orders and the split.
        data_root: the folder of stored sets.
        folder: path below `data_root`.
        resolution: side in pixels, at least 8: the shorter side is resized to it, bilinear, and the centre kept.
    Raises:
        MissingData: no such folder, or no class in it.
        ValueError: more classes or samples than there are, or an image that cannot be read; the text names it.
    """
    if resolution < 8:
        raise ValueError(f"resolution must be at least 8, got {resolution!r}.")
    missing = missing_data("image_folder", data_root, folder=folder)
    if missing is not None or data_root is None:
        raise MissingData(missing)
    names = list_classes(data_root, folder)
    classes = draw_classes(len(names), num_classes, data_seed, origin=str(data_root / folder))
    splits = [split_images(data_root / folder, names[label], data_seed) for label in classes]

    def take(samples: int, is_test: bool) -> Tensor:
        drawn: list[Path] = []
        for label, split in zip(classes, splits, strict=True):
            members = np.arange(len(split[is_test]))
            chosen = draw_samples(
                members, samples, data_seed=data_seed, label=label, class_name=names[label], is_test=is_test
            )
            drawn += [split[is_test][index] for index in chosen]
        images = _read_once(tuple((path, path.stat().st_mtime_ns) for path in drawn), resolution)
        return normalise(torch.from_numpy(images), _MEAN, _DEVIATION).unflatten(0, (num_classes, samples))

    return label_samples(
        take(samples_per_class, False),
        take(test_samples_per_class, True),
        None,
        tuple(names[label] for label in classes),
    )


def split_images(base: Path, class_name: str, data_seed: int) -> tuple[list[Path], list[Path]]:
    """Training and test images of a class, each sorted by name or, where one folder is split, by hash."""
    train_folder = base / "train" if (base / "train").is_dir() else base
    test_folder = next((base / name for name in TEST_FOLDERS if (base / name).is_dir()), None)
    train = _images(train_folder / class_name)
    if test_folder is not None and train_folder != base:
        return train, _images(test_folder / class_name)

    def key(path: Path) -> bytes:
        name = path.relative_to(train_folder).as_posix()
        return hashlib.sha256(f"{data_seed} {name}".encode()).digest()

    hashed = sorted(train, key=key)
    test = len(hashed) // _TEST_IMAGES
    return hashed[test:], hashed[:test]


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def read_image(path: Path, resolution: int) -> np.ndarray:
    """One image as bytes `[3, resolution, resolution]`; ValueError names one that cannot be read."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} must be an image that can be read: {error}. Replace or remove it.") from error
    scale = resolution / min(image.size)
    width, height = (max(resolution, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    cropped = image.crop((left, top, left + resolution, top + resolution))
    return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))


@lru_cache(maxsize=2)  # both splits of the set that a process's trials share; nothing is kept on disk
def _read_once(stamped: tuple[tuple[Path, int], ...], resolution: int) -> np.ndarray:
    return np.stack([read_image(path, resolution) for path, _ in stamped])
