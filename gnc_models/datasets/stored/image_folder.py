"""Any folder with one folder of images per class, such as Tiny-ImageNet or faces, at one resolution."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gnc_models.catalog.settings import check_at_least
from gnc_models.datasets.samples.dataset import Dataset, label_samples
from gnc_models.datasets.samples.draws import draw_classes, draw_samples
from gnc_models.datasets.stored.images import normalise
from gnc_models.datasets.stored.layouts import IMAGE_SUFFIXES, MissingData, list_classes, missing_data

# mean and deviation of ImageNet's training pixels, as torchvision's documentation of its models gives them
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEST_FOLDERS = ("test", "val")
_ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet's: a file name and its class a line, tabs between
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

    Training classes are the folders in `folder/train`, test classes those in `folder/test` or else `folder/val`, images
    anywhere below them; Tiny-ImageNet's `val` is read by its own list. Without a train folder the classes are the
    folders in `folder`. Without test classes, one image in five of each class, chosen by a hash of its name and
    `data_seed`, is a test image.

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
    check_at_least(8, resolution=resolution)
    missing = missing_data("image_folder", data_root, folder=folder)
    if missing is not None or data_root is None:
        raise MissingData(missing)
    names = list_classes(data_root, folder)
    classes = draw_classes(len(names), num_classes, data_seed, origin=str(data_root / folder))
    splits = split_images(data_root / folder, names, [names[label] for label in classes], data_seed)

    def take(samples: int, is_test: bool) -> Tensor:
        drawn: list[Path] = []
        for label, split in zip(classes, splits, strict=True):
            members = np.arange(len(split[is_test]))
            chosen = draw_samples(members, samples, data_seed, label, names[label], is_test)
            drawn += [split[is_test][index] for index in chosen]
        images = _read_once(tuple((path, path.stat().st_mtime_ns) for path in drawn), resolution)
        return normalise(torch.from_numpy(images), _MEAN, _DEVIATION).unflatten(0, (num_classes, samples))

    class_names = tuple(names[label] for label in classes)
    return label_samples(take(samples_per_class, False), take(test_samples_per_class, True), class_names)


def split_images(
    base: Path, names: Sequence[str], chosen: Sequence[str], data_seed: int
) -> list[tuple[list[Path], list[Path]]]:
    """Training and test images of each chosen class, in an order that depends on nothing but their names and the seed.

    Args:
        base: the image folder.
        names: all its classes.
        chosen: those asked for.
        data_seed: drives the split of a folder without test classes.
    """
    train = base / "train" if (base / "train").is_dir() else base
    test = None if train == base else _list_test_images(base, names)
    if test is None:
        return [_split_by_hash(train, name, data_seed) for name in chosen]
    return [(_images(train / name), test.get(name, [])) for name in chosen]


def _list_test_images(base: Path, names: Sequence[str]) -> dict[str, list[Path]] | None:
    for folder in (base / name for name in _TEST_FOLDERS):
        if any((folder / name).is_dir() for name in names):
            return {name: _images(folder / name) for name in names}
        if (folder / _ANNOTATIONS).is_file():
            listed: dict[str, list[Path]] = {}
            for line in sorted((folder / _ANNOTATIONS).read_text().splitlines()):
                file, name, *_ = line.split("\t")
                listed.setdefault(name, []).append(folder / "images" / file)
            return listed
    return None


def _split_by_hash(base: Path, class_name: str, data_seed: int) -> tuple[list[Path], list[Path]]:
    def key(path: Path) -> bytes:
        return hashlib.sha256(f"{data_seed} {path.relative_to(base).as_posix()}".encode()).digest()

    hashed = sorted(_images(base / class_name), key=key)
    test = len(hashed) // _TEST_IMAGES
    return hashed[test:], hashed[:test]


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if not path.name.startswith("."))


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
