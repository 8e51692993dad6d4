"""`gnc best`: the best settings of each cell by their mean over seeds, and a study file that runs these again.
A cell is a combination of the settings named by --by, a candidate one of the other settings that was tried there. It
counts only if all of its trials ran to their end: the mean of the others would flatter it. Knows the store, not Ray."""

import json
import math
import re
import statistics
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gnc_models.progress import amount
from study.design.columns import column_sentence
from study.design.config import SHORT, TrialConfig
from study.design.errors import StudyError, check_known, make_config
from study.design.study_file import Study, parse_study
from study.design.where import Selection
from study.store.schemas import MEASUREMENTS, REFERENCES
from study.store.store import Store

METRICS = {column.name: column for column in (*MEASUREMENTS, *REFERENCES) if column.type in (pa.float64(), pa.int64())}
Candidate = list[dict[str, Any]]  # the last rows of its trials
WIDEST = 40  # characters of an assignment whose comment stands in a column with the others
TOLD = {"max": "largest", "min": "smallest"}


@dataclass(frozen=True)
class Goal:
    """A metric, whether its largest or its smallest value is wanted (max or min), and who says so."""

    metric: str
    mode: str
    says: str


@dataclass(frozen=True)
class Winner:
    """A best candidate of one cell; with several goals a cell has one for each balance between them."""

    by: dict[str, Any]  # the cell
    chosen: dict[str, Any]  # of the settings that candidates differ in, those of the winner
    mean: dict[str, float]  # of each metric over the seeds
    standard_error: dict[str, float | None]  # None with one seed
    seeds: tuple[int, ...]
    candidates: int  # that were compared in this cell
    ties: int  # others of them with the same mean of every metric
    settings: dict[str, Any]  # all settings but the seed
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Best:
    """The winners of each cell, and what was left out."""

    goals: tuple[Goal, ...]
    winners: tuple[Winner, ...]
    unfinished: int  # candidates with a trial that diverged or was stopped
    unmeasured: int  # finished trials in which a metric is null


def choose_goals(metrics: Sequence[str], modes: Sequence[str], study: Study | None) -> tuple[Goal, ...]:
    """What is to be compared, by which mode: as asked, else as the study's [tune] says, else as the column says."""
    searched = dict(zip(study.search.metrics, study.search.modes, strict=True)) if study else {}
    if study and (scheduler := study.search.scheduler).metric:
        searched.setdefault(scheduler.metric, scheduler.mode)
    metrics = metrics or tuple(study.search.metrics if study else ())
    if not metrics:
        raise StudyError("--metric must be given where no [tune] names one, got none. Write --metric test_accuracy.")
    if modes and len(modes) != len(metrics):
        rule = f"--mode must be given once for each of {len(metrics)} metrics or not at all"
        raise StudyError(f"{rule}, got {len(modes)}.")
    asked = dict(zip(metrics, modes, strict=False))
    parts = {part for config in study.configs for part in config.parts().get("metrics", ())} if study else set()
    own = [reference.rpartition(":")[2] for reference, _ in parts]
    check_known([metric for metric in metrics if metric not in asked], [*METRICS, *own], "--metric")
    return tuple(_goal(metric, asked.get(metric), searched.get(metric)) for metric in dict.fromkeys(metrics))


def _goal(metric: str, asked: str | None, searched: str | None) -> Goal:
    of_column = METRICS[metric].better if metric in METRICS else ""
    for mode, says in ((asked, "as asked"), (searched, "as [tune] says"), (of_column, "as its column says")):
        if mode:
            return Goal(metric, mode, says)
    rule = f"--mode must be given for {metric}, of which neither much nor little is better by itself"
    raise StudyError(f"{rule}, got none. Write --mode max or --mode min.")


def default_by(study: Study) -> tuple[str, ...]:
    """The settings of the study's grid without the seed and the settings that a scheduler compares."""
    grid = tomllib.loads(study.text).get("grid", {})
    blocks = grid if isinstance(grid, list) else [grid]
    names = dict.fromkeys(name for block in blocks for name in (*block, *block.get("zip", {})))
    return tuple(name for name in names if name not in {"zip", "seed", *study.search.scheduler.over})


def find_best(
    store: Store, goals: Sequence[Goal], *,
    by: Sequence[str], keys: Collection[str] | None = None, selection: Selection | None = None,
    on_unreadable: Callable[[str], None] = lambda name: None,
) -> Best:  # fmt: skip
    """The best candidates of each cell. keys: only these trials; None for all of the folder. on_unreadable: hears of files
    that were passed over."""
    if "seed" in by:
        raise StudyError("--by must name settings that make a cell, got 'seed'. Means are taken over the seeds.")
    check_known(by, [name for name in TrialConfig.model_fields if name != "seed"], "--by")
    states = {key: state for key, state in store.states().items() if keys is None or key in keys}
    metrics = [goal.metric for goal in goals]
    rows = store.read(
        ["trial", "cell", *TrialConfig.model_fields, "custom", *metrics], last=True, on_unreadable=on_unreadable
    ).to_pylist()
    rows = [row for row in rows if row["trial"] in states and (selection is None or selection(row))]
    own = [dict(row["custom"] or ()) for row in rows]  # the study's own metrics are known by what was measured
    check_known(metrics, [*METRICS, *(name for values in own for name in values)], "--metric")
    rows = [{**dict.fromkeys(metrics), **values, **row} for values, row in zip(own, rows, strict=True)]
    unfinished = {row["cell"] for row in rows if states[row["trial"]] != "complete"}
    finished = [row for row in rows if row["cell"] not in unfinished]
    measured: dict[str, Candidate] = {}
    for row in finished:
        if all(row[metric] is not None for metric in metrics):
            measured.setdefault(row["cell"], []).append(row)
    winners = _winners(list(measured.values()), goals, by)
    return Best(tuple(goals), tuple(winners), len(unfinished), len(finished) - sum(map(len, measured.values())))


def _winners(candidates: list[Candidate], goals: Sequence[Goal], by: Sequence[str]) -> Iterator[Winner]:
    others = [name for name in TrialConfig.model_fields if name not in {*by, "seed"}]
    varied = [name for name in others if len({tried[0][name] for tried in candidates}) > 1]
    cells: dict[tuple[Any, ...], list[Candidate]] = {}
    for tried in candidates:
        cells.setdefault(tuple(tried[0][name] for name in by), []).append(tried)
    for cell in sorted(cells, key=lambda cell: [(value is not None, str(type(value)), value) for value in cell]):
        for best in _unbeaten(cells[cell], goals):
            best.sort(key=lambda row: row["seed"])
            yield Winner(
                by=dict(zip(by, cell, strict=True)), chosen={name: best[0][name] for name in varied},
                mean={goal.metric: _mean(best, goal.metric) for goal in goals},
                standard_error={goal.metric: _standard_error(best, goal.metric) for goal in goals},
                seeds=tuple(row["seed"] for row in best), candidates=len(cells[cell]),
                ties=sum(all(_mean(one, g.metric) == _mean(best, g.metric) for g in goals) for one in cells[cell]) - 1,
                settings={name: best[0][name] for name in TrialConfig.model_fields if name != "seed"},
                keys=tuple(row["trial"] for row in best),
            )  # fmt: skip


def _unbeaten(tried: list[Candidate], goals: Sequence[Goal]) -> list[Candidate]:
    """The best candidate, or with several goals those that no other beats in all; the best by the first goal first."""
    sign = 1 if goals[0].mode == "max" else -1
    ranked = sorted(tried, key=lambda one: (sign * _mean(one, goals[0].metric), one[0]["cell"]), reverse=True)
    if len(goals) == 1:
        return ranked[:1]
    signs = np.array([1 if goal.mode == "max" else -1 for goal in goals])
    means = np.array([[_mean(one, goal.metric) for goal in goals] for one in ranked])
    return [ranked[index] for index in np.flatnonzero(on_front(means * signs))]


def on_front(points: np.ndarray) -> np.ndarray:
    """Which rows [n, goals] no other row beats: as good in all and better in one, more being better."""
    front, unbeaten = np.zeros(len(points), dtype=bool), np.empty((0, points.shape[1]))
    for index in np.lexsort(-points.T[::-1]):  # so that only rows before a row can beat it
        point = points[index]
        if not ((unbeaten >= point).all(axis=1) & (unbeaten > point).any(axis=1)).any():
            front[index], unbeaten = True, np.vstack([unbeaten, point])
    return front


def _mean(tried: Candidate, metric: str) -> float:
    return statistics.fmean(row[metric] for row in tried)


def _standard_error(tried: Candidate, metric: str) -> float | None:
    return statistics.stdev([row[metric] for row in tried]) / math.sqrt(len(tried)) if len(tried) > 1 else None


def best_lines(best: Best) -> Iterator[str]:
    """The table in words, one line per winner."""
    wanted = " and ".join(f"the {TOLD[goal.mode]} {goal.metric} ({goal.says})" for goal in best.goals)
    balance = "" if len(best.goals) == 1 else "; no candidate of its cell is better than one below in all of them"
    yield f"Best is {wanted}: mean over seeds at the last epoch, plus or minus its standard error{balance}."
    for winner in best.winners:
        cell, chosen = in_short(winner.by, absent="none") or "all", in_short(winner.chosen)
        found = [_with_error(winner, goal.metric, named=len(best.goals) > 1) for goal in best.goals]
        seeds = amount(len(winner.seeds), "seed")
        among = "the only one" if winner.candidates == 1 else f"best of {winner.candidates}"
        among += f", and {winner.ties} more as good" * bool(winner.ties)
        yield f"{cell}:  {', '.join(found)}  {seeds}, {among}{f':  {chosen}' if chosen else ''}"
    if len(best.goals) == 1 and any(winner.ties for winner in best.winners):
        yield "Of those as good as each other one is named, by its key. A second --metric tells them apart."
    if best.winners and all(winner.candidates == 1 for winner in best.winners):
        yield "Every cell has one candidate, so nothing was chosen. --by with fewer settings compares more of them."
    if best.unfinished:
        yield f"{amount(best.unfinished, 'candidate')} left out: trials diverged or were stopped"
    names = " or ".join(goal.metric for goal in best.goals)
    if best.unmeasured and best.winners:
        yield f"{amount(best.unmeasured, 'trial')} left out, without {names}"
    elif best.unmeasured:
        meanings = "".join(f" {told}" for told in map(column_sentence, (goal.metric for goal in best.goals)) if told)
        yield f"None can be named: {names} was measured in none of the {amount(best.unmeasured, 'finished trial')}.{meanings}"
    elif not best.winners:
        yield "None can be named: no candidate that was asked for has all of its trials finished."


def _with_error(winner: Winner, metric: str, *, named: bool) -> str:
    error = winner.standard_error[metric]
    return f"{f'{metric} ' if named else ''}{winner.mean[metric]:.6g}{'' if error is None else f' +- {error:.2g}'}"


def in_short(settings: Mapping[str, Any], absent: str = "") -> str:
    """Settings with the short names of a study's trials; absent: what stands for a setting without effect."""
    shown = {name: absent if value is None else value for name, value in settings.items()}
    return " ".join(f"{SHORT[name]}={value}" for name, value in shown.items() if value != "")


def next_study(best: Best, *, study: Study | None, seeds: Sequence[int] = (), path: str = "next.toml") -> str:
    """The text of a study file that runs the winners again, with these seeds or else the same ones, whose keys are the same.
    It names every setting that decides the trials, also those with their defaults, so that it says what was best.
    path: of the file that it becomes, for the command in its first line."""
    if not best.winners:
        raise StudyError("--write must have a best trial to write, got none. Run trials first.")
    of_winners = [sorted(set(seeds or winner.seeds)) for winner in best.winners]
    wanted = [_configs(winner, own) for winner, own in zip(best.winners, of_winners, strict=True)]
    first = best.winners[0].settings
    shared = {n: v for n, v in first.items() if all(winner.settings[n] == v for winner in best.winners)}
    fixed = {name: value for name, value in shared.items() if value is not None}
    blocks = [{n: v for n, v in w.settings.items() if n not in shared and v is not None} for w in best.winners]
    text = "\n".join([f"# gnc run {path}", *_head(best, study), "", "[fixed]", *_explained(fixed), "", *_grid(blocks, of_winners),
                      *_copied_tables(study)]) + "\n"  # fmt: skip
    missing = {config.key for configs in wanted for config in configs} ^ {c.key for c in parse_study(text).configs}
    assert not missing, missing  # what is written is what was found
    return text


def _configs(winner: Winner, seeds: Sequence[int]) -> list[TrialConfig]:
    given = {name: value for name, value in winner.settings.items() if value is not None}
    try:
        config = make_config(given)
    except StudyError as error:
        error.add_note(f"in the settings of trial {winner.keys[0]}")
        raise
    if not set(winner.keys) <= {config.with_seed(seed).key for seed in winner.seeds}:
        rule = "--write must repeat trials that this version would name the same"
        cure = "Use the gnc-study version in trials.parquet."
        raise StudyError(f"{rule}, got {winner.keys[0]} of another version. {cure}")
    return [config.with_seed(seed) for seed in seeds]


def _grid(blocks: list[dict[str, Any]], seeds: list[list[int]]) -> list[str]:
    """Lists that move together where every winner has the same settings and seeds, else a block for each."""
    if all(set(block) == set(blocks[0]) for block in blocks) and all(own == seeds[0] for own in seeds):
        lines = ["[grid]", *_explained({"seed": seeds[0]})]
        together = {name: [block[name] for block in blocks] for name in blocks[0]}
        return [*lines, *(["[grid.zip]", *_explained(together)] if together else [])]
    lines = []
    for block, own in zip(blocks, seeds, strict=True):
        values = {name: [value] for name, value in block.items()} | {"seed": own}
        lines += ["[[grid]]", *_explained(values), ""]
    return lines[:-1]


def _head(best: Best, study: Study | None) -> list[str]:
    name = f"{study.name}-best" if study else "best"
    by, goals = ", ".join(best.winners[0].by), " and ".join(f"{goal.metric} ({goal.mode})" for goal in best.goals)
    description = f"Best by {goals}{f' for each {by}' if by else ''}{f' of {study.name}' if study else ''}."
    keep = [f"keep = {toml_value(study.keep)}"] if study and study.keep != "head" else []
    return [f"name = {toml_value(name)}", f"description = {toml_value(description)}", *keep]


def _copied_tables(study: Study | None) -> list[str]:
    document = tomllib.loads(study.text) if study else {}
    named = (name for name in ("resources", "log") if document.get(name))
    return [line for name in named for line in ("", f"[{name}]", *toml_lines(document[name]))]


def _explained(settings: dict[str, Any]) -> Iterator[str]:
    lines = toml_lines(settings)
    width = max((len(line) for line in lines if len(line) < WIDEST), default=0)
    for name, line in zip(settings, lines, strict=True):
        yield f"{line:<{width}}  # {TrialConfig.model_fields[name].description}"


def toml_value(value: Any) -> str:
    """A value as TOML writes it: strings as JSON does, numbers as Python does."""
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(toml_lines(value))} }}"
    return repr(value)


def toml_lines(table: Mapping[str, Any]) -> list[str]:
    """A table's assignments; names stand in quotes unless TOML takes them as they are, as it does options of a part."""
    plain = re.compile(r"[A-Za-z0-9_.-]+").fullmatch
    return [f"{name if plain(name) else json.dumps(name)} = {toml_value(value)}" for name, value in table.items()]
