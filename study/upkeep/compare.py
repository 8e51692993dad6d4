"""Where two results folders, or two runs of one trial, hold other numbers under the same key.

Knows tables and records; does not know how they came about. Compared are the measured columns and how each trial
ended; not what two correct runs may differ in (time, host, memory, attempt), nor the reference columns, which are
computed on reading.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from study.design.columns import columns_with
from study.design.where import Selection
from study.store.finished_trials import Fragment
from study.store.schemas import (
    CIRCUMSTANCES,
    FRAGMENT_SCHEMA,
    MEASUREMENTS,
    REFERENCES,
    TRIAL_COLUMNS,
    TRIALS_SCHEMA,
    conform,
)
from study.store.store import Store

MACHINE = columns_with("machine")  # told beside the differences, and no differences themselves
IGNORED = tuple(sorted(CIRCUMSTANCES | {"reason", "stopped_by"} | {column.name for column in REFERENCES}))
MEASURED = tuple(c.name for c in MEASUREMENTS if c.name not in {*CIRCUMSTANCES, "epoch"})
ENDING = tuple(c.name for c in TRIAL_COLUMNS if c.name not in {*CIRCUMSTANCES, *MACHINE, "reason", "stopped_by"})
SHOWN = 5  # keys named in a line


@dataclass(frozen=True)
class ColumnDifference:
    """One column's differences over all rows that both hold."""

    rows: int
    trials: int
    largest_relative: float | None  # |a - b| over the larger of both; None where a value is no number
    trial: str  # where it is largest
    epoch: int | None  # None for columns of a trial's end
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """Two folders beside each other."""

    shared: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    differing: tuple[str, ...]  # keys with other numbers, epochs or ends
    other_epochs: tuple[str, ...]  # of these, keys that were measured at other epochs
    columns: dict[str, ColumnDifference]  # the largest relative difference first
    machines: dict[str, tuple[list[str], list[str]]]  # what differs between the machines of the shared trials

    @property
    def is_same(self) -> bool:
        """Whether both hold the same trials with the same numbers."""
        return not (self.only_first or self.only_second or self.differing)


def compare_stores(first: Store, second: Store, selection: Selection | None = None) -> Comparison:
    """The folders' trials by key. selection: only these."""
    trials = [_selected(store.read_trials(), selection) for store in (first, second)]
    shared = sorted(_keys(trials[0]) & _keys(trials[1]))
    return compare_tables(trials[0], trials[1], _rows(first, shared), _rows(second, shared))


def compare_fragments(first: Sequence[Fragment], second: Sequence[Fragment]) -> Comparison:
    """Trials read one by one, the same keys on both sides."""
    (one, one_rows), (other, other_rows) = _tables_of(first), _tables_of(second)
    return compare_tables(one, other, one_rows, other_rows)


def compare_tables(first: pa.Table, second: pa.Table, first_rows: pa.Table, second_rows: pa.Table) -> Comparison:
    """Two tables of trials and the rows of the trials that both hold."""
    keys = _keys(first), _keys(second)
    shared = sorted(keys[0] & keys[1])
    ends = _only(first, shared).sort_by("trial"), _only(second, shared).sort_by("trial")
    at_rows, at_ends = differing_rows(first_rows, second_rows), differing_cells(*ends, ENDING)
    other_epochs = _other_epochs(first_rows, second_rows)
    differing = {*other_epochs, *(ends[0].column("trial")[i].as_py() for found in at_ends.values() for i in found)}
    for (one, _), found in at_rows.values():
        differing |= set(one.column("trial").take(pa.array(found)).to_pylist())
    columns = {name: _worst(name, *aligned, found) for name, (aligned, found) in at_rows.items()}
    columns |= {name: _worst(name, *ends, found) for name, found in at_ends.items()}
    return Comparison(
        shared=len(shared),
        only_first=tuple(sorted(keys[0] - keys[1])),
        only_second=tuple(sorted(keys[1] - keys[0])),
        differing=tuple(sorted(differing)),
        other_epochs=tuple(other_epochs),
        columns=dict(sorted(columns.items(), key=lambda item: -_or_infinite(item[1].largest_relative))),
        machines=differing_machines(*(table.select(MACHINE).to_pylist() for table in ends)),
    )


def _tables_of(fragments: Sequence[Fragment]) -> tuple[pa.Table, pa.Table]:
    ends = [{"trial": f.key, **dataclasses.asdict(f.record)} for f in fragments]
    names = ["trial", *ENDING, *MACHINE]
    schema = pa.schema([TRIALS_SCHEMA.field(name) for name in names])
    rows = [FRAGMENT_SCHEMA.empty_table(), *(conform(f.rows, FRAGMENT_SCHEMA) for f in fragments)]
    return pa.Table.from_pylist(ends, schema), pa.concat_tables(rows).combine_chunks()


def differing_rows(first: pa.Table, second: pa.Table) -> dict[str, tuple[tuple[pa.Table, pa.Table], np.ndarray]]:
    """Per measured column that differs: the rows that both tables hold, side by side, and where they differ."""
    one, other = ({place: index for index, place in enumerate(_places(table))} for table in (first, second))
    shared = [place for place in one if place in other]
    aligned = (
        first.take(pa.array([one[place] for place in shared], pa.int64())),
        second.take(pa.array([other[place] for place in shared], pa.int64())),
    )
    return {name: (aligned, indices) for name, indices in differing_cells(*aligned, MEASURED).items()}


def differing_cells(first: pa.Table, second: pa.Table, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Indices of the rows in which two tables of equal length differ, for each column in which any does."""
    found = {}
    for name in names:
        one, other = first.column(name), second.column(name)
        if not one.equals(other):
            found[name] = np.flatnonzero(_unequal(one, other))
    return {name: indices for name, indices in found.items() if len(indices)}


def _unequal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """Bit for bit, but for nan, which is as nan here."""
    if pa.types.is_nested(one.type):
        return np.array([a != b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], dtype=bool)
    same = pc.fill_null(pc.equal(one, other), False)
    same = pc.or_(same, pc.and_(pc.is_null(one, nan_is_null=True), pc.is_null(other, nan_is_null=True)))
    same = pc.and_(same, pc.equal(pc.is_null(one), pc.is_null(other)))
    return ~same.to_numpy(zero_copy_only=False)


def _worst(name: str, first: pa.Table, second: pa.Table, found: np.ndarray) -> ColumnDifference:
    at = pa.array(found)
    one, other = (table.column(name).take(at).to_pylist() for table in (first, second))
    sizes = [relative_difference(a, b) for a, b in zip(one, other, strict=True)]
    worst = max(range(len(sizes)), key=lambda i: _or_infinite(sizes[i]))
    trials = first.column("trial").take(at).to_pylist()
    has_epochs = "epoch" in first.column_names
    return ColumnDifference(
        rows=len(found),
        trials=len(set(trials)),
        largest_relative=sizes[worst],
        trial=trials[worst],
        epoch=first.column("epoch")[int(found[worst])].as_py() if has_epochs else None,
        first=one[worst],
        second=other[worst],
    )


def relative_difference(a: Any, b: Any) -> float | None:
    """|a - b| over the larger of |a| and |b|; of lists the largest; None where either is no finite number."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        sizes = [0.0 if x == y else relative_difference(x, y) for x, y in zip(a, b, strict=True)]
        return None if None in sizes else max((size for size in sizes if size is not None), default=None)
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x) for x in (a, b)]
    return float(abs(a - b) / max(abs(a), abs(b))) if all(numbers) else None


def differing_machines(*sides: Sequence[dict[str, Any]]) -> dict[str, tuple[list[str], list[str]]]:
    """CPU and GPU models and package versions that are not the same on both sides, by name."""
    found: list[dict[str, set[str]]] = []
    for side in sides:
        values: dict[str, set[str]] = {}
        for trial in side:
            packages = json.loads(trial["versions"] or "{}")
            for name, value in {"cpu_model": trial["cpu_model"], "gpu_model": trial["gpu_model"], **packages}.items():
                values.setdefault(name, set()).add(str(value))
        found.append(values)
    first, second = found
    names = [name for name in dict.fromkeys([*first, *second]) if first.get(name) != second.get(name)]
    return {name: (sorted(first.get(name, ())), sorted(second.get(name, ()))) for name in names}


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """The comparison as `--json` prints it."""
    facts = dataclasses.asdict(comparison)
    return {"same": comparison.is_same, **facts, "ignored": list(IGNORED)}


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The comparison in words, A the first folder and B the second."""
    yield f"{comparison.shared} trials in both, of which {len(comparison.differing)} differ"
    for name, keys in (("A", comparison.only_first), ("B", comparison.only_second)):
        if keys:
            yield f"{len(keys)} only in {name}: {some(keys)}"
    if comparison.other_epochs:
        yield f"{len(comparison.other_epochs)} measured at other epochs: {some(comparison.other_epochs)}"
    for name, found in comparison.columns.items():
        yield difference_line(name, found)
    yield from machine_lines(comparison.machines)
    yield f"not compared: heads, margins per class, {', '.join(IGNORED)}"


def difference_line(name: str, found: ColumnDifference) -> str:
    """One column's differences in words."""
    size = "" if found.largest_relative is None else f", largest {found.largest_relative:.2g} of the value"
    epoch = "" if found.epoch is None else f", epoch {found.epoch}"
    places = f"{found.rows} rows of {found.trials} trials" if found.epoch is not None else f"{found.trials} trials"
    return f"  {name:<24} {places}{size}: {found.first!r} | {found.second!r} ({found.trial}{epoch})"


def machine_lines(machines: dict[str, tuple[list[str], list[str]]]) -> Iterator[str]:
    """What differs between the machines, a line each."""
    for name, (first, second) in machines.items():
        yield f"  {name}: {', '.join(first) or 'not told'} | {', '.join(second) or 'not told'}"


def some(keys: Sequence[str]) -> str:
    """The first few keys."""
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _or_infinite(size: float | None) -> float:
    return float("inf") if size is None else size


def _places(rows: pa.Table) -> list[tuple[str, int]]:
    return list(zip(rows.column("trial").to_pylist(), rows.column("epoch").to_pylist(), strict=True))


def _other_epochs(first: pa.Table, second: pa.Table) -> list[str]:
    return sorted({trial for trial, _ in set(_places(first)) ^ set(_places(second))})


def _keys(trials: pa.Table) -> set[str]:
    return set(trials.column("trial").to_pylist())


def _rows(store: Store, keys: list[str]) -> pa.Table:
    return _only(store.read(["trial", "epoch", *MEASURED]), keys)


def _selected(trials: pa.Table, selection: Selection | None) -> pa.Table:
    if selection is None:
        return trials
    return trials.filter(pa.array([selection(trial) for trial in trials.to_pylist()], pa.bool_()))


def _only(table: pa.Table, keys: list[str]) -> pa.Table:
    return table.filter(pc.is_in(table.column("trial"), pa.array(keys, pa.string())))
