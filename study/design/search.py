"""What a study searches and how: the [search] and [tune] tables of a study file, checked, and the draws of a random one.
A draw is a function of a number in [0, 1). Knows settings and columns; does not know Optuna, Ray or the store."""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from study.design.columns import Measurement
from study.design.config import TrialConfig, settings_with, short_digest
from study.design.errors import Faults, StudyError, check_distinct, check_known
from study.design.setting import Count, Table, canonical, is_option

NUMBERS = (int, float, float | None)
OWN_COLUMN = "custom"  # a map from the names of metrics of one's own
METRICS = tuple(f.name for f in dataclasses.fields(Measurement) if f.type in NUMBERS and f.name != "epoch")
DIGITS = 6  # significant digits of a drawn number, so that what is printed is the number itself


@dataclass(frozen=True)
class Distribution:
    """One setting's distribution. kind: a name of KINDS; values: its bounds [low, high], or the choices."""

    kind: str
    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value below which a share in [0, 1) of the distribution lies, rounded to six significant digits."""
        if self.kind == "choice":
            return self.values[int(share * len(self.values))]
        low, high = self.values
        if self.kind == "int_uniform":
            return low + int(share * (high - low + 1))
        if self.kind == "log_int_uniform":
            # Half a step beyond both ends, so that the ends are as likely as their neighbours.
            below, above = math.log(low - 0.5), math.log(high + 0.5)
            return min(high, max(low, round(math.exp(below + share * (above - below)))))
        if self.kind == "log_uniform":
            return rounded(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        return rounded(low + share * (high - low))

    def holds(self, value: Any) -> bool:
        """Whether a setting's value could have been drawn."""
        if self.kind == "choice":
            return any(value == choice and type(value) is type(choice) for choice in self.values)
        return value is not None and self.values[0] <= value <= self.values[1]


KINDS = {
    "uniform": "two numbers, the lower first", "log_uniform": "two numbers above 0, the lower first",
    "int_uniform": "two whole numbers, the lower first",
    "log_int_uniform": "two whole numbers above 0, the lower first", "choice": "at least two different values",
}  # fmt: skip


def make_distribution(name: str, given: Any) -> Distribution:
    """The distribution that a study file gives a setting as { kind = values }; StudyError says what is wrong."""
    if not isinstance(given, dict) or len(given) != 1:
        cure = f"Write {name} = {{ log_uniform = [0.01, 0.5] }}; kinds: {', '.join(KINDS)}."
        raise StudyError(f"{name} in [search] must be a table with one distribution, got {given!r}. {cure}")
    check_known(given, KINDS, f"{name} in [search]")
    [(kind, values)] = given.items()
    values = [canonical(name, value) for value in values] if isinstance(values, list) else values
    if not isinstance(values, list) or not _is_right(kind, values):
        raise StudyError(f"{kind} of {name} in [search] must be {KINDS[kind]}, got {values!r}.")
    if kind in ("uniform", "log_uniform"):
        values = [rounded(float(value)) for value in values]
    return Distribution(kind, tuple(values))


def _is_right(kind: str, values: list[Any]) -> bool:
    if kind == "choice":
        return len(values) > 1 and all(value not in values[:index] for index, value in enumerate(values))
    numbers = int if "int" in kind else (int, float)
    if len(values) != 2 or any(isinstance(value, bool) or not isinstance(value, numbers) for value in values):
        return False
    low, high = values
    return math.isfinite(low) and math.isfinite(high) and low < high and (not kind.startswith("log") or low > 0)


def rounded(value: float) -> float:
    """The number to six significant digits."""
    return float(f"{value:.{DIGITS}g}")


def random_share(search_seed: int, name: str, index: int) -> float:
    """A number in [0, 1) that depends on these three alone: more draws or more settings change no earlier one."""
    digest = hashlib.sha256(f"{search_seed}/{name}/{index}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


@dataclass(frozen=True)
class Scheduler:
    """Which trials are stopped early. Trials compete if they differ only in searched settings, in `over`, or in the seed."""

    name: Literal["none", "asha", "median"] = "none"
    metric: str = ""
    mode: str = "max"
    grace_epochs: int = 1  # of every trial before it can be stopped
    reduction_factor: float = 4.0  # asha: one in so many goes on at each rung
    min_trials: int = 3  # median: others that must have come as far
    over: tuple[str, ...] = ()  # grid settings whose values compete

    @property
    def digest(self) -> str:
        """The name of this rule. A trial that it stopped is done for every study with the same rule."""
        return self._digest(sorted(self.over))

    def stopped(self, digest: str | None) -> bool:
        """Whether this digest names this rule. The order of `over` once counted, so the order as written is tried too."""
        return self.name != "none" and digest in (self.digest, self._digest(list(self.over)))

    def _digest(self, over: list[str]) -> str:
        return short_digest(json.dumps(dataclasses.asdict(self) | {"over": over}, sort_keys=True))


@dataclass(frozen=True)
class Search:
    """How a study's trials are chosen. With method "grid" the file lists them, and the other fields are empty."""

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
        """Random draw number `index`. The value of a setting depends on search_seed, its name and the index alone."""
        return {name: d.at(random_share(self.seed, name, index)) for name, d in self.space}

    def holds(self, values: dict[str, Any]) -> bool:
        """Whether these settings could have been drawn or suggested."""
        return all(d.holds(values.get(name)) for name, d in self.space)

    def corners(self) -> Iterator[dict[str, Any]]:
        """Each choice and bound of every setting, with the others at their first: all of them must suit every cell."""
        first = {name: d.values[0] for name, d in self.space}
        yield first
        for name, d in self.space:
            yield from ({**first, name: value} for value in d.values[1:])


GRID = Search()  # no search: the file lists the trials


@dataclass(frozen=True)
class Cell:
    """One point of the grid: the settings that a search leaves as they are, and the seeds that each suggestion runs with."""

    settings: tuple[tuple[str, Any], ...]
    seeds: tuple[int, ...]

    def trials(self, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The settings of the trials that try these values, one per seed."""
        yield from ({**dict(self.settings), **values, "seed": seed} for seed in self.seeds)


def make_cells(points: Iterator[dict[str, Any]]) -> tuple[Cell, ...]:
    """The cells of a grid. Points that differ in the seed alone are one cell."""
    seeds: dict[str, dict[int, None]] = {}
    settings: dict[str, tuple[tuple[str, Any], ...]] = {}
    for point in points:
        rest = {name: value for name, value in point.items() if name != "seed"}
        # 1 and 1.0, and 0 and -0.0, are one cell
        alike = {
            n: float(v) + 0.0 if isinstance(v, int | float) and not isinstance(v, bool) else v for n, v in rest.items()
        }
        name = json.dumps(alike, sort_keys=True)
        settings[name] = tuple(rest.items())
        seeds.setdefault(name, {})[point.get("seed", 0)] = None
    return tuple(Cell(settings[name], tuple(found)) for name, found in seeds.items())


def columns_read(metrics: Iterable[str]) -> list[str]:
    """The columns that these metrics are read from: those of one's own are together in one."""
    return list(dict.fromkeys(name if name in METRICS else OWN_COLUMN for name in metrics))


def measured(row: Mapping[str, Any], metric: str) -> Any:
    """A metric's value in a row, measured now or stored; None where it is null or the trial does not have it."""
    return row.get(metric) if metric in METRICS else dict(row.get(OWN_COLUMN) or ()).get(metric)


Mode = Literal["min", "max"]
OneOrSeveral = BeforeValidator(lambda value: value if isinstance(value, list) else [value])


class Tune(Table):
    """The [tune] table: how a study searches, and which trials it stops early."""

    method: Literal["grid", "random", "optuna"] = "grid"
    num_samples: Count = 0
    search_seed: int = Field(default=0, ge=0)
    metric: Annotated[list[str], OneOrSeveral] = Field(default=[])
    mode: Annotated[list[Mode], OneOrSeveral] = Field(default=[])
    startup: Count = 10
    scheduler: Literal["none", "asha", "median"] = "none"
    stop_metric: str = ""
    stop_mode: Mode = "max"
    grace_epochs: Count = 1
    reduction_factor: float = Field(default=4.0, gt=1)
    min_trials: Count = 3
    over: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _check_idle(self) -> Self:
        searched = ("num_samples", "search_seed", "startup") if self.method == "grid" else ()
        idle = dict.fromkeys(searched, 'with method "grid"')
        if self.scheduler == "none":
            rules = ("stop_metric", "stop_mode", "grace_epochs", "reduction_factor", "min_trials", "over")
            idle |= dict.fromkeys(rules, "without a scheduler")
        else:
            foreign = "min_trials" if self.scheduler == "asha" else "reduction_factor"
            idle |= {foreign: f"with scheduler {self.scheduler!r}"}
        for name, where in idle.items():
            if name in self.model_fields_set:
                value = getattr(self, name)
                raise ValueError(f"[tune] {name} must be left out {where}, got {value!r}. It has no effect.")
        return self

    @model_validator(mode="after")
    def _check_goals(self) -> Self:
        if len(self.metric) != len(self.mode) or (self.method == "optuna" and not self.metric):
            got = f"got {self.metric} and {self.mode}"
            cure = 'Write metric = "test_accuracy" and mode = "max", or lists of equal length.'
            raise ValueError(f"[tune] metric and mode must be given together, {got}. {cure}")
        check_distinct("[tune] metric", self.metric)
        if self.method != "grid" and not self.num_samples:
            rule = f"[tune] num_samples must be given with method {self.method!r}"
            raise ValueError(f"{rule}: how often each cell is tried.")
        if self.scheduler != "none" and not (self.stop_metric or self.metric):
            raise ValueError("[tune] stop_metric must be given with a scheduler, got none. Name a measured column.")
        return self


def check_metrics(tune: Tune, own: Iterable[str]) -> None:
    """StudyError for a metric that trials do not measure; own: names of metrics of one's own that they do."""
    check_known([name for name in (*tune.metric, tune.stop_metric) if name], (*METRICS, *own), "[tune] metric")


def make_search(search: dict[str, Any], tune: Tune, gridded: set[str]) -> Search:
    """The search that a study file asks for; StudyError says what is wrong. gridded: settings in [fixed] or [grid]."""
    scheduler = _make_scheduler(tune, gridded)
    if tune.method == "grid":
        if search:
            raise StudyError('[search] must be left out with method "grid". Set [tune] method = "random" or "optuna".')
        return Search(scheduler=scheduler)
    if not search:
        rule = f"[search] must hold at least one distribution with method {tune.method!r}"
        raise StudyError(f'{rule}, got none. Add one, or method = "grid".')
    faults, space = Faults(), dict[str, Distribution]()
    for name, given in search.items():
        with faults.gathered():
            space[name] = _make_space(name, given, gridded)
    faults.check()
    drawn = Search(tune.method, tuple(space.items()), tune.num_samples, tune.search_seed, startup=tune.startup)
    return dataclasses.replace(drawn, metrics=tuple(tune.metric), modes=tuple(tune.mode), scheduler=scheduler)


def _make_scheduler(tune: Tune, gridded: set[str]) -> Scheduler:
    if tune.scheduler == "none":
        return Scheduler()
    check_known(tune.over, sorted(gridded - {"seed"}), "[tune] over")
    if tune.method == "grid" and not tune.over:
        cure = 'Name the grid settings whose values compete, e.g. over = ["learning_rate"].'
        raise StudyError(f'[tune] over must be given with a scheduler and method "grid", got none. {cure}')
    mode = tune.stop_mode if "stop_mode" in tune.model_fields_set or not tune.mode else tune.mode[0]
    same = {name: getattr(tune, name) for name in ("grace_epochs", "reduction_factor", "min_trials")}
    return Scheduler(tune.scheduler, tune.stop_metric or tune.metric[0], mode, over=tuple(tune.over), **same)


def _make_space(name: str, given: Any, gridded: set[str]) -> Distribution:
    check_known([] if is_option(name) else [name], TrialConfig.model_fields, "[search]")
    if name in gridded:
        raise StudyError(f"{name} must be either in [search] or in [fixed] and [grid], got it in both. Remove one.")
    if name in settings_with("listed"):
        cure = "Every suggestion is run once per seed, on machines that the grid asks for. Use [grid]."
        raise StudyError(f"{name} must be left out of [search], got {given!r}. {cure}")
    return make_distribution(name, given)


def random_points(search: Search, points: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every grid point with every draw. All points get the same draws, so that they can be compared."""
    return (point | draw for point, draw in itertools.product(points, map(search.draw, range(search.num_samples))))
