"""Writes tiny data sets in the layouts in which torchvision stores the real ones, byte for byte of the same formats."""

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def draw_images(classes: int, samples: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random bytes `[classes * samples, *shape]`, all different, and labels in a random order."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (classes * samples, *shape), dtype=np.uint8)
    return images, generator.permutation(np.repeat(np.arange(classes), samples))


def write_idx(path: Path, array: np.ndarray, *, zipped: bool = False) -> None:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if zipped:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_idx_set(folder: Path, splits: dict[str, tuple[np.ndarray, np.ndarray]], *, zipped: bool = False) -> None:
    """Pairs of idx files, by the beginning of their names."""
    for name, (images, labels) in splits.items():
        write_idx(folder / f"{name}-images-idx3-ubyte", images, zipped=zipped)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels, zipped=zipped)


def _text(text: str) -> bytes:
    return b"U" + bytes((len(text),)) + text.encode("latin1")


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def python2_batch(images: np.ndarray, labels: np.ndarray, label_key: str = "labels") -> bytes:
    """The pickle that Python 2 wrote, as in CIFAR: texts as bytes, the array through numpy's own names."""
    rows = images.reshape(len(images), -1)
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _text("b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + _text("u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _text("|") + b"NNN" + _number(-1) * 2 + b"K\x00tb"
    shape = _number(rows.shape[0]) + _number(rows.shape[1]) + b"\x86"
    content = b"T" + struct.pack("<i", rows.size) + rows.tobytes()
    state = b"(K\x01" + shape + kind + b"\x89" + content + b"tb"
    listed = b"](" + b"".join(_number(int(label)) for label in labels) + b"e"
    return b"\x80\x02}(" + _text("data") + made + state + _text(label_key) + listed + b"u."


def python2_names(key: str, names: list[str]) -> bytes:
    return b"\x80\x02}" + _text(key) + b"](" + b"".join(_text(name) for name in names) + b"es."


def write_cifar10(root: Path, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(np.array_split(np.arange(len(train[1])), 5), start=1):
        (folder / f"data_batch_{index}").write_bytes(python2_batch(train[0][part], train[1][part]))
    (folder / "test_batch").write_bytes(python2_batch(*test))
    (folder / "batches.meta").write_bytes(python2_names("label_names", [f"thing {i}" for i in range(10)]))


def write_cifar100(root: Path, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", train), ("test", test)):
        (folder / name).write_bytes(python2_batch(*split, "fine_labels"))
    (folder / "meta").write_bytes(python2_names("fine_label_names", [f"thing {i}" for i in range(100)]))


def write_image_classes(base: Path, names: list[str], samples: int, seed: int, size: tuple[int, int] = (12, 9)) -> None:
    """`samples` random images of `size` (width, height) in a folder for each name."""
    generator = np.random.default_rng(seed)
    for name in names:
        (base / name).mkdir(parents=True, exist_ok=True)
        for index in range(samples):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(base / name / f"{index}.png")
