"""What each gnc command does, in the order a study meets them: check, run, trial, status, seal, report.

Knows the other rooms and imports the heavy ones only where a command needs them; does not parse arguments.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from study.config import TrialConfig
from study.pricing import Price, price
from study.refusals import StudyError
from study.spec import Study, parse_study, read_study
from study.store import Live, Store, open_store

SILENT_SECONDS = 60.0  # a heartbeat older than this is remarked on
SATISFIED = frozenset({"complete", "diverged"})  # states that no rerun would change


def command_check(options: argparse.Namespace) -> int:
    """Validate, say what is stored and what is missing, and price the rest."""
    study, store = _open(options)
    states = store.states()
    missing = [c for c in study.configs if states.get(c.key) not in SATISFIED]
    cost = price(missing, store, cpus=study.resources.cpus, probe=options.probe)
    if options.json:
        print(json.dumps(_check_facts(study, store, missing, cost)))
        return 0
    print(f"{study.name}: {len(study.configs)} trials, {len(study.configs) - len(missing)} stored in {store.uri}")
    print(f"varies {', '.join(study.varied)}")
    print(_price_sentence(cost))
    _warn_unreadable(store)
    return 0


def command_run(options: argparse.Namespace) -> int:
    """Run what is missing, seal, and say how it ended and what a rerun would do."""
    study, store = _open(options)
    if options.max_concurrent is not None and options.max_concurrent < 1:
        raise StudyError(f"--max-concurrent must be at least 1, got {options.max_concurrent}.")
    states = store.states()
    _warn_unreadable(store)
    missing = _missing(study, store, states, retry_failed=options.retry_failed)
    store.storage.check_writable()
    store.write_study(study.text)
    finished = True
    if missing:
        finished = _run_missing(options, study, store, missing)
    else:
        print(f"0 trials to run: all {len(study.configs)} are in {store.uri}", file=sys.stderr)
    sealed = store.seal()
    print(f"{sealed.rows} rows of {sealed.trials} trials sealed in {store.uri}/results.parquet", file=sys.stderr)
    return _say_outcome(study, store, options, finished)


def _run_missing(options: argparse.Namespace, study: Study, store: Store, missing: list[TrialConfig]) -> bool:
    from study.consistency import check_datasets, warn_mixed_machines
    from study.view import View

    check_datasets(store, missing)
    warn_mixed_machines(store)
    stored = len(study.configs) - len(missing)
    print(f"{study.name}: {len(missing)} trials to run, {stored} stored; starting Ray", file=sys.stderr)
    from study.cluster import allot, join_cluster
    from study.tuning import leave_cluster, run_trials

    join_cluster(options.address)
    try:
        allotment = allot(study.resources)
        names = {c.key: trial_name(c, study.varied) for c in missing}
        with View(names, already_done=stored) as view:
            return run_trials(study, missing, store, allotment, view, concurrent=options.max_concurrent)
    finally:
        leave_cluster()


def _missing(study: Study, store: Store, states: dict[str, str], *, retry_failed: bool) -> list[TrialConfig]:
    """Trials with no final state; failed ones while their attempts last, or on request."""
    attempts = store.failure_counts()
    spent = {key for key, count in attempts.items() if count >= study.resources.attempts and not retry_failed}
    return [c for c in study.configs if states.get(c.key) not in SATISFIED and c.key not in spent]


def _say_outcome(study: Study, store: Store, options: argparse.Namespace, finished: bool) -> int:
    states = store.states()
    counts = Counter(states.get(c.key, "missing") for c in study.configs)
    print(_counts_line(counts), file=sys.stderr)
    again = f"gnc run {options.study}" + (f" {options.results}" if options.results else "")
    if not finished or counts["missing"]:
        print(f"stopped before the end; this continues it: {again}", file=sys.stderr)
    if counts["failed"]:
        left = _missing(study, store, states, retry_failed=False)
        if left:
            print(f"{again} would start {len(left)} trials again", file=sys.stderr)
        else:
            print(f"their attempts are used up; {again} --retry-failed would start them again", file=sys.stderr)
    if counts["diverged"]:
        print("diverged trials are results: a rerun keeps them, other settings are other trials", file=sys.stderr)
    return 0 if counts["complete"] == len(study.configs) else 1


def command_trial(options: argparse.Namespace) -> int:
    """Run one trial in this process; its rows are those that Ray would give."""
    study, store = _study_of(options.source, options.results)
    config = _find(study, options.key)
    from study.consistency import check_datasets
    from study.execution import Execution

    store.storage.check_writable()
    check_datasets(store, [config])
    execution = Execution(
        config,
        store,
        attempt=store.next_attempt(config.key),
        keep=study.keep,
        checkpoint_seconds=study.resources.checkpoint_seconds,
    )

    def show(progress: Any) -> None:
        if progress.measurement is not None:
            m = progress.measurement
            print(
                f"epoch {m.epoch:<6} step {m.step:<8} loss {m.train_loss:<10.4g} accuracy {m.train_accuracy:<7.4f} "
                f"test {m.test_accuracy:<7.4f} margin {m.margin_min_lower:.4f}",
                file=sys.stderr,
            )

    print(f"{config.key}  {trial_name(config, study.varied)}", file=sys.stderr)
    state = execution.run(on_progress=show)
    print(f"{state}{': ' + execution.reason if execution.reason else ''}", file=sys.stderr)
    return 0 if state == "complete" else 1


def command_status(options: argparse.Namespace) -> int:
    """Counts, failures with reasons, and trials in progress, from the folder alone."""
    store = _existing(options.results)
    states = store.states()
    study = _latest_study(store)
    keys = list(states) if options.all or study is None else [c.key for c in study.configs]
    live = [trial for trial in store.read_live() if states.get(trial.key) not in SATISFIED]
    counts = Counter(states.get(key, "missing") for key in keys)
    outside = len(set(states) - set(keys))
    failures = {key: attempts[-1]["reason"] for key, attempts in store.failures().items() if key in keys}
    if options.json:
        fields = ("key", "attempt", "host", "process", "interrupted", "seconds_ago")
        running = [{name: getattr(trial, name) for name in fields} for trial in live]
        print(json.dumps({"trials": len(keys), **counts, "running": running, "outside": outside,
                          "failures": failures, "unreadable": store.unreadable}))  # fmt: skip
        return 0
    print(f"{study.name if study else 'no study file'} in {store.uri}: {_counts_line(counts)}")
    for trial in live:
        print(_live_line(trial))
    for key, reason in list(failures.items())[:5]:
        print(f"  failed   {key}  {reason}")
    if len(failures) > 5:
        print(f"  ... {len(failures)} failed in all; tracebacks in {store.uri}/failures")
    if outside:
        print(f"{outside} trials of other studies in this folder (--all counts them too)")
    _warn_unreadable(store)
    return 0


def _live_line(trial: Live) -> str:
    last = trial.rows.to_pylist()[-1] if trial.rows.num_rows else None
    figures = f"  epoch {last['epoch']}  accuracy {last['train_accuracy']:.3f}" if last else ""
    if trial.interrupted:
        return f"  interrupted  {trial.key}{figures}, continues when run again"
    silent = ", silent: it may have died" if trial.seconds_ago > SILENT_SECONDS else ""
    beat = f"heartbeat {trial.seconds_ago:.0f} s ago{silent}"
    return f"  running  {trial.key}{figures}  attempt {trial.attempt} on {trial.host}, {beat}"


def command_seal(options: argparse.Namespace) -> int:
    """Bring the sealed tables up to date."""
    store = _existing(options.results)
    started = time.monotonic()
    sealed = store.seal(compact=options.compact)
    print(f"{sealed.rows} rows of {sealed.trials} trials, {sealed.fresh} new, in {time.monotonic() - started:.1f} s")
    _warn_unreadable(store)
    return 0


def command_report(options: argparse.Namespace) -> int:
    """Write report/report.html, its figures and fits."""
    from analysis.report import write_report

    store = _existing(options.results)
    study = _latest_study(store)
    keys = None if options.all or study is None else {c.key for c in study.configs}
    print(write_report(store, keys=keys))
    _warn_unreadable(store)
    return 0


def trial_name(config: TrialConfig, varied: tuple[str, ...]) -> str:
    """The settings a study varies, in short: what tells this trial from the others."""
    short = {
        "num_classes": "K",
        "feature_dim": "d",
        "samples_per_class": "n",
        "temperature": "tau",
        "normalization": "norm",
    }
    values = ((short.get(name, name), getattr(config, name)) for name in varied)
    return " ".join(f"{name}={value}" for name, value in values if value is not None)


def _open(options: argparse.Namespace) -> tuple[Study, Store]:
    study = read_study(options.study)
    return study, open_store(options.results or f"results/{study.name}")


def _existing(results: str) -> Store:
    store = open_store(results)
    if not store.storage.exists():
        raise StudyError(f"RESULTS must be a results folder, got {results!r}, which does not exist.")
    return store


def _latest_study(store: Store) -> Study | None:
    text = store.latest_study()
    return None if text is None else parse_study(text)


def _study_of(source: str, results: str | None) -> tuple[Study, Store]:
    if Path(source).suffix == ".toml":
        study = read_study(source)
        return study, open_store(results or f"results/{study.name}")
    store = _existing(source)
    latest = _latest_study(store)
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


def _counts_line(counts: Counter[str]) -> str:
    order = ("complete", "diverged", "stopped", "failed", "missing")
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state]) or "no trials"


def _check_facts(study: Study, store: Store, missing: list[TrialConfig], cost: Price) -> dict[str, Any]:
    return {
        "name": study.name,
        "results": store.uri,
        "trials": len(study.configs),
        "missing": [c.key for c in missing],
        "seconds": cost.seconds,
        "wall_seconds": cost.wall_seconds,
        "unpriced": cost.unpriced,
        "price_source": cost.source,
    }


def _price_sentence(cost: Price) -> str:
    if not cost.trials:
        return "nothing to run"
    if cost.wall_seconds is None:
        return (
            f"{cost.unpriced} of {cost.trials} trials to run have no price yet: --probe times a few steps of each kind"
        )
    return (
        f"{cost.trials} trials to run, about {cost.wall_seconds:.0f} s with {cost.at_once} at once on this machine "
        f"({cost.seconds:.0f} s of trial time, from {cost.source}), Ray's start aside"
    )


def _warn_unreadable(store: Store) -> None:
    for name in dict.fromkeys(store.unreadable):
        print(f"warning: {name} cannot be read and was skipped; its trial will be run again", file=sys.stderr)
