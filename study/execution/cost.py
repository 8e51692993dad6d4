"""What a study will cost: the seconds per trial, from stored trials of the same kind or from a short probe.
Knows the store's trials and, for a probe, study.training.trial; does not know Ray."""

import math
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache

from gnc_models.catalog.members import settings_of
from gnc_models.progress import counted
from study.design.config import TrialConfig, one_of_each_cell
from study.execution.granted import data_room, usable_cpus
from study.store.schemas import stored_config
from study.store.sealing.table_rows import first_of_each
from study.store.store import Store
from study.training.data import training_samples
from study.training.schedules import CHECKS

OPEN_BUDGETS = ("terminal", "stationary")  # training may end before its cap
EVALUATION_COST = 1 / 3  # of a training sample's: forward without backward
PROBE_STEPS = 4


@dataclass(frozen=True)
class Price:
    trials: int
    seconds: float | None  # of trial time in all; None if the cost of a trial is unknown
    unpriced: int  # trials whose cost is unknown, because none of their kind was timed
    at_once: int  # trials that this machine runs at the same time
    source: str  # "stored trials" or "probe"
    is_bound: bool = False  # whether some trials may end before the cap that they are priced at

    @property
    def wall_seconds(self) -> float | None:
        """Expected wall time on this machine, without the start of Ray."""
        return None if self.seconds is None else self.seconds / max(1, min(self.at_once, self.trials or 1))


def price(configs: list[TrialConfig], store: Store, *, cpus: float, probe: bool = False) -> Price:
    """The cost of the trials, by stored trials or a probe of each kind now. cpus: those that each worker occupies."""
    per_sample = {} if not configs else _probe(configs) if probe else _stored(store)
    trials = Counter(config.cell for config in configs)
    timed = ((c, per_sample.get(c.values_with("speed"))) for c in one_of_each_cell(configs))
    costs = {c.cell: math.nan if each is None else each * _samples(c) for c, each in timed}
    priced = {cell: cost for cell, cost in costs.items() if not math.isnan(cost)}
    unpriced = len(configs) - sum(map(trials.__getitem__, priced))
    cpus *= max((config.workers for config in configs), default=1)
    at_once = max(1, int(usable_cpus() / cpus))
    seconds = None if unpriced else sum(trials[cell] * cost for cell, cost in priced.items())
    is_bound = any(config.budget in OPEN_BUDGETS for config in configs)
    return Price(len(configs), seconds, unpriced, at_once, "probe" if probe else "stored trials", is_bound)


def _samples(config: TrialConfig, steps: int | None = None) -> float:
    """Training samples of these steps or of the whole budget, measured ones at a third; NaN if they cannot be counted."""
    per_epoch = training_samples(config)
    if math.isnan(per_epoch):
        return per_epoch
    most = config.steps if steps is None else steps
    most = config.max_steps if most is None else most
    epochs = float(config.epochs or config.max_epochs or 0)
    epochs = epochs if most is None else most / math.ceil(per_epoch / config.batch_size)
    measured = {"every": epochs, "final": 1.0, "log": 2 * math.log2(max(2.0, epochs)) + 2}[config.measure]
    checked = {"terminal": epochs, "stationary": min(epochs, CHECKS * math.log2(max(2.0, epochs)))}
    evaluated = per_epoch + 2 * config.num_classes * (config.test_samples_per_class or 0)
    return epochs * per_epoch + EVALUATION_COST * max(measured, checked.get(config.budget, 0.0)) * evaluated


def _stored(store: Store) -> dict[tuple[object, ...], float]:
    last = store.read(["trial", "step"]).group_by("trial").aggregate([("step", "max")])  # folders may hold 1e6 rows
    steps = dict(zip(last["trial"].to_pylist(), last["step_max"].to_pylist(), strict=True))
    seconds: dict[tuple[object, ...], list[float]] = {}
    trials = store.read_trials()
    configs = {row["cell"]: stored_config(row) for row in first_of_each(trials, ["cell"]).to_pylist()}
    samples_of = cache(lambda cell, steps: _samples(configs[cell], steps))
    for row in trials.select(["trial", "cell", "state", "seconds"]).to_pylist():
        if row["state"] == "complete" and row["seconds"]:
            config, samples = configs[row["cell"]], samples_of(row["cell"], steps.get(row["trial"]))
            if not math.isnan(samples):
                seconds.setdefault(config.values_with("speed"), []).append(row["seconds"] / max(1.0, samples))
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def _probe(configs: list[TrialConfig]) -> dict[tuple[object, ...], float]:
    """Time a few steps of one trial of each kind in this process. Several workers would take at most as long as this one."""
    from study.training.schedules import Pace
    from study.training.trial import Trial

    per_sample = {}
    kinds = {config.values_with("speed"): config for config in reversed(configs)}
    for kind, config in counted(kinds.items(), "kinds of trials", len(kinds)):
        short = config.model_dump() | dict.fromkeys((*settings_of("budget"), "attack_radii"))
        short |= {"budget": "steps", "steps": PROBE_STEPS, "measure": "final", "workers": 1}
        trial = Trial(TrialConfig(**short), room=data_room())
        pace = Pace(1e-6, config.temperature or 1.0)  # a step costs the same at any rate, and a wild one would diverge
        trial.training.train_epoch(1, [pace])  # the first step pays for allocation and kernel choice
        started = time.monotonic()
        steps = trial.training.train_epoch(1, [pace] * PROBE_STEPS)
        per_sample[kind] = (time.monotonic() - started) / (steps * config.batch_size)
    return per_sample
