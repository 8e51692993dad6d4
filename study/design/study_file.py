"""Study files: TOML in, the TrialConfig of every trial out. All trials are checked before the first one starts.
Knows TOML and TrialConfig; does not know the store, Ray or how a trial is run."""

import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from gnc_models.progress import counted
from study.design import errors
from study.design.config import SHORT, TrialConfig, one_of_each_cell
from study.design.errors import Faults, StudyError, check_distinct, check_known, make_config, unreadable
from study.design.parts import PartFinder, check_pins, metric_names
from study.design.search import GRID, Cell, Search, Tune, check_metrics, make_cells, make_search, random_points
from study.design.setting import OPTIONS, Table, canonical, is_option, with_flat_options

CALLBACKS = ("tensorboard", "mlflow", "wandb")
Keep = Literal["head", "model", "nothing"]


class Resources(Table):
    """What each worker of a trial asks of a machine. Never changes a number."""

    cpus: float = Field(default=1.0, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    attempts: int = Field(default=3, ge=1)
    backoff_seconds: float = Field(default=1.0, ge=0)


def check_name(name: str, what: str = "name") -> str:
    """The name of a study or what else is a word; StudyError otherwise."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise StudyError(f'{what} must be a word of letters, digits, - and _, got {name!r}. Write {what} = "my-study".')
    return name


def _check_callbacks(names: list[str]) -> list[str]:
    check_known(names, CALLBACKS, "[log] callbacks")
    check_distinct("[log] callbacks", names)
    return names


class Log(Table):
    """Which logging tools receive every measurement."""

    callbacks: Annotated[list[str], AfterValidator(_check_callbacks)] = Field(default=[])
    project: str = Field(default="", max_length=128)
    tags: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _check_runs(self) -> Self:
        for name in ("project", "tags"):
            if getattr(self, name) and not {"mlflow", "wandb"} & set(self.callbacks):
                got = f"got {getattr(self, name)!r} with callbacks {self.callbacks}"
                raise ValueError(f'[log] {name} must be left out unless callbacks has "mlflow" or "wandb", {got}.')
        if any(character in self.project for character in "/\\#?%:"):
            raise ValueError(f"[log] project must hold none of / \\ # ? % :, got {self.project!r}. Use - instead.")
        for tag in self.tags:
            check_name(tag, "[log] tag")
        check_distinct("[log] tags", self.tags)
        return self


def _check_predict(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for cell in cells:
        check_known(cell, TrialConfig.model_fields, "[report] predict")
        for name in ("num_classes", "feature_dim"):
            if not isinstance(cell.get(name), int) or isinstance(cell.get(name), bool) or cell[name] < 2:
                rule = f"[report] predict must give {name}, a whole number of at least 2"
                raise StudyError(f"{rule}, got {cell!r}. Add it.")
        if "seed" in cell:
            reason = "A prediction is the mean over the seeds of a cell."
            raise StudyError(f"[report] predict must leave seed out, got {cell!r}. {reason}")
    check_distinct("cells of [report] predict", cells)
    return cells


class Report(Table):
    """What `gnc report` is asked for."""

    predict: Annotated[list[dict[str, Any]], AfterValidator(_check_predict)] = Field(default=[])


class Document(Table):
    """The tables of a study file as written. Whether the settings go together is checked later, trial by trial."""

    name: Annotated[str, AfterValidator(check_name)]
    description: str = ""
    keep: Keep = "head"
    fixed: dict[str, Any] = Field(default={})
    grid: Any = Field(default={})
    search: dict[str, Any] = Field(default={})
    tune: Tune = Tune()
    resources: Resources = Resources()
    log: Log = Log()
    report: Report = Report()
    code: Annotated[dict[str, Any], AfterValidator(check_pins)] = Field(default={})


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
    log: Log
    search: Search = GRID
    cells: tuple[Cell, ...] = ()  # of the grid, where a search suggests within them
    extremes: tuple[TrialConfig, ...] = ()  # trials between which its suggestions lie
    left_out: int = 0  # trials of the file that were not selected
    code: Mapping[str, bytes] = field(default_factory=dict, compare=False)  # files of parts of one's own, by digest
    code_elsewhere: tuple[str, ...] = ()  # references whose code was not read beside the study file
    warnings: tuple[str, ...] = ()

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

    def name_of(self, config: TrialConfig, *, without: str = "") -> str:
        """The settings that tell this trial from the others of the study, in one line; without: one that is left out."""
        values = ((SHORT[name], getattr(config, name)) for name in self.varied if name != without)
        return " ".join(f"{name}={value}" for name, value in values if value is not None)


def read_study(path: str | Path) -> Study:
    """The study in a TOML file; StudyError names the file and what is wrong with it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable("study file must be a readable TOML file", path, error, "*.toml") from None
    try:
        return parse_study(text, folder=Path(path).parent)
    except StudyError as error:
        error.add_note(f"in study file {path}")
        raise


def parse_study(text: str, *, folder: Path | None = None) -> Study:
    """The study in a TOML text; StudyError says what is wrong, for all trials together.
    folder: where files of parts of one's own are looked for; None: only the text's table [code] says which they
    were."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"study file must be valid TOML, got: {error}.") from None
    faults = Faults()
    file, search = _read_tables(document, faults), GRID
    fixed, blocks = with_flat_options({n: canonical(n, v) for n, v in file.fixed.items()}), list[dict[str, Any]]()
    with faults.gathered():
        blocks = [{}] if file.search and file.grid in ({}, []) else _grid_blocks(file.grid)
    gridded = set(fixed).union(*({*block, *block.get("zip", {})} - {"zip"} for block in blocks))
    with faults.gathered():
        search = make_search(_flat_search(file.search), file.tune, gridded)
    parts = PartFinder(folder, file.code)
    axes = [_axes(fixed, block, faults) for block in blocks]
    points = _settled(parts, itertools.chain.from_iterable(_cells(fixed, *found) for found in axes), faults)
    sizes = ((map(len, lists.values()), map(len, zipped.values())) for lists, zipped in axes)
    count = sum(math.prod(of_lists) * max(of_zipped, default=1) for of_lists, of_zipped in sizes)
    cells = make_cells(points) if search.method == "optuna" else ()
    planned = random_points(search, points) if search.method == "random" else points
    if search.method == "optuna":  # the extremes between which its suggestions lie
        planned = (trial for cell in cells for corner in search.corners() for trial in cell.trials(corner))
    configs = _make_configs(counted(planned, "trials checked", count * max(search.num_samples, 1)), faults)
    own_metrics = {name for names in {config.metrics for config in configs} for name in metric_names(names)}
    with faults.gathered():
        check_metrics(file.tune, own_metrics)
    faults.check()
    as_written = {name: getattr(file, name) for name in ("name", "description", "resources", "keep", "report", "log")}
    return Study(
        **as_written, configs=() if cells else configs, varied=_varied(configs), text=parts.pinned(text), search=search,
        cells=cells, extremes=configs if cells else (), code=parts.code, code_elsewhere=parts.elsewhere(configs),
        warnings=tuple(parts.warnings),
    )  # fmt: skip


def _grid_blocks(grid: Any) -> list[dict[str, Any]]:
    blocks: list[Any] = grid if isinstance(grid, list) else [grid]
    if not all(isinstance(block, dict) and isinstance(block.get("zip", {}), dict) for block in blocks):
        raise StudyError(f"[grid] and [grid.zip] must be tables of lists, got {grid!r}. Write [grid] and lists below.")
    if not blocks or not all(set(block) - {"zip"} or block.get("zip") for block in blocks):
        raise StudyError("[grid] must hold at least one list of values, got an empty grid. Write e.g. seed = [0, 1].")
    zipped = ({"zip": with_flat_options(block["zip"])} if "zip" in block else {} for block in blocks)
    return [with_flat_options(block | own) for block, own in zip(blocks, zipped, strict=True)]


def _flat_search(search: dict[str, Any]) -> dict[str, Any]:
    tables = {name: given if name in OPTIONS and isinstance(given, dict) else None for name, given in search.items()}
    flat = {f"{name}.{option}": given for name, table in tables.items() for option, given in (table or {}).items()}
    return {name: given for name, given in search.items() if not tables[name]} | flat


def _read_tables(document: dict[str, Any], faults: Faults) -> Document:
    """The tables of a study file; one that is refused is gathered, and stands as if it had been left out."""
    try:
        return Document(**document)
    except ValidationError as error:
        faults.add(StudyError(*errors.sentences(Document, error)))
        refused = {item["loc"][0] for item in error.errors()}
    # what a search asks for is not known where one of its tables is refused
    refused |= {"tune", "search"} if refused & {"tune", "search"} else set()
    return Document(**{"name": "x"} | {name: table for name, table in document.items() if name not in refused})


def _settled(parts: PartFinder, points: Iterator[dict[str, Any]], faults: Faults) -> Iterator[dict[str, Any]]:
    """The points with the code of every part of one's own; those whose code is not found are left out."""
    for point in points:
        with faults.gathered():
            yield parts.settle(point)


def _make_configs(points: Iterator[dict[str, Any]], faults: Faults) -> tuple[TrialConfig, ...]:
    configs: dict[str, TrialConfig] = {}
    checked: dict[str, TrialConfig] = {}  # one trial of each cell, by its settings as written
    refused, count = dict[str, None](), 0
    for settings in points:
        seed = settings.pop("seed", 0)
        cell = repr(settings)
        try:
            is_valid = type(seed) is int and 0 <= seed < 1 << 63 and cell in checked
            config = checked[cell].with_seed(seed) if is_valid else make_config({**settings, "seed": seed})
        except StudyError as error:
            # a setting whose list was refused is missing here for that reason
            told = [fault for fault in error.args if not (faults.found and " must be given" in fault)]
            refused |= dict.fromkeys(told)
            count += bool(told)
        else:
            checked[cell] = config
            configs.setdefault(config.key, config)
    if refused:
        faults.add(StudyError(f"{count} of the study's trials cannot be run:\n{errors.summarize(list(refused))}"))
    return tuple(configs.values())


Axes = dict[str, list[Any]]


def _axes(fixed: dict[str, Any], block: dict[str, Any], faults: Faults) -> tuple[Axes, Axes]:
    """The block's lists that are combined, and those that move together; a list that is refused is left out."""
    axes, zipped = Axes(), Axes()
    for name, values in block.items():
        with faults.gathered():
            if name != "zip":
                axes[name] = _axis(name, values, fixed)
                check_distinct(f"{name} in [grid]", axes[name])
    for name, values in block.get("zip", {}).items():
        with faults.gathered():
            zipped[name] = _axis(name, values, fixed)
    for name in axes.keys() & zipped.keys():
        faults.add(StudyError(f"{name} must be either in [grid] or in [grid.zip], got it in both."))
    lengths = {name: len(values) for name, values in zipped.items()}
    with faults.gathered():
        if len(set(lengths.values())) > 1:
            raise StudyError(f"[grid.zip] must hold lists of equal length, got {lengths}.")
        check_distinct("rows of [grid.zip]", list(zip(*zipped.values(), strict=True)))
    return axes, zipped


def _cells(fixed: dict[str, Any], axes: Axes, zipped: Axes) -> Iterator[dict[str, Any]]:
    """Every combination of the lists together with the fixed settings; those that are zipped move together."""
    together = [dict(zip(zipped, values, strict=True)) for values in zip(*zipped.values(), strict=False)] or [{}]
    for point in itertools.product(*axes.values()):
        yield from ({**fixed, **dict(zip(axes, point, strict=True)), **moving} for moving in together)


def _axis(name: str, values: Any, fixed: dict[str, Any]) -> list[Any]:
    check_known([] if is_option(name) else [name], TrialConfig.model_fields, "[grid]")
    values = list(values) if isinstance(values, tuple) else values  # as a list of an option's values comes
    if not isinstance(values, list):
        raise StudyError(f"{name} in [grid] must be a list, got {values!r}. Write {name} = [{values!r}] or [fixed].")
    if not values:
        raise StudyError(f"{name} in [grid] must hold at least one value, got an empty list.")
    if name in fixed:
        raise StudyError(f"{name} must be either in [fixed] or in [grid], got it in both. Remove one.")
    return [canonical(name, value) for value in values]


def _varied(configs: tuple[TrialConfig, ...]) -> tuple[str, ...]:
    settings = [config.settings() for config in one_of_each_cell(configs)]
    names = [name for name in TrialConfig.model_fields if not name.endswith("_source")]  # it varies with its reference
    values = {name: set(map(itemgetter(name), settings)) for name in names} | {"seed": {c.seed for c in configs}}
    return tuple(name for name, found in values.items() if len(found - {None}) > 1)
