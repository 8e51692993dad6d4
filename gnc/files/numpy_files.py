"""numpy's .npy and .npz: names, shapes and kinds from the headers, values on demand; .npy is mapped. No objects are read."""

import math
from functools import partial
from typing import Any
from zipfile import ZipFile

import numpy as np

from gnc.files.stored import Contents, StoredArray, Unreadable, check_extent, file_length

READ_KINDS = "fiubcSU"  # numbers and text


def read_npy(path: str) -> Contents:
    """The one array of a .npy file, under the name `array`."""
    with open(path, "rb") as file:
        shape, dtype = _header(file)
        there = file_length(path) - file.tell()
    if skipped := _reason(dtype):
        return Contents(path, "a numpy array", {}, {"array": skipped})
    check_extent(math.prod(shape) * dtype.itemsize, there, "array")
    load = partial(np.load, path, mmap_mode="r" if math.prod(shape) else None)
    return Contents(path, "a numpy array", {"array": StoredArray("array", shape, _name(dtype), load, path)})


def read_npz(path: str) -> Contents:
    arrays, skipped = dict[str, StoredArray](), dict[str, str]()
    with ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                skipped[name] = "no array"
                continue
            with archive.open(info) as file:
                shape, dtype = _header(file)
                header = file.tell()
            if reason := _reason(dtype):
                skipped[name] = reason
                continue
            size = math.prod(shape) * dtype.itemsize
            check_extent(size, info.file_size - header, name)
            # of a compressed entry the stated length may be wrong too; deflate shrinks to a thousandth at best
            check_extent(size, 1100 * file_length(path), name)
            arrays[name] = StoredArray(name, shape, _name(dtype), partial(_entry, path, info.filename), path)
    return Contents(path, "a numpy archive", arrays, skipped)


def _entry(path: str, entry: str) -> Any:
    with ZipFile(path) as archive, archive.open(entry) as file:
        values = np.lib.format.read_array(file)  # without objects, as it does unless it is told to
        file.read(1)  # at the end of an entry its checksum is compared
    return values


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and number type; numpy reads no more than a literal there."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise Unreadable(f"its format version must be 1.0 or 2.0, got {version}")
    shape, _, dtype = read(file)
    if any(type(size) is not int or size < 0 for size in shape):
        raise Unreadable(f"sizes must be integers of at least 0, got {str(shape)[:80]}")
    return shape, dtype


def _reason(dtype: np.dtype) -> str | None:
    if dtype.hasobject:
        return "Python objects, which are never read"
    if dtype.kind not in READ_KINDS or dtype.itemsize == 0:
        return f"of the type {str(dtype)[:40]}"
    if dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16):
        return "numbers of more than 8 bytes"
    return None


def _name(dtype: np.dtype) -> str:
    return "bool" if dtype.kind == "b" else dtype.str[1:] if dtype.kind in "SU" else dtype.name
