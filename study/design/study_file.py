"""Study files: a TOML recipe in, every trial's TrialConfig out, all checked together before anything starts.

Knows TOML and TrialConfig; does not know the store, Ray or how a trial is run.
"""

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from study.design.config import TrialConfig
from study.design.errors import StudyError, check_known, make_config, summarize
from study.design.search import GRID, Cell, Search, make_cells, make_search, random_points

TABLES = ("name", "description", "keep", "fixed", "grid", "search", "tune", "resources", "log", "report")
CALLBACKS = ("tensorboard", "mlflow", "wandb")

SHORT = {
    "num_classes": "K",
    "feature_dim": "d",
    "samples_per_class": "n",
    "temperature": "tau",
    "normalization": "norm",
}


class Resources(BaseModel):
    """What each worker of a trial asks of a machine. Never changes a number."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    cpus: float = Field(1.0, gt=0, description="CPUs each worker of a trial occupies")
    gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs each worker of a trial occupies, fractions allowed with one worker; left out: a quarter with one, else 1",
    )
    checkpoint_seconds: float = Field(30.0, ge=0, description="seconds between checkpoints; 0: after every epoch")
    attempts: int = Field(3, ge=1, description="failures of a trial before it is set aside")
    backoff_seconds: float = Field(
        1.0, ge=0, description="delay before a failed trial is started again, doubling to at most 60"
    )


@dataclass(frozen=True)
class Report:
    """What `gnc report` is asked for. predict: cells to state predictions of, each as settings by name."""

    predict: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Study:
    """A study file as understood."""

    name: str
    description: str
    configs: tuple[
        TrialConfig, ...
    ]  # distinct keys, in the order the file gives them; of optuna those suggested so far
    varied: tuple[str, ...]  # settings that differ between trials
    resources: Resources
    keep: Literal["head", "model", "nothing"]
    text: str
    report: Report = Report()
    search: Search = GRID
    cells: tuple[Cell, ...] = ()  # of the grid, where a search suggests within them
    extremes: tuple[TrialConfig, ...] = ()  # trials between which its suggestions lie
    callbacks: tuple[str, ...] = ()  # tools that are told of every measurement
    left_out: int = 0  # trials of the file that were not selected

    @property
    def is_adaptive(self) -> bool:
        """Whether the next trial depends on those before it, so that the file alone does not say which there are."""
        return self.search.method == "optuna"

    @property
    def num_planned(self) -> int:
        """Trials that the study comes to once all is suggested."""
        if not self.is_adaptive:
            return len(self.configs)
        return max(len(self.configs), self.search.num_samples * sum(len(cell.seeds) for cell in self.cells))

    def name_of(self, config: TrialConfig) -> str:
        """The settings that the study varies, in short: what tells this trial from the others."""
        values = ((SHORT.get(name, name), getattr(config, name)) for name in self.varied)
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
    """The study in a TOML text; StudyError says what is wrong, all trials' refusals together."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"study file must be valid TOML, got: {error}.") from None
    check_known(document, TABLES, "study file")
    name = document.get("name")
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
        raise StudyError(f'name must be a word of letters, digits, - and _, got {name!r}. Write name = "my-study".')
    blocks, fixed = _grid_blocks(document), _table(document, "fixed")
    description = _description(document.get("description", ""))
    gridded = set(fixed).union(*({*block, *block.get("zip", {})} - {"zip"} for block in blocks))
    search = make_search(_table(document, "search"), _table(document, "tune"), gridded)
    points = itertools.chain.from_iterable(_cells(fixed, block) for block in blocks)
    cells = make_cells(points) if search.method == "optuna" else ()
    configs = _make_configs(_points(search, cells, points))
    return Study(
        name=name,
        description=description,
        configs=() if cells else configs,
        varied=_varied(configs),
        resources=_make_resources(_table(document, "resources")),
        keep=_keep(document.get("keep", "head")),
        text=text,
        report=_make_report(_table(document, "report")),
        search=search,
        cells=cells,
        extremes=configs if cells else (),
        callbacks=_callbacks(_table(document, "log")),
    )


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise StudyError(f"{name} must be a table, got {table!r}. Write [{name}] and its keys below.")
    return table


def _points(search: Search, cells: tuple[Cell, ...], points: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Settings of every trial; of an adaptive search the extremes that its suggestions lie between."""
    if search.method == "optuna":
        return (trial for cell in cells for corner in search.corners() for trial in cell.trials(corner))
    return random_points(search, points) if search.method == "random" else points


def _description(description: Any) -> str:
    if not isinstance(description, str):
        raise StudyError(f"description must be a string, got {description!r}.")
    return description


def _keep(keep: Any) -> Literal["head", "model", "nothing"]:
    if keep not in ("head", "model", "nothing"):
        raise StudyError(f'keep must be "head", "model" or "nothing", got {keep!r}.')
    kept: Literal["head", "model", "nothing"] = keep
    return kept


def _make_resources(table: dict[str, Any]) -> Resources:
    check_known(table, Resources.model_fields, "[resources]")
    try:
        return Resources(**table)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        meaning = Resources.model_fields[name].description
        raise StudyError(
            f"[resources] {name} is wrong: {first['msg']}, got {first['input']!r}. It is: {meaning}."
        ) from None


def _callbacks(table: dict[str, Any]) -> tuple[str, ...]:
    check_known(table, ("callbacks",), "[log]")
    names = table.get("callbacks", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StudyError(f'[log] callbacks must be a list of names, got {names!r}. Write callbacks = ["tensorboard"].')
    check_known(names, CALLBACKS, "[log] callbacks")
    _check_distinct("[log] callbacks", names)
    return tuple(names)


def _make_report(table: dict[str, Any]) -> Report:
    check_known(table, ("predict",), "[report]")
    cells = table.get("predict", [])
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        cure = "Write predict = [{num_classes = 400, feature_dim = 10}]."
        raise StudyError(f"[report] predict must be a list of cells, got {cells!r}. {cure}")
    for cell in cells:
        _check_cell(cell)
    _check_distinct("cells of [report] predict", cells)
    return Report(tuple(cells))


def _check_cell(cell: dict[str, Any]) -> None:
    """A cell names its size, other settings only where they matter, and never a seed."""
    check_known(cell, TrialConfig.model_fields, "[report] predict")
    for name in ("num_classes", "feature_dim"):
        if not isinstance(cell.get(name), int) or isinstance(cell.get(name), bool) or cell[name] < 2:
            raise StudyError(f"[report] predict must give {name} as a whole number from 2 on, got {cell!r}. Add it.")
    if "seed" in cell:
        raise StudyError(f"[report] predict must leave seed out, got {cell!r}. A prediction is of a cell, its mean.")


def _grid_blocks(document: dict[str, Any]) -> list[dict[str, Any]]:
    grid = document.get("grid", {})
    blocks: list[Any] = grid if isinstance(grid, list) else [grid]
    if not all(isinstance(block, dict) and isinstance(block.get("zip", {}), dict) for block in blocks):
        raise StudyError(
            f"[grid] and [grid.zip] must be tables of lists, got {grid!r}. Write [grid] and lists below it."
        )
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
    """Every combination of the block's lists, those under zip moving together, over the fixed settings."""
    zipped = block.get("zip", {})
    axes = {name: values for name, values in block.items() if name != "zip"}
    for name, values in {**axes, **zipped}.items():
        _check_axis(name, values, fixed)
        if name in axes:
            _check_distinct(f"{name} in [grid]", values)
        if name in axes and name in zipped:
            raise StudyError(f"{name} must be either in [grid] or in [grid.zip], got it in both.")
    lengths = {name: len(values) for name, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        raise StudyError(f"[grid.zip] must hold lists of equal length, got {lengths}.")
    _check_distinct("rows of [grid.zip]", list(zip(*zipped.values(), strict=True)))
    together = [dict(zip(zipped, values, strict=True)) for values in zip(*zipped.values(), strict=True)] or [{}]
    for values in itertools.product(*axes.values()):
        for moving in together:
            yield {**fixed, **dict(zip(axes, values, strict=True)), **moving}


def _check_axis(name: str, values: Any, fixed: dict[str, Any]) -> None:
    check_known([name], TrialConfig.model_fields, "[grid]")
    if not isinstance(values, list):
        raise StudyError(
            f"{name} in [grid] must be a list, got {values!r}. Write {name} = [{values!r}] or use [fixed]."
        )
    if not values:
        raise StudyError(f"{name} in [grid] must hold at least one value, got an empty list.")
    if name in fixed:
        raise StudyError(f"{name} must be either in [fixed] or in [grid], got it in both. Remove one.")


def _check_distinct(what: str, values: list[Any]) -> None:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise StudyError(f"{what} must be distinct, got {repeated[0]!r} twice. Remove one.")


def _varied(configs: tuple[TrialConfig, ...]) -> tuple[str, ...]:
    values = {name: {getattr(config, name) for config in configs} for name in TrialConfig.model_fields}
    return tuple(name for name, found in values.items() if len(found - {None}) > 1)
