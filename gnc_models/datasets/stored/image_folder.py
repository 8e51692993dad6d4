"""Any folder with one folder of images per class, such as Tiny-ImageNet or faces, at one resolution."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnc_models.catalog.settings import check_at_least
from gnc_models.datasets.samples.dataset import Dataset, label_counted
from gnc_models.datasets.samples.draws import Draw, draw_classes, draw_samples
from gnc_models.datasets.samples.room import Room
from gnc_models.datasets.samples.streamed import Places, Streamed, stream
from gnc_models.datasets.stored.folders import list_classes, split_images
from gnc_models.datasets.stored.images import normalise
from gnc_models.datasets.stored.layouts import MissingData, missing_data
from gnc_models.datasets.stored.pictures import image_bytes, is_blank, read_image

# mean and deviation of ImageNet's training pixels, as torchvision's documentation of its models gives them
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHOWN = 5  # streamed pictures of one colour that are named


def make_image_folder(wanted: Draw, *, data_root: Path | None, folder: str, resolution: int, room: Room) -> Dataset:
    """Images `[samples, 3, resolution, resolution]`, red, green and blue, less ImageNet's mean over its deviation.
    docs/pictures.md says which layouts are read, how they are split and which kinds of files are scaled how. The
    shorter side is resized to the resolution, at least 8, and the centre kept. A blank picture is warned of."""
    check_at_least(8, resolution=resolution)
    missing = missing_data("image_folder", data_root, folder=folder)
    if missing is not None or data_root is None:
        raise MissingData(missing)
    names = list_classes(data_root, folder)
    classes = draw_classes(len(names), wanted.num_classes, wanted.data_seed, origin=str(data_root / folder))
    splits = split_images(data_root / folder, names, [names[label] for label in classes], wanted.data_seed)

    def draw(is_test: bool) -> list[list[Path]]:
        paths = [split[is_test] for split in splits]
        places = draw_samples(wanted, is_test, [np.arange(len(own)) for own in paths], classes, names)
        return [[own[place] for place in chosen] for own, chosen in zip(paths, places, strict=True)]

    parts = draw(False), draw(True)
    counts = [[len(paths) for paths in part] for part in parts]
    stamped = [tuple((path, path.stat().st_mtime_ns) for paths in part for path in paths) for part in parts]
    train = sum(counts[0])
    if image_bytes(train + sum(counts[1]), resolution) <= room.most_bytes:
        inputs: list[Tensor | Streamed] = [_normalised(_read_once(part, resolution)) for part in stamped]
    else:
        read = _Pictures([*stamped[0], *stamped[1]], resolution)
        streamed = stream(read, _Watched(read.stamped), len(read.stamped), room.processes)
        inputs = [streamed[:train], streamed[train:]]
    return label_counted((inputs[0], counts[0]), (inputs[1], counts[1]), tuple(names[label] for label in classes))


def _normalised(images: np.ndarray) -> Tensor:
    return normalise(torch.from_numpy(images), _MEAN, _DEVIATION)


Stamped = Sequence[tuple[Path, int]]  # pictures, and when each was last changed


class _Pictures:
    """Reads pictures by place, as bytes; a process that reads them has its own copy of this."""

    def __init__(self, stamped: Stamped, resolution: int) -> None:
        self.stamped, self._resolution = stamped, resolution

    def __call__(self, places: Places) -> np.ndarray:
        for place in places:
            path, changed = self.stamped[place]
            if path.stat().st_mtime_ns != changed:
                rule = f"{path} must stay as it is while trials read it"
                raise ValueError(f"{rule}, got a change. Start the trial again.")
        return np.stack([read_image(self.stamped[place][0], self._resolution) for place in places])


class _Watched:
    """Streamed images as inputs; the first pictures of one colour are warned of, each once."""

    def __init__(self, stamped: Stamped) -> None:
        self._stamped, self._blank = stamped, set[int]()

    def __call__(self, images: np.ndarray, places: Places) -> Tensor:
        for place, image in zip(places.tolist(), images, strict=True):
            if len(self._blank) < SHOWN and place not in self._blank and is_blank(image):
                self._blank.add(place)
                told = f"{self._stamped[place][0]} comes out as one colour throughout. Look at this file."
                warnings.warn(told, RuntimeWarning, stacklevel=2)
        return _normalised(images)


@lru_cache(maxsize=2)  # both splits of the set that a process's trials share; nothing is kept on disk
def _read_once(stamped: tuple[tuple[Path, int], ...], resolution: int) -> np.ndarray:
    images = _Pictures(stamped, resolution)(np.arange(len(stamped)))
    blank = [path for (path, _), image in zip(stamped, images, strict=True) if is_blank(image)]
    if len(blank) == len(images) and (images == images[:1]).all():
        raise ValueError(f"images must differ, got {len(images)} of the same colour throughout, such as {blank[0]}.")
    if blank:
        told = f"{len(blank)} of {len(images)} images come out as one colour throughout, such as {blank[0]}"
        warnings.warn(f"{told}. Look at these files.", RuntimeWarning, stacklevel=2)
    return images
