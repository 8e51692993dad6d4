"""Features and labels for a measurement: from an archive, .npy files side by side, or Parquet; whole or in batches. Knows names
and kinds of arrays and what a label may be; does not know metrics."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnc.files.formats import open_arrays
from gnc.files.stored import StoredArray, Unreadable, as_tensor, refusing, shown
from gnc_models.shapes import Int
from study.design.errors import StudyError, nearest

KNOWN = ("features", "labels", "weights", "bias", "test_features", "test_labels")
BATCH_VALUES = 1 << 22  # numbers of a batch: 32 MiB in float64
BY_ORDER = "Use --relabel: classes are then numbered in the order of their sorted labels"


def open_features(path: str, labels: str | None = None) -> tuple[dict[str, StoredArray], list[str]]:
    """The arrays of a feature set by their known names, and a sentence for each that is not used.
    Args:
        path: a file with several arrays, a Parquet file with the columns `features` and `labels`, a folder with
            features.npy and labels.npy, or a file whose name holds `features`, with the others named alike beside it.
        labels: the file of the labels, where it is another one."""
    place = Path(path)
    if place.is_dir():
        place = place / "features.npy"
    with open(place, "rb") as file:
        start = file.read(6)
    if start.startswith(b"PAR1"):
        arrays, skipped = refusing(str(place), lambda: (_parquet(str(place)), {}))
    elif start.startswith(b"\x93NUMPY"):
        arrays, skipped = _side_by_side(place)
    else:
        contents = open_arrays(str(place))
        arrays, skipped = dict(contents.arrays), contents.skipped
    if labels is not None:
        if "labels" in arrays:
            raise StudyError(f"labels must be given once, got them in {path!r} and in {labels!r}. Leave out --labels.")
        arrays["labels"] = _only(labels, arrays)
    for name in KNOWN:
        if name in skipped:
            raise StudyError(f"{name} of {path!r} must hold numbers, got {skipped[name]}. Save it as plain numbers.")
    used = {name: arrays[name] for name in KNOWN if name in arrays}
    others = [(name, nearest(name, KNOWN)) for name in (*arrays, *skipped) if name not in KNOWN]
    return used, [f"the array {shown(n)!r} is not used{f'. {near}' * near.startswith('Did')}" for n, near in others]


def in_batches(stored: StoredArray) -> Iterator[Tensor]:
    """The rows of an array some at a time, in float64; a mapped or Parquet file is not read whole."""
    height = max(1, BATCH_VALUES // max(1, stored.shape[1]))
    if stored.batches is not None:
        parts = stored.batches()
    else:
        values = stored.read()
        parts = (values[first : first + height] for first in range(0, stored.shape[0], height))
    done = object()
    while (part := refusing(stored.file, lambda: next(parts, done))) is not done:
        yield as_tensor(part, stored.name).double()


def class_labels(
    stored: StoredArray, *, relabel: bool = False, known: np.ndarray | None = None
) -> tuple[Int[Tensor, " samples"], np.ndarray | None]:
    """Integer labels, and with `relabel` the label of each class in the order of the new numbers.
    Args:
        stored: integers, floats with integer values, or text; [samples].
        relabel: number the distinct labels 0, 1, ... in their sorted order.
        known: the labels that are numbered already, for a test set.
    Raises:
        StudyError: labels that are no integers, or text without `relabel`; test labels that `known` lacks."""
    values, name = stored.read(), stored.name
    values = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.dtype.kind in "SU":
        if not relabel:
            raise StudyError(f"{name} must be integers, got text. {BY_ORDER}.")
    elif not _are_integers(values):
        raise StudyError(f"{name} must be integers of at least one sample, got {values.dtype} of {values.size}.")
    else:
        values = values.astype(np.int64)
    if not relabel:
        return torch.from_numpy(values), None
    classes = np.unique(values) if known is None else known
    if (classes.dtype.kind in "SU") != (values.dtype.kind in "SU"):
        raise StudyError(f"{name} must be of the kind of the training labels, got numbers and text.")
    places = np.searchsorted(classes, values).clip(max=len(classes) - 1)
    if (other := values[classes[places] != values]).size:
        raise StudyError(f"{name} must be among the training labels, got {shown(str(other.flat[0]))!r}.")
    return torch.from_numpy(places), classes


def _are_integers(values: np.ndarray) -> bool:
    """Whether every value is an integer, also one that is stored as a float; 1 or more of them."""
    if values.dtype.kind == "f":
        return bool(values.size and (np.abs(values) <= 2**53).all() and (values == np.floor(values)).all())
    return values.dtype.kind in "iub" and values.size > 0


def _only(path: str, arrays: dict[str, StoredArray]) -> StoredArray:
    """The labels in a file of their own, or under that name in a file of several arrays."""
    found = open_arrays(path).arrays
    labels = found.get("labels", next(iter(found.values())) if len(found) == 1 else None)
    if labels is None:
        raise StudyError(f"--labels must hold one array, or one called labels, got {sorted(map(shown, found))}.")
    return replace(labels, name="labels")


def _side_by_side(place: Path) -> tuple[dict[str, StoredArray], dict[str, str]]:
    """The arrays in .npy files that are named alike: train_features.npy goes with train_labels.npy."""
    arrays, skipped = {}, {}
    for name in KNOWN:
        path = place if name == "features" else place.with_name(place.name.replace("features", name))
        if not path.is_file() or (path == place and name != "features"):
            continue
        contents = open_arrays(str(path))
        if contents.skipped:
            skipped[name] = contents.skipped["array"]
        for found in contents.arrays.values():
            arrays[name] = replace(found, name=name)
    return arrays, skipped


def _parquet(path: str) -> dict[str, StoredArray]:
    """Columns of numbers and text, and of lists that are all of one length."""
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(path)
    rows, arrays = table.metadata.num_rows, {}
    for name, kind in zip(table.schema_arrow.names, table.schema_arrow.types, strict=True):
        first = next(_parts(path, name, 1), None) if "list" in str(kind) else None
        shape = (rows,) if first is None else (rows, first.shape[1])
        batches = partial(_parts, path, name, BATCH_VALUES // max(1, shape[-1]))
        arrays[name] = StoredArray(name, shape, str(kind), partial(_whole, path, name), path, batches=batches)
    return arrays


def _whole(path: str, name: str) -> np.ndarray:
    return np.concatenate(list(_parts(path, name, 1 << 16)))


def _parts(path: str, name: str, height: int) -> Iterator[np.ndarray]:
    from pyarrow.parquet import ParquetFile

    width = None
    for batch in ParquetFile(path).iter_batches(max(1, height), columns=[name]):
        if len(batch):
            part = _numbers(batch.column(0), name)
            if part.ndim == 2 and part.shape[1] != (width or part.shape[1]):
                raise Unreadable(f"the lists of {name} must be of one length, got {width} and {part.shape[1]}")
            width = part.shape[-1]
            yield part


def _numbers(column: Any, name: str) -> np.ndarray:
    """A part of a Parquet column as numbers, text, or rows of equal length."""
    kind = str(column.type)
    if kind.startswith("dictionary"):
        column = column.dictionary_decode()
    flat = column.flatten() if "list" in kind else column
    if column.null_count or flat.null_count:
        raise Unreadable(f"{name} must have no nulls, got {max(column.null_count, flat.null_count)}")
    values = flat.to_numpy(zero_copy_only=False)
    if "list" not in kind:
        return values.astype(str) if values.dtype.kind == "O" else values
    lengths = np.diff(np.asarray(column.offsets)) if hasattr(column, "offsets") else np.array([column.type.list_size])
    if len(set(lengths.tolist())) != 1 or not lengths[0]:
        raise Unreadable(f"the lists of {name} must be of one length of at least 1")
    return values.reshape(len(column), -1)
