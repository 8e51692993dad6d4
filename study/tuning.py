"""Many trials on Ray Tune: schedule them, watch them, end them cleanly.

Knows Ray and the store; does not know how a trial trains. Ray's own experiment folder is temporary and never read
back: what is done is decided by the store alone.
"""

import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Read by Ray on import: no loggers, tables or signal handlers of its own, no experiment snapshots.
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_GLOBAL_CHECKPOINT_S="1000000000",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_DEDUP_LOGS="0",
)

import ray
from ray import tune

from study.cluster import Allotment, absolute
from study.config import TrialConfig
from study.records import identity_and_settings
from study.spec import Study
from study.store import Store, open_store
from study.view import View

DECIDED = ("complete", "diverged")  # states that no other start of the trial would change
REPORT_SECONDS = 0.5  # between the live figures of a trial; the rows do not depend on them


def run_trials(
    study: Study,
    configs: list[TrialConfig],
    store: Store,
    allotments: Mapping[int, Allotment],
    view: View,
    *,
    concurrent: int | None,
    kept_bytes: Callable[[], int] | None = None,
) -> bool:
    """Run the trials on the cluster that was joined; True if they were all run, False if the run was asked to stop.

    allotments: what a trial gets, by its number of workers. Trials of as many workers are one experiment of Tune, and
    the experiments run one after the other: on a busy cluster, trials that ask for less would starve the others.
    kept_bytes: measures what a trial left on its process's GPUs; None: study.memory's.
    """
    run = f"run-{secrets.token_hex(4)}"
    stopping = threading.Event()
    settings = {config.key: config.settings() for config in configs}
    follower = _Follower(view, store, settings, stopping, study.resources.attempts)
    with _stop_on_signal(store, run, stopping):
        for workers, allotment in sorted(allotments.items()):
            alike = {config.key: config.settings() for config in configs if config.workers == workers}
            if alike and not stopping.is_set():
                trainable, resources = _trainable(study, alike, store, run, workers, allotment, kept_bytes)
                _tune(study, alike, run, trainable, resources, allotment, follower, stopping, concurrent)
    return not stopping.is_set()


def _trainable(
    study: Study,
    settings: dict[str, Any],
    store: Store,
    run: str,
    workers: int,
    allotment: Allotment,
    kept_bytes: Callable[[], int] | None,
) -> tuple[Any, dict[str, float]]:
    """What Tune calls for each trial, and what it reserves for that call."""
    common: dict[str, Any] = {
        "settings": settings,
        "results": absolute(store),
        "run": run,
        "keep": study.keep,
        "checkpoint_seconds": study.resources.checkpoint_seconds,
        # Without a GPU of its own a trial must not see one: Ray hides none from a trial that asks for none.
        "device": None if allotment.gpus else "cpu",
    }
    if workers == 1:
        trainable = tune.with_parameters(_train_on_ray, **common, kept_bytes=kept_bytes)
        return trainable, {"cpu": allotment.cpus, "gpu": allotment.gpus}
    from study.train_workers import DRIVER, drive_on_ray  # Ray Train takes seconds to import

    return tune.with_parameters(drive_on_ray, **common, allotment=allotment), DRIVER


def _tune(
    study: Study,
    settings: dict[str, Any],
    run: str,
    trainable: Any,
    resources: dict[str, float],
    allotment: Allotment,
    follower: "_Follower",
    stopping: threading.Event,
    concurrent: int | None,
) -> None:
    """One experiment of Tune, to its end or until it was stopped."""
    with tempfile.TemporaryDirectory(prefix="gnc-ray-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"key": tune.grid_search(list(settings))},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=min(concurrent or allotment.concurrent, allotment.concurrent),
                trial_dirname_creator=lambda trial: trial.config["key"],
            ),
            run_config=tune.RunConfig(
                name=run,
                storage_path=scratch,
                verbose=0,
                stop=_StopWhenAsked(stopping, follower),
                callbacks=[follower],
                failure_config=tune.FailureConfig(max_failures=study.resources.attempts - 1),
            ),
        ).fit()


def _train_on_ray(
    config: dict[str, Any],
    *,
    settings: dict[str, Any],
    results: str,
    run: str,
    keep: str,
    checkpoint_seconds: float,
    device: str | None,
    kept_bytes: Callable[[], int] | None,
) -> None:
    """One trial in a Ray worker. Module-level and undecorated: Ray pickles it by reference.

    The process takes one trial after the other. If one leaves memory on the GPU behind, the process ends once the
    trial is in the store: Tune then starts a new process with this trial, which finds it there.
    """
    from study import memory
    from study.execution import INTERRUPTED, Execution, StopRequest

    store = open_store(results)
    asked = StopRequest(store, run)
    if asked():
        tune.report({"state": INTERRUPTED})
        return
    trial = TrialConfig(**settings[config["key"]])
    stored = store.read_fragment(trial.key)
    if stored is not None and stored.record.state in DECIDED:
        tune.report({"state": stored.record.state, "reason": stored.record.reason})
        return
    reporter = _Reporter()
    execution = Execution(
        trial,
        store,
        attempt=store.next_attempt(trial.key),
        keep=keep,
        checkpoint_seconds=checkpoint_seconds,
        device=device,
    )
    state = execution.run(should_stop=asked, on_progress=reporter)
    if not memory.is_free_again((kept_bytes or memory.kept_bytes)()):
        os._exit(0)  # Tune cannot be told to replace a process; one that is gone it replaces
    tune.report({**reporter.figures, "state": state, "reason": execution.reason})


class _Reporter:
    """Sends a trial's live figures to the driver, at most every half second."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self._sent = 0.0

    def __call__(self, progress: Any) -> None:
        from study.execution import live_figures

        self.figures |= live_figures(progress)
        now = time.monotonic()
        if now - self._sent >= REPORT_SECONDS:
            self._sent = now
            tune.report({**self.figures, "state": "running"})


class _DriverOnly:
    """Ray pickles its experiment for a restore that this project never does: nothing of the driver goes in."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Follower(_DriverOnly, tune.Callback):
    """Carries what Tune sees to the view, and records trials whose process died once too often."""

    def __init__(
        self, view: View, store: Store, settings: dict[str, Any], stopping: threading.Event, starts: int
    ) -> None:
        self._view, self._store, self._settings, self._stopping = view, store, settings, stopping
        self._starts = starts  # of each trial, before Tune gives it up
        self.running: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.running.add(trial.config["key"])
        self._view.started(trial.config["key"])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._view.progressed(trial.config["key"], result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._ended(trial.config["key"], trial.last_result.get("state", "interrupted"), trial.last_result)

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.running.discard(trial.config["key"])
        if self._store.read_fragment(trial.config["key"]) is None:  # else its process was replaced after its end
            self._view.restarted(trial.config["key"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        key, error = trial.config["key"], str(trial.get_error() or "")
        stored = self._store.read_fragment(key)
        if stored is not None:  # its process was replaced after its end, and no start was left to say so
            self._ended(key, stored.record.state, {"reason": stored.record.reason})
            return
        reason = "the trial's process died each time it was started (killed, or out of memory)."
        attempt = self._store.attempts().get(key, 1)
        told = [failure for failure in self._store.failures().get(key, []) if failure["attempt"] == attempt]
        if told:  # the trial itself wrote why, before its process was replaced
            self._ended(key, "failed", told[0])
            return
        failure = {
            "attempt": attempt,
            "starts": self._starts,
            "state": "failed",
            "reason": reason,
            "traceback": error,
            "settings": identity_and_settings(TrialConfig(**self._settings[key])),
        }
        try:
            self._store.write_failure(key, attempt, failure)
            self._store.remove_live(key)
        except OSError as unwritable:  # a full or lost folder: the run goes on to its end and says so there
            reason = f"{reason} {unwritable}"
        self._ended(key, "failed", {"reason": reason})

    def _ended(self, key: str, state: str, figures: dict[str, Any]) -> None:
        self.running.discard(key)
        self._view.ended(key, state, figures)


class _StopWhenAsked(_DriverOnly, tune.Stopper):
    """Ends the experiment once the user asked and every running trial has kept its checkpoint."""

    def __init__(self, stopping: threading.Event, follower: _Follower) -> None:
        self._stopping, self._follower = stopping, follower

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stopping.is_set() and not self._follower.running


@contextmanager
def _stop_on_signal(store: Store, run: str, stopping: threading.Event) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: ask the trials to checkpoint and end. A second one: stop at once."""

    def ask(number: int, frame: Any) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        print("\nstopping: running trials keep their checkpoints (again to stop at once)", file=sys.stderr)
        store.request_stop(run)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        store.withdraw_stop(run)


def leave_cluster() -> None:
    """Disconnect, ending the local cluster if this process started it."""
    ray.shutdown()
