"""Pieces of the sealed tables: selecting, ordering and joining rows, and making rows of trials.
Pure functions over tables; does not know which copy of a trial counts, nor which files there are."""

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from study.design.columns import TrialRecord
from study.store.attempts import Attempts
from study.store.finished_trials import NO_ROWS, Fragment
from study.store.schemas import RESULTS_SCHEMA, TRIALS_SCHEMA, conform, record_from_json, with_later_settings
from study.store.storage import Entry, Tell

End = tuple[TrialRecord, dict[str, Any], Entry | None]  # how a trial went, its settings, the file it was read from
BATCH = 1 << 16  # rows of a sealed table held at once where only some are wanted


def rows_of(fragments: list[Fragment]) -> pa.Table:
    """Their rows under FRAGMENT_SCHEMA; missing columns are filled in once for all that lack the same."""
    groups: dict[Any, list[pa.Table]] = {}
    for fragment in fragments:
        schema = fragment.rows.schema
        groups.setdefault((*schema.names, *schema.types), []).append(fragment.rows)
    return pa.concat_tables([NO_ROWS, *(conform(pa.concat_tables(g), NO_ROWS.schema) for g in groups.values())])


def in_order(rows: pa.Table) -> pa.Table:
    """The rows by trial and epoch. Rows that are in order already are not moved."""
    order = pc.sort_indices(rows, sort_keys=[("trial", "ascending"), ("epoch", "ascending")])
    return rows if np.array_equal(order.to_numpy(), np.arange(rows.num_rows)) else rows.take(order)


def last_rows(rows: pa.Table) -> np.ndarray:
    """Indices of the row of the largest epoch of each trial, in the order of the trials' keys."""
    order = pc.sort_indices(rows, sort_keys=[("trial", "ascending"), ("epoch", "ascending")]).to_numpy()
    trial = rows.column("trial").take(pa.array(order)).to_numpy(zero_copy_only=False)
    ends = np.flatnonzero(trial[1:] != trial[:-1]) if len(trial) else np.zeros(0, dtype=int)
    return np.append(order[ends], order[-1:])


def project(file: pq.ParquetFile, names: list[str], indices: np.ndarray | None = None) -> pa.Table:
    """Some columns of a sealed table, and of them the rows at ascending indices, batch by batch."""
    batches, start = [], 0
    for batch in file.iter_batches(BATCH, columns=names, use_threads=False):
        if indices is not None:
            low, high = np.searchsorted(indices, [start, start + (rows := batch.num_rows)])
            batch = batch if high - low == rows else batch.take(pa.array(indices[low:high] - start))
            start += rows
        batches.append(batch)
    schema = pa.schema([RESULTS_SCHEMA.field(n) for n in names], metadata=RESULTS_SCHEMA.metadata)
    return conform(pa.Table.from_batches(batches) if batches else schema.empty_table(), schema)


def only(table: pa.Table, keys: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table.column("trial"), pa.array(list(keys), pa.string())))


def first_of_each(table: pa.Table, names: Collection[str]) -> pa.Table:
    """The first row with each combination of values in these columns: tables have up to 100,000 trials."""
    places = table.select(names).append_column("place", pa.array(np.arange(table.num_rows)))
    return table.take(places.group_by(list(names)).aggregate([("place", "min")])["place_min"].sort())


def trial_rows(ends: Iterable[End]) -> pa.Table:
    """Rows of trials.parquet: how trials went, their settings, and the files they were read from, if any."""
    names, rows = ("fragment_name", "fragment_bytes", "fragment_modified_ns"), []
    for record, settings, entry in ends:
        origin = (entry.name, entry.size, entry.modified_ns) if entry else (None, None, None)
        rows.append(with_later_settings(settings) | vars(record) | dict(zip(names, origin, strict=True)))
    return pa.Table.from_pylist(rows, schema=TRIALS_SCHEMA)


def failed_ends(attempts: Attempts, tell: Tell) -> dict[str, End]:
    """Each trial whose last attempt failed; a failure file that makes no row is told and passed over."""
    ends: dict[str, End] = {}
    for key, failed in attempts.failed(tell).items():
        try:
            record = replace(record_from_json(json.dumps(failed[-1])), attempts=failed[-1]["attempt"])
            trial_rows([end := (record, failed[-1]["settings"], None)])
            ends[key] = end
        except (KeyError, TypeError, OverflowError, pa.ArrowException):
            tell(f"failures/{key}.{failed[-1]['attempt']}.json")
    return ends
