"""What a file holds, before its numbers are read: the name, shape and kind of each array, and what was left out. Every size
that a file states is compared with the file's length before memory is taken. Does not know formats."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.design.errors import StudyError

LISTED = 12  # names shown in a refusal
MOST_AXES = 32
ITEM_BYTES = {  # number types that torch can make from bytes, by torch's own names
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"), 1),
    **dict.fromkeys(("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"), 1),
    "complex128": 16,
}


class Unreadable(Exception):
    """A file that is torn or of another kind; the message goes into the refusal that names the file."""


@dataclass(frozen=True)
class StoredArray:
    """An array that `read` takes from its file.
    Attributes:
        name: as the file says it; parts of nested containers are joined by dots.
        dtype: torch's name of the number type (float32, bfloat16, float8_e4m3fn), or numpy's for text.
        load: takes the values, as a tensor or numpy array of that shape.
        file: the file that holds the values.
        is_transposed: whether the file's format says that the columns of a matrix are its outputs, not the rows.
        batches: gives the values some rows at a time, where the format has a way of its own."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Any]
    file: str
    is_transposed: bool = False
    batches: Callable[[], Iterator[Any]] | None = None

    def read(self) -> Any:
        """The values; StudyError where they are torn."""
        return refusing(self.file, self.load, f"{shown(self.name)} in ")

    def tensor(self) -> Tensor:
        return as_tensor(self.read(), self.name)

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype

    def __str__(self) -> str:
        return f"{shown(self.name)} {self.shape}{'' if self.is_float else f' {self.dtype}'}"


@dataclass(frozen=True)
class Contents:
    """All arrays of a file, or of the shards that an index or a folder names.
    Attributes:
        skipped: what is no array that can be read, with the reason.
        notes: what a reader of the numbers should know about the file.
        head: the array that enters the last matrix product, where the format tells it; "" where it is none of them.
        biases: the name and the sign of the bias of each matrix, where the format tells it.
        changed: what the model does to a matrix before its product, in a sentence, where the format tells it."""

    path: str
    kind: str
    arrays: dict[str, StoredArray]
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    head: str | None = None
    biases: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)


def as_tensor(values: Any, name: str) -> Tensor:
    """A tensor as it is, a numpy array copied; a mapped file may neither be written nor of another byte order."""
    if isinstance(values, Tensor):
        return values
    if values.dtype.kind not in "fiubc":
        kind = "text" if values.dtype.kind in "SU" else values.dtype
        raise StudyError(f"{shown(name)} must hold numbers, got {kind}.")
    return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))


def check_finite(rows: Tensor, what: str) -> None:
    bad = (~torch.isfinite(rows).all(dim=1)).nonzero()
    if len(bad):
        got = f"{len(bad)} rows with NaN or infinity, the first is {int(bad[0])}"
        raise StudyError(f"{what} must be finite, got {got}.")


def refusing(path: str, read: Callable[[], Any], what: str = "") -> Any:
    """What `read` returns; StudyError in one line where the bytes are not what they should be."""
    try:
        return read()
    except StudyError:
        raise
    except Exception as error:  # noqa: BLE001 - torn bytes raise what zipfile, zlib, struct, ast and torch raise
        first = " ".join(str(error).split())[:200] or type(error).__name__
        cure = "" if isinstance(error, Unreadable) else " The file may be torn: copy or save it again."
        raise StudyError(f"FILE must be readable, got {what}{path!r}: {first.rstrip('.')}.{cure}") from None


def check_extent(needed: int, there: int, what: str) -> None:
    """Unreadable where a file states more bytes than it has."""
    if not 0 <= needed <= there:
        raise Unreadable(f"{shown(what)} must have {needed:,} bytes, the file has {max(0, there):,} for it")


def size_of(shape: Iterable[int], dtype: str) -> int:
    """Bytes of a dense array; Unreadable for a negative size."""
    sizes = tuple(shape)
    if len(sizes) > MOST_AXES or any(type(size) is not int or size < 0 for size in sizes):
        raise Unreadable(f"sizes must be at most {MOST_AXES} integers of at least 0, got {str(sizes[:5])[:80]}")
    return math.prod(sizes) * ITEM_BYTES[dtype]


def shown(name: str) -> str:
    """A name as it stands in a sentence: a file may put line breaks and control characters into one."""
    plain = repr(name)[1:-1]
    return plain if len(plain) <= 120 else f"{plain[:60]}...{plain[-50:]}"


def listing(arrays: Iterable[StoredArray], skipped: Mapping[str, str] | None = None) -> str:
    """The first names and shapes, and how many there are in all."""
    named = [*map(str, arrays), *(f"{shown(name)} ({why})" for name, why in (skipped or {}).items())]
    return ", ".join(named[:LISTED]) + (f", ... {len(named)} in all" if len(named) > LISTED else "")


def file_length(path: str) -> int:
    return Path(path).stat().st_size
