"""Archives, and which copy of each finished trial counts: in the sealed tables, in an archive, or in a file of its own.
A trial may have several copies, since seals, compactions and trials run at the same time and may be killed at any step.
The copy of the trial's furthest state counts; of equal copies, the one that need not be read again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from study.store.finished_trials import RANK, FinishedTrials, Progress, progress_of
from study.store.schemas import FRAGMENT_SCHEMA, TRIALS_SCHEMA, conform, read_parquet, to_parquet
from study.store.storage import Entry, Storage, Tell, digest_of, ignore

TRIALS_END, ROWS_END = ".trials.parquet", ".rows.parquet"
ORIGIN = ("trial", "state", "fragment_name", "fragment_bytes", "fragment_modified_ns")
UNKNOWN = Progress(0)
# Kinds of copies. A sealed row whose archive is gone, or that an older version left as the only copy, counts last.
ONLY_SEALED, FILE, ARCHIVED, SEALED = range(4)


@dataclass(frozen=True)
class Archive:
    """Finished trials under TRIALS_SCHEMA and their rows under FRAGMENT_SCHEMA."""

    name: str
    trials: pa.Table
    rows: pa.Table


class Archives:
    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def names(self) -> frozenset[str]:
        return frozenset(entry.name.removesuffix(TRIALS_END) for entry in self.storage.entries("archive", TRIALS_END))

    def write(self, trials: pa.Table, rows: pa.Table) -> None:
        """Keep these trials and their rows; once this returns, they are safe without any other file."""
        held = self._put(to_parquet(conform(rows, FRAGMENT_SCHEMA)), ROWS_END)
        trials = trials.drop_columns(["fragment_bytes", "fragment_modified_ns"])  # there is no such file any more
        named = {**TRIALS_SCHEMA.metadata, b"rows": held.encode()}
        self._put(to_parquet(conform(trials, TRIALS_SCHEMA).replace_schema_metadata(named)), TRIALS_END)
        self.storage.sync("archive")

    def _put(self, content: bytes, end: str) -> str:
        digest = digest_of(content)
        self.storage.write(f"archive/{digest}{end}", content)
        return digest

    def read(self, name: str, on_unreadable: Tell = ignore) -> Archive | None:
        """The archive; None, and told, where one of its files is absent or torn."""
        trials = self._read(name, TRIALS_END, on_unreadable)
        rows = None if trials is None else self._read(trials.schema.metadata[b"rows"].decode(), ROWS_END, on_unreadable)
        if trials is None or rows is None:
            return None
        return Archive(name, conform(trials, TRIALS_SCHEMA), conform(rows, FRAGMENT_SCHEMA))

    def _read(self, digest: str, end: str, on_unreadable: Tell) -> pa.Table | None:
        content = self.storage.read(f"archive/{digest}{end}")
        if content is None or digest_of(content) != digest:
            on_unreadable(f"archive/{digest}{end}")
            return None
        return read_parquet(content)


class Copy(NamedTuple):
    """One copy of a trial; the largest counts."""

    progress: Progress
    kind: int
    place: str  # name of the file or of the archive


@dataclass(frozen=True)
class SealedTrials:
    """trials.parquet as it lies there."""

    table: pa.Table = field(default_factory=TRIALS_SCHEMA.empty_table)
    archives: frozenset[str] | None = None  # those whose trials it holds; None where an older version wrote it
    mark: bytes | None = None  # of the seal that wrote it


@dataclass
class Copies:
    """Where the copy of each finished trial that counts lies."""

    archive_names: frozenset[str]  # all archives that can be read
    unsealed: dict[str, Archive]  # those of them that the sealed tables do not hold
    sealed: list[str] = field(default_factory=list)  # keys
    only_sealed: list[str] = field(default_factory=list)  # keys of `sealed` that nothing else holds
    archived: dict[str, list[str]] = field(default_factory=dict)  # keys by the name of an unsealed archive
    files: dict[str, Entry] = field(default_factory=dict)  # files to be read, by key
    superseded: list[tuple[str, Entry]] = field(default_factory=list)  # keys and files that may go


def find_copies(sealed: SealedTrials, finished: FinishedTrials, known: Mapping[Entry, str], tell: Tell) -> Copies:
    """The copies that count. known: states of files that were read before. tell: is told what cannot be read.
    Files are listed before archives, so that a trial which moves into an archive in between is found there."""
    archives = Archives(finished.storage)
    files, names = finished.fragments(tell), archives.names()
    is_backed = sealed.archives is not None and sealed.archives <= names
    unread = names - (sealed.archives or frozenset()) if is_backed else names
    unsealed = {name: archive for name in sorted(unread) if (archive := archives.read(name, tell))}
    copies = Copies((names - unread) | unsealed.keys(), unsealed)
    rows = {row["trial"]: row for row in sealed.table.select(ORIGIN).to_pylist() if row["state"] in RANK}
    held = [(row, Copy(_progress(row), ARCHIVED, name)) for name, archive in unsealed.items()
            for row in archive.trials.select(ORIGIN).to_pylist()]  # fmt: skip
    held += [(row, Copy(_progress(row), SEALED if is_backed else ONLY_SEALED, ""))
             for row in rows.values() if row["fragment_modified_ns"] is None]  # fmt: skip
    elsewhere: dict[str, Copy] = {}
    for row, copy in held:
        elsewhere[row["trial"]] = max(elsewhere.get(row["trial"], copy), copy)

    def progress_in(entry: Entry, row: Mapping[str, Any] | None) -> Progress:
        state = known.get(entry) or (row["state"] if row and _is_same(entry, row) else None)
        if state is None and (fragment := finished.read_end(entry.name, tell)) is not None:
            state = fragment.record.state
        return UNKNOWN if state is None else progress_of(entry.name, state)

    for key in sorted({*files, *elsewhere}):
        entries, row = files.get(key, []), rows.get(key) if sealed.archives is not None else None
        if len(entries) == 1 and key not in elsewhere:  # the usual case: nothing to choose from
            _note_file(copies, key, entries[0], row)
            continue
        beside = {Copy(progress_in(entry, row), FILE, entry.name): entry for entry in entries}
        found = max([*beside, *([elsewhere[key]] if key in elsewhere else [])])
        copies.superseded += [(key, entry) for copy, entry in beside.items() if _may_go(copy, found)]
        if found.kind == FILE:
            _note_file(copies, key, beside[found], row)
        elif found.kind == ARCHIVED:
            copies.archived.setdefault(found.place, []).append(key)
        else:
            copies.sealed.append(key)
            copies.only_sealed += [key] if found.kind == ONLY_SEALED else []
    return copies


def _note_file(copies: Copies, key: str, entry: Entry, row: Mapping[str, Any] | None) -> None:
    if row is not None and _is_same(entry, row):
        copies.sealed.append(key)
    else:
        copies.files[key] = entry


def _progress(row: Mapping[str, Any]) -> Progress:
    return progress_of(row["fragment_name"] or "", row["state"])


def _is_same(entry: Entry, row: Mapping[str, Any]) -> bool:
    return (entry.name, entry.size, entry.modified_ns) == tuple(row[name] for name in ORIGIN[2:])


def _may_go(copy: Copy, found: Copy) -> bool:
    """Whether a file is of no use any more and can be removed although a trial may end at this moment.
    What is written under one name is always the same trial at the same epoch. In older folders, a plain name may hold a
    trial that did not complete: it waits until a complete one, which would replace it, is safe."""
    is_replaced = copy.place.count(".") > 1 or found.progress.rank == RANK["complete"]
    return copy != found and copy.progress != UNKNOWN and is_replaced


def is_archivable(row: Mapping[str, Any]) -> bool:
    """Whether a sealed trial can move from its file into an archive; `row` has the columns ORIGIN."""
    return row["fragment_modified_ns"] is not None and (progress_of(row["fragment_name"]).rank == RANK[row["state"]])
