"""CIFAR, MNIST, FashionMNIST and EMNIST, read as torchvision stores them: idx files and CIFAR's pickled batches, plain or
gzipped. Downloads nothing, and runs no code from a file: in pickles classes of our own stand where numpy's are named, so
that only bytes, numbers, lists and dicts are built."""

import gzip
import io
import math
import pickle
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnc_models.datasets.samples.dataset import Dataset, label_counted
from gnc_models.datasets.samples.draws import Draw, draw_classes, draw_samples
from gnc_models.datasets.stored.layouts import STORED_SETS, find_files

_UINT8 = 8  # idx type code
_SIDE = 32  # pixels of a CIFAR image


def make_stored(name: str, wanted: Draw, *, data_root: Path | None) -> Dataset:
    """Images of a stored set: training samples from its training split, test samples from its test split.
    Grey images are `[samples, 1, 28, 28]`, divided by the root mean square of the set's pixels, so that the background
    stays 0, what shifts and crops fill with. Colour images are `[samples, 3, 32, 32]`, less the mean and divided by the
    deviation of each channel. Both are constants, so that no sample depends on which others are drawn. emnist is its
    balanced split, turned as stored. ValueError: more classes or samples than there are, or files that are not theirs."""
    stored = STORED_SETS[name]
    train, test = (_read(name, data_root, files) for files in (stored.train_files, stored.test_files))
    names = stored.names
    if isinstance(names, str):
        names = read_names(find_files(name, data_root, stored.meta_files)[0], names)
    classes = draw_classes(len(names), wanted.num_classes, wanted.data_seed, origin=name)

    def take(split: tuple[np.ndarray, np.ndarray], is_test: bool) -> tuple[Tensor, list[int]]:
        images, labels = split
        drawn = draw_samples(wanted, is_test, [np.flatnonzero(labels == k) for k in classes], classes, names)
        normalised = normalise(torch.from_numpy(images[np.concatenate(drawn)]), stored.mean, stored.deviation)
        return normalised, [len(chosen) for chosen in drawn]

    return label_counted(take(train, False), take(test, True), tuple(names[label] for label in classes))


make_cifar10, make_cifar100, make_mnist, make_fashion_mnist, make_emnist = (
    partial(make_stored, name) for name in ("cifar10", "cifar100", "mnist", "fashion_mnist", "emnist")
)


def normalise(images: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    """Bytes `[samples, channels, height, width]` as float32 of about unit power, by constants on a scale from 0 to 1.
    One channel: `x / sqrt(mean^2 + deviation^2)`, which leaves 0 in place. Several: `(x - mean) / deviation` of each."""
    scaled = images.float().div_(255)  # in place from here: these are the largest tensors of a study
    if len(mean) == 1:
        return scaled.div_(float(np.hypot(mean[0], deviation[0])))
    return scaled.sub_(torch.tensor(mean).view(-1, 1, 1)).div_(torch.tensor(deviation).view(-1, 1, 1))


def _read(name: str, data_root: Path | None, files: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    paths = find_files(name, data_root, files)
    return _read_once(name, tuple(paths), tuple(path.stat().st_mtime_ns for path in paths))


@lru_cache(maxsize=2)  # both splits of the set that a process's trials share
def _read_once(name: str, paths: tuple[Path, ...], _changed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return (read_batches if name.startswith("cifar") else read_idx_images)(list(paths))


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked where its name ends in .gz; ValueError where it cannot be unpacked."""
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file: {error}. Get it again.") from error


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an idx file (LeCun's format), of any shape; ValueError for anything else."""
    content = read_bytes(path)
    if len(content) < 4 or content[:3] != bytes((0, 0, _UINT8)):
        raise ValueError(f"{path} must be an idx file of bytes, got a file that begins {content[:4]!r}. Get it again.")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist()) if len(content) >= start else ()
    if len(shape) != content[3] or len(content) - start != math.prod(shape):
        raise ValueError(f"{path} must hold {shape} bytes, got {len(content) - start}. Get it again.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_idx_images(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[samples, 1, height, width]` and labels int64 `[samples]` from a pair of idx files."""
    images, labels = read_idx(paths[0]), read_idx(paths[1])
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        got = f"got {images.shape} and {labels.shape}"
        raise ValueError(f"{paths[0]} must hold one image per label of {paths[1].name}, {got}.")
    return images[:, None], labels.astype(np.int64)


def read_batches(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[samples, 3, 32, 32]` and labels int64 `[samples]` from CIFAR's batches, in the order given."""
    read = [_read_batch(path) for path in paths]
    return np.concatenate([images for images, _ in read]), np.concatenate([labels for _, labels in read])


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = read_pickle(path)
    with _named(path):
        images = batch.get("data")
        pixels = images.numbers() if isinstance(images, _Array) else np.zeros(0)
        labels = np.asarray(_listed(batch.get("labels", batch.get("fine_labels"))))
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or pixels.dtype != np.uint8:
        raise ValueError(f"{path} must hold an array of bytes and a whole number for each image. Get it again.")
    if pixels.shape not in ((len(labels), 3 * _SIDE * _SIDE), (len(labels), 3, _SIDE, _SIDE)):
        got = f"got {pixels.shape} for {len(labels)} labels"
        cure = "Get it again, or store each image as 1,024 bytes of red, then of green and of blue."
        raise ValueError(f"{path} must hold 3,072 bytes per label, {got}. {cure}")
    return pixels.reshape(-1, 3, _SIDE, _SIDE), labels.astype(np.int64)


def read_names(path: Path, member: str) -> tuple[str, ...]:
    """The class names that CIFAR's meta file holds under that name."""
    held = read_pickle(path)
    with _named(path):
        names = _listed(held.get(member))
    if not names:
        raise ValueError(f"{path} must hold {member}, not found. Get it again.")
    return tuple(_text(name) for name in names)


def _listed(value: Any) -> list[Any]:
    """A list, a tuple or an array, as a list; empty for anything else. Who packs CIFAR again often keeps arrays."""
    value = value.numbers().tolist() if isinstance(value, _Array) else value
    listed = value if isinstance(value, list | tuple) else []
    return [one.numbers().tolist() if isinstance(one, _Array) else one for one in listed]


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict in a pickle that names nothing but numpy's arrays of bytes, which become `_Array`s; else ValueError."""
    content = read_bytes(path)
    with _named(path):
        return {_text(key): value for key, value in _Reader(io.BytesIO(content), encoding="bytes").load().items()}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a torn or foreign pickle can raise almost anything
        raise ValueError(f"{path} must be a CIFAR file of plain arrays, lists and numbers: {error}.") from error


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


class _Array:
    """Stands where numpy's array is named, and a scalar without shape: keeps the type's name, the shape and the bytes."""

    def __init__(self, content: Any = None, kind: Any = None, shape: Any = ()) -> None:
        self.content, self.kind, self.shape = content, kind, shape

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, by_column, self.content = state
        if by_column:
            raise ValueError("its array is stored by columns")

    def numbers(self) -> np.ndarray:
        """The array; ValueError for anything but whole numbers, texts and lists of these."""
        if isinstance(self.content, list):  # of objects, which were read as all else is
            return np.array(self.content)
        if not isinstance(self.kind, _Kind) or not re.fullmatch(r"[<>|=]?([iu][1248]|[SU][1-9]\d*)", self.kind.name):
            raise ValueError(f"its array has numbers of type {getattr(self.kind, 'name', None)!r}")
        return np.frombuffer(self.content, np.dtype(self.kind.name).newbyteorder(self.kind.order)).reshape(self.shape)


class _Kind:
    """Stands where numpy's type of number is named: keeps its name and the order of its bytes."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name: str = _text(name)
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])


def _from_buffer(content: Any, kind: Any, shape: Any, order: str, *_: Any) -> _Array:
    if order != "C":
        raise ValueError("its array is stored by columns")
    return _Array(content, kind, shape)


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # how newer Pythons store bytes for older
}
for _module in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_module}.multiarray", "_reconstruct"] = lambda *_: _Array()
    _STAND_INS[f"{_module}.multiarray", "scalar"] = lambda kind, content=None: _Array(content, kind)
    _STAND_INS[f"{_module}.numeric", "_frombuffer"] = _from_buffer


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _STAND_INS[module, name]
