"""What a study will cost: the seconds per trial, from stored trials of the same kind or from a short probe.

Knows the store's trials and, for a probe, study.training.trial; does not know Ray.
"""

import math
import os
import statistics
import time
from dataclasses import dataclass

from gnc_models.catalog.members import settings_of
from study.design.config import TrialConfig
from study.store.schemas import stored_config
from study.store.store import Store

EVALUATION_COST = 1 / 3  # of a training sample's: forward without backward
PROBE_STEPS = 4


@dataclass(frozen=True)
class Price:
    """Cost of trials not yet run."""

    trials: int
    seconds: float | None  # of trial time in all; None if the cost of a trial is unknown
    unpriced: int  # trials whose cost is unknown, because none of their kind was timed
    at_once: int  # trials that this machine runs at the same time
    source: str  # "stored trials" or "probe"

    @property
    def wall_seconds(self) -> float | None:
        """Expected wall time on this machine, without the start of Ray."""
        return None if self.seconds is None else self.seconds / max(1, min(self.at_once, self.trials or 1))


def price(configs: list[TrialConfig], store: Store, *, cpus: float, probe: bool = False) -> Price:
    """The cost of the trials, from the times of stored trials, or measured now by a probe of each kind.

    cpus: those that each worker occupies.
    """
    per_sample = _probe(configs) if probe else _stored(store)
    kinds = [(config.values_with("speed"), config) for config in configs]  # what the time per sample depends on
    priced = [per_sample[kind] * _samples(config) for kind, config in kinds if kind in per_sample]
    unpriced = len(configs) - len(priced)
    cpus *= max((config.workers for config in configs), default=1)
    at_once = max(1, int((os.cpu_count() or 1) / cpus))
    seconds, source = None if unpriced else sum(priced), "probe" if probe else "stored trials"
    return Price(len(configs), seconds, unpriced, at_once, source)


def _samples(config: TrialConfig) -> float:
    """Training samples, with measured samples at a third of the cost; with budget terminal the most that it can take."""
    per_epoch = config.num_classes * config.samples_per_class
    if config.budget == "steps":
        epochs = (config.steps or 0) / math.ceil(per_epoch / config.batch_size)
    else:
        epochs = float(config.epochs or config.max_epochs or 0)
    measured = {"every": epochs, "final": 1.0, "log": 2 * math.log2(max(2.0, epochs)) + 2}[config.measure]
    if config.budget == "terminal":
        measured = max(measured, epochs)  # accuracy is computed after every epoch
    evaluated = per_epoch + 2 * config.num_classes * (config.test_samples_per_class or 0)
    return epochs * per_epoch + EVALUATION_COST * measured * evaluated


def _stored(store: Store) -> dict[tuple[object, ...], float]:
    seconds: dict[tuple[object, ...], list[float]] = {}
    for row in store.read_trials().to_pylist():
        if row["state"] == "complete" and row["seconds"]:
            config = stored_config(row)
            seconds.setdefault(config.values_with("speed"), []).append(row["seconds"] / _samples(config))
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def _probe(configs: list[TrialConfig]) -> dict[tuple[object, ...], float]:
    """Time a few steps of one trial of each kind in this process. Several workers would take at most as long as this one."""
    from study.training.schedules import Pace
    from study.training.trial import Trial

    per_sample = {}
    for kind, config in {config.values_with("speed"): config for config in reversed(configs)}.items():
        short = config.model_dump() | dict.fromkeys((*settings_of("budget"), "attack_radii"))
        short |= {"budget": "steps", "steps": PROBE_STEPS, "measure": "final", "workers": 1}
        trial = Trial(TrialConfig(**short))
        pace = Pace(1e-6, config.temperature or 1.0)  # a step costs the same at any rate, and a wild one would diverge
        trial.training.train_epoch(1, [pace])  # the first step pays for allocation and kernel choice
        started = time.monotonic()
        steps = trial.training.train_epoch(1, [pace] * PROBE_STEPS)
        per_sample[kind] = (time.monotonic() - started) / (steps * config.batch_size)
    return per_sample
