"""What a study searches and how: the [search] and [tune] tables of a study file, checked, and the draws of a random one.

Knows distributions, settings and columns; does not know Optuna, Ray or the store.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from study.design.columns import Measurement
from study.design.config import TrialConfig
from study.design.distributions import Distribution, make_distribution, random_share
from study.design.errors import StudyError, check_known

METHODS = ("grid", "random", "optuna")
SCHEDULERS = ("none", "asha", "median")
METRICS = tuple(
    f.name for f in dataclasses.fields(Measurement) if f.type in (int, float, float | None) and f.name != "epoch"
)


@dataclass(frozen=True)
class Scheduler:
    """Which trials are stopped early. Trials compete that differ in what is searched, in `over`, or in the seed alone."""

    name: Literal["none", "asha", "median"] = "none"
    metric: str = ""
    mode: str = "max"
    grace_epochs: int = 1  # of every trial before it can be stopped
    reduction_factor: float = 4.0  # asha: one in so many goes on at each rung
    min_trials: int = 3  # median: others that must have come as far
    over: tuple[str, ...] = ()  # grid settings whose values compete

    @property
    def digest(self) -> str:
        """Names this rule: a trial that it stopped is done for every study with the same one."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Search:
    """How a study's trials are chosen. With method grid all else is empty."""

    method: Literal["grid", "random", "optuna"] = "grid"
    space: tuple[tuple[str, Distribution], ...] = ()
    num_samples: int = 0  # draws or suggestions of each cell, each run once per seed
    seed: int = 0
    metrics: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    startup: int = 10  # optuna: suggestions of a cell drawn at random before its sampler models anything
    scheduler: Scheduler = Scheduler()

    @property
    def names(self) -> tuple[str, ...]:
        """The settings that are searched."""
        return tuple(name for name, _ in self.space)

    def draw(self, index: int) -> dict[str, Any]:
        """Random draw i: each setting's depends on the search's seed, its name and i alone."""
        return {name: d.at(random_share(self.seed, name, index)) for name, d in self.space}

    def holds(self, values: dict[str, Any]) -> bool:
        """Whether these settings could have been drawn or suggested."""
        return all(d.holds(values.get(name)) for name, d in self.space)

    def corners(self) -> Iterator[dict[str, Any]]:
        """Every choice and bound of each setting, the others at their first: what must go with every cell."""
        first = {name: d.ends()[0] for name, d in self.space}
        yield first
        for name, d in self.space:
            yield from ({**first, name: value} for value in d.ends()[1:])


GRID = Search()  # no search: the file lists the trials


@dataclass(frozen=True)
class Cell:
    """One point of the grid, within which a search suggests: settings without those searched and the seed."""

    settings: tuple[tuple[str, Any], ...]
    seeds: tuple[int, ...]

    def trials(self, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The settings of the trials that try these values, one a seed."""
        for seed in self.seeds:
            yield {**dict(self.settings), **values, "seed": seed}


def make_cells(points: Iterator[dict[str, Any]]) -> tuple[Cell, ...]:
    """Cells of the grid's points: those that differ in the seed alone are one."""
    seeds: dict[str, dict[int, None]] = {}
    settings: dict[str, tuple[tuple[str, Any], ...]] = {}
    for point in points:
        rest = {name: value for name, value in point.items() if name != "seed"}
        name = json.dumps(rest, sort_keys=True)
        settings[name] = tuple(rest.items())
        seeds.setdefault(name, {})[point.get("seed", 0)] = None
    return tuple(Cell(settings[name], tuple(found)) for name, found in seeds.items())


def make_search(search: dict[str, Any], tune: dict[str, Any], gridded: set[str]) -> Search:
    """The search that a study file asks for; StudyError says what is wrong. gridded: settings in [fixed] or [grid]."""
    check_known(tune, (*_TUNE, *_SCHEDULING), "[tune]")
    method = _one_of("method", tune.get("method", "grid"), METHODS)
    scheduler_given = {name: tune[name] for name in _SCHEDULING if name in tune}
    if method == "grid":
        return Search(scheduler=_make_grid_scheduler(search, tune, scheduler_given, gridded))
    if not search:
        raise StudyError(
            f'[search] must hold at least one distribution with method {method!r}, got none. Add one, or method = "grid".'
        )
    if "num_samples" not in tune:
        raise StudyError(f"[tune] num_samples must be given with method {method!r}: how often each cell is tried.")
    metrics, modes = _goals(tune, needed=method == "optuna")
    over = _names_of(scheduler_given, gridded)
    return Search(
        method=method,  # type: ignore[arg-type]
        space=tuple((name, _make_space(name, given, gridded)) for name, given in search.items()),
        num_samples=_count("num_samples", tune["num_samples"]),
        seed=_count("search_seed", tune.get("search_seed", 0), least=0),
        metrics=metrics,
        modes=modes,
        startup=_count("startup", tune.get("startup", 10)),
        scheduler=_make_scheduler(scheduler_given, metrics, modes, over),
    )


_TUNE = ("method", "num_samples", "search_seed", "metric", "mode", "startup")
_SCHEDULING = ("scheduler", "stop_metric", "stop_mode", "grace_epochs", "reduction_factor", "min_trials", "over")


def _make_grid_scheduler(
    search: dict[str, Any], tune: dict[str, Any], given: dict[str, Any], gridded: set[str]
) -> Scheduler:
    if search:
        raise StudyError('[search] must be left out with method "grid". Set [tune] method = "random" or "optuna".')
    idle = [name for name in tune if name in _TUNE and name not in ("method", "metric", "mode")]
    if idle:
        raise StudyError(
            f'[tune] {idle[0]} must be left out with method "grid", got {tune[idle[0]]!r}. It has no effect.'
        )
    metrics, modes = _goals(tune, needed=False)
    scheduler = _make_scheduler(given, metrics, modes, over := _names_of(given, gridded))
    if scheduler.name != "none" and not over:
        cure = 'Name the grid settings whose values compete, e.g. over = ["learning_rate"].'
        raise StudyError(f'[tune] over must be given with a scheduler and method "grid", got none. {cure}')
    return scheduler


def _make_scheduler(
    given: dict[str, Any], metrics: tuple[str, ...], modes: tuple[str, ...], over: tuple[str, ...]
) -> Scheduler:
    name = _one_of("scheduler", given.get("scheduler", "none"), SCHEDULERS)
    if name == "none":
        idle = [key for key in given if key != "scheduler"]
        if idle:
            raise StudyError(f"[tune] {idle[0]} must be left out without a scheduler, got {given[idle[0]]!r}.")
        return Scheduler()
    foreign = {"asha": "min_trials", "median": "reduction_factor"}[name]
    if foreign in given:
        raise StudyError(f"[tune] {foreign} must be left out with scheduler {name!r}, got {given[foreign]!r}.")
    metric = given.get("stop_metric", metrics[0] if metrics else None)
    if metric is None:
        raise StudyError("[tune] stop_metric must be given with a scheduler, got none. Name a measured column.")
    factor = given.get("reduction_factor", 4.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 1:
        raise StudyError(f"[tune] reduction_factor must be a number above 1, got {factor!r}.")
    return Scheduler(
        name=name,  # type: ignore[arg-type]
        metric=_metric(metric),
        mode=_one_of("stop_mode", given.get("stop_mode", modes[0] if modes else "max"), ("min", "max")),
        grace_epochs=_count("grace_epochs", given.get("grace_epochs", 1)),
        reduction_factor=float(factor),
        min_trials=_count("min_trials", given.get("min_trials", 3)),
        over=over,
    )


def _make_space(name: str, given: Any, gridded: set[str]) -> Distribution:
    check_known([name], TrialConfig.model_fields, "[search]")
    if name in gridded:
        raise StudyError(f"{name} must be either in [search] or in [fixed] and [grid], got it in both. Remove one.")
    if name in ("seed", "data_seed", "workers"):
        cure = "Every suggestion is run once per seed, on machines that the grid asks for. Use [grid]."
        raise StudyError(f"{name} must be left out of [search], got {given!r}. {cure}")
    return make_distribution(name, given)


def _goals(tune: dict[str, Any], *, needed: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Metrics and modes, one of each or lists of equal length."""
    metrics, modes = (value if isinstance(value := tune.get(n), list) else [value] for n in ("metric", "mode"))
    if metrics == [None] and modes == [None] and not needed:
        return (), ()
    if metrics == [None] or modes == [None] or len(metrics) != len(modes) or not metrics:
        cure = 'Write metric = "test_accuracy" and mode = "max", or lists of equal length.'
        raise StudyError(
            f"[tune] metric and mode must be given together, got {tune.get('metric')!r} and {tune.get('mode')!r}. {cure}"
        )
    if len(set(map(str, metrics))) < len(metrics):
        raise StudyError(f"[tune] metric must name different columns, got {metrics!r}.")
    return tuple(map(_metric, metrics)), tuple(_one_of("mode", mode, ("min", "max")) for mode in modes)


def _metric(name: Any) -> str:
    check_known([str(name)], METRICS, "[tune] metric")
    return str(name)


def _names_of(given: dict[str, Any], gridded: set[str]) -> tuple[str, ...]:
    over = given.get("over", [])
    if not isinstance(over, list):
        raise StudyError(f'[tune] over must be a list of settings, got {over!r}. Write over = ["learning_rate"].')
    check_known(over, sorted(gridded - {"seed"}), "[tune] over")
    return tuple(over)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise StudyError(f"[tune] {name} must be one of {', '.join(known)}, got {value!r}.")
    return str(value)


def _count(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError(f"[tune] {name} must be a whole number from {least} on, got {value!r}.")
    return value


def random_points(search: Search, points: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every grid point with every draw; the same draws at each point, so that points are compared like with like."""
    draws = [search.draw(index) for index in range(search.num_samples)]
    for point, draw in itertools.product(points, draws):
        yield {**point, **draw}
