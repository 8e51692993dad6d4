"""Sealed tables: one tidy table of rows and one of trials, kept up to date from the fragments.

Knows records and references; does not know how fragments are written. Sealing is incremental: trials.parquet says
which file each trial was read from, and only files that are new or changed since are read again.
"""

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from study.design.columns import TrialRecord
from study.store.reference_columns import add_references, is_current
from study.store.schemas import (
    FRAGMENT_SCHEMA,
    RESULTS_SCHEMA,
    SCHEMA_VERSION,
    TRIALS_SCHEMA,
    conform,
    read_parquet,
    record_from_json,
    to_parquet,
    with_later_settings,
)
from study.store.storage import FolderError, at_once

if TYPE_CHECKING:
    from study.store.storage import Entry
    from study.store.store import Fragment, Store

RESULTS, TRIALS = "results.parquet", "trials.parquet"
COMPACTED = "compacted"  # an empty file: from its writing on, the sealed tables are the only copy of some rows
AT_ONCE = 200  # one-trial files held in memory while sealing
BATCH = 1 << 16  # rows of a sealed table held at once where only some are wanted
FINAL = frozenset({"complete", "diverged"})  # states that no rerun would change


@dataclass(frozen=True)
class Tables:
    """Rows and trials as sealing them now would write them."""

    results: pa.Table
    trials: pa.Table
    fresh: int  # finished trials that the sealed tables do not hold yet


@dataclass(frozen=True)
class Sealed:
    """What sealing did."""

    trials: int
    rows: int
    fresh: int


def seal(store: "Store", *, compact: bool = False) -> Sealed:
    """Write results.parquet and trials.parquet; with compact, remove the fragments that they now hold.

    Raises FolderError where a sealed table cannot be read and fragments were removed: writing would lose rows.
    """
    while True:
        before = _sealed_files(store)
        tables = read_tables(store)
        if store.storage.read(COMPACTED) is not None and {RESULTS, TRIALS} & set(store.unreadable):
            raise FolderError(
                f"results.parquet and trials.parquet must be readable in a compacted folder, got {store.unreadable}. "
                "Restore them from a copy: their trials' own files were removed by --compact."
            )
        if _sealed_files(store) == before:  # else another process sealed meanwhile: what was read is out of date
            break
    if compact:
        store.storage.write(COMPACTED, b"")
    written = _compacted(tables) if compact else tables
    # Rows first: a kill between the two leaves rows without a trial, which the next seal reads again.
    _write_if_changed(store, RESULTS, written.results)
    _write_if_changed(store, TRIALS, written.trials)
    if compact:
        _remove_fragments(store, tables.trials)
    for key in store.unfinished() & _keys_of(tables.trials, FINAL):
        store.clear_progress(key)  # left by a kill just after the trial's end
    return Sealed(tables.trials.num_rows, tables.results.num_rows, tables.fresh)


def _sealed_files(store: "Store") -> "list[Entry]":
    return [entry for entry in store.storage.entries("", ".parquet") if entry.name in (RESULTS, TRIALS)]


def _remove_fragments(store: "Store", trials: pa.Table) -> None:
    """Only files that are still the ones the tables were made from."""
    read = zip(
        *(trials.column(n).to_pylist() for n in ("trial", "fragment_bytes", "fragment_modified_ns")), strict=True
    )
    held = {key: (size, modified) for key, size, modified in read}
    for key, entry in store.fragments().items():
        if held.get(key) == (entry.size, entry.modified_ns):
            store.remove_fragment(key)


def _keys_of(trials: pa.Table, states: frozenset[str]) -> set[str]:
    stated = zip(trials.column("trial").to_pylist(), trials.column("state").to_pylist(), strict=True)
    return {key for key, state in stated if state in states}


def read_tables(store: "Store") -> Tables:
    """Sealed rows and trials with those finished since; failed trials last known by their attempts."""
    store.unreadable.clear()
    sealed_rows, sealed_trials = _read_sealed(store, RESULTS), _read_sealed(store, TRIALS)
    if sealed_rows is None or sealed_trials is None:
        sealed_rows, sealed_trials = RESULTS_SCHEMA.empty_table(), TRIALS_SCHEMA.empty_table()
    fragments = store.fragments()
    kept, fresh_keys = _split(sealed_trials, fragments, set(sealed_rows.column("trial").unique().to_pylist()))
    fresh, fresh_rows = _read_fragments(store, fresh_keys)
    old_rows = conform(_only(sealed_rows, kept), RESULTS_SCHEMA)
    if not is_current(old_rows):
        old_rows = add_references(old_rows)
    rows = pa.concat_tables([old_rows, add_references(fresh_rows)])
    trials = _all_trials(store, _only(sealed_trials, kept), fresh, fragments)
    return Tables(_in_order(rows), trials, fresh=len(fresh))


def _read_fragments(store: "Store", keys: list[str]) -> "tuple[list[Fragment], pa.Table]":
    """Finished trials and the rows of all of them; each trial's own rows are let go, many small tables being large."""
    fragments: list[Fragment] = []
    rows = [FRAGMENT_SCHEMA.empty_table()]
    for start in range(0, len(keys), AT_ONCE):
        read = [f for f in at_once(store.read_fragment, keys[start : start + AT_ONCE]) if f is not None]
        rows.append(
            pa.concat_tables([conform(t, FRAGMENT_SCHEMA) for t in _by_schema(read)] or rows[:1]).combine_chunks()
        )
        fragments += [replace(f, rows=rows[0]) for f in read]
    return fragments, pa.concat_tables(rows).combine_chunks()


def _by_schema(fragments: "list[Fragment]") -> list[pa.Table]:
    """Their rows, of all that have the same columns together: what an older one lacks is filled in once for all."""
    groups: list[list[pa.Table]] = []
    for fragment in fragments:
        group = next((g for g in groups if g[0].schema.equals(fragment.rows.schema)), None)
        if group is None:
            groups.append([fragment.rows])
        else:
            group.append(fragment.rows)
    return [pa.concat_tables(group) for group in groups]


def _in_order(rows: pa.Table) -> pa.Table:
    """By trial and epoch; moving a hundred columns is left out where they are so already."""
    order = pc.sort_indices(rows, sort_keys=[("trial", "ascending"), ("epoch", "ascending")])
    return rows if np.array_equal(order.to_numpy(), np.arange(rows.num_rows)) else rows.take(order)


def _all_trials(store: "Store", sealed: pa.Table, fresh: "list[Fragment]", fragments: "dict[str, Entry]") -> pa.Table:
    done = {*sealed.column("trial").to_pylist(), *(f.key for f in fresh)}
    found = [
        conform(sealed, TRIALS_SCHEMA),
        _trial_rows([_trial_row(f.record, f.settings, fragments[f.key]) for f in fresh]),
        *_failed_rows(store, done),
    ]
    return pa.concat_tables(found).sort_by("trial")


def read_trials(store: "Store") -> pa.Table:
    """The trials of `read_tables`; of sealed rows only their keys are read."""
    store.unreadable.clear()
    try:
        with _open_sealed(store, RESULTS) as sealed:
            held = None if sealed is None else _project(sealed, ["trial"])
    except (pa.ArrowException, OSError):  # a footer that reads before pages that do not
        return read_tables(store).trials
    with_rows = set() if held is None else set(held.column("trial").unique().to_pylist())
    trials = _read_sealed(store, TRIALS)
    if held is None or trials is None:
        trials = TRIALS_SCHEMA.empty_table()
    fragments = store.fragments()
    kept, fresh_keys = _split(trials, fragments, with_rows)
    fresh = [f for f in at_once(store.read_ending, fresh_keys) if f is not None]
    return _all_trials(store, _only(trials, kept), fresh, fragments)


def read_rows(store: "Store", columns: Collection[str] | None = None, *, last: bool = False) -> pa.Table:
    """The rows of `read_tables`, or some columns of them, or each trial's last row, without holding all in memory."""
    names = [n for n in RESULTS_SCHEMA.names if columns is None or n in columns]
    store.unreadable.clear()
    try:
        found = _read_projected(store, names, last=last)
    except (pa.ArrowException, OSError):  # a footer that reads before pages that do not
        found = None
    if found is not None:
        return found
    rows = read_tables(store).results
    return (rows.take(_last_rows(rows)) if last else rows).select(names)


def _read_projected(store: "Store", names: list[str], *, last: bool) -> pa.Table | None:
    """Columns of the sealed rows with those of fragments finished since; None where the tables have to be made anew."""
    with _open_sealed(store, RESULTS) as sealed:
        held = None if sealed is None else _project(sealed, ["trial", "epoch", "reference_version"])
        trials = _read_sealed(store, TRIALS)
        if sealed is None or held is None or trials is None or not is_current(held):
            return None
        fragments = store.fragments()
        kept, fresh_keys = _split(trials, fragments, set(held.column("trial").unique().to_pylist()))
        wanted = pc.is_in(held.column("trial"), pa.array(kept, pa.string()))
        indices = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
        if last:
            indices = indices[_last_rows(held.take(indices).select(["trial", "epoch"]))]
        old = _project(sealed, names, indices)
    _, new = _read_fragments(store, fresh_keys)
    if not new.num_rows:
        return old
    new = add_references(new.take(_last_rows(new)) if last else new)
    order = pa.concat_tables([held.take(indices), new.select(held.column_names)])
    rows = pa.concat_tables([old, new.select(names)])
    return rows.take(pc.sort_indices(order, sort_keys=[("trial", "ascending"), ("epoch", "ascending")]))


def _last_rows(rows: pa.Table) -> np.ndarray:
    """Indices of the row of the largest epoch of each trial, in the order of the trials' keys."""
    order = pc.sort_indices(rows, sort_keys=[("trial", "ascending"), ("epoch", "ascending")]).to_numpy()
    trial = rows.column("trial").take(pa.array(order)).to_numpy(zero_copy_only=False)
    ends = np.flatnonzero(trial[1:] != trial[:-1]) if len(trial) else np.zeros(0, dtype=int)
    return np.append(order[ends], order[-1:])


@contextlib.contextmanager
def _open_sealed(store: "Store", name: str) -> "Iterator[pq.ParquetFile | None]":
    """A sealed table without its rows; None where there is none or it is of another kind."""
    file, known = None, False
    try:
        content = store.storage.read_mapped(name)
        if content is not None:
            # as read_parquet: no read-ahead threads (decision 4)
            file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
            known = set(file.schema_arrow.names) >= set(RESULTS_SCHEMA.names)
    except (pa.ArrowException, OSError):
        store.unreadable.append(name)
        file = None
    if file is None:
        yield None
        return
    with file:
        yield file if known and _same_major(file.schema_arrow.metadata) else None


def _same_major(metadata: dict[bytes, bytes] | None) -> bool:
    version = (metadata or {}).get(b"schema_version", b"?").decode()
    return version.split(".")[0] == SCHEMA_VERSION.split(".")[0]


def _project(file: "pq.ParquetFile", names: list[str], indices: np.ndarray | None = None) -> pa.Table:
    """Some columns of a sealed table, and of them the rows at ascending indices, batch by batch."""
    kept, start = [], 0
    for batch in file.iter_batches(BATCH, columns=names, use_threads=False):
        if indices is None:
            kept.append(batch)
        else:
            low, high = np.searchsorted(indices, [start, start + batch.num_rows])
            here = indices[low:high] - start
            kept.append(batch if len(here) == batch.num_rows else batch.take(pa.array(here)))
        start += batch.num_rows
    schema = pa.schema([RESULTS_SCHEMA.field(n) for n in names], metadata=RESULTS_SCHEMA.metadata)
    return conform(pa.Table.from_batches(kept) if kept else schema.empty_table(), schema)


def read_states(store: "Store", known: "dict[Entry, str] | None" = None) -> dict[str, str]:
    """State by key, from the sealed trials, the fragments they do not hold, and the failures.

    known: states of fragments read before, which are not read again; those read now are added.
    """
    known = {} if known is None else known
    store.unreadable.clear()
    sealed = _read_sealed(store, TRIALS)
    sealed = TRIALS_SCHEMA.empty_table() if sealed is None else sealed
    states: dict[str, str] = dict.fromkeys(store.failed(), "failed")
    fragments = store.fragments()
    kept, fresh = _split(sealed, fragments, None)
    stated = dict(zip(sealed.column("trial").to_pylist(), sealed.column("state").to_pylist(), strict=True))
    states |= {key: stated[key] for key in kept}
    unread = [key for key in fresh if fragments[key] not in known]
    known |= {fragments[f.key]: f.record.state for f in at_once(store.read_ending, unread) if f is not None}
    states |= {key: known[fragments[key]] for key in fresh if fragments[key] in known}
    return states


def _read_sealed(store: "Store", name: str) -> pa.Table | None:
    try:
        content = store.storage.read_mapped(name)
        return None if content is None else read_parquet(content)
    except (pa.ArrowException, OSError):
        store.unreadable.append(name)
        return None


def _split(sealed: pa.Table, fragments: "dict[str, Entry]", with_rows: set[str] | None) -> tuple[list[str], list[str]]:
    """Keys the sealed tables still speak for, and keys of fragments to be read.

    with_rows: keys that have sealed rows; a finished trial listed without them is read again. None: do not ask.
    """
    kept = []
    for trial in sealed.select(["trial", "state", "fragment_bytes", "fragment_modified_ns"]).to_pylist():
        key, entry = trial["trial"], fragments.get(trial["trial"])
        if trial["state"] == "failed":
            continue
        compacted = trial["fragment_modified_ns"] is None
        same = entry is not None and (entry.size, entry.modified_ns) == (
            trial["fragment_bytes"],
            trial["fragment_modified_ns"],
        )
        # A trial whose file is there can be read again, and is if its rows are missing from the sealed table.
        if (same and (with_rows is None or key in with_rows)) or (compacted and entry is None):
            kept.append(key)
    return kept, sorted(set(fragments) - set(kept))


def _only(table: pa.Table, keys: list[str]) -> pa.Table:
    return table.filter(pc.is_in(table.column("trial"), pa.array(keys, pa.string())))


def _trial_row(record: TrialRecord, settings: dict[str, Any], entry: "Entry | None") -> dict[str, Any]:
    sealed_from = {
        "fragment_bytes": entry.size if entry else None,
        "fragment_modified_ns": entry.modified_ns if entry else None,
    }
    return with_later_settings(settings) | vars(record) | sealed_from


def _failed_rows(store: "Store", done: set[str]) -> list[pa.Table]:
    """A row for each trial that has failures and no end; a failure file that makes no row is named and skipped."""
    rows = []
    for key, failed in store.failed().items():
        if key in done:
            continue
        try:
            record = replace(record_from_json(json.dumps(failed[-1])), attempts=failed[-1]["attempt"])
            rows.append(_trial_rows([_trial_row(record, failed[-1]["settings"], None)]))
        except (KeyError, TypeError, OverflowError, pa.ArrowException):
            store.unreadable.append(f"failures/{key}.{failed[-1]['attempt']}.json")
    return rows


def _trial_rows(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TRIALS_SCHEMA)


def _compacted(tables: Tables) -> Tables:
    trials = tables.trials
    for name in ("fragment_bytes", "fragment_modified_ns"):
        index = trials.schema.get_field_index(name)
        trials = trials.set_column(index, trials.schema.field(index), pa.nulls(trials.num_rows, pa.int64()))
    return Tables(tables.results, trials, tables.fresh)


def _write_if_changed(store: "Store", name: str, table: pa.Table) -> None:
    content = to_parquet(table)
    before = store.storage.read_mapped(name)
    if before is None or not before.equals(pa.py_buffer(content)):
        store.storage.write(name, content)
