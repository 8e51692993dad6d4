"""`gnc best`: the best settings of each cell by their mean over seeds, and a study file that runs these again.

A cell is one combination of the settings named by --by; a candidate is a combination of the other settings that was
tried there. A candidate counts only if all of its trials ran to their end: if some seeds diverged or were stopped, the
mean of the others would flatter it. Knows the store and study files; does not know Ray.
"""

import json
import math
import statistics
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from study.design.config import SHORT, TrialConfig
from study.design.errors import StudyError, check_known, make_config
from study.design.study_file import Study, parse_study
from study.design.where import Selection
from study.store.schemas import MEASUREMENTS, REFERENCES
from study.store.store import Store

METRICS = tuple(
    column.name
    for column in (*MEASUREMENTS, *REFERENCES)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
)


@dataclass(frozen=True)
class Winner:
    """The best candidate of one cell."""

    by: dict[str, Any]  # the cell
    chosen: dict[str, Any]  # of the settings that candidates differ in, those of the winner
    mean: float
    standard_error: float | None  # None with one seed
    seeds: tuple[int, ...]
    candidates: int  # that were compared in this cell
    settings: dict[str, Any]  # all settings but the seed
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Best:
    """The winner of each cell, and what was left out."""

    metric: str
    mode: str
    winners: tuple[Winner, ...]
    unfinished: int  # candidates with a trial that diverged or was stopped
    unmeasured: int  # trials in which the metric is null


def default_by(study: Study) -> tuple[str, ...]:
    """The settings of the study's grid without the seed and the settings that a scheduler compares."""
    grid = tomllib.loads(study.text).get("grid", {})
    blocks = grid if isinstance(grid, list) else [grid]
    names = dict.fromkeys(name for block in blocks for name in (*block, *block.get("zip", {})))
    return tuple(name for name in names if name not in {"zip", "seed", *study.search.scheduler.over})


def find_best(
    store: Store,
    *,
    metric: str,
    mode: Literal["min", "max"],
    by: Sequence[str],
    keys: Collection[str] | None = None,
    selection: Selection | None = None,
) -> Best:
    """The best candidate of each cell. keys: only these trials; None for all of the folder."""
    check_known([metric], METRICS, "--metric")
    check_known(by, [name for name in TrialConfig.model_fields if name != "seed"], "--by")
    states = {key: state for key, state in store.states().items() if keys is None or key in keys}
    rows = store.read(["trial", "cell", *TrialConfig.model_fields, metric], last=True).to_pylist()
    rows = [row for row in rows if row["trial"] in states and (selection is None or selection(row))]
    unfinished = {row["cell"] for row in rows if states[row["trial"]] != "complete"}
    finished = [row for row in rows if row["cell"] not in unfinished]
    unmeasured = sum(row[metric] is None for row in finished)
    measured: dict[str, list[dict[str, Any]]] = {}
    for row in finished:
        if row[metric] is not None:
            measured.setdefault(row["cell"], []).append(row)
    winners = _winners(list(measured.values()), metric, mode, by)
    return Best(metric, mode, tuple(winners), len(unfinished), unmeasured)


def _winners(candidates: list[list[dict[str, Any]]], metric: str, mode: str, by: Sequence[str]) -> Iterator[Winner]:
    others = [name for name in TrialConfig.model_fields if name not in {*by, "seed"}]
    varied = [name for name in others if len({tried[0][name] for tried in candidates}) > 1]
    cells: dict[tuple[Any, ...], list[list[dict[str, Any]]]] = {}
    for tried in candidates:
        cells.setdefault(tuple(tried[0][name] for name in by), []).append(tried)
    for cell in sorted(cells, key=lambda cell: [(value is not None, str(type(value)), value) for value in cell]):
        sign = 1 if mode == "max" else -1
        best = max(cells[cell], key=lambda tried: (sign * _mean(tried, metric), tried[0]["cell"]))
        best.sort(key=lambda row: row["seed"])
        values = [float(row[metric]) for row in best]
        yield Winner(
            by=dict(zip(by, cell, strict=True)),
            chosen={name: best[0][name] for name in varied},
            mean=statistics.fmean(values),
            standard_error=statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
            seeds=tuple(row["seed"] for row in best),
            candidates=len(cells[cell]),
            settings={name: best[0][name] for name in TrialConfig.model_fields if name != "seed"},
            keys=tuple(row["trial"] for row in best),
        )


def _mean(tried: list[dict[str, Any]], metric: str) -> float:
    return statistics.fmean(float(row[metric]) for row in tried)


def best_lines(best: Best) -> Iterator[str]:
    """The table in words, one line per cell."""
    yield f"{best.metric}, {best.mode} of the mean over seeds, plus or minus its standard error"
    for winner in best.winners:
        error = "" if winner.standard_error is None else f" +- {winner.standard_error:.2g}"
        cell, chosen = in_short(winner.by) or "all", in_short(winner.chosen)
        yield (
            f"{cell}:  {winner.mean:.6g}{error}  {'1 seed' if len(winner.seeds) == 1 else f'{len(winner.seeds)} seeds'}, "
            f"best of {winner.candidates}{f':  {chosen}' if chosen else ''}"
        )
    if best.unfinished:
        yield f"{best.unfinished} candidates left out: some of their trials diverged or were stopped"
    if best.unmeasured:
        yield f"{best.unmeasured} trials left out: their {best.metric} is null"


def in_short(settings: dict[str, Any]) -> str:
    """Settings with the short names of a study's trials."""
    return " ".join(f"{SHORT[name]}={value}" for name, value in settings.items() if value is not None)


def next_study(best: Best, *, study: Study | None, seeds: Sequence[int] = ()) -> str:
    """The text of a study file that runs the winners again: the same keys for the same seeds, and the seeds added."""
    if not best.winners:
        raise StudyError("--write must have a best trial to write, got none. Run trials first.")
    wanted = [_configs(winner, sorted({*winner.seeds, *seeds})) for winner in best.winners]
    fixed = _needed(_shared(best.winners), best.winners)
    blocks = [
        {n: v for n, v in w.settings.items() if n not in _shared(best.winners) and v is not None} for w in best.winners
    ]
    text = "\n".join([*_head(best, study), "", "[fixed]", *_assignments(fixed), "", *_grid(blocks, best.winners, seeds),
                      *_copied_tables(study)]) + "\n"  # fmt: skip
    missing = {config.key for configs in wanted for config in configs} ^ {c.key for c in parse_study(text).configs}
    assert not missing, missing  # what is written is what was found
    return text


def _configs(winner: Winner, seeds: Sequence[int]) -> list[TrialConfig]:
    given = {name: value for name, value in winner.settings.items() if value is not None}
    try:
        configs = [make_config({**given, "seed": seed}) for seed in seeds]
    except StudyError as error:
        error.add_note(f"in the settings of trial {winner.keys[0]}")
        raise
    if not set(winner.keys) <= {config.key for config in configs}:
        raise StudyError(
            f"--write must repeat trials that this version would name the same, got {winner.keys[0]} of another version. "
            "Use the gnc-study version in trials.parquet."
        )
    return configs


def _shared(winners: Sequence[Winner]) -> dict[str, Any]:
    first = winners[0].settings
    return {n: v for n, v in first.items() if all(winner.settings[n] == v for winner in winners)}


def _needed(shared: dict[str, Any], winners: Sequence[Winner]) -> dict[str, Any]:
    """Without the settings that every winner has by default."""
    needed = {name: value for name, value in shared.items() if value is not None}
    for name in list(needed):
        less = {n: v for n, v in needed.items() if n != name}
        if TrialConfig.model_fields[name].is_required() or name in winners[0].by:
            continue
        if all(_is_same(less, shared, winner) for winner in winners):
            needed = less
    return needed


def _is_same(fixed: dict[str, Any], shared: dict[str, Any], winner: Winner) -> bool:
    own = {n: v for n, v in winner.settings.items() if n not in shared and v is not None}
    try:
        return make_config({**fixed, **own, "seed": winner.seeds[0]}).key == winner.keys[0]
    except StudyError:
        return False


def _grid(blocks: list[dict[str, Any]], winners: Sequence[Winner], seeds: Sequence[int]) -> list[str]:
    """Lists that move together where every winner has the same settings and seeds, else a block for each."""
    all_seeds = [sorted({*winner.seeds, *seeds}) for winner in winners]
    if all(set(block) == set(blocks[0]) for block in blocks) and all(s == all_seeds[0] for s in all_seeds):
        lines = ["[grid]", f"seed = {_toml(all_seeds[0])}"]
        together = {name: [block[name] for block in blocks] for name in blocks[0]}
        return [*lines, *(["[grid.zip]", *_assignments(together)] if together else [])]
    lines = []
    for block, own in zip(blocks, all_seeds, strict=True):
        values = {name: [value] for name, value in block.items()} | {"seed": own}
        lines += ["[[grid]]", *_assignments(values), ""]
    return lines[:-1]


def _head(best: Best, study: Study | None) -> list[str]:
    name = f"{study.name}-best" if study else "best"
    by = ", ".join(best.winners[0].by) or "all settings"
    description = f"Best by {best.metric} ({best.mode}) for each {by}{f' of {study.name}' if study else ''}."
    keep = [f"keep = {_toml(study.keep)}"] if study and study.keep != "head" else []
    return [f"# gnc run {name}.toml", f"name = {_toml(name)}", f"description = {_toml(description)}", *keep]


def _copied_tables(study: Study | None) -> list[str]:
    document = tomllib.loads(study.text) if study else {}
    tables = ((name, document[name]) for name in ("resources", "log") if document.get(name))
    return [line for name, table in tables for line in ("", f"[{name}]", *_assignments(table))]


def _assignments(table: dict[str, Any]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in table.items()]


def _toml(value: Any) -> str:
    """A value as TOML writes it: strings as JSON does, numbers as Python does."""
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(_assignments(value))} }}"
    return repr(value)
