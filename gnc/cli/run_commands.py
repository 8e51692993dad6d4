"""The gnc commands that run trials: check (shows what would run), run (on Ray) and trial (one, in this process).

Knows the steps of a run; imports Ray and torch only once there is something to run.
"""

import argparse
import dataclasses
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnc.cli.opening import add_study_and_results, existing_store, latest_study, open_study, states_of
from gnc.cli.output import say, show
from gnc.cli.parser import Commands, add_command, add_json, require
from study.design.config import TrialConfig
from study.design.errors import StudyError
from study.design.study_file import Study, read_study
from study.execution.cost import Price, price
from study.execution.same_data import check_datasets, warn_mixed_machines
from study.execution.signals import REQUESTS
from study.scheduling.remaining import done_keys, spent_keys, trials_left
from study.scheduling.retries import ListedTrials, Trials
from study.scheduling.suggestions import Suggestions, complete_study
from study.store.store import Store, open_store
from study.training.data import check_data, missing_for
from study.tuning.loggers import check_callbacks
from study.upkeep.status import counts_line


def add_check_parser(commands: Commands) -> None:
    example = "gnc check studies/quickstart.toml --trials"
    parser = add_command(commands, command_check, example, add_study_and_results, add_json)
    parser.add_argument("--trials", action="store_true", help="list every trial: key, state, settings that vary")
    parser.add_argument("--probe", action="store_true", help="measure the cost with a few steps of each kind of trial")


def command_check(options: argparse.Namespace) -> int:
    """Show what a study would run, what is stored and what the rest costs, without running anything."""
    study, store = open_study(options)
    check_callbacks(study.callbacks, store)
    states = states_of(store)
    missing = trials_left(study, done_keys(study, store, states))
    cost = price(missing, store, cpus=study.resources.cpus, probe=options.probe)
    if options.trials and not options.json:
        for config in study.configs:
            print(f"{config.key}  {states.get(config.key, 'missing'):<8}  {study.name_of(config)}")
    show(options, _check_facts(study, store, missing, cost), _check_lines(study, store, missing, cost))
    return 0


def _check_lines(study: Study, store: Store, missing: list[TrialConfig], cost: Price) -> Iterator[str]:
    yield f"{study.name}: {study.num_planned} trials, {study.num_planned - len(missing)} stored in {store.uri}"
    if study.left_out:
        yield f"--where leaves out {study.left_out} more trials of the study"
    if study.varied:
        yield f"The trials differ in {', '.join(study.varied)}."
    yield _cost_sentence(cost)
    yield from (f"missing: {sentence}" for sentence in missing_for(missing))


def _check_facts(study: Study, store: Store, missing: list[TrialConfig], cost: Price) -> dict[str, Any]:
    known = {c.key for c in study.configs}  # trials that a search has not suggested yet have no key
    return {
        "name": study.name,
        "results": store.uri,
        "trials": study.num_planned,
        "left_out": study.left_out,
        "missing": [c.key for c in missing if c.key in known],
        "missing_data": missing_for(missing),
        "seconds": cost.seconds,
        "wall_seconds": cost.wall_seconds,
        "unpriced": cost.unpriced,
        "price_source": cost.source,
    }


def _cost_sentence(cost: Price) -> str:
    if not cost.trials:
        return "Nothing is left to run."
    if cost.wall_seconds is None:
        return f"The cost of {cost.unpriced} of the {cost.trials} trials to run is unknown; --probe measures it."
    return (
        f"{cost.trials} trials to run: about {cost.wall_seconds:.0f} s on this machine, {cost.at_once} at a time, after "
        f"Ray has started ({cost.seconds:.0f} s of trial time, estimated from {cost.source})"
    )


def add_run_parser(commands: Commands) -> None:
    example = "gnc run studies/quickstart.toml --where 'num_classes <= 50'"
    parser = add_command(commands, command_run, example, add_study_and_results)
    parser.add_argument("--address", help="the Ray cluster to join, such as auto; default: this machine alone")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="run at most N trials at the same time")
    parser.add_argument("--retry-failed", action="store_true", help="also run trials that failed in all their attempts")


def command_run(options: argparse.Namespace) -> int:
    """Run the trials of a study that are not in the results folder yet."""
    study, store = open_study(options)
    most = options.max_concurrent
    require(most is None or most >= 1, f"--max-concurrent must be at least 1, got {most}.")
    check_callbacks(study.callbacks, store)
    done = done_keys(study, store, states_of(store))
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
        say(f"0 trials to run: {len(done)} of {study.num_planned} are in {store.uri}")
    try:
        sealed = store.seal()
    except OSError as error:
        say(f"{error}\nFinished trials are kept. When this is mended, continue with: {_again(options)}")
        return 1
    say(f"{sealed.rows} rows of {sealed.trials} trials sealed in {store.uri}/results.parquet")
    return _say_outcome(complete_study(study, store), store, options, finished)


def _run_missing(
    options: argparse.Namespace, study: Study, store: Store, missing: list[TrialConfig], spent: set[str]
) -> bool:
    check_datasets(store, missing)
    warn_mixed_machines(store)
    stored = study.num_planned - len(missing)
    others = f", {study.left_out} left out by --where" if study.left_out else ""
    say(f"{study.name}: {len(missing)} trials to run, {stored} stored{others}; starting Ray")
    # Ray takes seconds to load: only here, after the user was told
    from study.tuning.experiment import leave_cluster, run_trials
    from study.tuning.resources import allot, check_shared_folder, join_cluster
    from study.tuning.run_view import View

    try:
        join_cluster(options.address)
        allotments = {n: allot(study.resources, workers=n) for n in sorted({c.workers for c in missing})}
        check_shared_folder(store)
        store.write_study(study.text)  # from here on it is a study that was run
        with View(len(missing), already_done=stored) as view:
            sources = _sources(study, store, missing, spent)
            return run_trials(
                study, sources, store, allotments, view, concurrent=options.max_concurrent, forgive=options.retry_failed
            )
    finally:
        leave_cluster()


def _sources(study: Study, store: Store, missing: list[TrialConfig], spent: set[str]) -> dict[int, Trials]:
    """Where the trials come from, by their number of workers."""
    numbers = sorted({config.workers for config in missing})
    if not study.is_adaptive:
        return {n: ListedTrials(config for config in missing if config.workers == n) for n in numbers}
    of_cell = {cell: dict(cell.settings).get("workers", 1) for cell in study.cells}
    parts = {n: tuple(cell for cell in study.cells if of_cell[cell] == n) for n in numbers}
    return {n: Suggestions(dataclasses.replace(study, cells=cells), store, spent=spent) for n, cells in parts.items()}


def _again(options: argparse.Namespace) -> str:
    """The command that continues this run, with the same options."""
    words = ["gnc", "run", options.study, *([options.results] if options.results else [])]
    for name in ("address", "where", "max_concurrent"):
        if value := getattr(options, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _say_outcome(study: Study, store: Store, options: argparse.Namespace, finished: bool) -> int:
    states = store.states()
    done, spent = done_keys(study, store, states), spent_keys(study, store)
    counts = Counter(states.get(c.key, "missing") for c in study.configs)
    unsuggested = study.num_planned - len(study.configs)
    others = f"; --where left out {study.left_out} more trials of the study" if study.left_out else ""
    say(f"{counts_line(counts)}{others}")
    again = _again(options)
    if not finished or counts["missing"]:
        say(f"The run stopped before its end; this continues it: {again}")
    elif unsuggested:
        say(f"The search found no untried settings for {unsuggested} more trials.")
    if counts["failed"] and (left := {c.key for c in study.configs} - done - spent):
        say(f"{len(left)} trials have attempts left. To start them again: {again}")
    elif counts["failed"]:
        say(f"Trials failed and their attempts are used up; {again} --retry-failed would start them again")
    if counts["diverged"]:
        say("Diverged trials are results too: running again does not repeat them.")
    satisfied = counts["complete"] + sum(states.get(key) == "stopped" for key in done)
    if study.search.method != "grid":  # a search tries what may diverge, and learns from it
        satisfied += counts["diverged"]
    return 0 if finished and satisfied == len(study.configs) else 1


def add_trial_parser(commands: Commands) -> None:
    parser = add_command(commands, command_trial, "gnc trial studies/quickstart.toml 093991")
    parser.add_argument("source", metavar="STUDY|RESULTS", help="a study file, or a results folder where one was run")
    parser.add_argument("key", help="the key of the trial, or its first digits")
    parser.add_argument("--results", help="the results folder or its URI; default: results/NAME, or the folder given")


def command_trial(options: argparse.Namespace) -> int:
    """Run one trial in this process, without Ray."""
    study, store = _study_of(options.source, options.results)
    config = _find(study, options.key)
    if store.states().get(config.key) == "complete":
        say(f"{config.key} is complete in {store.uri}; nothing to run")
        return 0
    # PyTorch takes seconds to load: only here, where a trial will run
    from study.execution.attempt import measurement_line
    from study.execution.local_workers import run_here

    store.storage.check_writable()
    check_data([config])
    check_datasets(store, [config])
    REQUESTS.listen(signal.SIGINT, signal.SIGTERM)
    terminal = sys.stderr  # while the trial runs, sys.stderr also writes into its log

    def follow(progress: Any) -> None:
        if progress.measurement is not None:
            print(measurement_line(progress.measurement), file=terminal)

    say(f"{config.key}  {study.name_of(config)}")
    with REQUESTS.deferred():
        state, reason = run_here(
            config,
            store,
            keep=study.keep,
            checkpoint_seconds=study.resources.checkpoint_seconds,
            device="cpu" if study.resources.gpus == 0 else None,
            should_stop=lambda: REQUESTS.reason,
            on_progress=follow,
        )
    say(f"{state}{f': {reason}' if reason else ''}")
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
