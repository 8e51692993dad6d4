"""Archives: many finished trials in two files that are written once and never changed or removed.

    archive/<digest>.rows.parquet    the trials' rows, without reference columns
    archive/<digest>.trials.parquet  how each of them went, and the digest of their rows; written last

Every name is the digest of the file's content, so a torn file is told from a whole one. Does not know which trials are
archived, nor which copy of a trial counts."""

from dataclasses import dataclass

import pyarrow as pa

from study.store.schemas import FRAGMENT_SCHEMA, TRIALS_SCHEMA, conform, read_parquet, to_parquet
from study.store.storage import Storage, Tell, digest_of, ignore

TRIALS_END, ROWS_END = ".trials.parquet", ".rows.parquet"


@dataclass(frozen=True)
class Archive:
    """Finished trials under TRIALS_SCHEMA and their rows under FRAGMENT_SCHEMA."""

    name: str
    trials: pa.Table
    rows: pa.Table


class Archives:
    """The archives of a results folder."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def names(self) -> frozenset[str]:
        """The names of all archives, from one listing."""
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
