"""The gnc commands that run trials: run (many, on Ray) and trial (one, in this process).

Knows how a run goes from what is missing to how it ended; imports Ray and torch only once there is something to run.
"""

import argparse
import shlex
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from study.commands import counts_line, existing_store, latest_study, open_study, trial_name, warn_unreadable
from study.config import TrialConfig
from study.consistency import check_datasets, warn_mixed_machines
from study.data_folder import check_data
from study.refusals import StudyError
from study.sealing import FINAL
from study.spec import Study, read_study
from study.store import Store, open_store


def command_run(options: argparse.Namespace) -> int:
    """Run what is missing, seal, and say how it ended and what a rerun would do."""
    study, store = open_study(options)
    if options.max_concurrent is not None and options.max_concurrent < 1:
        raise StudyError(f"--max-concurrent must be at least 1, got {options.max_concurrent}.")
    states = store.states()
    warn_unreadable(store)
    missing = _missing(study, store, states, retry_failed=options.retry_failed)
    store.storage.check_writable()
    finished = True
    if missing:
        check_data(missing)
        try:
            finished = _run_missing(options, study, store, missing)
        except KeyboardInterrupt:  # before the trials began, or a second time
            finished = False
    else:
        store.write_study(study.text)
        done = sum(states.get(c.key) in FINAL for c in study.configs)
        print(f"0 trials to run: {done} of {len(study.configs)} are in {store.uri}", file=sys.stderr)
    try:
        sealed = store.seal()
    except OSError as error:
        print(f"{error}\nwhat was finished is kept; once that is mended: {_again(options)}", file=sys.stderr)
        return 1
    print(f"{sealed.rows} rows of {sealed.trials} trials sealed in {store.uri}/results.parquet", file=sys.stderr)
    return _say_outcome(study, store, options, finished)


def _run_missing(options: argparse.Namespace, study: Study, store: Store, missing: list[TrialConfig]) -> bool:
    from study.view import View

    check_datasets(store, missing)
    warn_mixed_machines(store)
    stored = len(study.configs) - len(missing)
    print(f"{study.name}: {len(missing)} trials to run, {stored} stored; starting Ray", file=sys.stderr)
    from study.cluster import allot, check_shared_folder, join_cluster
    from study.tuning import leave_cluster, run_trials

    try:
        join_cluster(options.address)
        allotments = {n: allot(study.resources, workers=n) for n in sorted({c.workers for c in missing})}
        check_shared_folder(store)
        store.write_study(study.text)  # from here on it is a study that was run
        names = {c.key: trial_name(c, study.varied) for c in missing}
        with View(names, already_done=stored) as view:
            return run_trials(study, missing, store, allotments, view, concurrent=options.max_concurrent)
    finally:
        leave_cluster()


def _missing(study: Study, store: Store, states: dict[str, str], *, retry_failed: bool) -> list[TrialConfig]:
    """Trials with no final state; failed ones while their attempts last, or on request."""
    starts = store.failed_starts()
    spent = {key for key, count in starts.items() if count >= study.resources.attempts and not retry_failed}
    return [c for c in study.configs if states.get(c.key) not in FINAL and c.key not in spent]


def _again(options: argparse.Namespace) -> str:
    """The command that continues this run, with its machine flags."""
    words = ["gnc", "run", options.study, *([options.results] if options.results else [])]
    words += ["--address", options.address] if options.address else []
    words += ["--max-concurrent", str(options.max_concurrent)] if options.max_concurrent else []
    return shlex.join(words)


def _say_outcome(study: Study, store: Store, options: argparse.Namespace, finished: bool) -> int:
    states = store.states()
    counts = Counter(states.get(c.key, "missing") for c in study.configs)
    print(counts_line(counts), file=sys.stderr)
    again = _again(options)
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
    """Run one trial without Ray, in this process or one for each of its workers; its rows are those Ray would give."""
    study, store = _study_of(options.source, options.results)
    config = _find(study, options.key)
    if store.states().get(config.key) == "complete":
        print(f"{config.key} is complete in {store.uri}; nothing to run", file=sys.stderr)
        return 0
    from study.processes import run_here

    store.storage.check_writable()
    check_data([config])
    check_datasets(store, [config])
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopping.append(received))

    def shown(share: float | None) -> str:
        return "-" if share is None else f"{share:.4f}"

    def show(progress: Any) -> None:
        if progress.measurement is not None:
            m = progress.measurement
            print(
                f"epoch {m.epoch:<6} step {m.step:<8} loss {m.train_loss:<10.4g} accuracy {m.train_accuracy:<7.4f} "
                f"test {shown(m.test_accuracy):<7} margin {m.margin_min_lower:.4f}",
                file=sys.stderr,
            )

    print(f"{config.key}  {trial_name(config, study.varied)}", file=sys.stderr)
    state, why = run_here(
        config,
        store,
        keep=study.keep,
        checkpoint_seconds=study.resources.checkpoint_seconds,
        device="cpu" if study.resources.gpus == 0 else None,
        should_stop=lambda: bool(stopping),
        on_progress=show,
    )
    reason = f": {why}" if why else ""
    print(f"{state}{reason}{', its checkpoint is kept' if stopping else ''}", file=sys.stderr)
    return 0 if state == "complete" else 1


def _study_of(source: str, results: str | None) -> tuple[Study, Store]:
    if Path(source).suffix == ".toml":
        study = read_study(source)
        return study, open_store(results or f"results/{study.name}")
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
