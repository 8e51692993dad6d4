"""What torch.save wrote: zip archives, the older row of pickles, and pickles of arrays. Values are mapped, not loaded."""

import io
import mmap
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor

from gnc.files.pickles import NOT_READ, ArrayRecord, Storage, TensorRecord, storage_of, unpickle, walk
from gnc.files.stored import ITEM_BYTES, Contents, StoredArray, Unreadable, check_extent, file_length, size_of

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the format before 1.6
MOST_PICKLE = 1 << 30  # bytes of an archive's pickle: names, sizes and settings
Reader = Callable[[Storage], np.ndarray]  # all bytes of a storage


def read_torch_zip(path: str) -> Contents:
    """Tensors of an archive, wherever its pickle nests them; also of a TorchScript archive."""
    with ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = sorted((name for name in entries if name.rpartition("/")[2] == "data.pkl"), key=len)
        info, root = entries[pickles[0]], pickles[0][: -len("data.pkl")]
        check_extent(info.file_size, MOST_PICKLE, info.filename)
        with archive.open(info) as file:
            value = unpickle(io.BytesIO(file.read(info.file_size)), storage_of)
        order = f"{root}byteorder"
        is_big_endian = order in entries and archive.read(order) == b"big"

    def read(storage: Storage) -> np.ndarray:
        if (entry := entries.get(f"{root}data/{storage.key}")) is None:
            raise Unreadable(f"the archive lacks {root}data/{storage.key}")
        return _entry_bytes(path, entry)

    return _contents(path, "a PyTorch archive", value, read, is_big_endian=is_big_endian)


def read_pickle(path: str) -> Contents:
    """Tensors of torch's format before 1.6, or numpy arrays of any other pickle."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        value = unpickle(data, storage_of)
        if value != MAGIC:
            return _contents(path, "a pickle", value, None)
        if (protocol := unpickle(data)) != 1001:
            raise Unreadable(f"its protocol must be 1001, got {str(protocol)[:20]}")
        system = unpickle(data)
        kinds: dict[str, Storage] = {}

        def remembered(identity: Any) -> Any:
            storage = storage_of(identity)
            if isinstance(storage, Storage):
                kinds[storage.key] = storage
            return storage

        value = unpickle(data, remembered)
        places = _places(data, unpickle(data), kinds)
    is_big_endian = isinstance(system, dict) and system.get("little_endian") is False

    def read(storage: Storage) -> np.ndarray:
        if storage.key not in places:
            raise Unreadable(f"the file lacks the storage {storage.key}")
        return _mapped(path, *places[storage.key])

    return _contents(path, "a PyTorch file of before 1.6", value, read, is_big_endian=is_big_endian)


def _places(data: mmap.mmap, keys: Any, kinds: dict[str, Storage]) -> dict[str, tuple[int, int]]:
    """Where each storage begins and how long it is; in the file they follow each other, each after its length."""
    places: dict[str, tuple[int, int]] = {}
    at = data.tell()
    for key in keys if isinstance(keys, list) else ():
        storage = kinds.get(key) if isinstance(key, str) else None
        if storage is None:
            break  # what follows cannot be found
        item = ITEM_BYTES.get(storage.dtype or "uint8", 1)
        length = int.from_bytes(data[at : at + 8], "little") * item
        check_extent(at + 8 + length, len(data), f"the storage {key}")
        places[key] = (at + 8, length)
        at += 8 + length
    return places


def _contents(path: str, kind: str, value: Any, read: Reader | None, *, is_big_endian: bool = False) -> Contents:
    if is_big_endian:
        raise Unreadable("numbers of a big-endian machine: save them as safetensors there")
    arrays, skipped = dict[str, StoredArray](), dict[str, str]()
    for name, values in value.items() if isinstance(value, dict) else ():  # labels are often kept as a list
        kinds = {*map(type, values)} if isinstance(name, str) and isinstance(values, list) else set()
        if kinds in ({int}, {float}, {str}):
            dtype = {int: "int64", float: "float64", str: "text"}[kinds.pop()]
            arrays[name] = StoredArray(name, (len(values),), dtype, partial(np.array, values), path)
    for name, record in walk(value):
        if name in arrays:
            skipped[name] = "the name stands for two arrays"
        elif isinstance(record, ArrayRecord):
            try:
                array = record.array()
            except Unreadable as error:
                skipped[name] = str(error)
                continue
            dtype = array.dtype.name
            arrays[name] = StoredArray(name, array.shape, dtype, lambda array=array: array, path)  # type: ignore[misc]
        elif isinstance(record, TensorRecord) and record.dtype in ITEM_BYTES:
            size_of(record.shape, record.dtype)
            arrays[name] = StoredArray(name, record.shape, record.dtype, partial(_values, name, record, read), path)
        else:
            skipped[name] = getattr(record, "kind", NOT_READ)
    return Contents(path, kind, arrays, skipped)


def _values(name: str, record: TensorRecord, read: Reader | None) -> Tensor:
    if (inside := record.storage.data) is not None:
        there = np.frombuffer(bytearray(inside), np.uint8)
    elif read is not None:
        there = read(record.storage)
    else:
        raise Unreadable("a pickle that points outside itself")
    needed, dtype = size_of(record.shape, record.dtype), getattr(torch, record.dtype)
    check_extent(needed, len(there), name)  # a view may repeat its storage, and then its size is without bound
    if not needed:
        return torch.empty(record.shape, dtype=dtype)
    whole = torch.from_numpy(there[: len(there) // dtype.itemsize * dtype.itemsize]).view(dtype)
    return whole.as_strided(record.shape, record.strides, record.offset).clone(memory_format=torch.contiguous_format)


def _entry_bytes(path: str, entry: ZipInfo) -> np.ndarray:
    """All bytes of an archive's entry: mapped, unless they are compressed."""
    if entry.compress_type != ZIP_STORED or entry.flag_bits & 1:
        check_extent(entry.file_size, 1100 * file_length(path), entry.filename)  # deflate shrinks no further
        with ZipFile(path) as archive:
            return np.frombuffer(bytearray(archive.read(entry)), np.uint8)
    header = _mapped(path, entry.header_offset, 30)
    names = int.from_bytes(header[26:28].tobytes(), "little") + int.from_bytes(header[28:30].tobytes(), "little")
    return _mapped(path, entry.header_offset + 30 + names, entry.file_size)


def _mapped(path: str, first: int, size: int) -> np.ndarray:
    check_extent(first + size, file_length(path), path)
    return np.memmap(path, np.uint8, "c", first, (size,)) if size else np.empty(0, np.uint8)


def is_pickle(start: bytes) -> bool:
    """Whether the file begins as pickles of protocol 2 and later do."""
    return len(start) > 1 and start[:1] == pickle.PROTO and 2 <= start[1] <= 5
