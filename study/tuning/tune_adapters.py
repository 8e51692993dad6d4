"""What Tune calls during a run: for the next trial, with each trial's progress and end, and to ask whether to stop.
Knows Ray and the store; does not know how trials are placed or trained."""

import contextlib
import json
import signal
import sys
import threading
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from gnc_models.processes import ASKS
from study.design.study_file import Study
from study.execution.signals import Preempted
from study.execution.trial_log import failure_record
from study.scheduling.retries import Retries
from study.store.schemas import FINAL
from study.store.storage import FolderError
from study.store.store import Store
from study.tuning.early_stopping import CompetingTrials
from study.tuning.failure_causes import error_of, how_it_ended
from study.tuning.run_view import View


class DriverOnly:
    """Pickled without its contents: Ray saves an experiment so that it can be restored, which is never done here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class WaitForOwnProcess(DriverOnly, FIFOScheduler):
    """Lets a trial wait for the process that is starting for it; a free process takes a new trial.
    By default Tune gives a free process to the trial that has waited longest, and cancels the process that was starting
    for that trial. A machine on which a process takes longer to start than a trial to run would never get a trial."""

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        return None


class Queue(DriverOnly, Searcher):
    """Gives Tune the next trial while fewer than `concurrent` are in flight."""

    def __init__(self, retries: Retries, stopping: threading.Event, concurrent: int) -> None:
        super().__init__()
        self._retries, self.stopping, self._concurrent = retries, stopping, concurrent

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.stopping.is_set():
            return Searcher.FINISHED
        if len(self._retries.in_flight) >= self._concurrent:
            return None
        config = self._retries.next()
        if config is None:
            return Searcher.FINISHED if self._retries.is_over else None
        return {"key": config.key, "settings": json.dumps(config.settings())}

    def _ignore(self, *_: Any, **__: Any) -> None:
        """RunCallback hears how each trial ended, and what was tried is in the store."""

    on_trial_complete = save = restore = _ignore


class RunCallback(DriverOnly, tune.Callback):
    """Passes what Tune reports on to the view and the retries, and records attempts whose process died."""

    def __init__(
        self, view: View, store: Store, run: str, retries: Retries, competition: CompetingTrials | None, study: Study
    ) -> None:
        self._view, self._store, self._run, self._retries = view, store, run, retries
        self._competition, self._study = competition, study
        self._rule = study.search.scheduler.digest  # of a trial that it stopped
        self.running: set[str] = set()
        self._handlers = {number: signal.getsignal(number) for number in ASKS}
        self._attempts = store.attempts()  # the number of each trial's last attempt that is accounted for

    def setup(self, **info: Any) -> None:
        """Handle signals as before: Tune, which can be kept from taking SIGINT, has just taken SIGUSR1."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        config = self._retries.in_flight[trial.config["key"]]
        self.running.add(config.key)
        self._view.started(config.key, self._study.name_of(config) or config.key)

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
        attempt, began = self._attempt_of(key)
        if self._had_ended(key, attempt):
            return
        if isinstance(error, FolderError):  # its machine does not share the folder, or the run's mark there was removed
            with contextlib.suppress(OSError):
                self._store.begin_run(self._run)
        reason, is_charged = how_it_ended(error)
        if is_charged is None:
            is_charged = self._retries.is_charged(key, trial.last_result.get("epoch", -1), began=began)
        if not isinstance(error, Preempted):  # else its log and its checkpoint suffice
            epoch = trial.last_result.get("epoch")
            reason = self._record(key, attempt, reason, error, epoch=epoch, is_charged=is_charged)
        self._failed(key, {**trial.last_result, "reason": reason}, is_charged=is_charged)

    def _had_ended(self, key: str, attempt: int) -> bool:
        """Whether the trial ended before its process, which is replaced where it still holds memory of a GPU."""
        stored = self._store.read_fragment(key)
        if stored is not None and (stored.record.state in FINAL or stored.record.stopped_by == self._rule):
            self.running.discard(key)
            self._view.ended(key, stored.record.state, {"reason": stored.record.reason})
            self._retries.ended(key, stored.record.state)
            return True
        failure = self._store.failure_of(key, attempt)
        if failure is not None:
            self._failed(key, failure, is_charged=failure.get("charged", True))
        return failure is not None

    def _attempt_of(self, key: str) -> tuple[int, bool]:
        """The number of the attempt whose process just ended, and whether it began before its process did."""
        before, highest = self._attempts.get(key, 0), self._store.attempts().get(key, 0)
        self._attempts[key] = max(highest, before + 1)
        return self._attempts[key], highest > before

    def _record(
        self, key: str, attempt: int, reason: str, error: Exception | None, *, epoch: int | None, is_charged: bool
    ) -> str:
        """Write the failure of an attempt that could not write it itself; its reason, with what its log adds."""
        lines = self._store.last_log_lines(key, attempt)
        reason = ": ".join([reason, *(line for line in lines if line.startswith("Fatal Python error"))])
        config, more = self._retries.in_flight[key], {"last_lines": lines, "epoch": epoch}
        failure = failure_record(config, attempt, reason, str(error or ""), charged=is_charged, **more)
        try:
            self._store.write_failure(key, attempt, failure)
            if is_charged:
                self._store.remove_live(key)
        except OSError as unwritable:  # a full or lost folder: the run goes on and reports it at its end
            print(unwritable, file=sys.stderr)
        return reason

    def _failed(self, key: str, figures: dict[str, Any], *, is_charged: bool = True) -> None:
        self.running.discard(key)
        delay = self._retries.failed(key, charged=is_charged)
        if delay is None:
            self._view.ended(key, "failed", figures)
        else:
            self._view.restarted(key, figures.get("reason", ""), delay)


class StopWhenAsked(DriverOnly, tune.Stopper):
    """Ends the experiment once the user has asked and every running trial has written its checkpoint."""

    def __init__(self, stopping: threading.Event, callback: RunCallback) -> None:
        self._stopping, self._callback = stopping, callback

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stopping.is_set() and not self._callback.running
