"""The next suggestion of a search, from what is known of those before it. Knows Optuna.
A pure function: no sampler outlives a suggestion, so a search that was stopped and continued loses nothing."""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.design.search import Distribution, Search, rounded

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
RUNNING, COMPLETE, STOPPED, BAD = "running", "complete", "stopped", "bad"


@dataclass(frozen=True)
class Known:
    """What is known of one suggestion. BAD: it diverged, failed for good or was not measured, and is to be avoided."""

    values: dict[str, Any]
    state: str
    goals: tuple[float, ...] = ()  # the mean over seeds of each metric, at the last epoch
    curve: dict[int, float] = field(default_factory=dict)  # of the one metric of a stopped suggestion, by epoch


def next_values(search: Search, cell: str, index: int, known: Sequence[Known]) -> dict[str, Any]:
    """Values of the suggestion with this index in a cell of the grid, rounded as all drawn values.
    The first `search.startup` suggestions are the draws of method random. known: those before this one, in order."""
    if index < search.startup:
        return search.draw(index)
    digest = hashlib.sha256(f"{search.seed}/{cell}/{index}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    sampler = optuna.samplers.TPESampler(multivariate=True, n_startup_trials=1, constant_liar=True, seed=seed)
    study = optuna.create_study(sampler=sampler, directions=[DIRECTIONS[mode] for mode in search.modes])
    distributions = {name: distribution(d) for name, d in search.space}
    study.add_trials([_trial(search, one, distributions) for one in known])
    asked = study.ask(distributions)
    return {name: rounded(v) if isinstance(v, float) else v for name, v in asked.params.items()}


def distribution(given: Distribution) -> BaseDistribution:
    if given.kind == "choice":
        return CategoricalDistribution(given.values)
    low, high = given.values
    log = given.kind.startswith("log")
    return IntDistribution(low, high, log=log) if "int" in given.kind else FloatDistribution(low, high, log=log)


def _trial(search: Search, known: Known, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A known suggestion as Optuna holds it. A bad one is infeasible and has the worst value, so that it is avoided."""
    common: dict[str, Any] = {"params": known.values, "distributions": distributions}
    if known.state == RUNNING:
        return create_trial(state=TrialState.RUNNING, **common)
    if known.state == STOPPED and len(search.metrics) == 1:
        return create_trial(state=TrialState.PRUNED, intermediate_values=known.curve, **common)
    if known.state == BAD:
        worst = [-math.inf if mode == "max" else math.inf for mode in search.modes]
        return create_trial(values=worst, constraints={"bad": 1.0}, **common)
    return create_trial(values=list(known.goals), constraints={"bad": 0.0}, **common)
