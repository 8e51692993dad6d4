"""The gnc commands that run trials: check (shows what would run), run (on Ray) and trial (one, in this process). Knows the
steps of a run; imports Ray and torch only once there is something to run."""

import argparse
import dataclasses
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnc.cli.opening import check_code, named_store, open_study, states_of, stored_study
from gnc.cli.output import put, say, show
from gnc.part_check import check_parts
from gnc_models.processes import ASKS
from gnc_models.progress import amount
from study.design.config import TrialConfig
from study.design.errors import SHOWN, StudyError, require
from study.design.search import Scheduler
from study.design.study_file import Study, read_study
from study.execution.cost import Price, price
from study.execution.granted import data_room
from study.execution.progress_view import Pace
from study.execution.run_mark import check_tasks_share
from study.execution.same_data import check_datasets, mixed_machines
from study.execution.signals import REQUESTS, act_as_ctrl_c, held_back
from study.scheduling.remaining import done_keys, spent_keys, trials_left
from study.scheduling.sharing import LOOK_SECONDS, ListedTrials, SharedTrials, Sharing, Trials
from study.scheduling.suggestions import Suggestions, complete_study
from study.store.store import Store, existing_store
from study.training.data import DataFound, check_data, find_data
from study.tuning.loggers import check_callbacks
from study.upkeep.status import counts_line, runs_at_work, trials_at_work


def command_check(options: argparse.Namespace) -> int:
    """Show what a study would run, what is stored and what the rest costs, without running any trial."""
    study, store = open_study(options)
    roads = list[str]()
    if options.allow_code or options.probe or not study.code_elsewhere:
        check_code(study, store, options.allow_code)
        roads = check_parts((*study.configs, *study.extremes))
    check_callbacks(study.log.callbacks, store)
    states = states_of(store)
    missing = trials_left(study, done_keys(study, store, states))
    cost = price(missing, store, cpus=study.resources.cpus, probe=options.probe)
    if options.trials and not options.json:
        for config in study.configs:
            put(f"{config.key}  {states.get(config.key, 'missing'):<8}  {study.name_of(config)}")
    found = find_data(missing, data_room())
    found.held.extend(roads)
    facts = _check_facts(study, store, missing, cost, found) if options.json else {}
    if options.json:
        # --where changes no index
        whole = study if options.where is None else complete_study(read_study(options.study), store)
        # in a search the places change with what is suggested
        keys = {} if study.is_adaptive else {config.key: at for at, config in enumerate(whole.configs)}
        told = ((keys.get(c.key), c.key, states.get(c.key, "missing")) for c in study.configs)
        facts["planned"] = [{"index": at, "key": key, "state": state} for at, key, state in told]
    show(options, facts, _check_lines(study, store, missing, cost, found))
    return 0


def _check_lines(
    study: Study, store: Store, missing: list[TrialConfig], cost: Price, found: DataFound
) -> Iterator[str]:
    yield f"{study.name}: {amount(study.num_planned, 'trial')}, {study.num_planned - len(missing)} stored in {store.uri}"
    if study.code_elsewhere:
        yield f"Only {store.uri} has or names {', '.join(study.code_elsewhere[:SHOWN])}: --allow-code checks them too."
    if study.left_out:
        yield f"--where leaves out {amount(study.left_out, 'more trial')} of the study"
    if study.varied:
        yield f"The trials differ in {', '.join(study.varied)}."
    yield _cost_sentence(cost)
    yield from (f"data: {sentence}" for sentence in found.held)
    yield from (f"missing: {sentence}" for sentence in found.missing)


def _check_facts(
    study: Study, store: Store, missing: list[TrialConfig], cost: Price, found: DataFound
) -> dict[str, Any]:
    known = {c.key for c in study.configs}  # trials that a search has not suggested yet have no key
    trials = {"name": study.name, "results": store.uri, "trials": study.num_planned, "left_out": study.left_out}
    lacking = {"missing": [c.key for c in missing if c.key in known], "missing_data": found.missing, "data": found.held}
    price = {name: getattr(cost, name) for name in ("seconds", "wall_seconds", "unpriced")}
    return trials | lacking | price | {"price_source": cost.source, "price_is_bound": cost.is_bound}


def _cost_sentence(cost: Price) -> str:
    if not cost.trials:
        return "Nothing is left to run."
    if cost.wall_seconds is None:
        unknown = f"{cost.unpriced} of the {amount(cost.trials, 'trial')} to run is unknown"
        return f"The cost of {unknown}; --probe measures it."
    about = "at most about" if cost.is_bound else "about"
    start = f"{amount(cost.trials, 'trial')} to run: {about} {cost.wall_seconds:.0f} s on this machine, {cost.at_once} at a time"
    return f"{start}, after Ray has started ({cost.seconds:.0f} s of trial time, estimated from {cost.source})"


def command_run(options: argparse.Namespace) -> int:
    """Run the trials of a study that are not in the results folder yet."""
    study, store = open_study(options)
    check_code(study, store, options.allow_code)
    most = options.max_concurrent
    require(most is None or most >= 1, f"--max-concurrent must be at least 1, got {most}.")
    check_callbacks(study.log.callbacks, store)
    done = done_keys(study, store, states_of(store))
    spent = set() if options.retry_failed else spent_keys(study, store)
    missing = trials_left(study, done | spent)
    store.storage.check_writable()
    finished, sharing = True, None
    if missing:
        check_data(missing)
        check_parts((*missing, *study.extremes))
        try:
            act_as_ctrl_c()
            finished, sharing = _run_missing(options, study, store, missing, spent)
        except KeyboardInterrupt:  # before the trials began, or a second time
            finished = False
    else:
        store.write_study(study.text, study.code)
        say(f"0 trials to run: {len(done)} of {study.num_planned} are in {store.uri}")
    try:
        sealed = store.seal()
    except OSError as error:
        say(f"{error}\nFinished trials are kept. When this is mended, continue with: {_again(options)}")
        return 1
    say(f"{amount(sealed.rows, 'row')} of {amount(sealed.trials, 'trial')} sealed in {store.uri}/results.parquet")
    return _say_outcome(complete_study(study, store), store, options, finished, sharing)


def _run_missing(
    options: argparse.Namespace, study: Study, store: Store, missing: list[TrialConfig], spent: set[str]
) -> tuple[bool, Sharing | None]:
    """Whether the run went to its end, and what it saw of others on the folder."""
    check_datasets(store, missing)
    for sentence in mixed_machines(store.read_trials()):
        say(f"warning: {sentence}")
    stored = study.num_planned - len(missing)
    others = f", {study.left_out} left out by --where" if study.left_out else ""
    say(f"{study.name}: {amount(len(missing), 'trial')} to run, {stored} stored{others}; starting Ray")
    names = [study.name_of(config) or config.key for config in sorted(missing, key=lambda config: config.workers)]
    order = f"first {', '.join(names[:2])}{f', ..., last {names[-1]}' if len(names) > 2 else ''}"
    say("the search suggests one trial after another" if study.is_adaptive else order)
    if problem := check_tasks_share(store):
        say(f"warning: {problem}")
    # Ray takes seconds to load: only here, after the user was told
    with held_back():
        from study.tuning.experiment import run_trials
        from study.tuning.resources import allot, check_shared_folder, join_cluster, leave_cluster
        from study.tuning.run_view import View

    try:
        join_cluster(options.address)
        allotments = {n: allot(study.resources, workers=n) for n in sorted({c.workers for c in missing})}
        check_shared_folder(store)
        store.write_study(study.text, study.code)  # from here on it is a study that was run
        with View(len(missing), already_done=stored) as view:
            sources = _sources(study, store, missing, spent)
            wanted = {"concurrent": options.max_concurrent, "forgive": options.retry_failed}
            return run_trials(study, sources, store, allotments, view, **wanted), sources[min(sources)].sharing
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


def _say_outcome(study: Study, store: Store, options: argparse.Namespace, finished: bool, seen: Sharing | None) -> int:
    states = store.states()
    store.sweep_claims(states)
    done, spent = done_keys(study, store, states), spent_keys(study, store)
    counts = Counter(states.get(c.key, "missing") for c in study.configs)
    unsuggested = study.num_planned - len(study.configs)
    others = f"; --where left out {amount(study.left_out, 'more trial')} of the study" if study.left_out else ""
    begun = {c.key for c in study.configs} - states.keys()
    live = [trial for trial in trials_at_work(store, runs_at_work(store)) if trial.key in begun]
    say(f"{counts_line(counts, live)}{others}")
    again = _again(options)
    left = {c.key for c in study.configs} - done - spent
    with_others = Counter(run for key in left if seen and (run := seen.left_to(key)))
    if with_others:
        say(f"{amount(with_others.total(), 'trial')} left to other runs on this folder: {', '.join(with_others)}")
    if not finished or counts["missing"] > with_others.total():
        say(f"The run stopped before its end; this continues it: {again}")
    elif unsuggested:
        say(f"The search found no untried settings for {amount(unsuggested, 'more trial')}.")
    if counts["failed"] and left:
        say(f"{amount(len(left), 'trial has', 'trials have')} attempts left. To start again: {again}")
    elif counts["failed"]:
        say(f"Trials failed and their attempts are used up; {again} --retry-failed would start them again")
    if counts["diverged"]:
        say("Diverged trials are results too: running again does not repeat them.")
    satisfied = counts["complete"] + sum(states.get(key) == "stopped" for key in done)
    if study.search.method != "grid":  # a search tries what may diverge, and learns from it
        satisfied += counts["diverged"]
    return 0 if finished and satisfied + with_others.total() == len(study.configs) else 1


def command_trial(options: argparse.Namespace) -> int:
    """Run one trial in this process, without Ray."""
    given = sum((options.key is not None, options.next, options.index is not None))
    require(given == 1, f"gnc trial must be given one of KEY, --next and --index, got {given} of them.")
    study, store = _study_of(options)
    check_code(study, store, options.allow_code)
    if options.index is not None:
        most, listed = len(study.configs) - 1, "--index must be given for a study whose trials are all listed"
        require(not study.is_adaptive, f"{listed}, got a search: {study.name}. Run its trials with --next.")
        asked = f"--index must be 0 to {most} in {study.name}, got {options.index}"
        require(0 <= options.index <= most, f"{asked}. See gnc check --json.")
        options.key = study.configs[options.index].key
    # PyTorch takes seconds to load: only here, where a trial will run
    from study.execution.run_mark import new_run, under_way

    store.storage.check_writable()
    store.write_study(study.text, study.code)
    run = new_run()
    # a trial that is named goes on where a scheduler stopped it, and is tried again however often it failed
    rule, attempts = (study.search.scheduler, study.resources.attempts) if options.next else (Scheduler(), None)
    sharing = Sharing(store, run, rule, attempts)
    act_as_ctrl_c()  # until the trial runs: what is claimed from here on is let go
    with under_way(store, run, study=study.text):
        trials = SharedTrials(_one_or_next(options, study, store), sharing)
        try:
            while (config := trials.next()) is None and trials.waits:
                time.sleep(LOOK_SECONDS)
            if config is None:
                store.sweep_claims(store.states())
                say(_nothing_to_run(options, study, store))
                return 0 if options.next or store.states().get(_find(study, options.key).key) == "complete" else 1
            state = _train_here(config, study, store, run)
            trials.ended(config.key, state)
        finally:
            trials.close()
    return 0 if state == "complete" else 1


def _one_or_next(options: argparse.Namespace, study: Study, store: Store) -> Trials:
    """The trial that was named, or those that are to run."""
    if options.key is not None:
        return ListedTrials([_find(study, options.key)])
    done, spent = done_keys(study, store, states_of(store)), spent_keys(study, store)
    if study.is_adaptive:
        return Suggestions(study, store, spent=spent)
    return ListedTrials(trials_left(study, done | spent))


def _nothing_to_run(options: argparse.Namespace, study: Study, store: Store) -> str:
    if options.next:
        return f"every trial of {study.name} has ended or is with a run; gnc status {store.uri} shows which"
    key = _find(study, options.key).key
    claim = store.claim_of(key)
    if claim is not None and claim.run:
        return f"{key} is with {claim.run}, which is under way; gnc status {store.uri} shows where"
    state = store.states().get(key)
    again = f", as a {state} trial is a result too; in another folder, --results OTHER, it runs again"
    return f"{key} is {state} in {store.uri}; nothing to run{again * (state != 'complete')}"


def _train_here(config: TrialConfig, study: Study, store: Store, run: str) -> str:
    """Train a trial in this process and follow it on the terminal; the state it ended in."""
    from study.execution.attempt import await_run, measurement_line
    from study.execution.local_workers import run_here

    check_data([config])
    check_datasets(store, [config])
    REQUESTS.listen(*ASKS)
    terminal = sys.stderr  # while the trial runs, sys.stderr also writes into its log

    pace = Pace()

    def follow(progress: Any) -> None:
        left = pace.left(progress.share_done)
        if progress.measurement is not None:
            print(f"{measurement_line(progress.measurement)}  {left}".rstrip(), file=terminal)

    say(f"{config.key}  {study.name_of(config)}")
    asked = await_run(store, run, config.key)
    with REQUESTS.deferred():
        own: dict[str, Any] = {"keep": study.keep, "checkpoint_seconds": study.resources.checkpoint_seconds}
        own["device"] = "cpu" if study.resources.gpus == 0 else None
        own["should_stop"] = lambda: REQUESTS.reason or asked()
        state, reason = run_here(config, store, **own, on_progress=follow)
    say(f"{state}{f': {reason}' if reason else ''}")
    return state


def _study_of(options: argparse.Namespace) -> tuple[Study, Store]:
    source, results = options.source, options.results
    if Path(source).suffix == ".toml":
        require(options.study is None, f"--study must come with a results folder, got the study file {source!r}.")
        study = read_study(source)
        store = named_store(results or f"results/{study.name}")
        return complete_study(study, store), store
    store = existing_store(source)
    latest = stored_study(options, store)
    if latest is None:
        raise StudyError(f"RESULTS must hold a study file, got {source!r} without one. Give the study file instead.")
    return latest, named_store(results) if results else store


def _find(study: Study, key: str) -> TrialConfig:
    found = [c for c in study.configs if c.key.startswith(key)]
    if len(found) != 1:
        keys = ", ".join(c.key for c in study.configs[:5]) + (", ..." if len(study.configs) > 5 else "")
        rule = f"KEY must name one trial of {study.name}, got {key!r}, which names {len(found)}"
        raise StudyError(f"{rule}. Keys: {keys}.")
    return found[0]
