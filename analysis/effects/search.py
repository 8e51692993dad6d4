"""What a search found: its best value so far, what each setting mattered, which trials were stopped and where. Compared
are the trials of a group, which differ in nothing but the searched settings and the seed. Knows frames; draws nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import mannwhitneyu

from analysis.rows.frames import StudyFrame, groups, median, study_document, values, varied_settings
from analysis.rows.wording import LETTERS, shown_value
from study.design.search import GRID, Search, Tune, make_search
from study.design.setting import OPTIONS, with_flat_options

MIN_TRIALS = 8  # fewer say nothing of which setting matters
MOST_TRIALS = 400  # that an importance is computed from: a forest over more takes longer than the rest of the report


def search_of(study: str | None) -> Search:
    """How the study in this text searches; a grid where there is no study file, or none that can be read."""
    document = study_document(study)
    try:
        tune, space = Tune(**document.get("tune", {})), dict(document.get("search", {}))
        for family in OPTIONS:
            space |= {f"{family}.{option}": given for option, given in space.pop(family, {}).items()}
        return make_search(space, tune, set(tune.over))
    except (ValueError, TypeError, AttributeError):  # what a file that is no study can be refused with
        return GRID


@dataclass(frozen=True)
class Group:
    """The complete trials of one group in the order in which they ended.
    label: what the group holds fixed, of what differs between groups. settings: by searched setting, the value of each
    trial; goal: the search's first metric, NaN where it was not measured. mode: whether max or min is better."""

    label: str
    metric: str
    mode: str
    trials: tuple[str, ...]
    settings: dict[str, tuple[Any, ...]]
    goal: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """The best goal so far, after each trial; NaN before the first that was measured."""
        return np.fmax.accumulate(self.goal) if self.mode == "max" else np.fmin.accumulate(self.goal)

    @property
    def is_measured(self) -> bool:
        return bool(np.isfinite(self.goal).any())

    @property
    def best_index(self) -> int:
        return int(np.nanargmax(self.goal) if self.mode == "max" else np.nanargmin(self.goal))


def groups_of(final: pa.Table, search: Search) -> list[Group]:
    """The groups of a search with a metric, those with most trials first; empty without one."""
    if not search.metrics or final.num_rows == 0:
        return []
    searched = {*search.names, *(name.partition(".")[0] for name in search.names), "seed"}
    held = [name for name in varied_settings(final) if name not in searched]
    found = []
    for where, rows in groups(final, held):
        rows = rows.sort_by([("finished_at", "ascending"), ("trial", "ascending")])
        label = ", ".join(f"{LETTERS.get(name, name)} = {shown_value(value)}" for name, value in where.items())
        columns, goal = searched_values(rows, search), values(rows, search.metrics[0])
        found.append(Group(label, search.metrics[0], search.modes[0], tuple(rows["trial"].to_pylist()), columns, goal))
    return sorted(found, key=lambda group: -len(group.trials))


def searched_values(rows: pa.Table, search: Search) -> dict[str, tuple[Any, ...]]:
    """By searched setting, its value in each row; one entry of a part's options is a setting of its own."""
    columns = dict.fromkeys(name.partition(".")[0] for name in search.names)
    flat = [with_flat_options(row) for row in rows.select(list(columns)).to_pylist()]
    return {name: tuple(row.get(name) for row in flat) for name in search.names}


@dataclass(frozen=True)
class Importance:
    """By evaluator and setting, the share of the goal's variation that the setting is said to carry; they sum to 1."""

    label: str
    metric: str
    trials: int
    shares: dict[str, dict[str, float]]


def importances(found: Sequence[Group], search: Search) -> Iterator[Importance]:
    """What each searched setting mattered in every group of at least MIN_TRIALS trials whose goals differ."""
    for group in found if len(search.space) > 1 else ():
        measured = np.flatnonzero(np.isfinite(group.goal))[-MOST_TRIALS:]
        if len(measured) >= MIN_TRIALS and np.ptp(group.goal[measured]) > 0:
            # Optuna takes a second to load: only here, where it is asked
            from study.scheduling.optuna_study import measure_importances

            tried = [{name: column[i] for name, column in group.settings.items()} for i in measured]
            shares = measure_importances(search, tried, group.goal[measured].tolist())
            yield Importance(group.label, group.metric, len(measured), shares)


@dataclass(frozen=True)
class Distinction:
    """How the stopped trials differ from the complete ones in one setting, each combination of settings counted once.
    stopped, complete: the median, or of a choice the most frequent value. above: the chance that a stopped trial has
    the larger value, 0.5 where they do not differ, NaN for a choice. p: of the rank test, NaN where there is none."""

    setting: str
    stopped: Any
    complete: Any
    above: float
    p: float


def stopped_trials(trials: pa.Table, search: Search) -> list[Distinction]:
    """What distinguishes the trials that were stopped early from those that ended; empty where either are missing."""
    columns = {}
    for state in ("stopped", "complete"):
        ended = trials.filter(pc.equal(trials["state"], state))
        one_of_each_cell = {cell: index for index, cell in enumerate(ended["cell"].to_pylist())}
        if not one_of_each_cell or not search.names:
            return []
        columns[state] = searched_values(ended.take(list(one_of_each_cell.values())), search)
    found = [_distinction(name, columns["stopped"][name], columns["complete"][name]) for name in search.names]
    return sorted(found, key=lambda one: (np.isnan(one.p), one.p))


def _distinction(name: str, stopped: Sequence[Any], complete: Sequence[Any]) -> Distinction:
    if any(isinstance(value, bool | str | None) for value in [*stopped, *complete]):
        often = [Counter(map(str, column)).most_common(1)[0][0] for column in (stopped, complete)]
        return Distinction(name, often[0], often[1], np.nan, np.nan)
    one, other = np.array(stopped, dtype=float), np.array(complete, dtype=float)
    test = mannwhitneyu(one, other)
    p = float(test.pvalue) if min(len(one), len(other)) > 1 else float("nan")
    return Distinction(name, median(one), median(other), float(test.statistic) / (len(one) * len(other)), p)


@dataclass(frozen=True)
class Rung:
    """One rung of the scheduler: the epoch at which trials are compared.
    reached: trials that came this far; stopped: of them, those that did not reach the next rung because they were
    stopped. stopped_at, went_on_at: median of the metric at this rung of these, and of the others."""

    epoch: int
    reached: int
    stopped: int
    stopped_at: float
    went_on_at: float


def rungs(frame: StudyFrame, search: Search) -> list[Rung]:
    """The rungs of asha that a trial reached; empty for other rules, and where its metric was not read.
    Source: Li et al., arXiv 1810.05934: a rung at grace_epochs and at each reduction_factor times the one before."""
    rule = search.scheduler
    if rule.name != "asha" or rule.metric not in frame.rows.column_names:
        return []
    rows = frame.rows.select(["trial", "epoch", rule.metric]).sort_by([("trial", "ascending"), ("epoch", "ascending")])
    courses: dict[str, list[tuple[int, float]]] = {}
    for trial, epoch, value in zip(*(values(rows, name) for name in rows.column_names), strict=True):
        courses.setdefault(trial, []).append((int(epoch), float(value)))
    stopped = set(frame.trials.filter(pc.equal(frame.trials["state"], "stopped"))["trial"].to_pylist())
    last = {trial: course[-1][0] for trial, course in courses.items()}
    found, at = [], float(rule.grace_epochs)
    while reached := [trial for trial, epoch in last.items() if epoch >= at]:
        following = at * rule.reduction_factor
        gone = {trial for trial in reached if trial in stopped and last[trial] < following}
        here = {trial: next(value for epoch, value in courses[trial] if epoch >= at) for trial in reached}
        ends = [median(np.array([v for t, v in here.items() if (t in gone) is out])) for out in (True, False)]
        found.append(Rung(round(at), len(reached), len(gone), *ends))
        at = following
    return found
