"""Where two results folders, or two runs of one trial, hold different numbers under the same key.
The measured columns and the end of each trial are compared. Two correct runs may differ in time, host, memory and
attempt, and reference columns are computed on reading: these are not compared. Knows tables and records alone."""

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnc_models.progress import amount
from study.design.columns import columns_with
from study.design.where import Selection
from study.store.finished_trials import Fragment
from study.store.schemas import FRAGMENT_SCHEMA, MEASUREMENTS, REFERENCES, TRIAL_COLUMNS, TRIALS_SCHEMA, conform
from study.store.sealing.table_rows import only
from study.store.store import Store

CIRCUMSTANCES = set(columns_with("run"))
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
    """What two folders have in common and where they differ."""

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
    trials = [store.read_trials() for store in (first, second)]
    if selection:
        trials = [table.filter(pa.array(map(selection, table.to_pylist()), pa.bool_())) for table in trials]
    shared = _keys(trials[0]) & _keys(trials[1])
    rows = [only(store.read(["trial", "epoch", *MEASURED]), shared) for store in (first, second)]
    return _compare_tables(*trials, *rows)


def compare_fragments(first: Sequence[Fragment], second: Sequence[Fragment]) -> Comparison:
    """Trials read one by one, the same keys on both sides."""
    (one, one_rows), (other, other_rows) = _tables_of(first), _tables_of(second)
    return _compare_tables(one, other, one_rows, other_rows)


def _compare_tables(first: pa.Table, second: pa.Table, first_rows: pa.Table, second_rows: pa.Table) -> Comparison:
    """Two tables of trials and the rows of the trials that both hold."""
    keys = _keys(first), _keys(second)
    shared = sorted(keys[0] & keys[1])
    ends = only(first, shared).sort_by("trial"), only(second, shared).sort_by("trial")
    places = _places(first_rows), _places(second_rows)
    other_epochs = sorted({trial for trial, _ in places[0].keys() ^ places[1].keys()})
    both = [place for place in places[0] if place in places[1]]
    indices = (pa.array([found[place] for place in both], pa.int64()) for found in places)
    rows = [table.take(chosen) for table, chosen in zip((first_rows, second_rows), indices, strict=True)]
    differing, columns = set(other_epochs), {}
    for (one, other), names in ((rows, MEASURED), (ends, ENDING)):
        for name in (name for name in names if not one.column(name).equals(other.column(name))):
            if len(found := np.flatnonzero(_unequal(one.column(name), other.column(name)))):
                columns[name] = _worst(name, one, other, found)
                differing |= set(one.column("trial").take(pa.array(found)).to_pylist())
    return Comparison(
        shared=len(shared), only_first=tuple(sorted(keys[0] - keys[1])), only_second=tuple(sorted(keys[1] - keys[0])),
        differing=tuple(sorted(differing)), other_epochs=tuple(other_epochs),
        columns=dict(sorted(columns.items(), key=lambda item: -_size(item[1].largest_relative))),
        machines=_differing_machines(*(table.select(MACHINE).to_pylist() for table in ends)),
    )  # fmt: skip


def _tables_of(fragments: Sequence[Fragment]) -> tuple[pa.Table, pa.Table]:
    ends = [{"trial": f.key, **dataclasses.asdict(f.record)} for f in fragments]
    names = ["trial", *ENDING, *MACHINE]
    schema = pa.schema([TRIALS_SCHEMA.field(name) for name in names])
    rows = [FRAGMENT_SCHEMA.empty_table(), *(conform(f.rows, FRAGMENT_SCHEMA) for f in fragments)]
    return pa.Table.from_pylist(ends, schema), pa.concat_tables(rows).combine_chunks()


def _unequal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """Where two columns differ bit for bit; nan equals nan here."""
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
    worst = max(range(len(sizes)), key=lambda i: _size(sizes[i]))
    trials = first.column("trial").take(at).to_pylist()
    epoch = first.column("epoch")[int(found[worst])].as_py() if "epoch" in first.column_names else None
    counts = len(found), len(set(trials))
    return ColumnDifference(*counts, sizes[worst], trials[worst], epoch, first=one[worst], second=other[worst])


def relative_difference(a: Any, b: Any) -> float | None:
    """|a - b| over the larger of |a| and |b|; of lists the largest; None where either is no finite number."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        sizes = [0.0 if x == y else relative_difference(x, y) for x, y in zip(a, b, strict=True)]
        return None if None in sizes else max((size for size in sizes if size is not None), default=None)
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x) for x in (a, b)]
    return float(abs(a - b) / max(abs(a), abs(b))) if all(numbers) else None


def _differing_machines(*sides: Sequence[dict[str, Any]]) -> dict[str, tuple[list[str], list[str]]]:
    """CPU and GPU models and package versions that are not the same on both sides, by name."""
    first, second = found = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for side, values in zip(sides, found, strict=True):
        for trial in side:
            for name, value in (trial | json.loads(trial["versions"] or "{}")).items():
                values[name].add(str(value))
    names = [name for name in dict.fromkeys([*first, *second]) if name != "versions" and first[name] != second[name]]
    return {name: (sorted(first[name]), sorted(second[name])) for name in names}


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """The comparison as `--json` prints it."""
    return {"same": comparison.is_same, **dataclasses.asdict(comparison), "ignored": list(IGNORED)}


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The comparison in words, A the first folder and B the second."""
    yield f"{amount(comparison.shared, 'trial')} in both, of which {amount(len(comparison.differing), 'differs', 'differ')}"
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
    places = f"{amount(found.rows, 'row')} of " * (found.epoch is not None) + amount(found.trials, "trial")
    return f"  {name:<24} {places}{size}: {found.first!r} | {found.second!r} ({found.trial}{epoch})"


def machine_lines(machines: dict[str, tuple[list[str], list[str]]]) -> Iterator[str]:
    """What differs between the machines, a line each."""
    for name, (first, second) in machines.items():
        yield f"  {name}: {', '.join(first) or 'not told'} | {', '.join(second) or 'not told'}"


def some(keys: Sequence[str]) -> str:
    """The first few keys."""
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _size(relative: float | None) -> float:
    return math.inf if relative is None else relative


def _places(rows: pa.Table) -> dict[tuple[str, int], int]:
    places = zip(rows.column("trial").to_pylist(), rows.column("epoch").to_pylist(), strict=True)
    return {place: index for index, place in enumerate(places)}


def _keys(trials: pa.Table) -> set[str]:
    return set(trials.column("trial").to_pylist())
