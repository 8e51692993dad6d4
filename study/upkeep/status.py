"""The status of a study, read from its results folder alone: counts, failures, trials in progress, disk.

Knows the store and the latest study; does not know Ray, or how the status is shown over time (watch).
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from study.design.study_file import Study
from study.design.where import Selection
from study.execution.progress_view import figures_line
from study.scheduling.remaining import done_keys, spent_keys
from study.store.attempts import Live
from study.store.disk_use import DiskUse, disk_sentence, measure_disk_use
from study.store.schemas import FINAL
from study.store.sealing.sealed_tables import TRIALS
from study.store.storage import Entry
from study.store.store import Store

SILENT_SECONDS = 60.0  # an older heartbeat is marked as silent
SHOWN_FAILURES = 5
ORDER = ("complete", "diverged", "stopped", "failed", "missing")


@dataclass(frozen=True)
class Status:
    """A results folder at one moment."""

    name: str
    uri: str
    counts: Counter[str]  # trials by state
    live: tuple[Live, ...]  # trials in progress, silent and interrupted ones too
    failures: dict[str, dict[str, Any]]  # the last failure of each failed trial
    outside: int  # trials that the folder holds of other studies
    left_out: int  # trials of the study that were not selected
    disk: dict[str, DiskUse]
    unreadable: tuple[str, ...]
    is_over: bool  # nothing runs, and nothing will start by itself

    @property
    def running(self) -> list[Live]:
        """Trials whose heartbeat is fresh."""
        return [trial for trial in self.live if not trial.interrupted and trial.seconds_ago <= SILENT_SECONDS]


def read_status(
    store: Store, study: Study | None, *, selection: Selection | None = None, known: dict[Entry, str] | None = None
) -> Status:
    """The status of the study's trials, or of all in the folder if `study` is None. known: as in `Store.states`."""
    unreadable: list[str] = []
    states = store.states(known, unreadable.append)
    store.suggestions(unreadable.append)
    store.check_checkpoints(unreadable.append, known)
    keys = [c.key for c in study.configs] if study else _selected(store, states, selection)
    counts = Counter(states.get(key, "missing") for key in keys)
    if study:
        counts["missing"] += study.num_planned - len(study.configs)
    meant = set(keys) if selection else None
    live = tuple(
        trial
        for trial in store.read_live()
        if states.get(trial.key) not in FINAL and (meant is None or trial.key in meant)
    )
    failed = {key for key in keys if states.get(key) == "failed"}
    outside = len(set(states) - set(keys))
    entries = store.storage.tree()
    status = Status(
        name=study.name if study else "no study file",
        uri=store.uri,
        counts=counts,
        live=live,
        failures={key: attempts[-1] for key, attempts in store.failed().items() if key in failed},
        outside=outside if study else 0,
        left_out=study.left_out if study else outside,
        disk=measure_disk_use(entries),
        unreadable=tuple(unreadable),
        is_over=False,
    )
    return dataclasses.replace(status, is_over=_is_over(status, study, store, states, entries))


def _selected(store: Store, states: dict[str, str], selection: Selection | None) -> list[str]:
    if selection is None:
        return list(states)
    return [trial["trial"] for trial in store.read_trials().to_pylist() if selection(trial)]


def _is_over(status: Status, study: Study | None, store: Store, states: dict[str, str], entries: list[Entry]) -> bool:
    if status.running or not states:
        return False
    if study is None:
        return True
    if any(config.key not in states for config in study.configs):
        return False
    left = study.num_planned - len(done_keys(study, store, states) | spent_keys(study, store) & set(states))
    # A run seals as the last thing it does: what it left by then, it leaves to the next.
    return not left or _newest(entries, TRIALS) > _newest(entries, "studies/")


def _newest(entries: list[Entry], start: str) -> int:
    """When the newest of the files whose names begin so was written."""
    return max((entry.modified_ns for entry in entries if entry.name.startswith(start)), default=0)


def status_facts(status: Status) -> dict[str, Any]:
    """The status as `--json` prints it."""
    fields = ("key", "attempt", "host", "process", "interrupted", "seconds_ago")
    return {
        "trials": status.counts.total(),
        **status.counts,
        "running": [{name: getattr(trial, name) for name in fields} for trial in status.live],
        "outside": status.outside,
        "left_out": status.left_out,
        "failures": {key: failure["reason"] for key, failure in status.failures.items()},
        "disk": {kind: dataclasses.asdict(use) for kind, use in status.disk.items()},
        "unreadable": list(status.unreadable),
        "over": status.is_over,
    }


def status_lines(status: Status) -> Iterator[str]:
    """The status in words."""
    yield f"{status.name} in {status.uri}: {counts_line(status.counts)}"
    yield from map(live_line, status.live)
    yield from failure_lines(status)
    if status.outside:
        yield f"{status.outside} trials of other studies in this folder (--all counts them too)"
    if status.left_out:
        yield f"--where leaves out {status.left_out} more trials"
    yield disk_sentence(status.disk)


def counts_line(counts: Counter[str]) -> str:
    """How many trials are in each state, in words."""
    return ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state]) or "no trials"


def live_line(trial: Live) -> str:
    """A trial in progress in words."""
    row = last_row(trial)
    figures = f"  epoch {row['epoch']}  {figures_line(row)}" if row else ""
    return f"  {'interrupted' if trial.interrupted else 'running'}  {trial.key}{figures}  {live_note(trial)}"


def live_note(trial: Live) -> str:
    """Where a trial in progress runs and when it was last heard of, or that it waits to be continued."""
    if trial.interrupted:
        return "continues when run again"
    silent = ", silent: it may have died" if trial.seconds_ago > SILENT_SECONDS else ""
    return f"attempt {trial.attempt} on {trial.host}, heartbeat {trial.seconds_ago:.0f} s ago{silent}"


def last_row(trial: Live) -> dict[str, Any]:
    """The last measurement of a trial in progress; empty before the first."""
    rows: list[dict[str, Any]] = trial.rows.slice(max(0, trial.rows.num_rows - 1)).to_pylist()
    return rows[0] if rows else {}


def failure_lines(status: Status) -> Iterator[str]:
    """The first failures with their reasons."""
    for key, failure in list(status.failures.items())[:SHOWN_FAILURES]:
        log = f"  ({failure['log']})" if failure.get("log") else ""
        yield f"  failed   {key}  {failure['reason']}{log}"
    if len(status.failures) > SHOWN_FAILURES:
        yield f"  ... {len(status.failures)} failed in all; tracebacks in {status.uri}/failures"
