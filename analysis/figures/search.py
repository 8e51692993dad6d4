"""What a search found: its best value so far, its trials in parallel coordinates, what each setting mattered; and the Pareto
front, the trials that no other trial beats in both objectives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.effects.search import MIN_TRIALS, Group, Importance
from analysis.figures.panels import BROAD_ROOM, CAPTIONS, FigureBlock, Room, block_of, evenly
from analysis.figures.style import CATEGORIES, INK, MUTED, RAMP, RULE, end_at_one, name_marks, soft_grid
from analysis.rows.frames import groups, study_document
from analysis.rows.measures import measure_values
from analysis.rows.wording import axis_label, number, shown_value, size_label, trial_titles, unit_of, words
from gnc_models.progress import amount
from study.design.search import Search
from study.design.where import ConditionRefused
from study.upkeep.best import on_front

MOST_DOTS, MOST_LINES, MOST_GROUPS = 600, 120, 4
PARALLEL_ROOM: Room = ((4.6, 3.6), (0.8, 0.25, 0.75, 0.4))
BARS_ROOM: Room = ((4.6, 3.0), (1.35, 0.2, 0.52, 0.4))
MOST_SIZES, MIN_ON_FRONT = 4, 3
LARGE = {"max": "large", "min": "small"}
Objectives = tuple[tuple[str, str], tuple[str, str]]  # two metrics, each with max or min as what is better
DEFAULT: Objectives = (("margin_ratio_upper", "max"), ("test_accuracy", "max"))


def draw_history(ax: Axes, group: Group) -> None:
    """A dot per trial in the order in which they ended, and the best so far as a line of steps."""
    order = np.arange(1, len(group.trials) + 1)
    shown = np.array(evenly(np.flatnonzero(np.isfinite(group.goal)).tolist(), MOST_DOTS), dtype=int)
    ax.step(order, group.best, where="post", color=CATEGORIES[0], linewidth=1.6)
    (marks,) = ax.plot(order[shown], group.goal[shown], "o", color=MUTED, alpha=0.7, markersize=4.5)
    name_marks(marks, [f"{group.trials[i]}: {number(float(group.goal[i]))}" for i in shown])
    ax.set_xlabel("complete trials, in the order of their ends")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(f"{group.label}{': ' * bool(group.label)}{axis_label(group.metric)}")
    ax.margins(0.06)
    end_at_one(ax, "y", unit_of(group.metric), group.goal)
    soft_grid(ax)


def block_history(found: Sequence[Group]) -> FigureBlock:
    """The best value of a search over its trials, or why there is none."""
    shown = [group for group in found if group.is_measured][:MOST_GROUPS]
    unmeasured = CAPTIONS["history"]["unmeasured"].format(metric=found[0].metric) if found else None
    trials = [trial for group in shown for trial in group.trials]
    drawn = ("history", shown, _alt_history, draw_history, BROAD_ROOM)
    return block_of(*drawn, trials=trials, missing=unmeasured, groups=MOST_GROUPS)


def _alt_history(group: Group) -> str:
    best = number(float(group.best[-1]))
    return f"{group.metric} of {amount(len(group.trials), 'trial')} in the order of their ends; the best is {best}."


def places_of(values: Sequence[Any], kind: str) -> tuple[np.ndarray, dict[float, str]]:
    """Where each value stands between 0 and 1 on an axis of its own, and what is written at which places there."""
    if kind == "choice":
        known = sorted(set(values), key=lambda value: (isinstance(value, str), value))
        place = {shown_value(value): (i + 0.5) / len(known) for i, value in enumerate(known)}
        return np.array([place[shown_value(value)] for value in values]), {at: name for name, at in place.items()}
    numbers = np.array(values, dtype=float)
    at = np.log(numbers) if kind.startswith("log") else numbers
    low, width = float(np.nanmin(at)), float(np.ptp(at[np.isfinite(at)])) or 1.0
    return (at - low) / width, {0.0: number(float(np.nanmin(numbers))), 1.0: number(float(np.nanmax(numbers)))}


@dataclass(frozen=True)
class ParallelNumbers:
    """One group: by axis (the settings, then the goal) where each measured trial stands, and what is written there.
    trials: their keys from the worst to the best, as they are drawn."""

    group: Group
    trials: tuple[str, ...]
    places: dict[str, np.ndarray]
    labels: dict[str, dict[float, str]]


def numbers_parallel(group: Group, search: Search) -> ParallelNumbers:
    """The trials of a group that measured its goal, at most MOST_LINES of them, the best always among them."""
    sign = 1.0 if group.mode == "max" else -1.0
    order = np.argsort(sign * group.goal, kind="stable")[: int(np.isfinite(group.goal).sum())]
    shown = np.array(evenly(order.tolist(), MOST_LINES), dtype=int)
    kinds = {name: given.kind for name, given in search.space} | {group.metric: "uniform"}
    columns = {**group.settings, group.metric: group.goal.tolist()}
    placed = {name: places_of([columns[name][i] for i in shown], kind) for name, kind in kinds.items()}
    places, labels = ({name: pair[k] for name, pair in placed.items()} for k in (0, 1))
    return ParallelNumbers(group, tuple(group.trials[i] for i in shown), places, labels)  # type: ignore[arg-type]


def draw_parallel(ax: Axes, numbers: ParallelNumbers) -> None:
    """A line per trial through all settings to the goal, the worst first and pale, the best tenth dark and thick."""
    names, count = list(numbers.places), len(numbers.trials)
    heights = np.array([numbers.places[name] for name in names])
    for index in range(count):
        is_best = index >= 0.9 * (count - 1)
        colour = INK if is_best else RAMP[len(RAMP) - 1 - int(index * len(RAMP) / count)]
        width, alpha = (1.8, 0.9) if is_best else (0.9, 0.5)
        (line,) = ax.plot(heights[:, index], color=colour, linewidth=width, alpha=alpha)
        name_marks(line, [numbers.trials[index]])
    look: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points", "fontsize": 8.5, "va": "center"}
    for place, name in enumerate(names):
        ax.axvline(place, color=RULE, linewidth=1.0, zorder=0)
        for height, text in numbers.labels[name].items():
            ax.annotate(text, (place, height), color=MUTED, **look)
    ax.set_xticks(range(len(names)), labels=[words(name) for name in names], rotation=12, ha="right", fontsize=9)
    ax.set(yticks=[], xlim=(-0.1, len(names) - 0.6), ylim=(-0.06, 1.06))
    ax.spines[:].set_visible(False)
    ax.set_title(numbers.group.label or "all trials")


def block_parallel(found: Sequence[Group], search: Search) -> FigureBlock:
    """The trials of a search in parallel coordinates, or why there are none."""
    tried = [group for group in found if np.isfinite(group.goal).sum() >= MIN_TRIALS][:MOST_GROUPS]
    shown = [numbers_parallel(group, search) for group in tried]
    trials = [trial for numbers in shown for trial in numbers.trials]
    drawn = ("parallel", shown, _alt_parallel, draw_parallel, PARALLEL_ROOM)
    return block_of(*drawn, trials=trials, lines=MOST_LINES, least=MIN_TRIALS)


def _alt_parallel(numbers: ParallelNumbers) -> str:
    best = numbers.group.trials.index(numbers.trials[-1])
    at = ", ".join(f"{name} {shown_value(column[best])}" for name, column in numbers.group.settings.items())
    return f"{amount(len(numbers.trials), 'trial')} in parallel coordinates; the best is {numbers.trials[-1]} at {at}."


def draw_importance(ax: Axes, numbers: Importance) -> None:
    """A bar per setting for each evaluator, the most important at the top."""
    first = next(iter(numbers.shares.values()))
    names = sorted(first, key=first.__getitem__)
    height = 0.8 / len(numbers.shares)
    for index, (evaluator, shares) in enumerate(numbers.shares.items()):
        at = np.arange(len(names)) + 0.4 - height * (index + 0.5)
        ax.barh(at, [shares[name] for name in names], height=height, color=CATEGORIES[index], label=evaluator)
    ax.set_yticks(range(len(names)), labels=[words(name) for name in names])
    ax.set(xlim=(0, 1), xlabel="share of what the settings explain")
    ax.set_title(f"{numbers.label}{': ' * bool(numbers.label)}{axis_label(numbers.metric)}")
    soft_grid(ax, "x")
    ax.legend(loc="lower right", frameon=False)


def block_importance(found: Sequence[Importance], search: Search) -> FigureBlock:
    """What each setting mattered, or why it cannot be told."""
    alone = CAPTIONS["importance"]["alone"].format(first=search.names[0]) if len(search.space) == 1 else None
    drawn = ("importance", found[:MOST_GROUPS], _alt_importance, draw_importance, BARS_ROOM)
    return block_of(*drawn, missing=alone, least=MIN_TRIALS)


def _alt_importance(numbers: Importance) -> str:
    shown = ((name, (f"{s} {number(share)}" for s, share in each.items())) for name, each in numbers.shares.items())
    each = "; ".join(f"{evaluator}: {', '.join(shares)}" for evaluator, shares in shown)
    return f"Importance for {numbers.metric} from {amount(numbers.trials, 'trial')}; {each}."


@dataclass(frozen=True)
class ParetoNumbers:
    """Two objectives of the trials of one size, and which of these are on the front."""

    feature_dim: int
    num_classes: int
    objectives: Objectives
    trials: tuple[str, ...]
    titles: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    front: np.ndarray

    @property
    def along(self) -> np.ndarray:
        """The trials on the front, by the first objective."""
        order = np.flatnonzero(self.front)
        return np.asarray(order[np.argsort(self.x[order], kind="stable")])


def objectives_of(study: str | None) -> Objectives:
    """The first two metrics of the study file's [tune] with their modes; margin and test accuracy where it has fewer."""
    tune = study_document(study).get("tune", {})
    metrics, modes = ((given if isinstance(given, list) else [given]) for given in map(tune.get, ("metric", "mode")))
    pairs = [(str(metric), str(mode)) for metric, mode in zip(metrics, modes, strict=False)]
    return (pairs[0], pairs[1]) if len(pairs) > 1 else DEFAULT


def numbers_pareto(final: pa.Table, objectives: Objectives = DEFAULT) -> list[ParetoNumbers]:
    """A front for each of the sizes with most trials: trials of different K and d solve different problems.
    Raises:
        ConditionRefused: an objective that is no column of the rows."""
    by_size = [pair for pair in groups(final, ("feature_dim", "num_classes")) if pair[1].num_rows >= MIN_ON_FRONT]
    found = []
    for where, rows in sorted(by_size, key=lambda pair: -pair[1].num_rows)[:MOST_SIZES]:
        x, y = (measure_values(rows, name) for name, _ in objectives)
        kept = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        texts = [tuple(column[i] for i in kept) for column in (rows["trial"].to_pylist(), trial_titles(rows))]
        signs = np.array([1.0 if mode == "max" else -1.0 for _, mode in objectives])
        front = on_front(np.stack([x[kept], y[kept]], axis=1) * signs)
        if len(kept) >= MIN_ON_FRONT:
            found.append(ParetoNumbers(**where, objectives=objectives, trials=texts[0], titles=texts[1], x=x[kept],
                                       y=y[kept], front=front))  # fmt: skip
    return found


def draw_pareto(ax: Axes, numbers: ParetoNumbers) -> None:
    """Every trial grey, the front joined by steps."""
    rest = np.array(evenly(np.flatnonzero(~numbers.front).tolist(), MOST_DOTS), dtype=int)
    order, where = numbers.along, "post" if numbers.objectives[0][1] == "min" else "pre"
    ax.step(numbers.x[order], numbers.y[order], where=where, color=CATEGORIES[0], linewidth=1.3)  # type: ignore[arg-type]
    for shown, look in ((rest, {"color": MUTED, "alpha": 0.5, "markersize": 4}), (order, {"color": CATEGORIES[0]})):
        (marks,) = ax.plot(numbers.x[shown], numbers.y[shown], "o", **look)
        name_marks(marks, [numbers.titles[i] for i in shown])
    (across, mode), (up, up_mode) = numbers.objectives
    ax.set_xlabel(f"{LARGE[mode]} {axis_label(across)}")
    ax.set_title(f"{size_label(numbers.feature_dim, numbers.num_classes)}: {LARGE[up_mode]} {axis_label(up)}")
    ax.margins(0.08)
    for which, name, data in (("x", across, numbers.x), ("y", up, numbers.y)):
        end_at_one(ax, which, unit_of(name), data)
    soft_grid(ax, "both")


def block_pareto(final: pa.Table, study: str | None) -> FigureBlock:
    """The Pareto front, or why there is none."""
    problem, found = None, list[ParetoNumbers]()
    try:
        found = numbers_pareto(final, objectives_of(study))
    except ConditionRefused as refusal:
        problem = f"No front is drawn: {refusal}"
    trials = [n.trials[i] for n in found for i in n.along]
    drawn = ("pareto", found, _alt_pareto, draw_pareto, BROAD_ROOM)
    return block_of(*drawn, trials=trials, missing=problem, sizes=MOST_SIZES, least=MIN_ON_FRONT)


def _alt_pareto(numbers: ParetoNumbers) -> str:
    (across, _), (up, _) = numbers.objectives
    ends = [int(i) for i in (numbers.x.argmax(), numbers.y.argmax())]
    parts = [f"{across} {number(float(numbers.x[i]))} with {up} {number(float(numbers.y[i]))}" for i in ends]
    of = f"{int(numbers.front.sum())} of {amount(len(numbers.x), 'trial')}"
    return f"{of} on the front; its ends: {'; '.join(parts)}."
