"""One trial, start to finish: which epochs are measured, when the budget is used up; stoppable and resumable after any epoch;
its peak memory, and what it leaves behind on a GPU. Knows PyTorch through study.training.training, gnc_models, and Linux's
/proc; does not know Ray, the results folder or other trials."""

import contextlib
import gc
import json
import math
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from gnc_models.datasets.samples.room import HELD, Room
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.geometry.pairwise import unit
from gnc_models.metrics.collapse import Collapse
from study.design.columns import Measurement
from study.design.config import TrialConfig
from study.training import schedules
from study.training.data import load_dataset
from study.training.measuring import Outputs, compute_outputs, measure
from study.training.training import Diverged, Training
from study.training.worker_group import ALONE, Group

TERMINAL_ACCURACY = 0.99
CHECK_TOLERANCE = 1e-3  # relative, of the margins that stationarity is judged by
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
HELD_LIMIT = 64 << 20  # bytes: workspaces of cuBLAS and cuDNN stay, tensors of a trial do not


@dataclass(frozen=True)
class Progress:
    """Where a trial stands after an epoch, as a live view shows it."""

    epoch: int
    share_done: float
    measurement: Measurement | None  # of this epoch, if it was one to measure and this is worker 0


class Trial:
    """One trial in this process. Call run_epoch until is_done; save() after any epoch is enough to continue.
    Of a trial's several workers each makes one and calls it alike; worker 0 measures, and decides for all."""

    def __init__(
        self, config: TrialConfig, *, checkpoint: bytes | None = None, device: str | None = None, group: Group = ALONE,
        code_rows: Tensor | None = None, room: Room = HELD,
    ) -> None:  # fmt: skip
        """room: inputs that take more are streamed. code_rows: of a fixed classifier, so that all machines have the same."""
        if group.size != config.workers:
            raise ValueError(f"workers must be those that the trial asks for, {config.workers}, got {group.size!r}.")
        started = time.monotonic()
        torch.set_num_threads(config.num_threads)
        self.config, self.group = config, group
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._memory = PeakMemory(self.device)
        self.dataset = load_dataset(config, room)
        digests = group.everyone(self.dataset.digest)  # all workers refuse together, or they would wait for each other
        if len(set(digests)) > 1:
            rule = "dataset must be the same for all workers of a trial"
            raise ValueError(f"{rule}, got digests {digests[:5]}. Compare the data folders of the machines.")
        self.training = Training(config, self.dataset, self.device, group, code_rows)
        self.measurements: list[Measurement] = []
        self.collapse: Collapse | None = None  # of the last measured epoch in this process
        self.epoch = -1  # the untrained network was not measured yet
        self.step = 0
        self.terminal_epoch: int | None = None
        self.stationary_step: int | None = None
        self._checks: list[schedules.Check] = []  # of stationarity, with budget stationary
        self._seconds_before = 0.0
        self.resumed = checkpoint is not None
        self._started = started
        if checkpoint is not None:
            self._load(checkpoint)

    @property
    def seconds(self) -> float:
        """Training and measuring time, all attempts."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def is_done(self) -> bool:
        return self.epoch >= self._last_epoch()

    @property
    def share_done(self) -> float:
        """Share of the budget spent, for display; of the most it can take where an event is awaited."""
        return min(1.0, self.step / max(1, self._total_steps()))

    def run_epoch(self) -> Progress:
        """Train one epoch (the first call measures the untrained network) and measure if it is one to measure.
        Raises Diverged when the loss or the features are not finite."""
        self.epoch += 1
        if self.epoch > 0:
            self.step += self.training.train_epoch(self.epoch, self._paces())
        features = None
        if self._is_checked():
            features = found = self.training.features(self.training.train_inputs)
            self._note(*self.group.lead(lambda: self._check(found), shared=Diverged))
        measured = self._measure(features) if self._is_measured() else None
        return Progress(self.epoch, self.share_done, measured)

    def _total_steps(self) -> int:
        config, per_epoch = self.config, self.training.steps_per_epoch
        if config.budget in ("steps", "epochs"):
            return config.steps if config.steps is not None else (config.epochs or 0) * per_epoch
        return sum(schedules.awaited_course(config, per_epoch, self._begun()))

    def _last_epoch(self) -> int:
        return math.ceil(self._total_steps() / self.training.steps_per_epoch)

    def _begun(self) -> int | None:
        if self.config.budget == "stationary":
            return self.stationary_step
        return None if self.terminal_epoch is None else self.terminal_epoch * self.training.steps_per_epoch

    def _paces(self) -> list[schedules.Pace]:
        """Learning rate and temperature of each step of the next epoch; fewer than an epoch's where the budget ends."""
        config, total = self.config, self._total_steps()
        steps, peak = range(self.step, min(self.step + self.training.steps_per_epoch, total)), config.learning_rate
        temperature_at = schedules.temperature_at
        return [schedules.Pace(peak * self._rate_share(i), temperature_at(config, i / total)) for i in steps]

    def _rate_share(self, step: int) -> float:
        if self.config.budget in ("steps", "epochs"):
            return schedules.learning_rate_share(self.config.schedule, step / self._total_steps())
        return schedules.awaited_rate_share(self.config, self.training.steps_per_epoch, self._begun(), step)

    def _is_checked(self) -> bool:
        """Whether the event that the budget waits for is looked for after this epoch."""
        if self.config.budget == "stationary":  # a rate that falls brings anything to rest
            held, _ = schedules.awaited_course(self.config, self.training.steps_per_epoch, self._begun())
            return self.stationary_step is None and self.step <= held and schedules.is_check_epoch(self.epoch)
        return self.config.budget == "terminal" and self.terminal_epoch is None

    def _check(self, features: Tensor) -> tuple[float, schedules.Check | None]:
        """Training accuracy, and with budget stationary what is compared."""
        loss, accuracy = self.training.loss_and_accuracy(features, self.training.train_labels)
        if self.config.budget != "stationary":
            return accuracy, None
        self.training.check_weights()
        rows = unit(self.training.classifier.weight.detach())
        margin = one_vs_rest_margins(rows, tolerance=CHECK_TOLERANCE, mode="min").minimum[0]
        return accuracy, schedules.Check(self.step, loss, margin)

    def _note(self, train_accuracy: float, check: schedules.Check | None) -> None:
        self._note_terminal(train_accuracy)
        if check is None:
            return
        config, warm_up = self.config, schedules.warm_up_steps(self.config, self.training.steps_per_epoch)
        given = {"tolerance": config.stationary_tolerance or 0.0, "temperature": config.temperature or 1.0}
        self._checks = schedules.with_check(self._checks, check, **given, warm_up=warm_up)
        if schedules.is_stationary(self._checks):
            self.stationary_step = self.step

    def _note_terminal(self, train_accuracy: float) -> None:
        if self.terminal_epoch is None and train_accuracy >= TERMINAL_ACCURACY:
            self.terminal_epoch = self.epoch

    def _is_measured(self) -> bool:
        if self.epoch >= self._last_epoch() or self.config.measure == "every":
            return True
        return self.config.measure == "log" and is_log_epoch(self.epoch)

    def _measure(self, features: Tensor | None) -> Measurement | None:
        outputs = compute_outputs(self.training, self.dataset, features)
        self._note_terminal(self.group.lead(lambda: self._measure_outputs(outputs), shared=Diverged))
        return self.measurements[-1] if self.group.leads else None

    def _measure_outputs(self, outputs: Outputs) -> float:
        """Add this epoch's measurement to those of the trial; the training accuracy it found."""
        final = self.epoch >= self._last_epoch()
        self.collapse, values = measure(self.training, self.dataset, outputs, final=final)
        train_accuracy: float = values["train_accuracy"]
        self._note_terminal(train_accuracy)
        values |= {name: getattr(self, name) for name in ("epoch", "step", "stationary_step")}
        values |= {"objective": self.training.objective, "terminal": self.terminal_epoch is not None}
        values["stationary"] = self.stationary_step is not None if self.config.budget == "stationary" else None
        values |= {"wall_seconds": self.seconds, "peak_memory_bytes": self._memory.bytes()}
        self.measurements.append(Measurement(**values))
        return train_accuracy

    def save(self) -> bytes:
        """The trial as it stands, rows included: tensors by safetensors, all else as JSON in its header."""
        same = {n: getattr(self, n) for n in ("epoch", "step", "terminal_epoch", "stationary_step", "seconds")}
        lists = {"checks": list(map(asdict, self._checks)), "measurements": list(map(asdict, self.measurements))}
        state = {"key": self.config.key} | same | lists
        return save(self.training.tensors(), metadata={"state": json.dumps(state)})

    def _load(self, checkpoint: bytes) -> None:
        length = int.from_bytes(checkpoint[:8], "little")  # of safetensors' header, which follows it
        state = json.loads(json.loads(checkpoint[8 : 8 + length])["__metadata__"]["state"])
        if state["key"] != self.config.key:
            raise ValueError(f"checkpoint must be of trial {self.config.key}, got one of {state['key']!r}.")
        names = [field.name for field in fields(Measurement)]
        self.training.load(load(checkpoint))
        self.epoch, self.step, self.terminal_epoch = state["epoch"], state["step"], state["terminal_epoch"]
        # Absent in checkpoints from before there was this budget.
        self.stationary_step = state.get("stationary_step")
        self._checks = [schedules.Check(**check) for check in state.get("checks", ())]
        self._seconds_before = state["seconds"]
        # By today's columns: one added since the checkpoint was written is null in the rows before it.
        self.measurements = [Measurement(**{name: row.get(name) for name in names}) for row in state["measurements"]]


def is_log_epoch(epoch: int) -> bool:
    """Whether the epoch is 0 or one of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: two to each doubling."""
    if epoch <= 4:
        return True
    power = 1 << (epoch.bit_length() - 1)
    return epoch in (power, power + power // 2)


def held_bytes() -> int:
    """Bytes that this process holds on its GPUs once all that can be freed is; 0 where it never touched one.
    Its own alone: what other processes hold of a shared GPU comes and goes."""
    if not torch.cuda.is_initialized():
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))


def is_free_again(held: int) -> bool:
    """Whether a process that holds so many bytes on GPUs after a trial can take another one."""
    return held <= HELD_LIMIT


class PeakMemory:
    """Counts from when it is made: on a GPU the bytes torch allocated, on CPU the process's resident bytes.
    A process keeps its high-water mark for life; Linux resets it on request, and where that is refused (other systems,
    some containers) a reused process cannot tell its own peak, so the answer is None."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_reset = device, False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                self._is_reset = bool(_CLEAR.write_text("5"))

    def bytes(self) -> int | None:
        """Peak so far, None if unknown."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if self._is_reset else None
        return int(found.group(1)) * 1024 if found else None
