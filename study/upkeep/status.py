"""The status of a study, read from its results folder alone: counts, failures, trials in progress, disk.
Knows the store and the latest study; does not know Ray, or how the status is shown over time (watch)."""

import contextlib
import dataclasses
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gnc_models.progress import amount
from study.design.study_file import Study
from study.design.where import Selection
from study.execution.progress_view import figures_line
from study.scheduling.remaining import done_keys, spent_keys
from study.store.attempts import Live
from study.store.claims import SILENT_SECONDS, Run
from study.store.disk_use import DiskUse, disk_sentence, measure_disk_use
from study.store.schemas import FINAL, open_parquet
from study.store.sealing.sealed_tables import RESULTS
from study.store.storage import Entry
from study.store.store import Store

KEY = re.compile("[0-9a-f]{16}")  # of a trial; a search claims the places of its suggestions too
SHOWN_FAILURES = 5
NAMELESS, ALL = "no study file", "all trials"
MISSING = "missing"  # trials without rows
ORDER = ("complete", "diverged", "stopped", "failed")


@dataclass(frozen=True)
class RunAtWork:
    """A run on the folder and the trials that it has claimed."""

    run: Run
    trials: tuple[str, ...]
    seconds_ago: float  # since its last beat

    @property
    def is_silent(self) -> bool:
        """Whether it was killed, or has been away for so long that other runs take its trials."""
        return self.run.is_gone or self.seconds_ago > SILENT_SECONDS


@dataclass(frozen=True)
class TrialAtWork(Live):
    """A trial in progress, where it stands, and of which study its run is, in words."""

    stage: str = ""
    of: str = ""


@dataclass(frozen=True)
class Status:
    """A results folder at one moment."""

    name: str
    uri: str
    counts: Counter[str]  # trials by state
    live: tuple[TrialAtWork, ...]  # trials in progress, silent and interrupted ones too
    beside: Counter[str]  # trials in progress that are not meant, by stage and study
    runs: tuple[RunAtWork, ...]  # runs under way, and those that were killed
    failures: dict[str, dict[str, Any]]  # the last failure of each failed trial
    outside: int  # trials that the folder holds of other studies
    left_out: int  # trials of the study that were not selected
    disk: dict[str, DiskUse]
    unreadable: tuple[str, ...]
    is_over: bool  # nothing runs, and nothing will start by itself


def read_status(
    store: Store, study: Study | None, *, selection: Selection | None = None, known: dict[Entry, str] | None = None
) -> Status:
    """The status of the study's trials, or of all in the folder if `study` is None. known: as in `Store.states`."""
    unreadable: list[str] = []
    states = store.states(known, unreadable.append)
    store.suggestions(unreadable.append)
    store.check_checkpoints(unreadable.append, known)
    store.storage.read_as(RESULTS, open_parquet, unreadable.append, is_mapped=True)  # its rows are not counted here
    keys = [config.key for config in study.configs] if study else list(states)
    if selection and not study:
        keys = [trial["trial"] for trial in store.read_trials().to_pylist() if selection(trial)]
    counts = Counter(states.get(key, "missing") for key in keys)
    if study:
        counts["missing"] += study.num_planned - len(study.configs)
    meant = set(keys) if study or selection else None
    runs = tuple(runs_at_work(store))
    going = [trial for trial in trials_at_work(store, runs) if states.get(trial.key) not in FINAL]
    live = tuple(trial for trial in going if meant is None or trial.key in meant)
    beside = (trial.stage + trial.of for trial in going if meant is not None and trial.key not in meant)
    failed, outside = {key for key in keys if states.get(key) == "failed"}, len(set(states) - set(keys))
    return Status(
        name=study.name if study else ALL if store.studies() else NAMELESS, uri=store.uri, counts=counts, live=live,
        beside=Counter(beside), runs=runs,
        failures={key: attempts[-1] for key, attempts in store.failed().items() if key in failed},
        outside=outside if study else 0, left_out=study.left_out if study else outside,
        disk=measure_disk_use(store.storage.tree()), unreadable=tuple(unreadable),
        is_over=all(trial.stage != "running" for trial in live) and _is_over(runs, study, store, states),
    )  # fmt: skip


def runs_at_work(store: Store) -> Iterator[RunAtWork]:
    """The runs that have a mark in the folder, with what each has claimed."""
    marks, claims, now = store.runs(), store.claims(), time.time()
    theirs = now
    if not all(mark.is_near for mark in marks.values()):  # clocks differ: files are compared with one written now
        with contextlib.suppress(OSError):  # this machine may only read there: its own clock has to do
            theirs = store.storage.check_writable(0)
    for name, mark in sorted(marks.items()):
        trials = tuple(sorted(key for key, claim in claims.items() if claim.run == name and KEY.fullmatch(key)))
        yield RunAtWork(mark, trials, max(0.0, now - mark.time if mark.is_near else theirs - mark.written))


def trials_at_work(store: Store, runs: Iterable[RunAtWork]) -> Iterator[TrialAtWork]:
    """Trials in progress, those cut off or interrupted too. A run is heard of during long epochs, and whatever its clock says."""
    having = {key: run for run in runs for key in run.trials}
    for trial in store.read_live():
        run = having.get(trial.key)
        stage = "cut off" if (run.is_silent if run else trial.seconds_ago > SILENT_SECONDS) else "running"
        stage = "interrupted with checkpoints" if trial.interrupted else stage
        of = f" of studies/{run.run.study}" if run and run.run.study else ""
        yield TrialAtWork(**vars(trial), stage=stage, of=of)


def _is_over(runs: Iterable[RunAtWork], study: Study | None, store: Store, states: dict[str, str]) -> bool:
    if study is None or not states or any(config.key not in states for config in study.configs):
        return study is None and bool(states)
    left = study.num_planned - len(done_keys(study, store, states) | spent_keys(study, store) & set(states))
    return not left or all(run.is_silent for run in runs)  # a run would start again what failed


def status_facts(status: Status) -> dict[str, Any]:
    """The status as `--json` prints it."""
    fields = ("key", "attempt", "host", "process", "interrupted", "stage", "seconds_ago")
    return {
        "trials": status.counts.total(),
        **status.counts,
        "running": [{name: getattr(trial, name) for name in fields} for trial in status.live],
        "beside": status.beside,
        "runs": [
            {name: getattr(r.run, name) for name in ("host", "process", "study")}
            | {"run": r.run.name, "silent": r.is_silent, "trials": r.trials}
            for r in status.runs
        ],
        "outside": status.outside,
        "left_out": status.left_out,
        "failures": {key: failure["reason"] for key, failure in status.failures.items()},
        "disk": {kind: dataclasses.asdict(use) for kind, use in status.disk.items()},
        "unreadable": list(status.unreadable),
        "over": status.is_over,
    }


def status_lines(status: Status) -> Iterator[str]:
    """The status in words."""
    if status.name == NAMELESS and not status.counts.total() and not status.live:
        yield f"{status.uri} holds no study and no trial. To fill it: gnc run STUDY.toml {status.uri}"
        return
    yield f"{status.name} in {status.uri}: {counts_line(status.counts, status.live)}"
    yield from map(run_line, status.runs)
    yield from map(live_line, status.live)
    if status.beside:
        yield f"  beside it: {', '.join(f'{count} {words}' for words, count in status.beside.items())}"
    yield from failure_lines(status)
    if status.outside:
        yield f"{amount(status.outside, 'trial')} of other studies in this folder (--all counts them too)"
    if status.left_out:
        yield f"--where leaves out {amount(status.left_out, 'more trial')}"
    yield disk_sentence(status.disk)


def counts_line(counts: Counter[str], live: Iterable[TrialAtWork] = ()) -> str:
    """How many trials are in each state, in words; of those without a state, how many run or wait with a checkpoint."""
    told = {state: counts[state] for state in ORDER}
    begun = Counter(trial.stage for trial in live)
    told |= begun | {"not started": max(0, counts[MISSING] - begun.total())}
    return ", ".join(f"{count} {words}" for words, count in told.items() if count) or "no trials"


def run_line(found: RunAtWork) -> str:
    """A run on the folder in words."""
    study = f" of studies/{found.run.study}" if found.run.study else ""
    silent = ", silent: other runs take its trials" if found.is_silent and found.trials else ""
    where = f"on {found.run.host}, process {found.run.process}" if found.run.host else "of an earlier version"
    return f"  {found.run.name} {where}: {amount(len(found.trials), 'trial')}{study}, heartbeat {found.seconds_ago:.0f} s ago{silent}"


def live_line(trial: TrialAtWork) -> str:
    """A trial in progress in words."""
    row = last_row(trial)
    figures = f"  epoch {row['epoch']}  {figures_line(row)}" if row else ""
    return f"  {trial.stage.partition(' with ')[0]}  {trial.key}{figures}  {live_note(trial)}"


def live_note(trial: TrialAtWork) -> str:
    """Where a trial in progress runs and when it was last heard of, or that it waits to be continued."""
    if trial.interrupted:
        return "continues when run again"
    silent = ", cut off: continues when run again" if trial.stage == "cut off" else ""
    return f"attempt {trial.attempt} on {trial.host}, heartbeat {max(0.0, trial.seconds_ago):.0f} s ago{silent}"


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
