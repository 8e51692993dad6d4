"""The gnc commands that run trials: run (many, on Ray) and trial (one, in this process).

Knows how a run goes from what is missing to how it ended; imports Ray and torch only once there is something to run.
"""

import argparse
import dataclasses
import shlex
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnc.cli.folder_commands import existing_store, latest_study, open_study, warn_unreadable
from study.design.config import TrialConfig
from study.design.errors import StudyError
from study.design.study_file import Study, read_study
from study.execution.same_data import check_datasets, warn_mixed_machines
from study.execution.signals import REQUESTS
from study.scheduling.remaining import done_keys, spent_keys, trials_left
from study.scheduling.suggestions import Suggestions, complete_study
from study.store.store import Store, open_store
from study.training.data import check_data
from study.tuning.loggers import check_callbacks
from study.upkeep.status import counts_line

if TYPE_CHECKING:
    from study.scheduling.retries import Trials


def command_run(options: argparse.Namespace) -> int:
    """Run what is missing, seal, and say how it ended and what a rerun would do."""
    study, store = open_study(options)
    if options.max_concurrent is not None and options.max_concurrent < 1:
        raise StudyError(f"--max-concurrent must be at least 1, got {options.max_concurrent}.")
    check_callbacks(study.callbacks, store)
    unreadable: list[str] = []
    done = done_keys(study, store, store.states(on_unreadable=unreadable.append))
    warn_unreadable(unreadable)
    spent = set() if options.retry_failed else spent_keys(study, store)
    missing = trials_left(study, done | spent)
    store.storage.check_writable()
    finished = True
    if missing:
        check_data(missing)
        try:
            finished = _run_missing(options, study, store, missing, spent)
        except KeyboardInterrupt:  # before the trials began, or a second time
            finished = False
    else:
        store.write_study(study.text)
        print(f"0 trials to run: {len(done)} of {study.num_planned} are in {store.uri}", file=sys.stderr)
    try:
        sealed = store.seal()
    except OSError as error:
        print(f"{error}\nwhat was finished is kept; once that is mended: {_again(options)}", file=sys.stderr)
        return 1
    print(f"{sealed.rows} rows of {sealed.trials} trials sealed in {store.uri}/results.parquet", file=sys.stderr)
    return _say_outcome(complete_study(study, store), store, options, finished)


def _run_missing(
    options: argparse.Namespace, study: Study, store: Store, missing: list[TrialConfig], spent: set[str]
) -> bool:
    from study.tuning.run_view import View

    check_datasets(store, missing)
    warn_mixed_machines(store)
    stored = study.num_planned - len(missing)
    others = f", {study.left_out} left out" if study.left_out else ""
    print(f"{study.name}: {len(missing)} trials to run, {stored} stored{others}; starting Ray", file=sys.stderr)
    from study.tuning.experiment import leave_cluster, run_trials
    from study.tuning.resources import allot, check_shared_folder, join_cluster

    try:
        join_cluster(options.address)
        allotments = {n: allot(study.resources, workers=n) for n in sorted({c.workers for c in missing})}
        check_shared_folder(store)
        store.write_study(study.text)  # from here on it is a study that was run
        with View(len(missing), already_done=stored) as view:
            return run_trials(
                study,
                _sources(study, store, missing, spent),
                store,
                allotments,
                view,
                concurrent=options.max_concurrent,
                forgive=options.retry_failed,
            )
    finally:
        leave_cluster()


def _sources(study: Study, store: Store, missing: list[TrialConfig], spent: set[str]) -> "dict[int, Trials]":
    """Where the trials come from, by their number of workers."""
    from study.tuning.experiment import ListedTrials

    numbers = sorted({config.workers for config in missing})
    if not study.is_adaptive:
        return {n: ListedTrials([config for config in missing if config.workers == n]) for n in numbers}
    of_cell = {cell: dict(cell.settings).get("workers", 1) for cell in study.cells}
    parts = {n: tuple(cell for cell in study.cells if of_cell[cell] == n) for n in numbers}
    return {n: Suggestions(dataclasses.replace(study, cells=cells), store, spent=spent) for n, cells in parts.items()}


def _again(options: argparse.Namespace) -> str:
    """The command that continues this run, with its machine flags."""
    words = ["gnc", "run", options.study, *([options.results] if options.results else [])]
    words += ["--address", options.address] if options.address else []
    words += ["--where", options.where] if options.where else []
    words += ["--max-concurrent", str(options.max_concurrent)] if options.max_concurrent else []
    return shlex.join(words)


def _say_outcome(study: Study, store: Store, options: argparse.Namespace, finished: bool) -> int:
    states = store.states()
    done, spent = done_keys(study, store, states), spent_keys(study, store)
    counts = Counter(states.get(c.key, "missing") for c in study.configs)
    unsuggested = study.num_planned - len(study.configs)
    others = f"; --where left out {study.left_out} more trials of the study" if study.left_out else ""
    print(f"{counts_line(counts)}{others}", file=sys.stderr)
    again = _again(options)
    if not finished or counts["missing"]:
        print(f"stopped before the end; this continues it: {again}", file=sys.stderr)
    elif unsuggested:
        print(f"{unsuggested} trials of the search were not found: its space is used up", file=sys.stderr)
    if counts["failed"]:
        left = {c.key for c in study.configs} - done - spent
        if left:
            print(f"{again} would start {len(left)} trials again", file=sys.stderr)
        else:
            print(f"their attempts are used up; {again} --retry-failed would start them again", file=sys.stderr)
    if counts["diverged"]:
        print("diverged trials are results: a rerun keeps them, other settings are other trials", file=sys.stderr)
    satisfied = counts["complete"] + sum(states.get(key) == "stopped" for key in done)
    if study.search.method != "grid":  # a search tries what may diverge, and learns from it
        satisfied += counts["diverged"]
    return 0 if finished and satisfied == len(study.configs) else 1


def command_trial(options: argparse.Namespace) -> int:
    """Run one trial without Ray, in this process or one for each of its workers; its rows are those Ray would give."""
    study, store = _study_of(options.source, options.results)
    config = _find(study, options.key)
    if store.states().get(config.key) == "complete":
        print(f"{config.key} is complete in {store.uri}; nothing to run", file=sys.stderr)
        return 0
    from study.execution.attempt import measurement_line
    from study.execution.local_workers import run_here

    store.storage.check_writable()
    check_data([config])
    check_datasets(store, [config])
    REQUESTS.listen(signal.SIGINT, signal.SIGTERM)
    terminal = sys.stderr  # while the trial runs, what goes to sys.stderr is put into its log as well

    def show(progress: Any) -> None:
        if progress.measurement is not None:
            print(measurement_line(progress.measurement), file=terminal)

    print(f"{config.key}  {study.name_of(config)}", file=sys.stderr)
    with REQUESTS.deferred():
        state, reason = run_here(
            config,
            store,
            keep=study.keep,
            checkpoint_seconds=study.resources.checkpoint_seconds,
            device="cpu" if study.resources.gpus == 0 else None,
            should_stop=lambda: REQUESTS.reason,
            on_progress=show,
        )
    print(f"{state}{f': {reason}' if reason else ''}", file=sys.stderr)
    return 0 if state == "complete" else 1


def _study_of(source: str, results: str | None) -> tuple[Study, Store]:
    if Path(source).suffix == ".toml":
        study = read_study(source)
        store = open_store(results or f"results/{study.name}")
        return complete_study(study, store), store
    store = existing_store(source)
    latest = latest_study(store)
    if latest is None:
        raise StudyError(f"RESULTS must hold a study file, got {source!r} without one. Give the study file instead.")
    return latest, open_store(results) if results else store


def _find(study: Study, key: str) -> TrialConfig:
    found = [c for c in study.configs if c.key.startswith(key)]
    if len(found) != 1:
        keys = ", ".join(c.key for c in study.configs[:5])
        raise StudyError(f"KEY must name one trial of {study.name}, got {key!r}, which names {len(found)}. Keys: {keys}"
                         f"{', ...' if len(study.configs) > 5 else ''}.")  # fmt: skip
    return found[0]
