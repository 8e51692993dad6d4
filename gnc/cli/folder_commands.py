"""The gnc commands that run no trial: check, status, seal, report.

Knows the other rooms and imports the heavy ones only where a command needs them; does not parse arguments.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from study.design.config import TrialConfig
from study.design.errors import StudyError
from study.design.study_file import Study, parse_study, read_study
from study.design.where import Selection, parse_selection
from study.execution.cost import Price, price
from study.execution.same_data import mixed_machines
from study.scheduling.remaining import done_keys, select, trials_left
from study.scheduling.suggestions import complete_study
from study.store.storage import Entry
from study.store.store import Store, open_store
from study.training.data import missing_for
from study.tuning.loggers import check_callbacks
from study.upkeep.status import Status, read_status, status_facts, status_lines


def command_check(options: argparse.Namespace) -> int:
    """Validate, say what is stored and what is missing, and price the rest."""
    study, store = open_study(options)
    check_callbacks(study.callbacks, store)
    unreadable: list[str] = []
    states = store.states(on_unreadable=unreadable.append)
    missing = trials_left(study, done_keys(study, store, states))
    cost = price(missing, store, cpus=study.resources.cpus, probe=options.probe)
    if options.json:
        print(json.dumps(_check_facts(study, store, missing, cost)))
        return 0
    if options.trials:
        for config in study.configs:
            print(f"{config.key}  {states.get(config.key, 'missing'):<8}  {study.name_of(config)}")
    print(f"{study.name}: {study.num_planned} trials, {study.num_planned - len(missing)} stored in {store.uri}")
    if study.left_out:
        print(f"--where leaves out {study.left_out} more trials of the study")
    print(f"varies {', '.join(study.varied)}")
    print(_price_sentence(cost))
    for sentence in missing_for(missing):
        print(f"missing: {sentence}")
    warn_unreadable(unreadable)
    return 0


def command_status(options: argparse.Namespace) -> int:
    """Counts, failures with reasons, trials in progress and disk use, from the folder alone; once or until the end."""
    store, selection = existing_store(options.results), selection_of(options)
    if options.watch is not None:
        return _watch(options, store)
    study = None if options.all else latest_study(store, selection)
    status = read_status(store, study, selection=selection)
    if options.json:
        print(json.dumps(status_facts(status)))
        return 0
    for line in status_lines(status):
        print(line)
    for sentence in mixed_machines(store.read_trials().to_pylist()):
        print(f"warning: {sentence}", file=sys.stderr)
    warn_unreadable(status.unreadable)
    return 0


def _watch(options: argparse.Namespace, store: Store) -> int:
    """Until the study's end; 1 if trials failed, as gnc run."""
    from study.upkeep.watch import watch

    if not options.watch > 0:
        raise StudyError(f"--watch must be a number of seconds above 0, got {options.watch:g}.")
    selection = selection_of(options)
    known: dict[Entry, str] = {}

    def read() -> Status:
        study = None if options.all else latest_study(store, selection)
        return read_status(store, study, selection=selection, known=known)

    status = watch(read, seconds=options.watch, as_json=options.json)
    study = latest_study(store, selection)
    bad = ("failed", "diverged") if study is None or study.search.method == "grid" else ("failed",)
    return 1 if any(status.counts[state] for state in bad) else 0


def command_seal(options: argparse.Namespace) -> int:
    """Bring the sealed tables up to date."""
    store = existing_store(options.results)
    started = time.monotonic()
    sealed = store.seal(compact=options.compact)
    print(f"{sealed.rows} rows of {sealed.trials} trials, {sealed.fresh} new, in {time.monotonic() - started:.1f} s")
    warn_unreadable(sealed.unreadable)
    return 0


def command_report(options: argparse.Namespace) -> int:
    """Write the report, its figures, fits and predictions; or score the predictions of an earlier one."""
    from analysis.report.report import check_report, write_report
    from analysis.scaling.predictions import markdown_scores

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
        summary = write_report(store, keys=keys, predict=predict, page_format=options.format)
        print(summary)
        warn_unreadable(summary.unreadable)
    return 0


def open_study(options: argparse.Namespace) -> tuple[Study, Store]:
    """The study file and the results folder that a command names, with the trials suggested there so far."""
    study = select(read_study(options.study), selection_of(options))
    store = open_store(options.results or f"results/{study.name}")
    unreadable: list[str] = []
    study = complete_study(study, store, unreadable.append)
    warn_unreadable(unreadable)
    return study, store


def selection_of(options: argparse.Namespace) -> Selection | None:
    """The trials that --where means; None for all."""
    return None if options.where is None else parse_selection(options.where)


def existing_store(results: str) -> Store:
    """The store at an existing folder; StudyError where there is none."""
    store = open_store(results)
    if not store.storage.exists():
        raise StudyError(f"RESULTS must be a results folder, got {results!r}, which does not exist.")
    return store


def latest_study(store: Store, selection: Selection | None = None) -> Study | None:
    """The study run last, its selected trials; None, with a warning, where its file is no longer a valid study."""
    text = store.latest_study()
    study = None if text is None else _parse_kept(text)
    return None if study is None else complete_study(select(study, selection), store)


@functools.lru_cache(maxsize=1)
def _parse_kept(text: str) -> Study | None:
    try:
        return parse_study(text)
    except StudyError as error:
        print(
            f"warning: the study file run last is no longer valid, so the whole folder is covered: {error}",
            file=sys.stderr,
        )
        return None


def _check_facts(study: Study, store: Store, missing: list[TrialConfig], cost: Price) -> dict[str, Any]:
    known = {c.key for c in study.configs}  # what a search is still to suggest has no key yet
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


def warn_unreadable(names: Iterable[str]) -> None:
    """Say which files were passed over, and what follows from it."""
    for name in dict.fromkeys(names):
        follows = "its trial will be run again" if name.startswith("rows/") else "what else is there is used"
        print(f"warning: {name} cannot be read as what it should be and was skipped; {follows}", file=sys.stderr)
