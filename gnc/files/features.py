"""Features and labels for a measurement: from an archive, .npy files side by side, or Parquet; whole or in batches. Knows names
and kinds of arrays and what a label may be; does not know metrics."""

import re
from collections.abc import Iterable, Iterator
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
MOST_NAMED = 5  # files beside the features that are named because they are not used
NUMBERS, TEXT = r"u?int\d+|(half)?float|double|bool|null", r"(large_)?string(_view)?"  # Arrow's names
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
    notes: list[str] = []
    with open(place, "rb") as file:
        start = file.read(6)
    if start.startswith(b"PAR1"):
        arrays, skipped = refusing(str(place), lambda: _parquet(str(place)))
    elif start.startswith(b"\x93NUMPY"):
        arrays, skipped, notes = _side_by_side(place, labels)
    else:
        contents = open_arrays(str(place))
        arrays, skipped = dict(contents.arrays), contents.skipped
        for name in ("features", "labels"):
            if name not in arrays and f"train_{name}" in arrays:
                arrays[name] = replace(arrays.pop(f"train_{name}"), name=name)
                notes.append(f"{name} are those called 'train_{name}'")
    if labels is not None:
        if "labels" in arrays:
            raise StudyError(f"labels must be given once, got them in {path!r} and in {labels!r}. Leave out --labels.")
        arrays["labels"], notes = _only(labels, notes)
    for name in KNOWN:
        if name in skipped:
            raise StudyError(f"{name} of {path!r} must hold numbers, got {skipped[name]}. Save it as plain numbers.")
    used = {name: arrays[name] for name in KNOWN if name in arrays}
    for name, stored in used.items():
        scales = [other for other in (*arrays, *skipped) if other.startswith((f"{name}_scale", f"{name}_zero_point"))]
        if scales or stored.dtype.startswith("float8"):
            got = stored.dtype + "".join(f" with {shown(scale)!r} beside it" for scale in scales[:1])
            raise StudyError(
                f"{name} of {path!r} must be plain numbers, got {got}. Save codes times scales, as float32."
            )
    return used, [_unused(f"array {shown(name)!r}", name) for name in (*arrays, *skipped) if name not in KNOWN] + notes


def _unused(what: str, name: str, known: Iterable[str] = KNOWN) -> str:
    near = nearest(name, known)
    return f"the {what} is not used{f'. {near}' * near.startswith('Did')}"


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
    They are sorted; `known` are those numbered already, for a test set.
    Raises:
        StudyError: labels that are no integers, or text without `relabel`; test labels that `known` lacks."""
    values, name = stored.read(), stored.name
    values = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.dtype.kind in "SU":
        if not relabel:
            raise StudyError(f"{name} must be integers, got text. {BY_ORDER}.")
    elif not _are_integers(values):
        raise StudyError(f"{name} must be integers below 2^63, at least one, got {values.dtype} of {values.size}.")
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
    return values.dtype.kind in "iub" and values.size > 0 and int(values.max()) < 2**63


def _only(path: str, notes: list[str]) -> tuple[StoredArray, list[str]]:
    """The labels in a file of their own, or under that name in a file of several arrays, of which the rest is named."""
    contents = open_arrays(path)
    found = contents.arrays
    labels = found.get("labels", next(iter(found.values())) if len(found) == 1 else None)
    if labels is None:
        raise StudyError(f"--labels must hold one array, or one called labels, got {sorted(map(shown, found))}.")
    others = [name for name in (*found, *contents.skipped) if name != labels.name]
    notes = notes + [_unused(f"array {shown(name)!r} of {path!r}", name, ()) for name in others]
    return replace(labels, name="labels"), notes


def _side_by_side(place: Path, labels: str | None) -> tuple[dict[str, StoredArray], dict[str, str], list[str]]:
    """The arrays in .npy files beside this one, and a sentence on each file whose name does not say that it belongs.
    train_features.npy goes with train_labels.npy, with test_features.npy and with plain weights.npy."""
    arrays, skipped, notes = dict[str, StoredArray](), dict[str, str](), list[str]()
    used = [Path(labels)] if labels else []
    known = KNOWN if "features" in place.name else KNOWN[:1]
    alike = {name: place.name.replace("features", name) for name in known}
    for name in known:
        names = [alike[name], alike[name.removeprefix("test_")].replace("train", "test"), f"{name}.npy"]
        names = names[:1] if name in ("features", "labels") else names[:: 1 if name.startswith("test_") else 2]
        path = next((p for n in names if (p := place.with_name(n)) not in used and p.is_file()), None)
        if path is not None:
            used.append(path)
            notes += [f"{name} is taken from {shown(path.name)!r}"] * (path.name != alike[name])
            contents = open_arrays(str(path))
            skipped |= {name: reason for reason in contents.skipped.values()}  # noqa: B035 - of the one array
            arrays |= {name: replace(found, name=name) for found in contents.arrays.values()}  # noqa: B035
    others = [path for path in sorted(place.parent.glob("*.npy")) if path not in used] if len(known) > 1 else []
    near = {*KNOWN, *(Path(name).stem for name in alike.values())}
    return arrays, skipped, notes + [_unused(f"file {shown(p.name)!r}", p.stem, near) for p in others[:MOST_NAMED]]


def _parquet(path: str) -> tuple[dict[str, StoredArray], dict[str, str]]:
    """The columns of known names: numbers, text, and lists of numbers that are all of one length; others are not read."""
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(path)
    rows, arrays, skipped = table.metadata.num_rows, {}, {}
    for name, kind in zip(table.schema_arrow.names, table.schema_arrow.types, strict=True):
        held = str(getattr(kind, "value_type", kind))  # of lists, of tensors and of categories
        is_list = hasattr(kind, "value_type") and not str(kind).startswith("dictionary")
        is_flat = len(getattr(kind, "shape", "1")) == 1
        is_read = is_flat and re.fullmatch(NUMBERS if is_list else f"{NUMBERS}|{TEXT}", held)
        if name not in KNOWN:
            skipped[name] = "not read"
        elif name in arrays or not is_read:
            rule = f"{name} of {path!r} must be one column of numbers, text or flat lists of numbers"
            got = "several of this name" if name in arrays else str(kind)[:80]
            raise StudyError(f"{rule}, got {got}. Cast, flatten or rename it first.")
        else:
            first = next(_parts(path, name, 1), None) if is_list else None
            shape = (rows,) if first is None else (rows, first.shape[1])
            batches = partial(_parts, path, name, BATCH_VALUES // max(1, shape[-1]))
            arrays[name] = StoredArray(name, shape, held, partial(_whole, path, name), path, batches=batches)
    return arrays, skipped


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
    if str(column.type).startswith("dictionary"):
        column = column.dictionary_decode()
    column = getattr(column, "storage", column)  # of an extension type, such as tensors of one shape
    kind = str(column.type)
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
