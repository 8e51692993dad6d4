"""Sealed tables: one tidy table of rows and one of trials, made from the trials' own files and the archives.
trials.parquet says which file each trial was read from and which archives it holds; only what is new or changed is read
again. Both carry the mark of their seal and are not used with one of another. Does not know how a trial's file is written."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnc_models.progress import counted
from study.store.attempts import Attempts
from study.store.finished_trials import NO_ROWS, FinishedTrials, Fragment
from study.store.optima import read_optima
from study.store.schemas import FINAL, RESULTS_SCHEMA, TRIALS_SCHEMA, conform, open_parquet, read_parquet, to_parquet
from study.store.sealing.copies import ORIGIN, Archives, Copies, SealedTrials, find_copies, is_archivable
from study.store.sealing.reference_columns import References
from study.store.sealing.table_rows import End, failed_ends, in_order, last_rows, only, project, rows_of, trial_rows
from study.store.storage import Entry, FolderError, Tell, at_once, ignore, try_again

Answer = TypeVar("Answer")
Read = Callable[[str, Tell], Fragment | None]

RESULTS, TRIALS = "results.parquet", "trials.parquet"
COMPACTED = "compacted"  # an older version's sign that the sealed tables are the only copy of some rows
MARK, ARCHIVES = b"seal", b"archives"  # metadata: which seal wrote a table; which archives trials.parquet holds
AT_ONCE = 200  # one-trial files held in memory while sealing
TRIES = 5  # of reading a folder whose trials are being archived meanwhile


@dataclass(frozen=True)
class Tables:
    """Rows and trials as sealing them now would write them."""

    results: pa.Table
    trials: pa.Table
    fresh: int  # finished trials that the sealed tables do not hold yet


@dataclass(frozen=True)
class Sealed:
    trials: int
    rows: int
    fresh: int
    unreadable: tuple[str, ...]  # files that were passed over


class _Vanished(Exception):
    """A file of the listing went into an archive before it was read: the folder has to be read once more."""


class SealedTables(FinishedTrials, Attempts):
    """The tables of a results folder, as they were sealed and as sealing would make them now."""

    def seal(self, *, compact: bool = False) -> Sealed:
        """Write results.parquet and trials.parquet; with compact, move the trials' own files into an archive.
        At any moment, whatever other processes do and even if this one is killed, every trial lies in a file of its own
        or in an archive: a file is removed only once its rows are safe elsewhere, and archives are never removed."""
        self.check_only_copy()
        told: list[str] = []
        tables, copies = self._read_all(told.append)
        fresh, moving = tables.fresh, list(copies.only_sealed)
        if compact:
            moving += [row["trial"] for row in tables.trials.select(ORIGIN).to_pylist() if is_archivable(row)]
        if moving:
            Archives(self.storage).write(only(tables.trials, moving), only(tables.results, moving))
            told.clear()
            tables, copies = self._read_all(told.append)
        self._write(tables, copies.archive_names)
        self._clear(tables, copies)
        return Sealed(tables.trials.num_rows, tables.results.num_rows, fresh, tuple(dict.fromkeys(told)))

    def _write(self, tables: Tables, archives: frozenset[str]) -> None:
        sources = [sorted(archives), tables.trials.select(ORIGIN).to_pylist()]
        mark = {MARK: hashlib.sha256(json.dumps(sources).encode()).hexdigest().encode()}
        held = {ARCHIVES: " ".join(sorted(archives)).encode()}
        for name, table, more in ((RESULTS, tables.results, mark), (TRIALS, tables.trials, mark | held)):
            content = to_parquet(table.replace_schema_metadata({**table.schema.metadata, **more}))
            before = self.storage.read_mapped(name)
            if before is None or not before.equals(pa.py_buffer(content)):
                self.storage.write(name, content)

    def _clear(self, tables: Tables, copies: Copies) -> None:
        """Remove what finished trials no longer need, such as files left by a kill just after a trial's end."""
        states = _states(tables.trials)
        if copies.superseded or self.storage.read(COMPACTED) is not None:
            self.storage.sync("rows")
            self.storage.sync("archive")
            for key, entry in copies.superseded:
                if states.get(key, "failed") != "failed":
                    self.storage.remove(f"rows/{entry.name}")
            self.storage.remove(COMPACTED)  # an archive holds what the tables alone held
        for key in self.unfinished():
            if states.get(key) in FINAL:
                self.clear_progress(key)

    def check_only_copy(self) -> None:
        """Raise FolderError if the tables are torn and an older version left them as the only copy of some rows."""
        if self.storage.read(COMPACTED) is None:
            return
        if torn := [name for name in (RESULTS, TRIALS) if self._read_sealed(name, ignore) is None]:
            rule = "results.parquet and trials.parquet must be readable in a compacted folder"
            cure = "Restore them from a copy: an older version removed the trials' own files."
            raise FolderError(f"{rule}, got {torn} in {self.storage.uri}. {cure}")

    def _read_all(self, on_unreadable: Tell) -> tuple[Tables, Copies]:
        """Sealed rows and trials with those finished since; failed trials have no rows."""
        references = References(read_optima(self.storage))

        def read(tell: Tell) -> tuple[Tables, Copies]:
            failed = failed_ends(self, tell)
            sealed, old = self._sealed_pair(tell)
            copies = find_copies(sealed, self, {}, tell)
            ends, new = self._fresh_rows(copies, tell)
            old = conform(only(old, copies.sealed), RESULTS_SCHEMA)
            if not references.are_in(old):
                old = references.add_to(old)
            trials = _all_trials(sealed, copies, ends, failed)
            fresh = len(ends) + sum(map(len, copies.archived.values()))
            return Tables(in_order(pa.concat_tables([old, references.add_to(new)])), trials, fresh), copies

        return self._settled(read, on_unreadable)

    def read_trials(self, on_unreadable: Tell = ignore) -> pa.Table:
        """All finished and failed trials, sealed or not; no rows are read."""

        def read(tell: Tell) -> pa.Table:
            failed, sealed = failed_ends(self, tell), self._sealed_trials(tell)
            copies = find_copies(sealed, self, {}, tell)
            ends = self._read_files(copies.files, list(copies.files), self.read_end, tell)
            return _all_trials(sealed, copies, ends, failed)

        return self._settled(read, on_unreadable)

    def read(
        self, columns: Collection[str] | None = None, *, last: bool = False, on_unreadable: Tell = ignore
    ) -> pa.Table:
        """The rows of all finished trials, some of their columns, or the last row of each, without holding all in memory."""
        names = [n for n in RESULTS_SCHEMA.names if columns is None or n in columns]

        def read(tell: Tell) -> pa.Table:
            with contextlib.suppress(pa.ArrowException, OSError):  # a footer that reads before pages that do not
                if (found := self._read_projected(names, tell, last=last)) is not None:
                    return found
            rows = self._read_all(tell)[0].results
            return (rows.take(last_rows(rows)) if last else rows).select(names)

        return self._settled(read, on_unreadable)

    def _read_projected(self, names: list[str], tell: Tell, *, last: bool) -> pa.Table | None:
        """Columns of the sealed rows with those finished since; None where the tables have to be made anew."""
        references = References(read_optima(self.storage))
        file = self.storage.read_as(RESULTS, open_parquet, tell, is_mapped=True)
        sealed = self._sealed_trials(tell)
        has_columns = file is not None and set(file.schema_arrow.names) >= set(RESULTS_SCHEMA.names)
        if file is None or not has_columns or _mark(file.schema_arrow.metadata) != sealed.mark:
            return None
        held = project(file, ["trial", "epoch", "reference_version"])
        if not references.are_in(held):
            return None
        copies = find_copies(sealed, self, {}, tell)
        wanted = pc.is_in(held.column("trial"), pa.array(copies.sealed, pa.string()))
        indices = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
        if last:
            indices = indices[last_rows(held.take(indices).select(["trial", "epoch"]))]
        old = project(file, names, indices)
        _, new = self._fresh_rows(copies, tell)
        if not new.num_rows:
            return old
        new = references.add_to(new.take(last_rows(new)) if last else new)
        order = pa.concat_tables([held.take(indices), new.select(held.column_names)])
        rows = pa.concat_tables([old, new.select(names)])
        return rows.take(pc.sort_indices(order, sort_keys=[("trial", "ascending"), ("epoch", "ascending")]))

    def states(self, known: dict[Entry, str] | None = None, on_unreadable: Tell = ignore) -> dict[str, str]:
        """State by key, from the sealed trials, what they do not hold, and the failures.
        known: states of files read before, which are not read again; those read now are added."""
        known = {} if known is None else known

        def read(tell: Tell) -> dict[str, str]:
            states: dict[str, str] = dict.fromkeys(self.failed(tell), "failed")
            sealed = self._sealed_trials(tell)
            copies = find_copies(sealed, self, known, tell)
            for table, keys in _held(sealed, copies):
                states |= _states(only(table, keys))
            unread = [key for key, entry in copies.files.items() if entry not in known]
            for fragment in self._read_files(copies.files, unread, self.read_end, tell):
                known[copies.files[fragment.key]] = fragment.record.state
            return states | {key: known[entry] for key, entry in copies.files.items() if entry in known}

        return self._settled(read, on_unreadable)

    def _settled(self, read: Callable[[Tell], Answer], on_unreadable: Tell) -> Answer:
        """What the function reads; it starts again if a file went into an archive meanwhile."""
        told: list[str] = []

        def read_anew() -> Answer:
            told.clear()
            return read(told.append)

        try:
            answer = try_again(read_anew, TRIES, _Vanished)
        except _Vanished:
            got = f"got {self.storage.uri!r}, which others compact all the time. Run it again."
            raise FolderError(f"results folder must be left alone for a moment, {got}") from None
        for name in dict.fromkeys(told):
            on_unreadable(name)
        return answer

    def _read_files(self, files: dict[str, Entry], keys: list[str], read: Read, tell: Tell) -> list[Fragment]:
        """The trials in these files but for torn ones; _Vanished where a file is no longer there."""
        found = list(counted(at_once(lambda key: read(files[key].name, tell), keys), "files", len(keys)))
        if None in found:
            there = {entry.name for entries in self.fragments().values() for entry in entries}
            if any(f is None and files[key].name not in there for key, f in zip(keys, found, strict=True)):
                raise _Vanished
        return [fragment for fragment in found if fragment is not None]

    def _fresh_rows(self, copies: Copies, tell: Tell) -> tuple[list[Fragment], pa.Table]:
        """Trials whose files are new, without rows, and the rows of all that the sealed tables do not hold.
        Each trial's own rows are let go, many small tables being large."""
        fragments: list[Fragment] = []
        rows = [NO_ROWS, *(only(copies.unsealed[name].rows, keys) for name, keys in copies.archived.items())]
        keys = list(copies.files)
        for start in counted(range(0, len(keys), AT_ONCE), f"batches of {AT_ONCE} trials", -(-len(keys) // AT_ONCE)):
            read = self._read_files(copies.files, keys[start : start + AT_ONCE], self.read_file, tell)
            rows.append(rows_of(read).combine_chunks())
            fragments += [replace(f, rows=NO_ROWS) for f in read]
        return fragments, pa.concat_tables(rows).combine_chunks()

    def _sealed_trials(self, tell: Tell) -> SealedTrials:
        table = self._read_sealed(TRIALS, tell)
        if table is None:
            return SealedTrials()
        metadata, table = table.schema.metadata or {}, conform(table, TRIALS_SCHEMA)
        archives = frozenset(metadata[ARCHIVES].decode().split()) if ARCHIVES in metadata else None
        return SealedTrials(table, archives, _mark(metadata))

    def _sealed_pair(self, tell: Tell) -> tuple[SealedTrials, pa.Table]:
        """Both tables where one seal wrote both, else empty ones."""
        rows, sealed = self._read_sealed(RESULTS, tell), self._sealed_trials(tell)
        if rows is None or _mark(rows.schema.metadata) != sealed.mark:
            return SealedTrials(), RESULTS_SCHEMA.empty_table()
        return sealed, rows

    def _read_sealed(self, name: str, tell: Tell) -> pa.Table | None:
        return self.storage.read_as(name, read_parquet, tell, is_mapped=True)


def _mark(metadata: dict[bytes, bytes] | None) -> bytes | None:
    return (metadata or {}).get(MARK)


def _states(trials: pa.Table) -> dict[str, str]:
    return dict(zip(trials.column("trial").to_pylist(), trials.column("state").to_pylist(), strict=True))


def _held(sealed: SealedTrials, copies: Copies) -> Iterator[tuple[pa.Table, list[str]]]:
    """Tables of trials that need no reading any more, each with the keys that it speaks for."""
    yield sealed.table, copies.sealed
    for name, keys in copies.archived.items():
        yield copies.unsealed[name].trials, keys


def _all_trials(sealed: SealedTrials, copies: Copies, ends: list[Fragment], failed: dict[str, End]) -> pa.Table:
    tables = [only(table, keys) for table, keys in _held(sealed, copies)]
    tables.append(trial_rows((f.record, f.settings, copies.files[f.key]) for f in ends))
    done = {key for table in tables for key in table.column("trial").to_pylist()}
    tables.append(trial_rows(end for key, end in failed.items() if key not in done))
    return pa.concat_tables([conform(table, TRIALS_SCHEMA) for table in tables]).sort_by("trial")
