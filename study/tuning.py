"""Many trials on Ray Tune: schedule them, watch them, end them cleanly.

Knows Ray and the store; does not know how a trial trains. Ray's own experiment folder is temporary and never read
back: what is done is decided by the store alone.
"""

import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

# Read by Ray on import: no loggers, tables or signal handlers of its own, no experiment snapshots.
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_GLOBAL_CHECKPOINT_S="1000000000",
    TUNE_MAX_PENDING_TRIALS_PG="1000000",  # the queue alone decides how many trials wait
    RAY_AIR_NEW_OUTPUT="0",
    RAY_DEDUP_LOGS="0",
)

import ray
from ray import tune
from ray.tune.search import Searcher

from study.cluster import Allotment, absolute, allot
from study.config import TrialConfig
from study.records import identity_and_settings
from study.spec import Study
from study.store import Store, open_store
from study.view import SHOWN, View

if TYPE_CHECKING:
    from study.schedulers import CompetingTrials

REPORT_SECONDS = 0.5  # between the live figures of a trial; the rows do not depend on them


class Trials(Protocol):
    """Where the next trial comes from: a list, or a search that waits for how the last ones did."""

    def next(self) -> TrialConfig | None:
        """The next trial to run, None when there will be none."""

    def ended(self, key: str, state: str) -> None:
        """Told of each trial's end once its rows are in the store."""


class ListedTrials:
    """Trials that are all known beforehand, those of as many workers one after another."""

    def __init__(self, configs: list[TrialConfig]) -> None:
        self._waiting = deque(sorted(configs, key=lambda config: config.workers))

    def next(self) -> TrialConfig | None:
        return self._waiting.popleft() if self._waiting else None

    def ended(self, key: str, state: str) -> None:
        pass


def run_trials(
    study: Study,
    trials: Trials,
    store: Store,
    view: View,
    *,
    concurrent: int | None,
    kept_bytes: Callable[[], int] | None = None,
) -> bool:
    """Run the trials on the cluster that was joined; True if they were all run, False if the run was asked to stop.

    Trials of as many workers are one experiment of Tune, and the next one begins when these have ended: side by side,
    trials that ask for less would starve the others.

    Args:
        study: says what a worker gets, and by which rule poor trials are stopped.
        trials: where the next trial comes from.
        store: what they continue from and write to.
        view: told what happens.
        concurrent: most trials at once; None: as many as fit.
        kept_bytes: measures what a trial left on its process's GPUs; None: study.memory's.
    Raises:
        StudyError: the cluster can never place a trial.
    """
    run = f"run-{secrets.token_hex(4)}"
    stopping = threading.Event()
    rule = study.search.scheduler
    competition = None
    if rule.name != "none":
        from study.schedulers import CompetingTrials

        competition = CompetingTrials(study.search, store)
        competition.replay(study.configs)
    queue = _Queue(trials, stopping)
    follower = _Follower(view, store, queue, competition, study)
    told: dict[str, Any] = {
        "results": absolute(store),
        "run": run,
        "keep": study.keep,
        "checkpoint_seconds": study.resources.checkpoint_seconds,
        "stopped_by": rule.digest if competition else None,
    }
    with _stop_on_signal(store, run, stopping):
        while workers := queue.next_workers():
            allotment = allot(study.resources, workers=workers)
            queue.open(min(concurrent or allotment.concurrent, allotment.concurrent))
            trainable, resources = _trainable(told, workers, allotment, kept_bytes)
            _tune(study, run, queue, trainable, resources, follower, _StopWhenAsked(stopping, follower))
    return not stopping.is_set()


def _trainable(
    told: dict[str, Any], workers: int, allotment: Allotment, kept_bytes: Callable[[], int] | None
) -> tuple[Any, dict[str, float]]:
    """What Tune calls for each trial, and what it reserves for that call."""
    # Without a GPU of its own a trial must not see one: Ray hides none from a trial that asks for none.
    told = {**told, "device": None if allotment.gpus else "cpu"}
    if workers == 1:
        trainable = tune.with_parameters(_train_on_ray, **told, kept_bytes=kept_bytes)
        return trainable, {"cpu": allotment.cpus, "gpu": allotment.gpus}
    from study.train_workers import DRIVER, drive_on_ray  # Ray Train takes seconds to import

    return tune.with_parameters(drive_on_ray, **told, allotment=allotment), DRIVER


def _tune(
    study: Study,
    run: str,
    queue: "_Queue",
    trainable: Any,
    resources: dict[str, float],
    follower: "_Follower",
    stopper: "_StopWhenAsked",
) -> None:
    """One experiment of Tune, until the queue has no more trials of its kind or the run is asked to stop."""
    with tempfile.TemporaryDirectory(prefix="gnc-ray-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=queue,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.config["key"],
            ),
            run_config=tune.RunConfig(
                name=run,
                storage_path=scratch,
                verbose=0,
                stop=stopper,
                callbacks=[follower],
                failure_config=tune.FailureConfig(max_failures=study.resources.attempts - 1),
            ),
        ).fit()


def _train_on_ray(
    config: dict[str, Any],
    *,
    results: str,
    run: str,
    keep: str,
    checkpoint_seconds: float,
    device: str | None,
    stopped_by: str | None,
    kept_bytes: Callable[[], int] | None,
) -> None:
    """One trial in a Ray worker. Module-level and undecorated: Ray pickles it by reference.

    The process takes one trial after the other. If one leaves memory on the GPU behind, the process ends once the
    trial is in the store: Tune then starts a new process with this trial, which finds it there.
    """
    from study import memory
    from study.execution import INTERRUPTED, Execution, StopRequest, decided

    store = open_store(results)
    asked = StopRequest(store, run)
    if asked():
        tune.report({"state": INTERRUPTED})
        return
    trial = TrialConfig(**json.loads(config["settings"]))
    if (stored := decided(store, trial.key, stopped_by)) is not None:
        tune.report(stored)
        return
    reporter = _Reporter()
    execution = Execution(
        trial,
        store,
        attempt=store.next_attempt(trial.key),
        keep=keep,
        checkpoint_seconds=checkpoint_seconds,
        device=device,
        stopped_by=stopped_by,
    )
    state = execution.run(
        should_stop=asked,
        # A report returns once the driver has seen it, so a scheduler's wish is in the store by then.
        should_end=lambda _: stopped_by is not None and store.is_stop_requested(trial.key),
        on_progress=reporter,
    )
    if not memory.is_free_again((kept_bytes or memory.kept_bytes)()):
        os._exit(0)  # Tune cannot be told to replace a process; one that is gone it replaces
    tune.report({**reporter.figures, "state": state, "reason": execution.reason})


class _DriverOnly:
    """Ray pickles its experiment for a restore that this project never does: nothing of the driver goes in."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Queue(_DriverOnly, Searcher):
    """Gives Tune the next trial while fewer than `concurrent` are in flight, until one has another number of workers."""

    def __init__(self, trials: Trials, stopping: threading.Event) -> None:
        super().__init__()
        self._trials, self._stopping = trials, stopping
        self._concurrent, self._workers = 1, 0
        self._waiting: TrialConfig | None = None  # taken from the trials and not yet given to Tune
        self.in_flight: dict[str, TrialConfig] = {}
        self._keys: dict[str, str] = {}  # by Tune's own name of the trial

    def next_workers(self) -> int:
        """Workers of the trials that come next; 0 when there are none, or the run is to stop."""
        if not self._stopping.is_set():
            self._waiting = self._waiting or self._trials.next()
        return 0 if self._stopping.is_set() or self._waiting is None else self._waiting.workers

    def open(self, concurrent: int) -> None:
        """Give trials of as many workers as the next one has, at most so many at once."""
        self._concurrent, self._workers = concurrent, self.next_workers()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._stopping.is_set():
            return Searcher.FINISHED
        if len(self.in_flight) >= self._concurrent:
            return None
        if self.next_workers() != self._workers:
            return Searcher.FINISHED
        config, self._waiting = self._waiting, None
        assert config is not None
        self.in_flight[config.key] = config
        self._keys[trial_id] = config.key
        return {"key": config.key, "settings": json.dumps(config.settings())}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        self.in_flight.pop(self._keys.pop(trial_id, ""), None)

    def ended(self, key: str, state: str) -> None:
        """Pass on how a trial ended."""
        self._trials.ended(key, state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was tried is in the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: what was tried is in the store."""


class _Reporter:
    """Sends each measurement to the driver, and between them live figures at most every half second."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self._sent = 0.0

    def __call__(self, progress: Any) -> None:
        self.figures |= {"epoch": progress.epoch, "share_done": progress.share_done, "measured": False}
        if progress.measurement is not None:  # every one is sent: schedulers and loggers need them all
            columns = asdict(progress.measurement)
            tune.report({**columns, "share_done": progress.share_done, "measured": True, "state": "running"})
            self.figures |= {name: columns[name] for name in SHOWN}
            self._sent = time.monotonic()
        elif time.monotonic() - self._sent >= REPORT_SECONDS:
            self._sent = time.monotonic()
            tune.report({**self.figures, "state": "running"})


class _Follower(_DriverOnly, tune.Callback):
    """Carries what Tune sees to the view, and records trials whose process died once too often."""

    def __init__(
        self, view: View, store: Store, queue: _Queue, competition: "CompetingTrials | None", study: Study
    ) -> None:
        self._view, self._store, self._queue, self._competition, self._study = view, store, queue, competition, study
        self.running: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        config = self._queue.in_flight[trial.config["key"]]
        self.running.add(config.key)
        self._view.started(config.key, self._study.name_of(config))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._view.progressed(trial.config["key"], result)
        if self._competition is not None and result.get("measured"):
            self._competition.on_measurement(self._queue.in_flight[trial.config["key"]], result)

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
            "starts": self._study.resources.attempts,
            "state": "failed",
            "reason": reason,
            "traceback": error,
            "settings": identity_and_settings(self._queue.in_flight[key]),
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
        self._queue.ended(key, state)


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
