"""One trial against the store: continue from its checkpoint, keep it alive on disk, write its end.

Knows the store and study.trial; does not know Ray. Both `gnc trial` and a Ray worker run a trial through here, which
is why they give the same rows. Of a trial's several workers each runs one; worker 0 alone writes and reports.
"""

import datetime
import importlib.metadata
import json
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import save

from study.columns import Measurement, TrialRecord
from study.config import TrialConfig
from study.parallel import ALONE, Group, is_peer_lost
from study.records import MARGINS_SCHEMA, fragment_table, identity_and_settings
from study.store import Store
from study.training import Diverged
from study.trial import Progress, Trial

HEARTBEAT_SECONDS = 5.0
STOP_POLL_SECONDS = 1.0
HISTOGRAM_BINS = 50  # of all classes' margins, in the table's metadata
ALL_MARGINS, FEWEST_MARGINS = 10_000, 1_000  # up to so many classes all margins are kept, else the smallest
PACKAGES = (
    "gnc-study",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pillow",
    "matplotlib",
    "fonttools",
)  # decide numbers
STOPPED = "stopped"  # early, by a scheduler; its rows are kept
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
        self._last_beat = self._last_checkpoint = time.monotonic()

    def run(
        self,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        should_end: Callable[[Progress], bool] = lambda _: False,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> str:
        """Run to the end and return the state: complete, diverged, failed, stopped, or interrupted when asked to stop.

        Nothing that a trial of one worker does raises: a divergence becomes its rows with a reason, an error a failure
        with a traceback. A worker among several raises its error, once the failure is written, so that whoever started
        them ends the others; an error that another worker's end brought about is none of its own.

        Args:
            should_stop: asked after every epoch, on worker 0: whether to leave off, to be continued by the next run.
            should_end: asked after every measurement, on worker 0: whether a scheduler wants the trial to end here,
                with its rows.
            on_progress: told of every epoch, on every worker.
        """
        trial = None
        try:
            self._beat([])
            trial = self._open_trial()
            while not trial.is_done:
                progress = trial.run_epoch()
                on_progress(progress)
                if not trial.is_done:
                    wish = self.group.agree(_wish(progress, should_stop, should_end) if self.group.leads else None)
                    if wish == STOPPED:
                        self._checkpoint(trial)
                        self._write_kept(trial)
                        return self._finish(trial, STOPPED, f"stopped early at epoch {trial.epoch}.")
                    if wish == INTERRUPTED:
                        self._checkpoint(trial)
                        self._beat(trial.measurements, interrupted=True)
                        return INTERRUPTED
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
            if not is_peer_lost(error) and recorded_failure(self.store, self.config.key, self.attempt) is None:
                self._fail(error, trial)
            raise

    def _open_trial(self) -> Trial:
        """From the newest checkpoint that can be loaded, else from the start; worker 0 reads it for all."""
        checkpoints = self.store.read_checkpoints(self.config.key) if self.group.leads else iter(())
        while (checkpoint := self.group.agree(next(checkpoints, None))) is not None:
            try:
                return Trial(self.config, checkpoint=checkpoint, device=self.device, group=self.group)
            except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
                if is_peer_lost(error):
                    raise
                print(f"a checkpoint of {self.config.key} cannot be continued from: {error}", file=sys.stderr)
        return Trial(self.config, device=self.device, group=self.group)

    def _checkpoint(self, trial: Trial) -> None:
        if self.group.leads:
            self.store.write_checkpoint(self.config.key, trial.epoch, trial.save())

    def _keep_alive(self, trial: Trial) -> None:
        if not self.group.leads:
            return
        now = time.monotonic()
        if now - self._last_checkpoint >= self.checkpoint_seconds:
            self.store.write_checkpoint(self.config.key, trial.epoch, trial.save())
            self._last_checkpoint = now
        if now - self._last_beat >= HEARTBEAT_SECONDS:
            self._beat(trial.measurements)
            self._last_beat = now

    def _beat(self, measurements: list[Measurement], *, interrupted: bool = False) -> None:
        if not self.group.leads:
            return
        rows = fragment_table(self.config, measurements)
        self.store.write_live(self.config.key, self.attempt, rows, interrupted=interrupted)

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
        assert trial.collapse is not None  # the last epoch is always measured
        if self.keep == "nothing":
            return
        kept = {
            "weights": trial.training.classifier.weight.detach().cpu().contiguous(),
            "class_means": trial.collapse.class_means.to(torch.float32).cpu().contiguous(),
        }
        if self.keep == "model":
            kept |= {f"model.{name}": value for name, value in trial.training.tensors().items()}
        self.store.write_head(self.config.key, save(kept))

    def _fail(self, error: Exception, trial: Trial | None) -> None:
        self.reason = f"{type(error).__name__}: {error}"
        failure = {
            "attempt": self.attempt,
            "state": "failed",
            "reason": self.reason,
            "traceback": "".join(traceback.format_exception(error)),
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
            self.store.remove_live(self.config.key)
        except OSError:
            return  # a full or lost folder cannot keep even this; the state and reason are still told to the caller


def _wish(progress: Progress, should_stop: Callable[[], bool], should_end: Callable[[Progress], bool]) -> str | None:
    """The state that a trial is asked to leave in after an epoch, if any."""
    if progress.measurement is not None and should_end(progress):
        return STOPPED
    return INTERRUPTED if should_stop() else None


def decided(store: Store, key: str, stopped_by: str | None) -> dict[str, Any] | None:
    """State and reason of a trial that another start would not change, in a study that stops trials by this rule."""
    stored = store.read_fragment(key)
    if stored is None or (stored.record.state == STOPPED and stored.record.stopped_by != stopped_by):
        return None
    return {"state": stored.record.state, "reason": stored.record.reason}


def recorded_failure(store: Store, key: str, attempt: int) -> dict[str, Any] | None:
    """The failure of this attempt, if one of its workers wrote it; the first to fail knows the cause."""
    return next((failure for failure in store.failures().get(key, []) if failure["attempt"] == attempt), None)


def margins_table(trial: Trial) -> pa.Table:
    """Per-class margins of the last measured epoch under MARGINS_SCHEMA, smallest first."""
    assert trial.collapse is not None
    margins, weights = trial.collapse.margins, trial.training.classifier.weight.detach().double()
    order = torch.argsort(margins.lower, stable=True).tolist()
    if len(order) > ALL_MARGINS:
        order = order[:FEWEST_MARGINS]
    unit = torch.nn.functional.normalize(weights, dim=1)
    counts = torch.bincount(trial.training.train_labels, minlength=len(weights)).tolist()
    norms = weights.norm(dim=1).tolist()
    rows = []
    for k in order:
        cosines = unit @ unit[k]
        cosines[k] = -2.0
        rows.append(
            {
                "class_index": k,
                "class_name": trial.dataset.class_names[k],
                "samples": counts[k],
                "norm": norms[k],
                "nearest_class": int(cosines.argmax()),
                "lower": float(margins.lower[k]),
                "upper": float(margins.upper[k]),
                "support": [int(j) for j in margins.support[k]],
            }
        )
    table = pa.Table.from_pylist(rows, schema=MARGINS_SCHEMA)
    in_bin, edges = torch.histogram(((margins.lower + margins.upper) / 2).cpu(), bins=HISTOGRAM_BINS)
    histogram = json.dumps({"counts": in_bin.int().tolist(), "edges": edges.tolist()})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"histogram": histogram.encode()})


def circumstances(device: torch.device) -> dict[str, Any]:
    """When, where and with what a trial ended."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "cpu_model": cpu_model(),
        "gpu_model": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "versions": json.dumps({"python": platform.python_version(), **versions}),
    }


def cpu_model() -> str:
    """The CPU as /proc/cpuinfo names it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
