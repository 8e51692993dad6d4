"""One attempt at a trial: continue from its checkpoint, write checkpoints and heartbeats, write how it ended.
Knows the store and study.training.trial; does not know Ray. `gnc trial` and Ray workers both run trials through here,
which is why they give the same rows. Each of a trial's workers has an Execution; only worker 0 writes and reports."""

import contextlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import save

from gnc_models.catalog.parts import note_part
from gnc_models.codes.best_code import best_code
from gnc_models.references.tables import best_code_version
from study.design.columns import Measurement, TrialRecord
from study.design.config import TrialConfig
from study.design.errors import StudyError
from study.execution.granted import data_room
from study.execution.progress_view import FIGURES
from study.execution.signals import Polled
from study.execution.trial_log import TrialLog, cpu_model, describe_machine, failure_record, versions
from study.store.optima import code_digest, shared_code
from study.store.schemas import MARGINS_SCHEMA, fragment_table
from study.store.storage import FolderError
from study.store.store import Store
from study.training.training import Diverged
from study.training.trial import Progress, Trial
from study.training.worker_group import ALONE, Group, is_peer_lost

Ask = Callable[[], str | bool]  # whether to stop; a string is the reason
Tell = Callable[[Progress], None]
HISTOGRAM_BINS = 50  # of the histogram of all classes' margins in the table's metadata
ALL_MARGINS, FEWEST_MARGINS = 10_000, 1_000  # up to 10,000 classes all margins are stored, else the 1,000 smallest
HEARTBEAT_SECONDS = 5.0  # or checkpoint_seconds, where these are fewer
STOP_POLL_SECONDS = 1.0
UNSEEN_SECONDS = 60.0  # a network folder may serve an old listing for so long
NO_MORE_STARTS = 1_000_000  # as many failed starts as no study allows: bad input stays bad
INTERRUPTED = "interrupted"  # not a state of a finished trial: it continues from its checkpoint


def await_run(store: Store, run: str, key: str, *, seconds: float = UNSEEN_SECONDS) -> Ask:
    """Wait until this machine sees the run in the results folder; FolderError where it never does.
    A machine that joined after the run began was not asked whether it shares the folder. What it wrote into a folder of
    its own would be lost. The wait also keeps it from taking one trial after another and failing each. What comes back
    says whether the run's trials were asked to stop, or that another run has taken over the one with this key; it looks
    into the store at most once a second."""
    deadline = time.monotonic() + seconds
    while not store.sees_run(run):
        if time.monotonic() >= deadline:
            problem = f"Machine {socket.gethostname()} cannot see this run in {store.uri!r}"
            cure = "Mount the network folder there, or take the machine out of the cluster."
            raise FolderError(f"{problem}: the folder is not shared with it. {cure}")
        time.sleep(min(STOP_POLL_SECONDS, seconds))

    def loss() -> str:  # a run that was paused for long finds its trials with others when it wakes up
        if store.has_lost(key, run):
            return "another run took the trial over"
        return "another run finished the trial" if final_figures(store, key) is not None else ""

    is_stopped = Polled(lambda: store.is_stop_requested(run), STOP_POLL_SECONDS)
    is_lost = Polled(loss, HEARTBEAT_SECONDS)
    return lambda: is_stopped() or is_lost()


def final_figures(store: Store, key: str) -> dict[str, Any] | None:
    """State and reason of a trial that another run on this folder finished meanwhile; None where it is still to run."""
    done = store.read_final(key)
    return None if done is None else {"state": done.record.state, "reason": done.record.reason}


def live_figures(progress: Progress) -> dict[str, Any]:
    """What a live view shows of a trial after an epoch; measured figures only where it was measured."""
    figures: dict[str, Any] = {"epoch": progress.epoch, "share_done": progress.share_done, "measured": False}
    if progress.measurement is not None:
        figures |= {name: getattr(progress.measurement, name) for _, name, _ in FIGURES}
    return figures


def row_figures(progress: Progress) -> dict[str, Any]:
    """The whole row of an epoch that was measured, for schedulers and loggers."""
    assert progress.measurement is not None
    return {**asdict(progress.measurement), "share_done": progress.share_done, "measured": True, "state": "running"}


class Execution:
    """One attempt at one trial, from the store and into it."""

    def __init__(
        self, config: TrialConfig, store: Store, *, attempt: int, keep: str = "head", checkpoint_seconds: float = 30.0,
        device: str | None = None, stopped_by: str | None = None, group: Group = ALONE,
    ) -> None:  # fmt: skip
        """stopped_by: digest of the scheduler's rule, which may ask in the store that the trial ends early."""
        self.config, self.store, self.attempt, self.keep, self.device = config, store, attempt, keep, device
        self.stopped_by, self.group, self.checkpoint_seconds = stopped_by, group, checkpoint_seconds
        self.reason: str | None = None  # why the trial is not complete, once run() has returned
        self.is_charged = True  # whether a failure counts against the trial; not where the results folder failed
        self.log = TrialLog(store, config.key, attempt, is_kept=group.leads)
        self._last_beat = self._last_checkpoint = time.monotonic()
        self._code: torch.Tensor | None = None  # rows of the best code, where the classifier is fixed at it

    def run(self, *, should_stop: Ask = lambda: False, on_progress: Tell = lambda _: None) -> str:
        """Run to the end and return the state: complete, diverged, failed, stopped, or interrupted when asked to stop.
        With one worker nothing is raised: a trial that diverges has its rows and a reason, an error is stored as a
        failure with its traceback. One of several workers stores its failure and then raises, so that whoever started
        the workers ends the others. An error caused by another worker's end is raised, and not stored as its own.
        should_stop: asked after every epoch, on every worker: whether to stop here, so that another attempt continues; a
        string is the reason. on_progress: called after every epoch, on every worker."""
        try:
            with self.log.capture():
                state = self._run(should_stop, on_progress)
        except Exception:
            self._log_end("failed", self.reason or "another worker was lost")
            raise
        self._log_end(state, self.reason)
        return state

    def _log_end(self, state: str, reason: str | None) -> None:
        self.log.write(f"end: {state}{f': {reason}' if reason else ''}", always=True)
        self.log.flush()

    def _run(self, should_stop: Ask, on_progress: Tell) -> str:
        trial = None
        try:
            self._log_start()
            self._beat([])
            self.store.hold_code(self.config)
            trial = self._open_trial()
            self.log.write(f"continues from epoch {trial.epoch}" if trial.resumed else "starts from the beginning")
            while not trial.is_done:
                progress = trial.run_epoch()
                is_measured = progress.measurement is not None
                if progress.measurement is not None:
                    self.log.write(measurement_line(progress.measurement))
                on_progress(progress)
                if trial.is_done:
                    break
                is_asked = is_measured and self.stopped_by is not None and self.store.is_stop_requested(self.config.key)
                if self.group.agree(self.group.leads and is_asked):
                    self._checkpoint(trial)  # it stays for a study that lets the trial go on
                    self._write_artifacts(trial)
                    return self._finish(trial, "stopped", f"stopped early at epoch {trial.epoch}.")
                if asked := next((words for words in self.group.everyone(should_stop()) if words), False):
                    self._checkpoint(trial)  # from which the next attempt continues
                    self._beat(trial.measurements, interrupted=True)
                    why = asked if isinstance(asked, str) else "asked to stop"
                    self.reason = f"{why}; checkpoint of epoch {trial.epoch} kept"
                    return INTERRUPTED
                self._keep_alive(trial)
            self._write_artifacts(trial)
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
        where, settings = f"on {socket.gethostname()}, process {os.getpid()}", self.config.model_dump(exclude_none=True)
        self.log.write(f"attempt {self.attempt} of trial {self.config.key} {where}")
        self.log.write(f"settings {json.dumps(settings)}\nversions {versions()} on {cpu_model()}")

    def _open_trial(self) -> Trial:
        """From the newest checkpoint that can be loaded, else from the start; worker 0 reads it for all."""
        self._code = self.group.lead(self._shared_code, shared=FolderError)
        own: dict[str, Any] = {"device": self.device, "group": self.group, "code_rows": self._code, "room": data_room()}
        skip = lambda name: print(
            f"warning: {name} cannot be read as what it should be and was skipped", file=sys.stderr
        )
        checkpoints = self.store.read_checkpoints(self.config.key, skip) if self.group.leads else iter(())
        while (checkpoint := self.group.agree(next(checkpoints, None))) is not None:
            try:
                return Trial(self.config, checkpoint=checkpoint, **own)
            except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
                if is_peer_lost(error):
                    raise
                print(f"a checkpoint of {self.config.key} cannot be continued from: {error}", file=sys.stderr)
        return Trial(self.config, **own)

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
        if self.group.leads:
            rows = fragment_table(self.config, measurements)
            self.store.write_live(self.config.key, self.attempt, rows, interrupted=interrupted)
            self.log.flush()

    def _finish(self, trial: Trial, state: str, reason: str | None) -> str:
        """Write the rows file last: once it is there the trial counts as finished, and all else must be there."""
        self.reason = reason
        if not self.group.leads:
            return state
        record = TrialRecord(
            state=state, reason=reason, stopped_by=self.stopped_by if state == "stopped" else None,
            attempts=self.attempt, resumed=trial.resumed, reached_terminal=trial.terminal_epoch is not None,
            seconds=trial.seconds, dataset_digest=trial.dataset.digest,
            code_digest=None if self._code is None else code_digest(self._code.numpy()),
            **describe_machine(trial.device),
        )  # fmt: skip
        if state != "complete":
            done = self.store.read_fragment(self.config.key)
            if done is not None and done.record.state == "complete":  # another machine got there; its rows stay
                return state
        self.store.write_fragment(self.config, trial.measurements, record)
        self.store.clear_progress(self.config.key, keep_checkpoint=state == "stopped")
        return state

    def _write_artifacts(self, trial: Trial) -> None:
        if not self.group.leads:
            return
        self.store.write_margins(self.config.key, margins_table(trial))
        if (head := head_file(trial, self.keep)) is not None:
            self.store.write_head(self.config.key, head)

    def _fail(self, error: Exception, trial: Trial | None) -> None:
        note_part(error, "encoder", self.config.encoder)  # the parts that are called by us have their note
        self.reason = f"{type(error).__name__}: {'; '.join([str(error), *getattr(error, '__notes__', ())])}"
        self.is_charged = not isinstance(error, FolderError)  # a full disk is no fault of the trial
        trace = "".join(traceback.format_exception(error))
        self.log.write(trace, always=True)
        self.log.flush()
        known: dict[str, Any] = {"epoch": None, "seconds": None, "resumed": False, "dataset_digest": None}
        if trial is not None:
            known = {name: getattr(trial, name) for name in ("epoch", "seconds", "resumed")}
            known["dataset_digest"] = trial.dataset.digest
        known |= {"starts": NO_MORE_STARTS if isinstance(error, StudyError) else 1, "reached_terminal": None}
        known |= describe_machine(trial.device if trial else torch.device("cpu"))
        failure = failure_record(self.config, self.attempt, self.reason, trace, charged=self.is_charged, **known)
        # A full or lost folder cannot hold even this; the caller still gets the state and the reason.
        with contextlib.suppress(OSError):
            self.store.write_failure(self.config.key, self.attempt, failure)
            if self.is_charged:
                self.store.remove_live(self.config.key)


def measurement_line(measurement: Measurement) -> str:
    """The few figures by which a person follows a trial."""
    test = "-" if measurement.test_accuracy is None else f"{measurement.test_accuracy:.4f}"
    begins = f"epoch {measurement.epoch:<6} step {measurement.step:<8} loss {measurement.train_loss:<10.4g}"
    accuracies = f"accuracy {measurement.train_accuracy:<7.4f} test {test:<7}"
    return f"{begins} {accuracies} margin {measurement.margin_min_lower:.4f}"


def margins_table(trial: Trial) -> pa.Table:
    """Per-class margins of the last measured epoch under MARGINS_SCHEMA, smallest first."""
    assert trial.collapse is not None
    margins, weights = trial.collapse.margins, trial.training.classifier.weight.detach().double()
    order = torch.argsort(margins.lower, stable=True).tolist()
    order = order if len(order) <= ALL_MARGINS else order[:FEWEST_MARGINS]
    unit = torch.nn.functional.normalize(weights, dim=1)
    counts, names = torch.bincount(trial.training.train_labels, minlength=len(weights)), trial.dataset.class_names
    of_all = {"samples": counts, "norm": weights.norm(dim=1), "lower": margins.lower, "upper": margins.upper}
    columns: dict[str, list[Any]] = {name: values.tolist() for name, values in of_all.items()}
    rows = []
    for k in order:
        cosines = unit @ unit[k]
        cosines[k] = -2.0
        found = {"nearest_class": int(cosines.argmax()), "support": list(map(int, margins.support[k]))}
        own = {name: values[k] for name, values in columns.items()}
        rows.append({"class_index": k, "class_name": names[k], **own, **found})
    table = pa.Table.from_pylist(rows, schema=MARGINS_SCHEMA)
    in_bin, edges = torch.histogram(((margins.lower + margins.upper) / 2).cpu(), bins=HISTOGRAM_BINS)
    histogram = json.dumps({"counts": in_bin.int().tolist(), "edges": edges.tolist()})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"histogram": histogram.encode()})


def head_file(trial: Trial, keep: str) -> bytes | None:
    """A safetensors file of the head and class means, with keep = "model" of all tensors too; None with "nothing"."""
    if keep == "nothing":
        return None
    assert trial.collapse is not None  # the last epoch is always measured
    weights, means = trial.training.classifier.weight.detach(), trial.collapse.class_means.to(torch.float32)
    tensors = {"weights": weights.cpu().contiguous(), "class_means": means.cpu().contiguous()}
    whole = trial.training.tensors() if keep == "model" else {}
    return save(tensors | {f"model.{name}": value for name, value in whole.items()})
