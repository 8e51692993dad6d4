"""Attempts at trials in the results folder: heartbeats, failures, logs, checkpoints and requests to stop.
One part of the store (store.py lists all files). Does not know Ray, torch or how a trial is trained."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from study.store.schemas import read_parquet, to_parquet
from study.store.storage import Entry, Part, Tell, ignore

LIVE = re.compile(r"([0-9a-f]{16})\.(\d+)\.parquet")
CHECKED_BYTES = 1 << 28  # of checkpoints, read to see whether they are torn
GENERATIONS = 2  # checkpoints per trial: if the last one is torn, the one before it is used


@dataclass(frozen=True)
class Live:
    """A trial in progress, from its last heartbeat."""

    key: str
    attempt: int
    host: str
    process: int
    interrupted: bool  # ended on request, with a checkpoint to continue from
    seconds_ago: float
    rows: pa.Table


def log_name(key: str, attempt: int) -> str:
    return f"logs/{key}.{attempt}.log"


class Attempts(Part):
    """Attempts at trials, by the trial's key and the attempt's number."""

    def write_live(self, key: str, attempt: int, rows: pa.Table, *, interrupted: bool = False) -> None:
        """Write the heartbeat of a trial that runs in this process, with its rows so far."""
        beat = {"host": socket.gethostname(), "process": os.getpid(), "interrupted": interrupted, "time": time.time()}
        footer = {**(rows.schema.metadata or {}), b"beat": json.dumps(beat).encode()}
        self.storage.write(f"live/{key}.{attempt}.parquet", to_parquet(rows.replace_schema_metadata(footer)))

    def read_live(self) -> list[Live]:
        """The newest attempt of each trial in progress. A heartbeat that cannot be read is skipped."""
        newest: dict[str, Live] = {}
        for entry in self.storage.entries("live", ".parquet"):
            named = LIVE.fullmatch(entry.name)
            rows = self.storage.read_as(f"live/{entry.name}", read_parquet, ignore) if named else None
            with contextlib.suppress(KeyError, TypeError, ValueError):
                if named and rows is not None:
                    beat, key = json.loads(rows.schema.metadata[b"beat"]), named[1]
                    told = (beat["host"], beat["process"], beat["interrupted"], time.time() - beat["time"])
                    live = Live(key, int(named[2]), *told, rows)
                    newest[key] = max(newest.get(key, live), live, key=lambda trial: trial.attempt)
        return list(newest.values())

    def remove_live(self, key: str) -> None:
        """Remove a trial's heartbeats. The failure that ended the last attempt still has its number."""
        self._remove("live", key)

    def _remove(self, folder: str, key: str) -> None:
        for entry in self.storage.entries(folder):
            if entry.name.startswith(f"{key}."):
                self.storage.remove(f"{folder}/{entry.name}")

    def attempts(self) -> dict[str, int]:
        """The highest attempt number seen of each trial that ran without finishing, or failed."""
        return dict(self._highest("live", "failures"))

    def _highest(self, *folders: str) -> dict[str, int]:
        highest: dict[str, int] = defaultdict(int)
        for entry in itertools.chain.from_iterable(map(self.storage.entries, folders)):
            key, number, *_ = [*entry.name.split("."), ""]
            if number.isdigit():
                highest[key] = max(highest[key], int(number))
        return highest

    def next_attempt(self, key: str) -> int:
        """The number of the attempt about to start, from 1."""
        return self.attempts().get(key, 0) + 1

    def clear_progress(self, key: str, *, keep_checkpoint: bool = False) -> None:
        """Remove what only an unfinished trial needs: heartbeats, failures and, unless they are to stay, checkpoints."""
        self.remove_live(key)
        self._remove("failures", key)
        if not keep_checkpoint:
            self.storage.remove_folder(f"checkpoints/{key}")

    def unfinished(self) -> set[str]:
        return {entry.name.partition(".")[0] for f in ("live", "failures") for entry in self.storage.entries(f)}

    def request_stop(self, run: str) -> None:
        """Ask the trials of a run, or one trial by its key, to end. Any machine that sees the folder can ask."""
        self.storage.write(f"live/{run}.stop", b"")

    def is_stop_requested(self, run: str) -> bool:
        return self.storage.read(f"live/{run}.stop") is not None

    def withdraw_stop(self, run: str) -> None:
        self.storage.remove(f"live/{run}.stop")

    def stop_requests(self) -> set[str]:
        return {entry.name.removesuffix(".stop") for entry in self.storage.entries("live", ".stop")}

    def write_failure(self, key: str, attempt: int, failure: dict[str, Any]) -> None:
        self.storage.write(f"failures/{key}.{attempt}.json", json.dumps(failure, indent=1).encode())

    def failures(self, key: str | None = None, on_unreadable: Tell = ignore) -> dict[str, list[dict[str, Any]]]:
        """How attempts failed or were cut off, by trial (all trials or this one), oldest first."""
        failed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for name in (entry.name for entry in self.storage.entries("failures", ".json")):
            if key is None or name.startswith(f"{key}."):
                failure = self.storage.read_as(f"failures/{name}", json.loads, on_unreadable)
                failed[name.partition(".")[0]] += [failure] if failure is not None else []
        return {key: sorted(found, key=lambda f: f["attempt"]) for key, found in failed.items() if found}

    def failure_of(self, key: str, attempt: int) -> dict[str, Any] | None:
        """How this attempt failed; None if that is not stored. Of several workers the first to fail writes it."""
        return next((failure for failure in self.failures(key).get(key, []) if failure["attempt"] == attempt), None)

    def failed(self, on_unreadable: Tell = ignore) -> dict[str, list[dict[str, Any]]]:
        """The failures that count, of each trial whose last attempt failed and that does not run again by now."""
        running = self._highest("live")
        return {
            key: [f for f in attempts if f.get("charged", True)]
            for key, attempts in self.failures(on_unreadable=on_unreadable).items()
            if attempts[-1].get("charged", True) and attempts[-1]["attempt"] >= running[key]
        }

    def failed_starts(self, key: str | None = None) -> dict[str, int]:
        """How many failures count against each trial, or this one; attempts that were cut off do not count."""
        charged = ((k, [f for f in failed if f.get("charged", True)]) for k, failed in self.failures(key).items())
        return {k: sum(failure.get("starts", 1) for failure in failed) for k, failed in charged if failed}

    def append_log(self, key: str, attempt: int, content: bytes) -> None:
        """Add to the log of an attempt. In an object store the whole log is written again."""
        name = log_name(key, attempt)
        if self.storage.is_local:
            self.storage.append(name, content)
        else:
            self.storage.write(name, (self.storage.read(name) or b"") + content)

    def last_log_lines(self, key: str, attempt: int, count: int = 100) -> list[str]:
        content = self.storage.read(log_name(key, attempt)) or b""
        return content.decode(errors="replace").splitlines()[-count:]

    def write_checkpoint(self, key: str, epoch: int, content: bytes) -> None:
        """Write a checkpoint with its checksum. The one before it stays, older ones are removed."""
        self.storage.write(f"checkpoints/{key}/{epoch:08d}.checkpoint", hashlib.sha256(content).digest() + content)
        for entry in self.storage.entries(f"checkpoints/{key}", ".checkpoint")[:-GENERATIONS]:
            self.storage.remove(f"checkpoints/{key}/{entry.name}")

    def read_checkpoints(self, key: str, on_unreadable: Tell = ignore) -> Iterator[bytes]:
        """The checkpoints whose checksum holds, newest first; `on_unreadable` is told torn ones."""
        for entry in reversed(self.storage.entries(f"checkpoints/{key}", ".checkpoint")):
            content = self._read_checkpoint(f"checkpoints/{key}/{entry.name}", on_unreadable)
            if content is not None:
                yield content

    def _read_checkpoint(self, name: str, on_unreadable: Tell) -> bytes | None:
        content = self.storage.read(name) or b""
        if len(content) > 32 and hashlib.sha256(content[32:]).digest() == content[:32]:
            return content[32:]
        on_unreadable(name)
        return None

    def check_checkpoints(self, on_unreadable: Tell, known: dict[Entry, str] | None = None) -> None:
        """Tell which checkpoints are torn. Read are the newest ones on a disk, 256 MiB in all; known: as in `states`."""
        known, left = {} if known is None else known, CHECKED_BYTES
        is_local = self.storage.is_local  # an object store takes a file whole or not at all
        entries = self.storage.tree("checkpoints") if is_local else []
        for entry in sorted(entries, key=lambda entry: -entry.modified_ns):
            left -= entry.size
            if entry.name.endswith(".checkpoint") and entry not in known and left >= 0:
                known[entry] = "torn" if self._read_checkpoint(entry.name, ignore) is None else "whole"
            if known.get(entry) == "torn":
                on_unreadable(entry.name)
