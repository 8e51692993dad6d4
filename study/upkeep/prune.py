"""`gnc prune`: finds and deletes files of a results folder that nothing will read again; never rows, nor a trial's that may run.
Trials go on meanwhile, so the order of reading matters: first the files, then the heartbeats, then the rows. Knows the
names in the results folder; does not know Ray."""

import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from study.design.errors import StudyError
from study.design.study_file import parse_study
from study.store.attempts import Live
from study.store.disk_use import kind_of
from study.store.schemas import FINAL
from study.store.storage import Entry, FolderError
from study.store.store import Store

KEY_FIRST = re.compile(r"(live|heads|margins|checkpoints|claims)/([0-9a-f]{16})[./].+")
ATTEMPT = re.compile(r"live/([0-9a-f]{16})\.(\d+)\.parquet")
OF_A_RUN = re.compile(r"live/([^/]+)\.(stop|run)")
TEMPORARY_SECONDS = 3600.0  # a write takes seconds, so an older temporary file has no writer


@dataclass(frozen=True)
class Prunable:
    """A file that may be deleted."""

    entry: Entry
    kind: str
    reason: str


@dataclass(frozen=True)
class _Folder:
    """What decides whether a file may be deleted, read once."""

    running: frozenset[str]  # keys of trials that may be alive
    newest: dict[str, Live]
    states: dict[str, str]
    stored: frozenset[str]  # keys that have rows, readable or not
    known: frozenset[str] | None  # keys of every study file; None where not all can be told
    silent_seconds: float

    def is_finished(self, key: str) -> bool:
        return self.states.get(key) in FINAL

    def is_unknown(self, key: str) -> bool:
        return self.known is not None and key not in self.known and key not in self.stored


def find_prunable(store: Store, *, silent_seconds: float) -> list[Prunable]:
    """Files that may be deleted. silent_seconds: a trial that wrote nothing for longer, and whose process is not here, is dead."""
    entries, now = store.storage.tree(), time.time()
    folder = _read_folder(store, entries, now, silent_seconds)
    found = ((entry, _reason(entry, folder, now - entry.modified_ns / 1e9)) for entry in entries)
    return [Prunable(entry, kind_of(entry.name), reason) for entry, reason in found if reason]


def prune(store: Store, prunable: list[Prunable]) -> Iterator[Prunable]:
    """Delete the files that are still what they were when found; yields each that is gone."""
    now = {entry.name: entry for entry in store.storage.tree()}
    for found in prunable:
        if now.get(found.entry.name) == found.entry:
            store.storage.remove(found.entry.name)
            yield found


def _read_folder(store: Store, entries: list[Entry], now: float, silent_seconds: float) -> _Folder:
    newest = {trial.key: trial for trial in store.read_live()}
    beating = {m[1] for e in entries if (m := ATTEMPT.fullmatch(e.name)) and now - e.modified_ns / 1e9 < silent_seconds}
    alive = {key for key, trial in newest.items() if trial.seconds_ago < silent_seconds or is_alive_here(trial)}
    left_off = {key for key, trial in newest.items() if trial.interrupted}
    store.check_only_copy()
    torn: list[str] = []
    states = store.states(on_unreadable=torn.append)
    if archives := [name for name in torn if name.startswith("archive/")]:
        rule = f"archives must be readable before anything is deleted, got torn {archives[:5]}"
        raise FolderError(f"{rule}. Restore them from a copy: which trials are finished cannot be told without.")
    return _Folder(
        running=frozenset((beating | alive) - left_off), newest=newest, states=states,
        stored=frozenset(store.fragments()) | {key for key, state in states.items() if state != "failed"},
        known=_known_keys(store), silent_seconds=silent_seconds,
    )  # fmt: skip


def _known_keys(store: Store) -> frozenset[str] | None:
    """The keys of all study files; None where a file cannot be read or a search has yet to name its trials."""
    try:
        studies = [parse_study(text) for text in store.studies()]
    except StudyError:
        return None
    keys = frozenset(config.key for study in studies for config in study.configs)
    return keys if keys and not any(study.is_adaptive for study in studies) else None


def _reason(entry: Entry, folder: _Folder, age: float) -> str | None:
    """Why the file may be deleted; None if it stays."""
    if kind_of(entry.name) == "temporary":
        return "left by a writer that was killed" if age > TEMPORARY_SECONDS else None
    if of_a_run := OF_A_RUN.fullmatch(entry.name):
        return _reason_of_run(of_a_run[1], of_a_run[2], folder, age)
    named = KEY_FIRST.match(entry.name)
    if named is None:
        return None
    folder_name, key = named.groups()
    if folder_name in ("live", "checkpoints", "claims") and folder.is_finished(key):
        return "its trial is finished"
    if folder_name == "claims":  # the next claim follows the last one, so the chain of a trial to run stays
        return None
    if folder_name == "live":
        return _reason_of_live(entry, key, folder, age)
    if key in folder.running:
        return None
    if folder_name == "checkpoints":
        return "no study file here knows its trial" if folder.is_unknown(key) else None
    return None if key in folder.stored else "its trial has no rows"


def _reason_of_run(run: str, kind: str, folder: _Folder, age: float) -> str | None:
    """As `_reason`, for a request to stop, which may name a trial, or the mark of a run, which may last for days."""
    if folder.is_finished(run):
        return "its trial is finished"
    is_old = age > folder.silent_seconds
    has_ended = is_old and not folder.running if kind == "run" else is_old or not folder.running
    return "its run has ended" if has_ended else None


def _reason_of_live(entry: Entry, key: str, folder: _Folder, age: float) -> str | None:
    attempt, newest = ATTEMPT.fullmatch(entry.name), folder.newest.get(key)
    if attempt is None or age < folder.silent_seconds:
        return None
    if newest is not None and int(attempt[2]) < newest.attempt:
        return "a later attempt took its place"
    if key in folder.running:
        return None
    if newest is not None and newest.interrupted:  # it continues when run again, where a study still asks for it
        return "no study file here knows its trial" if folder.is_unknown(key) else None
    return "its process is gone"


def is_alive_here(live: Live) -> bool:
    """Whether the trial's process is alive on this machine; always False for one on another machine."""
    if live.host != socket.gethostname():
        return False
    try:
        os.kill(live.process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
