"""Finished trials: one file in rows/ for each, and the margins and heads beside it. A file's name says how the trial ended
(docs/results.md). A trial that was stopped and went on later has several until the next seal; the one of its furthest
state counts. Does not know the sealed tables, archives, Ray or torch."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from study.design.columns import Measurement, TrialRecord
from study.design.config import TrialConfig
from study.store import schemas
from study.store.schemas import FINAL, read_parquet, to_parquet
from study.store.storage import Entry, Part, Tell, ignore

FILE = re.compile(r"([0-9a-f]{16})(?:\.(diverged|stopped)(?:-(\d+))?)?\.parquet")
RANK = {"stopped": 1, "diverged": 2, "complete": 3}  # a file gives way only to one of a higher rank
NO_ROWS = schemas.FRAGMENT_SCHEMA.empty_table()  # making one takes as long as reading a footer


class Progress(NamedTuple):
    """How far a trial came; of two files of one trial the one with the larger value counts."""

    rank: int
    epoch: int = -1  # of a stopped trial, where its file's name says it


@dataclass(frozen=True)
class Fragment:
    """A finished trial as its file holds it."""

    key: str
    settings: dict[str, Any]  # trial, cell and every setting, also of a trial that ended before its first row
    rows: pa.Table
    record: TrialRecord

    @property
    def file(self) -> str:
        if self.record.state == "stopped":
            epoch = pc.max(self.rows.column("epoch")).as_py() or 0
            return f"{self.key}.stopped-{epoch:08d}.parquet"
        return f"{self.key}.diverged.parquet" if self.record.state == "diverged" else f"{self.key}.parquet"


def progress_of(file: str, state: str | None = None) -> Progress:
    """How far the trial in a file of rows/ came. state: where known; a plain name is otherwise taken for complete."""
    _, ending, epoch = named.groups() if (named := FILE.fullmatch(file)) else (file, None, None)
    return Progress(RANK[state or ending or "complete"], -1 if epoch is None else int(epoch))


def final_files(key: str) -> tuple[str, str]:
    """The files of a trial that was trained to its end: a complete and a diverged one."""
    return f"{key}.parquet", f"{key}.diverged.parquet"


class FinishedTrials(Part):
    """Trials that ended, by key."""

    def fragments(self, on_unreadable: Tell = ignore) -> dict[str, list[Entry]]:
        """The files of each finished trial by key, from one listing. on_unreadable: told foreign files."""
        found: dict[str, list[Entry]] = {}
        for entry in self.storage.entries("rows", ".parquet"):
            if named := FILE.fullmatch(entry.name):
                found.setdefault(named[1], []).append(entry)
            else:
                on_unreadable(f"rows/{entry.name}")
        return found

    def put_fragment(self, fragment: Fragment) -> None:
        about = {b"record": asdict(fragment.record), b"settings": fragment.settings}
        written = {name: json.dumps(value).encode() for name, value in about.items()}
        footer = {**(fragment.rows.schema.metadata or {}), **written}
        self.storage.write(f"rows/{fragment.file}", schemas.to_fragment(fragment.rows.replace_schema_metadata(footer)))

    def write_fragment(self, config: TrialConfig, measurements: list[Measurement], record: TrialRecord) -> None:
        """Write the file of a trial that ended; from here on the trial counts."""
        rows = schemas.fragment_table(config, measurements)
        self.put_fragment(Fragment(config.key, schemas.identity_and_settings(config), rows, record))

    def read_final(self, key: str) -> Fragment | None:
        """A trial that was trained to its end, without its rows, as `read_end`; nothing is listed."""
        found = (self.read_end(name) for name in final_files(key))
        return next((end for end in found if end is not None and end.record.state in FINAL), None)

    def read_fragment(self, key: str, on_unreadable: Tell = ignore) -> Fragment | None:
        """The trial from the file that counts; None where there is none. on_unreadable: is told torn files."""
        for name in final_files(key):  # the usual cases, without a listing
            found = self.read_file(name, on_unreadable)
            if found is not None and found.file == name:
                return found
        others = [self.read_file(entry.name, on_unreadable) for entry in self.fragments().get(key, [])]
        whole = [fragment for fragment in others if fragment is not None]
        return max(whole, key=lambda f: progress_of(f.file, f.record.state), default=None)

    def read_file(self, file: str, on_unreadable: Tell = ignore) -> Fragment | None:
        """The trial in a file of rows/; None where it is absent or torn. on_unreadable: is told a torn file."""

        def parse(content: bytes) -> Fragment:
            if schemas.is_whole(content) is False:
                raise ValueError("bytes are not those that were written")
            rows = read_parquet(content)
            return _fragment(file, rows.schema.metadata, rows)

        return self.storage.read_as(f"rows/{file}", parse, on_unreadable)

    def read_end(self, file: str, on_unreadable: Tell = ignore) -> Fragment | None:
        """As `read_file` without the rows: the file's footer alone, no column decoded."""
        content = self.storage.read(f"rows/{file}")
        if content is None:
            return None
        names = (b"schema_version", b"settings", b"record")
        footer = {name: entry for name in names if (entry := schemas.read_entry(content, name)) is not None}
        if schemas.is_whole(content) and len(footer) == len(names):
            schemas.check_version(footer)
            with contextlib.suppress(ValueError):  # told below
                return _fragment(file, footer, NO_ROWS)
        return self.read_file(file, on_unreadable)  # a file of before checksums, or one that is torn

    def write_margins(self, key: str, table: pa.Table) -> None:
        """Write the per-class margins of the last measured epoch."""
        self.storage.write(f"margins/{key}.parquet", to_parquet(table))

    def read_margins(self, key: str, on_unreadable: Tell = ignore) -> pa.Table | None:
        """Per-class margins, None where absent or torn. on_unreadable: told a torn file."""
        return self.storage.read_as(f"margins/{key}.parquet", read_parquet, on_unreadable)

    def write_head(self, key: str, content: bytes) -> None:
        """Write the final head and class means, a safetensors file."""
        self.storage.write(f"heads/{key}.safetensors", content)

    def head_keys(self) -> list[str]:
        return [entry.name.removesuffix(".safetensors") for entry in self.storage.entries("heads", ".safetensors")]

    def read_head(self, key: str, on_unreadable: Tell = ignore) -> dict[str, np.ndarray] | None:
        """Arrays `weights` and `class_means` of shape [num_classes, feature_dim]; None and `on_unreadable` as for margins."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = self.storage.read(f"heads/{key}.safetensors")
        try:
            return None if content is None else load(content)
        except SafetensorError:
            on_unreadable(f"heads/{key}.safetensors")
            return None


def _fragment(file: str, footer: Mapping[bytes, bytes], rows: pa.Table) -> Fragment:
    settings = json.loads(footer[b"settings"])
    key = settings["trial"]
    if not file.startswith(f"{key}."):
        raise ValueError(f"rows of {key} under the name {file}")  # a copy would double its rows
    return Fragment(key, settings, rows, schemas.record_from_json(footer[b"record"].decode()))
