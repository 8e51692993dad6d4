"""Study files: TOML in, the TrialConfig of every trial out. All trials are checked before the first one starts.

Knows TOML and TrialConfig; does not know the store, Ray or how a trial is run.
"""

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from study.design.config import SHORT, TrialConfig
from study.design.errors import TABLE, StudyError, check_distinct, check_known, make_config, make_model, summarize
from study.design.search import GRID, Cell, Search, Tune, make_cells, make_search, random_points
from study.design.setting import canonical

CALLBACKS = ("tensorboard", "mlflow", "wandb")
Keep = Literal["head", "model", "nothing"]


class Resources(BaseModel):
    """What each worker of a trial asks of a machine. Never changes a number."""

    model_config = TABLE

    cpus: float = Field(default=1.0, gt=0, description="CPUs each worker of a trial occupies")
    gpus: float | None = Field(
        default=None,
        ge=0,
        description="GPUs each worker of a trial occupies; left out: a quarter of one with one worker, else 1",
    )
    checkpoint_seconds: float = Field(default=30.0, ge=0, description="seconds between checkpoints; 0: at every epoch")
    attempts: int = Field(default=3, ge=1, description="failures of a trial before it is set aside")
    backoff_seconds: float = Field(default=1.0, ge=0, description="delay after a first failure, doubling to at most 60")


def _check_callbacks(names: list[str]) -> list[str]:
    check_known(names, CALLBACKS, "[log] callbacks")
    check_distinct("[log] callbacks", names)
    return names


class Log(BaseModel):
    """Which logging tools receive every measurement."""

    model_config = TABLE

    callbacks: Annotated[list[str], AfterValidator(_check_callbacks)] = Field(
        default=[], description='names of logging tools, such as ["tensorboard"]'
    )


def _check_predict(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A cell must name its size, may name other settings, and must not name a seed."""
    for cell in cells:
        check_known(cell, TrialConfig.model_fields, "[report] predict")
        for name in ("num_classes", "feature_dim"):
            if not isinstance(cell.get(name), int) or isinstance(cell.get(name), bool) or cell[name] < 2:
                raise StudyError(
                    f"[report] predict must give {name}, a whole number of at least 2, got {cell!r}. Add it."
                )
        if "seed" in cell:
            reason = "A prediction is the mean over the seeds of a cell."
            raise StudyError(f"[report] predict must leave seed out, got {cell!r}. {reason}")
    check_distinct("cells of [report] predict", cells)
    return cells


class Report(BaseModel):
    """What `gnc report` is asked for."""

    model_config = TABLE

    predict: Annotated[list[dict[str, Any]], AfterValidator(_check_predict)] = Field(
        default=[], description="cells to state predictions of, such as [{num_classes = 400, feature_dim = 10}]"
    )


def _check_name(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise StudyError(f'name must be a word of letters, digits, - and _, got {name!r}. Write name = "my-study".')
    return name


class Document(BaseModel):
    """The tables of a study file as written. Whether the settings go together is checked later, trial by trial."""

    model_config = TABLE

    name: Annotated[str, AfterValidator(_check_name)] = Field(description="a word of letters, digits, - and _")
    description: str = Field(default="", description="what the study is for")
    keep: Keep = Field(default="head", description="what is kept of each trial beside its rows")
    fixed: dict[str, Any] = Field(default={}, description="settings that all trials share")
    grid: Any = {}
    search: dict[str, Any] = Field(default={}, description="the distribution of each setting that is searched")
    tune: Tune = Tune()
    resources: Resources = Resources()
    log: Log = Log()
    report: Report = Report()


@dataclass(frozen=True)
class Study:
    """A study file as understood."""

    name: str
    description: str
    configs: tuple[TrialConfig, ...]  # of different keys, in the file's order; with optuna those suggested so far
    varied: tuple[str, ...]  # settings that differ between trials
    resources: Resources
    keep: Keep
    text: str
    report: Report
    search: Search = GRID
    cells: tuple[Cell, ...] = ()  # of the grid, where a search suggests within them
    extremes: tuple[TrialConfig, ...] = ()  # trials between which its suggestions lie
    callbacks: tuple[str, ...] = ()  # names of logging tools
    left_out: int = 0  # trials of the file that were not selected

    @property
    def is_adaptive(self) -> bool:
        """Whether the next trial depends on earlier ones, so that the file alone does not name all trials."""
        return self.search.method == "optuna"

    @property
    def num_planned(self) -> int:
        """The number of trials once everything has been suggested."""
        if not self.is_adaptive:
            return len(self.configs)
        return max(len(self.configs), self.search.num_samples * sum(len(cell.seeds) for cell in self.cells))

    def name_of(self, config: TrialConfig) -> str:
        """The settings that tell this trial from the others of the study, in one line."""
        values = ((SHORT[name], getattr(config, name)) for name in self.varied)
        return " ".join(f"{name}={value}" for name, value in values if value is not None)


def read_study(path: str | Path) -> Study:
    """The study in a TOML file; StudyError names the file and what is wrong with it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"study file must be a readable TOML file, got {str(path)!r}: {error}.") from None
    try:
        return parse_study(text)
    except StudyError as error:
        error.add_note(f"in study file {path}")
        raise


def parse_study(text: str) -> Study:
    """The study in a TOML text; StudyError says what is wrong, for all trials together."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"study file must be valid TOML, got: {error}.") from None
    file = make_model(Document, document)
    blocks, fixed = _grid_blocks(file.grid), {name: canonical(name, value) for name, value in file.fixed.items()}
    gridded = set(fixed).union(*({*block, *block.get("zip", {})} - {"zip"} for block in blocks))
    search = make_search(file.search, file.tune, gridded)
    points = itertools.chain.from_iterable(_cells(fixed, block) for block in blocks)
    cells = make_cells(points) if search.method == "optuna" else ()
    configs = _make_configs(_points(search, cells, points))
    as_written = {name: getattr(file, name) for name in ("name", "description", "resources", "keep", "report")}
    return Study(
        **as_written,
        configs=() if cells else configs,
        varied=_varied(configs),
        text=text,
        search=search,
        cells=cells,
        extremes=configs if cells else (),
        callbacks=tuple(file.log.callbacks),
    )


def _points(search: Search, cells: tuple[Cell, ...], points: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Settings of every trial; with an adaptive search, the extremes between which its suggestions lie."""
    if search.method == "optuna":
        return (trial for cell in cells for corner in search.corners() for trial in cell.trials(corner))
    return random_points(search, points) if search.method == "random" else points


def _grid_blocks(grid: Any) -> list[dict[str, Any]]:
    blocks: list[Any] = grid if isinstance(grid, list) else [grid]
    if not all(isinstance(block, dict) and isinstance(block.get("zip", {}), dict) for block in blocks):
        raise StudyError(f"[grid] and [grid.zip] must be tables of lists, got {grid!r}. Write [grid] and lists below.")
    if not blocks or not all(set(block) - {"zip"} or block.get("zip") for block in blocks):
        raise StudyError("[grid] must hold at least one list of values, got an empty grid. Write e.g. seed = [0, 1].")
    return blocks


def _make_configs(points: Iterator[dict[str, Any]]) -> tuple[TrialConfig, ...]:
    configs: dict[str, TrialConfig] = {}
    refused = []
    for settings in points:
        try:
            config = make_config(settings)
        except StudyError as error:
            refused.append(str(error))
        else:
            configs.setdefault(config.key, config)
    if refused:
        raise StudyError(f"{len(refused)} of the study's trials cannot be run:\n{summarize(refused)}")
    return tuple(configs.values())


def _cells(fixed: dict[str, Any], block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the block's lists together with the fixed settings; lists under zip move together."""
    axes = {name: _axis(name, values, fixed) for name, values in block.items() if name != "zip"}
    zipped = {name: _axis(name, values, fixed) for name, values in block.get("zip", {}).items()}
    for name, values in axes.items():
        check_distinct(f"{name} in [grid]", values)
        if name in zipped:
            raise StudyError(f"{name} must be either in [grid] or in [grid.zip], got it in both.")
    lengths = {name: len(values) for name, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        raise StudyError(f"[grid.zip] must hold lists of equal length, got {lengths}.")
    check_distinct("rows of [grid.zip]", list(zip(*zipped.values(), strict=True)))
    together = [dict(zip(zipped, values, strict=True)) for values in zip(*zipped.values(), strict=True)] or [{}]
    for point in itertools.product(*axes.values()):
        for moving in together:
            yield {**fixed, **dict(zip(axes, point, strict=True)), **moving}


def _axis(name: str, values: Any, fixed: dict[str, Any]) -> list[Any]:
    check_known([name], TrialConfig.model_fields, "[grid]")
    if not isinstance(values, list):
        raise StudyError(f"{name} in [grid] must be a list, got {values!r}. Write {name} = [{values!r}] or [fixed].")
    if not values:
        raise StudyError(f"{name} in [grid] must hold at least one value, got an empty list.")
    if name in fixed:
        raise StudyError(f"{name} must be either in [fixed] or in [grid], got it in both. Remove one.")
    return [canonical(name, value) for value in values]


def _varied(configs: tuple[TrialConfig, ...]) -> tuple[str, ...]:
    values = {name: {getattr(config, name) for config in configs} for name in TrialConfig.model_fields}
    return tuple(name for name, found in values.items() if len(found - {None}) > 1)
