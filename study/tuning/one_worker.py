"""A trial of one worker in a process of Ray's, which takes one trial after the other.
Knows Ray and study.execution.attempt; does not know which trials there are."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

from ray import tune

from study.design.config import TrialConfig
from study.execution.attempt import INTERRUPTED, Execution, await_run, final_figures, live_figures, row_figures
from study.execution.signals import REQUESTS, Preempted
from study.store.store import open_store
from study.training.trial import Progress, is_free_again
from study.training.trial import held_bytes as bytes_held
from study.training.worker_group import ALONE, Group
from study.tuning.failure_causes import ListensForSignals, draining

REPORT_SECONDS = 0.5  # between the live figures of a trial; the rows do not depend on them


def train_on_ray(
    config: dict[str, Any], *, results: str, run: str, options: dict[str, Any], held_bytes: Callable[[], int] | None
) -> None:
    """One trial in a Ray worker; options: of its Execution. Module-level and undecorated: Ray pickles it by reference.
    If the trial leaves memory on the GPU behind, the process ends once the trial is in the store. The driver finds the
    result there, and the next trial gets a new process."""
    store = open_store(results)
    trial, drained = TrialConfig(**json.loads(config["settings"])), draining()
    asked = await_run(store, run, trial.key)
    if (end := final_figures(store, trial.key)) is not None:
        tune.report(end)
        return
    if asked():
        tune.report({"state": INTERRUPTED})
        return
    reporter = Reporter(tune.report, REPORT_SECONDS)
    execution = Execution(trial, store, attempt=store.next_attempt(trial.key), **options)
    with REQUESTS.deferred():
        # A report returns once the driver has seen it, so a scheduler's request is in the store by then.
        state = execution.run(should_stop=lambda: REQUESTS.reason or drained() or asked(), on_progress=reporter)
    if REQUESTS.reason:
        REQUESTS.end_soon()
    if state == INTERRUPTED and (REQUESTS.reason or drained()):
        raise Preempted(execution.reason)  # and not the end of the trial: another process continues it
    if state != INTERRUPTED and not is_free_again((held_bytes or bytes_held)()):
        os._exit(0)  # Tune cannot be asked to replace a process, but it replaces one that has ended
    tune.report({**reporter.figures, "state": state, "reason": execution.reason})


train_on_ray.__mixins__ = (ListensForSignals,)  # type: ignore[attr-defined]  # where Tune looks for them


class Reporter:
    """Sends each measurement to the driver, and live figures between them. With several workers, worker 0 decides when."""

    def __init__(self, report: Callable[[dict[str, Any]], None], seconds: float, group: Group = ALONE) -> None:
        self.figures: dict[str, Any] = {}
        self._report, self._seconds, self._group, self._sent = report, seconds, group, 0.0

    def __call__(self, progress: Progress) -> None:
        self.figures |= live_figures(progress)
        is_row, now = progress.measurement is not None, time.monotonic()
        if self._group.agree(is_row or now - self._sent >= self._seconds):
            self._sent = now
            self._report(row_figures(progress) if is_row else {**self.figures, "state": "running"})
