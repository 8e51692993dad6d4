"""What a study will cost: seconds per trial from stored trials of the same kind, or from a short probe.

Knows the store's trials and, for a probe, study.training.trial; does not know Ray.
"""

import math
import os
import statistics
import time
from dataclasses import dataclass

from study.design.config import TrialConfig
from study.store.schemas import stored_config
from study.store.store import Store

# What a trial's seconds depend on beside how many samples it trains on and measures.
KIND = (
    *("dataset", "resolution", "input_dim", "context_length", "encoder", "width", "depth", "norm_layer"),
    *("classifier", "loss", "cross_entropy", "precision", "num_threads", "workers", "batch_size"),
)
EVALUATION_COST = 1 / 3  # of a training sample's: forward without backward
PROBE_STEPS = 4


@dataclass(frozen=True)
class Price:
    """Cost of trials not yet run."""

    trials: int
    seconds: float | None  # of trial time in all; None if a kind of trial has no price
    unpriced: int  # trials of kinds that were never timed
    at_once: int  # trials side by side on this machine
    source: str  # "stored trials" or "probe"

    @property
    def wall_seconds(self) -> float | None:
        """Expected wall time on this machine, start-up aside."""
        return None if self.seconds is None else self.seconds / max(1, min(self.at_once, self.trials or 1))


def price(configs: list[TrialConfig], store: Store, *, cpus: float, probe: bool = False) -> Price:
    """The price of the trials, from the store's own timings, or measured now by a probe of each kind.

    cpus: of each worker.
    """
    per_sample = _probe(configs) if probe else _stored(store)
    priced = [per_sample[_kind(c)] * _samples(c) for c in configs if _kind(c) in per_sample]
    unpriced = len(configs) - len(priced)
    cpus *= max((config.workers for config in configs), default=1)
    at_once = max(1, int((os.cpu_count() or 1) / cpus))
    return Price(
        trials=len(configs),
        seconds=sum(priced) if not unpriced else None,
        unpriced=unpriced,
        at_once=at_once,
        source="probe" if probe else "stored trials",
    )


def _kind(config: TrialConfig) -> tuple[object, ...]:
    return tuple(getattr(config, name) for name in KIND)


def _samples(config: TrialConfig) -> float:
    """Training samples, and measured ones at a third of their cost; the most it can take, with budget terminal."""
    per_epoch = config.num_classes * config.samples_per_class
    if config.budget == "steps":
        epochs = (config.steps or 0) / math.ceil(per_epoch / config.batch_size)
    else:
        epochs = float(config.epochs or config.max_epochs or 0)
    measured = {"every": epochs, "final": 1.0, "log": 2 * math.log2(max(2.0, epochs)) + 2}[config.measure]
    if config.budget == "terminal":
        measured = max(measured, epochs)  # accuracy is looked at after every epoch
    evaluated = per_epoch + 2 * config.num_classes * (config.test_samples_per_class or 0)
    return epochs * per_epoch + EVALUATION_COST * measured * evaluated


def _stored(store: Store) -> dict[tuple[object, ...], float]:
    seconds: dict[tuple[object, ...], list[float]] = {}
    for row in store.read_trials().to_pylist():
        if row["state"] == "complete" and row["seconds"]:
            config = stored_config(row)
            seconds.setdefault(_kind(config), []).append(row["seconds"] / _samples(config))
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def _probe(configs: list[TrialConfig]) -> dict[tuple[object, ...], float]:
    """Time a few steps of one trial of each kind in this process, which is one worker: with several it is the most."""
    from study.training.training import Pace
    from study.training.trial import Trial

    per_sample = {}
    for kind, config in {_kind(c): c for c in reversed(configs)}.items():
        short = config.model_dump() | {"budget": "steps", "steps": PROBE_STEPS, "measure": "final", "workers": 1}
        short |= dict.fromkeys(("epochs", "max_epochs", "terminal_epochs", "attack_radii"))
        trial = Trial(TrialConfig(**short))
        pace = Pace(1e-6, config.temperature or 1.0)  # a step costs the same at any rate, and a wild one would diverge
        trial.training.train_epoch(1, [pace])  # the first step pays for allocation and kernel choice
        started = time.monotonic()
        steps = trial.training.train_epoch(1, [pace] * PROBE_STEPS)
        per_sample[kind] = (time.monotonic() - started) / (steps * config.batch_size)
    return per_sample
