"""One picture file as bytes of red, green and blue, whatever its numbers are stored as. Knows Pillow, not torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from gnc_models.datasets.samples.room import FLOAT_BYTES

_ENDS, _TAIL = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "GIF": b";"}, 64  # what whole files end with, within so many bytes
_UNSCALED = "Its white is nowhere stated. Save it with 8 or 16 bits a channel"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, its pixels not read yet. ValueError names one that cannot be read; a failing disk stays an OSError."""
    try:
        with Image.open(path) as opened:
            yield opened
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{path} must be an image that can be read: {error}. Replace or remove it.") from error


def check_header(path: Path) -> None:
    """ValueError where a picture's first and last bytes say that it cannot be read; its pixels are not looked at."""
    with _opened(path) as image:
        _check_scale(image)
        end = _ENDS.get(image.format or "", b"")
        with path.open("rb") as file:
            file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
            is_whole = end in file.read()
        if not is_whole:  # cut off, or something follows, which readers pass over
            image.load()


def _is_sixteen_bit(image: Image.Image) -> bool:
    # PPM's are scaled to 65,535 by Pillow
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def _check_scale(image: Image.Image) -> None:
    if image.mode == "I" and not _is_sixteen_bit(image):
        raise ValueError(f"its pixels must be of at most 16 bits, got integers of 32. {_UNSCALED}")


def read_image(path: Path, resolution: int) -> np.ndarray:
    """One image as bytes `[3, resolution, resolution]`: upright, its shorter side resized, bilinear, the centre kept.
    Grey of 16 bits is divided by 257, floats from 0 to 1 multiplied by 255, and rounded: by the kind of the file and
    never by what it holds. ValueError: a file that cannot be read, or whose numbers have no known scale."""
    with _opened(path) as opened:
        opened.load()
        # A phone stores how it was held beside the picture, and every viewer turns it. What cannot be read says nothing.
        with suppress(Exception):
            ImageOps.exif_transpose(opened, in_place=True)
        image = _to_colours(opened)
    scale = resolution / min(image.size)
    width, height = (max(resolution, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    cropped = image.crop((left, top, left + resolution, top + resolution))
    return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))


def _to_colours(image: Image.Image) -> Image.Image:
    """In Pillow's mode RGB. Its own conversion would make nearly every pixel of 16 bits or of floats white or black."""
    _check_scale(image)
    if _is_sixteen_bit(image):
        grey = (np.asarray(image).astype(np.int64) + 128) // 257
    elif image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN too
            low, high = values.min(), values.max()
            raise ValueError(f"its floats must be from 0 to 1, got {low:g} to {high:g}. {_UNSCALED}")
        grey = np.floor(255 * values + 0.5)
    else:
        return image.convert("RGB")
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def image_bytes(samples: int, resolution: int) -> int:
    return samples * 3 * resolution**2 * FLOAT_BYTES


def is_blank(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[:, :1, :1]).all())
