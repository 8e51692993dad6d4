"""The results folder: the only module that knows which file holds what. The store is the only state of a study.

    studies/<sha8>.toml        every study file as run
    rows/KEY.parquet           a finished trial: its rows; state and reason in the footer
    live/KEY.<attempt>.parquet a trial in progress: rows so far and heartbeat; never counted as a result
    live/<run>.stop            asks the trials of that run to checkpoint and end; live/KEY.stop one trial to stop early
    live/<run>.run             the run is under way; a machine that does not see it sees another folder
    suggestions/CELL.json      settings that a search suggested, kept before their trials start
    margins/ heads/            per-class margins; final head and class means, written before the rows file
    failures/KEY.<attempt>.json  how an attempt failed or was cut off; charged: whether it counts against the trial
    logs/KEY.<attempt>.log     what an attempt was asked, did and printed; kept    checkpoints/KEY/<epoch>.checkpoint
    results.parquet trials.parquet   sealed tables, see sealing
    report/                    what `gnc report` writes

Does not know Ray, torch or how a trial is trained.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from study.design.columns import Measurement, TrialRecord
from study.design.config import TrialConfig
from study.store import fragment_bytes as footers
from study.store import sealed_tables as sealing
from study.store.attempts import Attempts
from study.store.schemas import (
    FRAGMENT_SCHEMA,
    UnknownSchema,
    check_version,
    fragment_table,
    identity_and_settings,
    read_parquet,
    record_from_json,
    to_fragment,
    to_parquet,
)
from study.store.storage import Entry, Storage

KEY = re.compile("[0-9a-f]{16}")
LEFT_BY_A_STUDY = ("studies", "rows", "live", "failures", "archive")
NO_ROWS = FRAGMENT_SCHEMA.empty_table()  # making one takes as long as reading a footer


@dataclass(frozen=True)
class Fragment:
    """A finished trial as its file holds it."""

    key: str
    settings: dict[str, Any]  # trial, cell and every setting, also of a trial that ended before its first row
    rows: pa.Table
    record: TrialRecord


def open_store(results: str | Path) -> "Store":
    """The store at a folder or URI; nothing is created until something is written."""
    return Store(Storage(results))


class Store(Attempts):
    """Everything read from and written to one results folder."""

    @property
    def uri(self) -> str:
        """The folder or URI as the user named it."""
        return self.storage.uri

    def is_results_folder(self) -> bool:
        """Whether a study left anything here; an empty folder is none, and neither is one of other files."""
        sealed = {entry.name for entry in self.storage.entries("", ".parquet")} & {sealing.RESULTS, sealing.TRIALS}
        return bool(sealed) or any(self.storage.entries(folder) for folder in LEFT_BY_A_STUDY)

    # --- study files -------------------------------------------------------------------------------------------

    def write_study(self, text: str) -> None:
        """Keep the study file as run; running it again makes it the latest."""
        self.storage.write(f"studies/{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml", text.encode())

    def latest_study(self) -> str | None:
        """Text of the study file run last, None in a folder where none was run."""
        entries = self.storage.entries("studies", ".toml")
        if not entries:
            return None
        latest = max(entries, key=lambda entry: (entry.modified_ns, entry.name))
        return (self.storage.read(f"studies/{latest.name}") or b"").decode(errors="replace")

    def studies(self) -> list[str]:
        """Texts of all study files that were run here."""
        names = [entry.name for entry in self.storage.entries("studies", ".toml")]
        return [(self.storage.read(f"studies/{name}") or b"").decode(errors="replace") for name in names]

    # --- finished trials ---------------------------------------------------------------------------------------

    def fragments(self) -> dict[str, Entry]:
        """Finished trials by key, from one listing."""
        found = {}
        for entry in self.storage.entries("rows", ".parquet"):
            key = entry.name.removesuffix(".parquet")
            if KEY.fullmatch(key):
                found[key] = entry
            else:
                self.unreadable.append(f"rows/{entry.name}")
        return found

    def write_fragment(self, config: TrialConfig, measurements: list[Measurement], record: TrialRecord) -> None:
        """A trial's end: from here on it counts."""
        rows = fragment_table(config, measurements)
        self.put_fragment(Fragment(config.key, identity_and_settings(config), rows, record))

    def put_fragment(self, fragment: Fragment) -> None:
        """Write a finished trial as it was read."""
        footer = {
            **(fragment.rows.schema.metadata or {}),
            b"record": json.dumps(asdict(fragment.record)).encode(),
            b"settings": json.dumps(fragment.settings).encode(),
        }
        self.storage.write(f"rows/{fragment.key}.parquet", to_fragment(fragment.rows.replace_schema_metadata(footer)))

    def remove_fragment(self, key: str) -> None:
        """Remove a finished trial's file; without sealed rows the trial then counts as never run."""
        self.storage.remove(f"rows/{key}.parquet")

    def read_fragment(self, key: str) -> Fragment | None:
        """A finished trial; None where absent or torn, a torn one is named in `unreadable`."""
        content = self.storage.read(f"rows/{key}.parquet")
        if content is None:
            return None
        try:
            if footers.is_whole(content) is False:
                raise ValueError("bytes are not those that were written")
            rows = read_parquet(content)
            settings = json.loads(rows.schema.metadata[b"settings"])
            if settings["trial"] != key:
                raise ValueError(f"rows of {settings['trial']} under the name {key}")  # a copy would double its rows
            record = record_from_json(rows.schema.metadata[b"record"].decode())
        except UnknownSchema:
            raise
        except (pa.ArrowException, OSError, KeyError, ValueError):
            self.unreadable.append(f"rows/{key}.parquet")
            return None
        return Fragment(key, settings, rows, record)

    def read_ending(self, key: str) -> Fragment | None:
        """As `read_fragment` without the rows: the file's footer alone, no column decoded."""
        content = self.storage.read(f"rows/{key}.parquet")
        if content is None:
            return None
        entries = [footers.read_entry(content, name) for name in (b"schema_version", b"settings", b"record")]
        if footers.is_whole(content) and None not in entries:
            version, told, record = ((entry or b"").decode() for entry in entries)
            check_version(version)
            settings = json.loads(told)
            if settings["trial"] == key:
                return Fragment(key, settings, NO_ROWS, record_from_json(record))
        return self.read_fragment(key)  # a file of before checksums, or one that is torn

    def write_margins(self, key: str, table: pa.Table) -> None:
        """Per-class margins of the last measured epoch."""
        self.storage.write(f"margins/{key}.parquet", to_parquet(table))

    def read_margins(self, key: str) -> pa.Table | None:
        """Per-class margins, None where absent or torn."""
        content = self.storage.read(f"margins/{key}.parquet")
        try:
            return None if content is None else read_parquet(content)
        except (pa.ArrowException, OSError):
            self.unreadable.append(f"margins/{key}.parquet")
            return None

    def write_head(self, key: str, content: bytes) -> None:
        """Final head and class means as a safetensors file."""
        self.storage.write(f"heads/{key}.safetensors", content)

    def head_keys(self) -> list[str]:
        """Trials whose head was kept."""
        return [entry.name.removesuffix(".safetensors") for entry in self.storage.entries("heads", ".safetensors")]

    def read_head(self, key: str) -> dict[str, np.ndarray] | None:
        """Arrays `weights` and `class_means` of shape [num_classes, feature_dim], None where absent or torn."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = self.storage.read(f"heads/{key}.safetensors")
        try:
            return None if content is None else load(content)
        except SafetensorError:
            self.unreadable.append(f"heads/{key}.safetensors")
            return None

    # --- suggestions of a search -------------------------------------------------------------------------------

    def write_suggestion(self, cell: str, settings: dict[str, Any]) -> None:
        """Keep a suggestion, as settings without a seed, before the first of its trials starts."""
        self.storage.write(f"suggestions/{cell}.json", json.dumps(settings).encode())

    def suggestions(self) -> dict[str, dict[str, Any]]:
        """The settings of every suggestion by cell, oldest first; a torn one is named in `unreadable`."""
        found = {}
        entries = self.storage.entries("suggestions", ".json")
        for entry in sorted(entries, key=lambda entry: (entry.modified_ns, entry.name)):
            try:
                found[entry.name.removesuffix(".json")] = json.loads(
                    self.storage.read(f"suggestions/{entry.name}") or b""
                )
            except ValueError:
                self.unreadable.append(f"suggestions/{entry.name}")
        return found

    # --- tables and report -------------------------------------------------------------------------------------

    def states(self, known: dict[Entry, str] | None = None) -> dict[str, str]:
        """State of every trial that has one: complete, stopped, diverged, or failed where only attempts are left.

        known: what an earlier call read, by the listing's entries; given back in, it is added to and not read again.
        """
        return sealing.read_states(self, known)

    def stopped_by(self) -> dict[str, str]:
        """The digest of the rule that stopped each stopped trial."""
        trials = self.read_trials().select(["trial", "state", "stopped_by"]).to_pylist()
        return {trial["trial"]: trial["stopped_by"] for trial in trials if trial["state"] == "stopped"}

    def read(self, columns: Collection[str] | None = None, *, last: bool = False) -> pa.Table:
        """All rows under RESULTS_SCHEMA, by trial and epoch: sealed ones and those finished since.

        columns: only these, in the schema's order; of sealed rows only they are read from the disk. last: only the row
        of the largest epoch of each trial.
        """
        return sealing.read_rows(self, columns, last=last)

    def read_trials(self) -> pa.Table:
        """One row a trial under TRIALS_SCHEMA, failed ones too."""
        return sealing.read_trials(self)

    def seal(self, *, compact: bool = False) -> sealing.Sealed:
        """Bring results.parquet and trials.parquet up to date; only fragments that are new are read."""
        return sealing.seal(self, compact=compact)

    def write_report(self, files: dict[str, bytes]) -> None:
        """Write the report's files under report/, each whole."""
        for name, content in files.items():
            self.storage.write(f"report/{name}", content)

    def read_report(self, name: str) -> bytes | None:
        """A file of the last report; None where there is none."""
        return self.storage.read(f"report/{name}")
