"""The results folder: the only module that knows which file holds what. The store is the only state of a study.

    studies/<sha8>.toml        every study file as run
    rows/KEY.parquet           a finished trial: its rows; state and reason in the footer
    live/KEY.<attempt>.parquet a trial in progress: rows so far and heartbeat; never counted as a result
    live/<run>.stop            asks the trials of that run to checkpoint and end; live/KEY.stop one trial to stop early
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
import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from study import footers, sealing
from study.columns import Measurement, TrialRecord
from study.config import TrialConfig
from study.records import (
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
from study.storage import Entry, Storage

KEY, LIVE = re.compile("[0-9a-f]{16}"), re.compile(r"([0-9a-f]{16})\.(\d+)\.parquet")
NO_ROWS = FRAGMENT_SCHEMA.empty_table()  # making one takes as long as reading a footer
GENERATIONS = 2  # checkpoints kept of a running trial: a torn last one falls back to the one before


@dataclass(frozen=True)
class Fragment:
    """A finished trial as its file holds it."""

    key: str
    settings: dict[str, Any]  # trial, cell and every setting, also of a trial that ended before its first row
    rows: pa.Table
    record: TrialRecord


@dataclass(frozen=True)
class Live:
    """A trial in progress as its last heartbeat told."""

    key: str
    attempt: int
    host: str
    process: int
    interrupted: bool  # ended on request, with a checkpoint to continue from
    seconds_ago: float
    rows: pa.Table


def log_name(key: str, attempt: int) -> str:
    """Where the log of an attempt lies in the results folder."""
    return f"logs/{key}.{attempt}.log"


def open_store(results: str | Path) -> "Store":
    """The store at a folder or URI; nothing is created until something is written."""
    return Store(Storage(results))


class Store:
    """Everything read from and written to one results folder."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.unreadable: list[str] = []  # files the last reading named and skipped

    @property
    def uri(self) -> str:
        """The folder or URI as the user named it."""
        return self.storage.uri

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

    # --- trials in progress ------------------------------------------------------------------------------------

    def write_live(self, key: str, attempt: int, rows: pa.Table, *, interrupted: bool = False) -> None:
        """Heartbeat of a trial running in this process, with its rows so far."""
        beat = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "interrupted": interrupted,
            "time": time.time(),
        }
        footer = {**(rows.schema.metadata or {}), b"beat": json.dumps(beat).encode()}
        self.storage.write(f"live/{key}.{attempt}.parquet", to_parquet(rows.replace_schema_metadata(footer)))

    def read_live(self) -> list[Live]:
        """The newest attempt of each trial in progress; torn files are skipped, their trial is running all the same."""
        newest: dict[str, Live] = {}
        for entry in self.storage.entries("live", ".parquet"):
            named = LIVE.fullmatch(entry.name)
            if named is None:
                continue
            key, attempt = named.groups()
            content = self.storage.read(f"live/{entry.name}")
            try:
                rows = read_parquet(content or b"")
            except (pa.ArrowException, OSError):
                continue
            beat = json.loads(rows.schema.metadata[b"beat"])
            live = Live(
                key=key,
                attempt=int(attempt),
                host=beat["host"],
                process=beat["process"],
                interrupted=beat["interrupted"],
                seconds_ago=time.time() - beat["time"],
                rows=rows,
            )
            if key not in newest or newest[key].attempt < live.attempt:
                newest[key] = live
        return list(newest.values())

    def remove_live(self, key: str) -> None:
        """Remove a trial's heartbeats; the number of the last attempt lives on in the failure that ended it."""
        for entry in self.storage.entries("live"):
            if entry.name.startswith(f"{key}."):
                self.storage.remove(f"live/{entry.name}")

    def attempts(self) -> dict[str, int]:
        """The highest attempt number seen of each trial that ran without finishing, or failed."""
        return dict(self._highest("live", "failures"))

    def _highest(self, *folders: str) -> dict[str, int]:
        highest: dict[str, int] = defaultdict(int)
        for folder in folders:
            for entry in self.storage.entries(folder):
                key, _, rest = entry.name.partition(".")
                number = rest.split(".")[0]
                if number.isdigit():
                    highest[key] = max(highest[key], int(number))
        return highest

    def next_attempt(self, key: str) -> int:
        """The number of the attempt about to start, from 1."""
        return self.attempts().get(key, 0) + 1

    def clear_progress(self, key: str, *, keep_checkpoint: bool = False) -> None:
        """Remove what only an unfinished trial needs: its live files, earlier failures and, if it is done, checkpoints."""
        self.remove_live(key)
        for entry in self.storage.entries("failures", ".json"):
            if entry.name.startswith(f"{key}."):
                self.storage.remove(f"failures/{entry.name}")
        if not keep_checkpoint:
            self.storage.remove_folder(f"checkpoints/{key}")

    def unfinished(self) -> set[str]:
        """Keys that have live files or failures, from two listings."""
        return {entry.name.partition(".")[0] for f in ("live", "failures") for entry in self.storage.entries(f)}

    def request_stop(self, run: str) -> None:
        """Ask the trials of a run, or one trial by its key, to end; works from any machine that sees the folder."""
        self.storage.write(f"live/{run}.stop", b"")

    def is_stop_requested(self, run: str) -> bool:
        """Whether the trials of this run, or this one trial, were asked to end."""
        return self.storage.read(f"live/{run}.stop") is not None

    def withdraw_stop(self, run: str) -> None:
        """Remove the request once the run has ended."""
        self.storage.remove(f"live/{run}.stop")

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

    # --- failures ----------------------------------------------------------------------------------------------

    def write_failure(self, key: str, attempt: int, circumstances: dict[str, Any]) -> None:
        """Keep the traceback and circumstances of a failed attempt."""
        self.storage.write(f"failures/{key}.{attempt}.json", json.dumps(circumstances, indent=1).encode())

    def failures(self, key: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """Circumstances of the attempts that failed or were cut off, of each trial or of this one, oldest first."""
        failed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self.storage.entries("failures", ".json"):
            if key is not None and not entry.name.startswith(f"{key}."):
                continue
            try:
                circumstances = json.loads(self.storage.read(f"failures/{entry.name}") or b"")
            except ValueError:
                self.unreadable.append(f"failures/{entry.name}")
                continue
            failed[entry.name.partition(".")[0]].append(circumstances)
        return {key: sorted(attempts, key=lambda a: a["attempt"]) for key, attempts in failed.items()}

    def failed(self) -> dict[str, list[dict[str, Any]]]:
        """Failures that count, of trials whose last attempt failed: not of one that runs again or was cut off since."""
        running = self._highest("live")
        return {
            key: [f for f in attempts if f.get("charged", True)]
            for key, attempts in self.failures().items()
            if attempts[-1].get("charged", True) and attempts[-1]["attempt"] >= running[key]
        }

    def failed_starts(self, key: str | None = None) -> dict[str, int]:
        """How often each trial, or this one, failed by its own doing; attempts that were cut off are not counted."""
        counted = {
            key: sum(f.get("starts", 1) for f in failed if f.get("charged", True))
            for key, failed in self.failures(key).items()
        }
        return {key: count for key, count in counted.items() if count}

    # --- logs --------------------------------------------------------------------------------------------------

    def append_log(self, key: str, attempt: int, content: bytes) -> None:
        """Add to the log of an attempt: in place on a disk, put anew as a whole in an object store."""
        name = log_name(key, attempt)
        if self.storage.is_local:
            self.storage.append(name, content)
        else:
            self.storage.write(name, (self.storage.read(name) or b"") + content)

    def last_log_lines(self, key: str, attempt: int, count: int = 100) -> list[str]:
        """The end of an attempt's log; empty where there is none."""
        content = self.storage.read(log_name(key, attempt)) or b""
        return content.decode(errors="replace").splitlines()[-count:]

    # --- checkpoints -------------------------------------------------------------------------------------------

    def write_checkpoint(self, key: str, epoch: int, content: bytes) -> None:
        """Keep a checkpoint with its checksum, and the generation before it."""
        self.storage.write(f"checkpoints/{key}/{epoch:08d}.checkpoint", hashlib.sha256(content).digest() + content)
        for entry in self.storage.entries(f"checkpoints/{key}", ".checkpoint")[:-GENERATIONS]:
            self.storage.remove(f"checkpoints/{key}/{entry.name}")

    def read_checkpoints(self, key: str) -> Iterator[bytes]:
        """The checkpoints whose checksum holds, newest first; a torn one is named in `unreadable` and passed over."""
        for entry in reversed(self.storage.entries(f"checkpoints/{key}", ".checkpoint")):
            content = self.storage.read(f"checkpoints/{key}/{entry.name}") or b""
            if len(content) > 32 and hashlib.sha256(content[32:]).digest() == content[:32]:
                yield content[32:]
            else:
                self.unreadable.append(f"checkpoints/{key}/{entry.name}")

    def has_checkpoint(self, key: str) -> bool:
        """Whether a run of this trial would continue rather than start."""
        return bool(self.storage.entries(f"checkpoints/{key}", ".checkpoint"))

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
