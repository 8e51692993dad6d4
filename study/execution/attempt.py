"""One trial against the store: continue from its checkpoint, keep it alive on disk, write its end.

Knows the store and study.training.trial; does not know Ray. Both `gnc trial` and a Ray worker run a trial through here, which
is why they give the same rows. Of a trial's several workers each runs one; worker 0 alone writes and reports.
"""

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from safetensors import SafetensorError

from gnc_models.codes.best_code import best_code
from gnc_models.references.tables import best_code_version
from study.design.columns import Measurement, TrialRecord
from study.design.config import TrialConfig
from study.execution.artifacts import head_file, margins_table
from study.execution.machine import circumstances, cpu_model, versions
from study.execution.trial_log import TrialLog
from study.store.attempts import log_name
from study.store.codes import code_digest, shared_code
from study.store.schemas import FINAL, fragment_table, identity_and_settings
from study.store.storage import FolderError
from study.store.store import Store
from study.training.training import Diverged
from study.training.trial import Progress, Trial
from study.training.worker_group import ALONE, Group, is_peer_lost

HEARTBEAT_SECONDS = 5.0  # or as often as a checkpoint is kept, where that is more often
STOP_POLL_SECONDS = 1.0
UNSEEN_SECONDS = 60.0  # so long network folders may serve an old listing
LIVE_FIGURES = ("train_accuracy", "test_accuracy", "gnc1_rank", "margin_min_lower")
INTERRUPTED = "interrupted"  # not a state of a finished trial: it continues from its checkpoint


class StopRequest:
    """Whether a run's trials were asked to stop; looks into the store at most once a second."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._looked, self._answer = -STOP_POLL_SECONDS, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._answer and now - self._looked >= STOP_POLL_SECONDS:
            self._looked, self._answer = now, self._store.is_stop_requested(self._run)
        return self._answer


def await_run(store: Store, run: str, *, seconds: float = UNSEEN_SECONDS) -> None:
    """Wait until this machine sees the run in the results folder; FolderError where it never does.

    A machine that joined after the run began was not asked whether it shares the folder. What it wrote into one of its
    own would be lost. The wait also keeps it from taking one trial after the other only to fail it.
    """
    deadline = time.monotonic() + seconds
    while not store.sees_run(run):
        if time.monotonic() >= deadline:
            raise FolderError(
                f"results folder must be shared by all machines, got {store.uri!r}, in which {socket.gethostname()} does "
                "not see the run. Mount the network folder there, or take the machine out of the cluster."
            )
        time.sleep(min(STOP_POLL_SECONDS, seconds))


def final_figures(store: Store, key: str) -> dict[str, Any] | None:
    """State and reason of a trial that another run on this folder finished meanwhile; None where it is still to run."""
    done = store.read_fragment(key)
    if done is None or done.record.state not in FINAL:
        return None
    return {"state": done.record.state, "reason": done.record.reason}


def live_figures(progress: Progress) -> dict[str, Any]:
    """What a live view shows of a trial after an epoch; measured figures only where it was measured."""
    figures: dict[str, Any] = {"epoch": progress.epoch, "share_done": progress.share_done, "measured": False}
    if progress.measurement is not None:
        figures |= {name: getattr(progress.measurement, name) for name in LIVE_FIGURES}
    return figures


def row_figures(progress: Progress) -> dict[str, Any]:
    """The whole row of an epoch that was measured, for schedulers and loggers."""
    assert progress.measurement is not None
    return {**asdict(progress.measurement), "share_done": progress.share_done, "measured": True, "state": "running"}


class Execution:
    """One attempt at one trial, from the store and into it."""

    def __init__(
        self,
        config: TrialConfig,
        store: Store,
        *,
        attempt: int,
        keep: str = "head",
        checkpoint_seconds: float = 30.0,
        device: str | None = None,
        stopped_by: str | None = None,
        group: Group = ALONE,
    ) -> None:
        """stopped_by: digest of the scheduler's rule whose wish `should_end` tells."""
        self.config, self.store, self.attempt, self.keep, self.device = config, store, attempt, keep, device
        self.stopped_by, self.group = stopped_by, group
        self.checkpoint_seconds = checkpoint_seconds
        self.reason: str | None = None  # why the trial is not complete, once run() has returned
        self.is_charged = True  # whether a failure counts against the trial; not where the results folder failed
        self.log = TrialLog(store, config.key, attempt, is_kept=group.leads)
        self._last_beat = self._last_checkpoint = time.monotonic()
        self._code: torch.Tensor | None = None  # rows of the best code, where the classifier is fixed at it

    def run(
        self,
        *,
        should_stop: Callable[[], str | bool] = lambda: False,
        should_end: Callable[[Progress], bool] = lambda _: False,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> str:
        """Run to the end and return the state: complete, diverged, failed, stopped, or interrupted when asked to stop.

        Nothing that a trial of one worker does raises: a divergence becomes its rows with a reason, an error a failure
        with a traceback. A worker among several raises its error, once the failure is written, so that whoever started
        them ends the others; an error that another worker's end brought about is none of its own.

        Args:
            should_stop: asked after every epoch, of every worker: whether to leave off, to be continued by another
                attempt, or words that say why.
            should_end: asked of worker 0 after each measurement: whether a scheduler wants the trial to end here.
            on_progress: told of every epoch, on every worker.
        """
        self._log_start()
        try:
            with self.log.capture():
                state = self._run(should_stop, should_end, on_progress)
        except Exception:
            self.log.write(f"end: failed: {self.reason or 'another worker was lost'}", always=True)
            self.log.flush()
            raise
        self.log.write(f"end: {state}{f': {self.reason}' if self.reason else ''}", always=True)
        self.log.flush()
        return state

    def _run(
        self,
        should_stop: Callable[[], str | bool],
        should_end: Callable[[Progress], bool],
        on_progress: Callable[[Progress], None],
    ) -> str:
        def wants_end(progress: Progress) -> bool:
            return progress.measurement is not None and should_end(progress)

        trial = None
        try:
            self._beat([])
            trial = self._open_trial()
            self.log.write(f"continues from epoch {trial.epoch}" if trial.resumed else "starts from the beginning")
            while not trial.is_done:
                progress = trial.run_epoch()
                if progress.measurement is not None:
                    self.log.write(measurement_line(progress.measurement))
                on_progress(progress)
                if not trial.is_done:
                    if self.group.agree(self.group.leads and wants_end(progress)):
                        return self._stop_early(trial)
                    asked: str | bool = next((words for words in self.group.everyone(should_stop()) if words), False)
                    if asked:
                        return self._leave_off(trial, asked)
                    self._keep_alive(trial)
            self._write_kept(trial)
            return self._finish(trial, "complete", None)
        except Diverged as error:
            assert trial is not None  # only a running trial diverges
            return self._finish(trial, "diverged", str(error))
        except Exception as error:
            if self.group.size == 1:
                self._fail(error, trial)
                return "failed"
            if not is_peer_lost(error) and self.store.failure_of(self.config.key, self.attempt) is None:
                self._fail(error, trial)
            raise

    def _log_start(self) -> None:
        settings = {name: value for name, value in self.config.settings().items() if value is not None}
        self.log.write(
            f"attempt {self.attempt} of trial {self.config.key} on {socket.gethostname()}, process {os.getpid()}\n"
            f"settings {json.dumps(settings)}\n"
            f"versions {versions()} on {cpu_model()}"
        )

    def _stop_early(self, trial: Trial) -> str:
        """End with what was measured; the checkpoint stays for a study that does not stop the trial here."""
        self._checkpoint(trial)
        self._write_kept(trial)
        return self._finish(trial, "stopped", f"stopped early at epoch {trial.epoch}.")

    def _leave_off(self, trial: Trial, asked: str | bool) -> str:
        """Keep a checkpoint of this epoch: the next attempt continues from here."""
        self._checkpoint(trial)
        self._beat(trial.measurements, interrupted=True)
        self.reason = f"{asked if isinstance(asked, str) else 'asked to stop'}; checkpoint of epoch {trial.epoch} kept"
        return INTERRUPTED

    def _open_trial(self) -> Trial:
        """From the newest checkpoint that can be loaded, else from the start; worker 0 reads it for all."""
        self._code = self.group.lead(self._shared_code, shared=FolderError)
        checkpoints = self.store.read_checkpoints(self.config.key, _say_torn) if self.group.leads else iter(())
        while (checkpoint := self.group.agree(next(checkpoints, None))) is not None:
            try:
                return Trial(
                    self.config, checkpoint=checkpoint, device=self.device, group=self.group, code_rows=self._code
                )
            except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
                if is_peer_lost(error):
                    raise
                print(f"a checkpoint of {self.config.key} cannot be continued from: {error}", file=sys.stderr)
        return Trial(self.config, device=self.device, group=self.group, code_rows=self._code)

    def _shared_code(self) -> torch.Tensor | None:
        """The rows of the best code as this results folder has them; None for a trial that needs none."""
        if self.config.code != "best":
            return None
        size = self.config.num_classes, self.config.feature_dim
        torch.set_num_threads(self.config.num_threads)  # as for all that the trial computes
        rows = shared_code(self.store.storage, size, best_code_version(), lambda: best_code(*size).points.numpy())
        return torch.from_numpy(rows)

    def _keep_alive(self, trial: Trial) -> None:
        if not self.group.leads:
            return
        now = time.monotonic()
        if now - self._last_checkpoint >= self.checkpoint_seconds:
            self._checkpoint(trial)
            self._last_checkpoint = now
        if now - self._last_beat >= min(HEARTBEAT_SECONDS, self.checkpoint_seconds):
            self._beat(trial.measurements)
            self._last_beat = now

    def _checkpoint(self, trial: Trial) -> None:
        if self.group.leads:
            self.store.write_checkpoint(self.config.key, trial.epoch, trial.save())

    def _beat(self, measurements: list[Measurement], *, interrupted: bool = False) -> None:
        if not self.group.leads:
            return
        rows = fragment_table(self.config, measurements)
        self.store.write_live(self.config.key, self.attempt, rows, interrupted=interrupted)
        self.log.flush()

    def _finish(self, trial: Trial, state: str, reason: str | None) -> str:
        """The rows file last: from then on the trial counts, and nothing of it may be missing."""
        self.reason = reason
        if not self.group.leads:
            return state
        record = TrialRecord(
            state=state,
            reason=reason,
            stopped_by=self.stopped_by if state == "stopped" else None,
            attempts=self.attempt,
            resumed=trial.resumed,
            reached_terminal=trial.terminal_epoch is not None,
            seconds=trial.seconds,
            dataset_digest=trial.dataset.digest,
            code_digest=None if self._code is None else code_digest(self._code.numpy()),
            **circumstances(trial.device),
        )
        if state != "complete":
            done = self.store.read_fragment(self.config.key)
            if done is not None and done.record.state == "complete":  # another machine got there; its rows stay
                return state
        self.store.write_fragment(self.config, trial.measurements, record)
        self.store.clear_progress(self.config.key, keep_checkpoint=state == "stopped")
        return state

    def _write_kept(self, trial: Trial) -> None:
        if not self.group.leads:
            return
        self.store.write_margins(self.config.key, margins_table(trial))
        if (head := head_file(trial, self.keep)) is not None:
            self.store.write_head(self.config.key, head)

    def _fail(self, error: Exception, trial: Trial | None) -> None:
        self.reason = f"{type(error).__name__}: {error}"
        self.is_charged = not isinstance(error, FolderError)  # a full disk is no fault of the trial
        trace = "".join(traceback.format_exception(error))
        self.log.write(trace, always=True)
        self.log.flush()
        failure = {
            "attempt": self.attempt,
            "state": "failed",
            "charged": self.is_charged,
            "reason": self.reason,
            "traceback": trace,
            "log": log_name(self.config.key, self.attempt),
            "epoch": trial.epoch if trial else None,
            "seconds": trial.seconds if trial else None,
            "resumed": trial.resumed if trial else False,
            "reached_terminal": None,
            "dataset_digest": trial.dataset.digest if trial else None,
            "settings": identity_and_settings(self.config),
            **circumstances(trial.device if trial else torch.device("cpu")),
        }
        try:
            self.store.write_failure(self.config.key, self.attempt, failure)
            if self.is_charged:
                self.store.remove_live(self.config.key)
        except OSError:
            return  # a full or lost folder cannot keep even this; the state and reason are still told to the caller


def _say_torn(name: str) -> None:
    print(f"warning: {name} cannot be read as what it should be and was skipped", file=sys.stderr)


def measurement_line(measurement: Measurement) -> str:
    """The few figures by which a person follows a trial."""
    test = "-" if measurement.test_accuracy is None else f"{measurement.test_accuracy:.4f}"
    return (
        f"epoch {measurement.epoch:<6} step {measurement.step:<8} loss {measurement.train_loss:<10.4g} "
        f"accuracy {measurement.train_accuracy:<7.4f} test {test:<7} margin {measurement.margin_min_lower:.4f}"
    )
