"""Many trials on Ray Tune: schedule them, watch them, end them cleanly.

Knows Ray and the store; does not know how a trial trains. Ray's own experiment folder is temporary and never read
back: what is done is decided by the store alone.
"""

import json
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

# Read by Ray on import: no loggers, tables or signal handlers of its own, no experiment snapshots.
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_GLOBAL_CHECKPOINT_S="1000000000",
    TUNE_MAX_PENDING_TRIALS_PG="1000000",  # the queue alone decides how many trials wait
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # the view says what a trial died of, its log has the traceback
    RAY_AIR_NEW_OUTPUT="0",
    RAY_DEDUP_LOGS="0",
)

import ray
from ray import tune
from ray.tune.search import Searcher

from study.callbacks import make_callbacks
from study.cluster import Allotment, absolute
from study.config import TrialConfig
from study.endings import Draining, ListensForSignals, error_of, how_it_ended
from study.preemption import REQUESTS, Preempted
from study.records import identity_and_settings
from study.retries import Retries, Trials
from study.spec import Study
from study.store import Store, log_name, open_store
from study.view import View

if TYPE_CHECKING:
    from study.schedulers import CompetingTrials

logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # its list of failed trials, retried or not
REPORT_SECONDS = 0.5  # between the live figures of a trial; the rows do not depend on them
SHOWN = ("train_accuracy", "test_accuracy", "gnc1_rank", "margin_min_lower")  # of the last measurement, in the view
STOP_POLL_SECONDS = 1.0


class ListedTrials:
    """Trials that are all known beforehand."""

    def __init__(self, configs: list[TrialConfig]) -> None:
        self._waiting = deque(configs)

    def next(self) -> TrialConfig | None:
        return self._waiting.popleft() if self._waiting else None

    def ended(self, key: str, state: str) -> None:
        pass


def run_trials(
    study: Study,
    trials: Trials,
    store: Store,
    allotment: Allotment,
    view: View,
    *,
    concurrent: int | None,
    forgive: bool = False,
) -> bool:
    """Run the trials on the cluster that was joined; True if they were all run, False if the run was asked to stop.

    forgive: failures before this run do not count against a trial.
    """
    run = f"run-{secrets.token_hex(4)}"
    stopping = threading.Event()
    rule = study.search.scheduler
    competition = None
    if rule.name != "none":
        from study.schedulers import CompetingTrials

        competition = CompetingTrials(study.search, store)
        competition.replay(study.configs)
    retries = Retries(trials, store, study.resources, forgive=forgive)
    queue = _Queue(retries, stopping, min(concurrent or allotment.concurrent, allotment.concurrent))
    follower = _Follower(view, store, retries, competition, study)
    trainable = tune.with_parameters(
        _train_on_ray,
        results=absolute(store),
        run=run,
        keep=study.keep,
        checkpoint_seconds=study.resources.checkpoint_seconds,
        # Without a GPU of its own a trial must not see one: Ray hides none from a trial that asks for none.
        device=None if allotment.gpus else "cpu",
        stopped_by=rule.digest if competition else None,
    )
    with tempfile.TemporaryDirectory(prefix="gnc-ray-") as scratch, _stop_on_signal(store, run, stopping):
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": allotment.cpus, "gpu": allotment.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=queue,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['key']}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=run,
                storage_path=scratch,
                verbose=0,
                stop=_StopWhenAsked(stopping, follower),
                callbacks=[follower, *make_callbacks(study.callbacks, study, store)],
                failure_config=tune.FailureConfig(max_failures=0),  # study.retries starts trials again
            ),
        ).fit()
    return not stopping.is_set()


def _train_on_ray(
    config: dict[str, Any],
    *,
    results: str,
    run: str,
    keep: str,
    checkpoint_seconds: float,
    device: str | None,
    stopped_by: str | None,
) -> None:
    """One trial in a Ray worker. Module-level and undecorated: Ray pickles it by reference."""
    from study.execution import INTERRUPTED, Execution

    store = open_store(results)
    asked = _Asked(store, run)
    if asked():
        tune.report({"state": INTERRUPTED})
        return
    trial, draining = TrialConfig(**json.loads(config["settings"])), Draining()
    done = store.read_fragment(trial.key)
    if done is not None and done.record.state == "complete":  # another run on this folder was faster
        tune.report({"state": "complete"})
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
    with REQUESTS.deferred():
        state = execution.run(
            should_stop=lambda: REQUESTS.reason or draining() or asked(),
            # A report returns once the driver has seen it, so a scheduler's wish is in the store by then.
            should_end=lambda _: stopped_by is not None and store.is_stop_requested(trial.key),
            on_progress=reporter,
        )
    if REQUESTS.reason:
        REQUESTS.end_soon()
    if state == INTERRUPTED and (REQUESTS.reason or draining()):
        raise Preempted(execution.reason)  # and not the end of the trial: another process continues it
    tune.report({**reporter.figures, "state": state, "reason": execution.reason})


_train_on_ray.__mixins__ = (ListensForSignals,)  # type: ignore[attr-defined]  # where Tune looks for them


class _DriverOnly:
    """Ray pickles its experiment for a restore that this project never does: nothing of the driver goes in."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Queue(_DriverOnly, Searcher):
    """Gives Tune the next trial while fewer than `concurrent` are in flight."""

    def __init__(self, retries: Retries, stopping: threading.Event, concurrent: int) -> None:
        super().__init__()
        self._retries, self._stopping, self._concurrent = retries, stopping, concurrent

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._stopping.is_set():
            return Searcher.FINISHED
        if len(self._retries.in_flight) >= self._concurrent:
            return None
        config = self._retries.next()
        if config is None:
            return Searcher.FINISHED if self._retries.is_over else None
        return {"key": config.key, "settings": json.dumps(config.settings())}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: the follower hears of every end and knows how it came about."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was tried is in the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: what was tried is in the store."""


class _Asked:
    """Whether this run was asked to stop; looks at most once a second."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._looked, self._answer = -STOP_POLL_SECONDS, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._answer and now - self._looked >= STOP_POLL_SECONDS:
            self._looked, self._answer = now, self._store.is_stop_requested(self._run)
        return self._answer


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
    """Carries what Tune sees to the view and to the retries, and records attempts whose process died."""

    def __init__(
        self, view: View, store: Store, retries: Retries, competition: "CompetingTrials | None", study: Study
    ) -> None:
        self._view, self._store, self._retries, self._competition, self._study = (
            view,
            store,
            retries,
            competition,
            study,
        )
        self.running: set[str] = set()
        self._attempts = store.attempts()  # the number of each trial's last attempt that is accounted for

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        config = self._retries.in_flight[trial.config["key"]]
        self.running.add(config.key)
        self._view.started(config.key, self._study.name_of(config))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._view.progressed(trial.config["key"], result)
        if self._competition is not None and result.get("measured"):
            self._competition.on_measurement(self._retries.in_flight[trial.config["key"]], result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        key, figures = trial.config["key"], trial.last_result
        state = figures.get("state", "interrupted")
        if state == "failed":
            self._attempt_of(key)
            self._failed(key, figures)
            return
        self.running.discard(key)
        self._view.ended(key, state, figures)
        self._retries.ended(key, state)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        key, error = trial.config["key"], error_of(trial)
        reason, is_charged = how_it_ended(error)
        attempt, began = self._attempt_of(key)
        if is_charged is None:
            is_charged = self._retries.is_charged(key, trial.last_result.get("epoch", -1), began=began)
        if not isinstance(error, Preempted):  # else its own log and checkpoint say it all
            epoch = trial.last_result.get("epoch")
            reason = self._record(key, attempt, reason, error, epoch=epoch, is_charged=is_charged)
        self._failed(key, {**trial.last_result, "reason": reason}, is_charged=is_charged)

    def _attempt_of(self, key: str) -> tuple[int, bool]:
        """The number of the attempt whose process just ended, and whether it began before its process did."""
        before, highest = self._attempts.get(key, 0), self._store.attempts().get(key, 0)
        self._attempts[key] = max(highest, before + 1)
        return self._attempts[key], highest > before

    def _record(
        self, key: str, attempt: int, reason: str, error: Exception | None, *, epoch: int | None, is_charged: bool
    ) -> str:
        """The failure of an attempt that could not write its own; the reason with what its log adds."""
        lines = self._store.last_log_lines(key, attempt)
        reason = ": ".join([reason, *(line for line in lines if line.startswith("Fatal Python error"))])
        failure = {
            "attempt": attempt,
            "state": "failed",
            "charged": is_charged,
            "reason": reason,
            "traceback": str(error or ""),
            "log": log_name(key, attempt),
            "last_lines": lines,
            "epoch": epoch,
            "settings": identity_and_settings(self._retries.in_flight[key]),
        }
        try:
            self._store.write_failure(key, attempt, failure)
            if is_charged:
                self._store.remove_live(key)
        except OSError as unwritable:  # a full or lost folder: the run goes on to its end and says so there
            print(unwritable, file=sys.stderr)
        return reason

    def _failed(self, key: str, figures: dict[str, Any], *, is_charged: bool = True) -> None:
        self.running.discard(key)
        delay = self._retries.failed(key, charged=is_charged)
        if delay is None:
            self._view.ended(key, "failed", figures)
        else:
            self._view.restarted(key, figures.get("reason", ""), delay)


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
        try:
            store.request_stop(run)
        except OSError as error:  # a full or lost folder: the trials end by themselves, with what they have
            print(error, file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(OSError):
            store.withdraw_stop(run)


def leave_cluster() -> None:
    """Disconnect, ending the local cluster if this process started it."""
    ray.shutdown()
