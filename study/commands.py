"""The gnc commands that run no trial: check, status, seal, report.

Knows the other rooms and imports the heavy ones only where a command needs them; does not parse arguments.
"""

import argparse
import json
import sys
import time
from collections import Counter
from typing import Any

from study.config import TrialConfig
from study.consistency import mixed_machines
from study.data_folder import missing_for
from study.pricing import Price, price
from study.progress import done_keys, trials_left
from study.refusals import StudyError
from study.sealing import FINAL
from study.spec import Study, parse_study, read_study
from study.store import Live, Store, open_store
from study.suggestions import complete_study

SILENT_SECONDS = 60.0  # a heartbeat older than this is remarked on


def command_check(options: argparse.Namespace) -> int:
    """Validate, say what is stored and what is missing, and price the rest."""
    study, store = open_study(options)
    states = store.states()
    missing = trials_left(study, done_keys(study, store, states))
    cost = price(missing, store, cpus=study.resources.cpus, probe=options.probe)
    if options.json:
        print(json.dumps(_check_facts(study, store, missing, cost)))
        return 0
    if options.trials:
        for config in study.configs:
            print(f"{config.key}  {states.get(config.key, 'missing'):<8}  {study.name_of(config)}")
    print(f"{study.name}: {study.num_planned} trials, {study.num_planned - len(missing)} stored in {store.uri}")
    print(f"varies {', '.join(study.varied)}")
    print(_price_sentence(cost))
    for sentence in missing_for(missing):
        print(f"missing: {sentence}")
    warn_unreadable(store)
    return 0


def command_status(options: argparse.Namespace) -> int:
    """Counts, failures with reasons, and trials in progress, from the folder alone."""
    store = existing_store(options.results)
    states = store.states()
    study = latest_study(store)
    keys = list(states) if options.all or study is None else [c.key for c in study.configs]
    live = [trial for trial in store.read_live() if states.get(trial.key) not in FINAL]
    counts = Counter(states.get(key, "missing") for key in keys)
    if study is not None and not options.all:
        counts["missing"] += study.num_planned - len(study.configs)
    outside = len(set(states) - set(keys))
    failed = {key for key in keys if states.get(key) == "failed"}
    failures = {key: attempts[-1]["reason"] for key, attempts in store.failures().items() if key in failed}
    if options.json:
        fields = ("key", "attempt", "host", "process", "interrupted", "seconds_ago")
        running = [{name: getattr(trial, name) for name in fields} for trial in live]
        print(json.dumps({"trials": counts.total(), **counts, "running": running, "outside": outside,
                          "failures": failures, "unreadable": store.unreadable}))  # fmt: skip
        return 0
    print(f"{study.name if study else 'no study file'} in {store.uri}: {counts_line(counts)}")
    for trial in live:
        print(_live_line(trial))
    for key, reason in list(failures.items())[:5]:
        print(f"  failed   {key}  {reason}")
    if len(failures) > 5:
        print(f"  ... {len(failures)} failed in all; tracebacks in {store.uri}/failures")
    for sentence in mixed_machines(store.read_trials().to_pylist()):
        print(f"warning: {sentence}", file=sys.stderr)
    if outside:
        print(f"{outside} trials of other studies in this folder (--all counts them too)")
    warn_unreadable(store)
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
    store = existing_store(options.results)
    started = time.monotonic()
    sealed = store.seal(compact=options.compact)
    print(f"{sealed.rows} rows of {sealed.trials} trials, {sealed.fresh} new, in {time.monotonic() - started:.1f} s")
    warn_unreadable(store)
    return 0


def command_report(options: argparse.Namespace) -> int:
    """Write the report, its figures, fits and predictions; or score the predictions of an earlier one."""
    from analysis.predictions import markdown_scores
    from analysis.report import check_report, write_report

    store = existing_store(options.results)
    study = latest_study(store)
    keys = None if options.all or study is None else {c.key for c in study.configs}
    if options.check:
        scores = check_report(store)
        if scores is None:
            raise StudyError(
                f"predictions.json must be predictions of gnc report, got another file in {store.uri}/report. Remove it."
            )
        print(markdown_scores(scores))
    else:
        predict = study.report.predict if study else ()
        print(write_report(store, keys=keys, predict=predict, page_format=options.format))
    warn_unreadable(store)
    return 0


def open_study(options: argparse.Namespace) -> tuple[Study, Store]:
    """The study file and the results folder that a command names, with the trials suggested there so far."""
    study = read_study(options.study)
    store = open_store(options.results or f"results/{study.name}")
    return complete_study(study, store), store


def existing_store(results: str) -> Store:
    """The store at an existing folder; StudyError where there is none."""
    store = open_store(results)
    if not store.storage.exists():
        raise StudyError(f"RESULTS must be a results folder, got {results!r}, which does not exist.")
    return store


def latest_study(store: Store) -> Study | None:
    """The study run last; None, with a warning, where its file is no longer a valid study."""
    text = store.latest_study()
    try:
        return None if text is None else complete_study(parse_study(text), store)
    except StudyError as error:
        print(
            f"warning: the study file run last is no longer valid, so the whole folder is covered: {error}",
            file=sys.stderr,
        )
        return None


def counts_line(counts: Counter[str]) -> str:
    """How many trials are in each state, in words."""
    order = ("complete", "diverged", "stopped", "failed", "missing")
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state]) or "no trials"


def _check_facts(study: Study, store: Store, missing: list[TrialConfig], cost: Price) -> dict[str, Any]:
    return {
        "name": study.name,
        "results": store.uri,
        "trials": study.num_planned,
        "missing": [c.key for c in missing if c in study.configs],
        "missing_data": missing_for(missing),
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


def warn_unreadable(store: Store) -> None:
    """Name what the last reading skipped, and what follows from it."""
    for name in dict.fromkeys(store.unreadable):
        follows = "its trial will be run again" if name.startswith("rows/") else "what else is there is used"
        print(f"warning: {name} cannot be read as what it should be and was skipped; {follows}", file=sys.stderr)
