"""Collapse over training steps, of every trial, and within-class variability against the number of classes and dimensions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from analysis.figures.panels import CAPTIONS, FigureBlock, block_of, evenly
from analysis.figures.style import MUTED, label_ends, log_axis, name_marks, ramp, soft_grid, spread_ticks
from analysis.rows import frames
from analysis.rows.frames import distinct, groups, values
from analysis.rows.measures import VARIABILITY
from analysis.rows.wording import LETTERS, axis_label, number, trial_titles
from gnc_models.progress import amount

MEASURES = ("gnc1_rank", "margin_min_lower", "gnc3_uncentred")
ON_LOG_AXIS = frozenset({"gnc1_rank", "gnc3_uncentred"})
MOST_LINES, MOST_DIMS = 60, 4
MOST_DOTS = 200  # of a series: beyond it dots cover each other; medians use every trial


@dataclass(frozen=True)
class Trajectory:
    """One trial's course, and its title; usual: at the temperature and normalization that most trials of its feature_dim have."""

    trial: str
    title: str
    num_classes: int
    usual: bool
    step: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class CollapseNumbers:
    """Courses of one measure at one feature_dim; hidden: trials left out because lines would cover each other."""

    measure: str
    feature_dim: int
    courses: tuple[Trajectory, ...]
    hidden: int


def numbers_collapse(rows: pa.Table, final: pa.Table, measure: str, feature_dim: int) -> CollapseNumbers:
    """Measured epochs after the first step, for the complete trials of one feature_dim."""
    here = final.filter(pc.equal(final["feature_dim"], feature_dim))
    usual = dict(zip(here["trial"].to_pylist(), frames.is_usual(here), strict=True))
    shown = set(evenly(sorted(usual, key=lambda t: (not usual[t], t)), MOST_LINES))
    drawn = frames.of_trials(here, shown)
    titles = dict(zip(drawn["trial"].to_pylist(), trial_titles(drawn, here), strict=True))
    courses = []
    mine = frames.of_trials(rows.select(["trial", "num_classes", "step", measure]), shown)
    for where, epochs in groups(mine, ["trial", "num_classes"]):
        step, value = values(epochs, "step"), values(epochs, measure)
        keep = (step > 0) & np.isfinite(value) & ((value > 0) | (measure not in ON_LOG_AXIS))
        if keep.any():
            trial = where["trial"]
            sized = (titles[trial], where["num_classes"], bool(usual[trial]))
            courses.append(Trajectory(trial, *sized, step[keep], value[keep]))
    return CollapseNumbers(measure, feature_dim, tuple(courses), len(usual) - len(shown))


def draw_collapse(ax: Axes, numbers: CollapseNumbers) -> None:
    """A line per trial over steps; colour is the number of classes at the usual temperature, grey the other trials."""
    sizes = sorted({c.num_classes for c in numbers.courses if c.usual})
    colours = dict(zip(sizes, ramp(len(sizes)), strict=True))
    for course in sorted(numbers.courses, key=lambda c: c.usual):
        colour = colours[course.num_classes] if course.usual else MUTED
        width, alpha = (1.7, 1.0) if course.usual else (0.9, 0.5)
        look: dict[str, Any] = {"color": colour, "markersize": 3.5, "alpha": alpha, "solid_capstyle": "round"}
        (line,) = ax.plot(course.step, course.value, "-o", linewidth=width, markevery=[-1], **look)
        name_marks(line, [course.title])
    log_axis(ax, "x", np.concatenate([c.step for c in numbers.courses]))
    heights = np.concatenate([c.value for c in numbers.courses])
    if numbers.measure in ON_LOG_AXIS:
        log_axis(ax, "y", heights)
    else:
        ax.set_ylim(min(0.0, float(heights.min())), float(heights.max()) * 1.08 or 1.0)
    ax.set(title=f"d = {numbers.feature_dim}: {axis_label(numbers.measure)}", xlabel=axis_label("step"))
    soft_grid(ax)
    last = {c.num_classes: c for c in numbers.courses if c.usual}
    label_ends(ax, [(last[k].step[-1], last[k].value[-1], f"K = {k}", colours[k]) for k in evenly(sizes, 5)])


def block_collapse(rows: pa.Table, final: pa.Table) -> FigureBlock:
    """The figure of collapse over steps, or why there is none."""
    dims = evenly(distinct(final, "feature_dim"), MOST_DIMS)
    found = [numbers_collapse(rows, final, measure, dim) for dim in dims for measure in MEASURES]
    found = [n for n in found if any(len(course.step) > 1 for course in n.courses)]
    hidden = max((n.hidden for n in found), default=0)
    left_out = f"{MOST_LINES} trials per panel are drawn; the others are in the table." if hidden else ""
    return block_of(
        "collapse", found, _alt_collapse, draw_collapse, notes=[left_out], usual=frames.usual_normalization(final),
        trials=sorted({c.trial for n in found for c in n.courses}),
        lead=lambda i: (found[i].measure == MEASURES[0], len(found[i].courses)),
        lead_note=lambda i: "" if all(c.usual for c in found[i].courses) else CAPTIONS["collapse"]["grey"],
    )  # fmt: skip


def _alt_collapse(numbers: CollapseNumbers) -> str:
    first, last = (float(np.median([c.value[end] for c in numbers.courses])) for end in (0, -1))
    what = f"{numbers.measure} over step for {amount(len(numbers.courses), 'trial')} with d = {numbers.feature_dim}"
    return f"{what}: median {number(first)} at the first measured epoch shown, {number(last)} at the last."


@dataclass(frozen=True)
class VariabilitySeries:
    """Trials that share one value of `by`: x, y and whether training accuracy had reached the terminal phase.
    sizes, medians: over all trials; x, y, terminal and titles hold at most MOST_DOTS of them."""

    by: str
    value: float
    x: np.ndarray
    y: np.ndarray
    terminal: np.ndarray
    titles: np.ndarray
    sizes: np.ndarray
    medians: np.ndarray


@dataclass(frozen=True)
class VariabilityNumbers:
    """One panel: a measure against a setting, one series for each value of the other setting."""

    measure: str
    against: str
    series: tuple[VariabilitySeries, ...]


def numbers_variability(final: pa.Table, measure: str, against: str, by: str) -> VariabilityNumbers:
    """Final rows at the usual normalization and temperature with a positive value of the measure."""
    rows = frames.usual_rows(final)
    y = values(rows, measure)
    rows = rows.take(np.flatnonzero(np.isfinite(y) & (y > 0)))
    series = [_series(members, measure, against, by) for _, members in groups(rows, [by])]
    return VariabilityNumbers(measure, against, tuple(evenly(series, 6)))


def _series(rows: pa.Table, measure: str, against: str, by: str) -> VariabilitySeries:
    x, y = values(rows, against), values(rows, measure)
    sizes, dots = np.unique(x), evenly(range(rows.num_rows), MOST_DOTS)
    medians = np.array([np.median(y[x == size]) for size in sizes])
    titles = np.array(trial_titles(rows.take(pa.array(dots, pa.int64()))))
    drawn = (x[dots], y[dots], values(rows, "terminal")[dots], titles)
    return VariabilitySeries(by, float(rows[by][0].as_py()), *drawn, sizes, medians)


def draw_variability(ax: Axes, numbers: VariabilityNumbers) -> None:
    """Filled dots reached the terminal phase, open ones did not; lines join medians."""
    labels = []
    for series, colour in zip(numbers.series, ramp(len(numbers.series)), strict=True):
        ax.plot(series.sizes, series.medians, color=colour)
        for chosen, face in ((series.terminal, colour), (~series.terminal, "none")):
            (marks,) = ax.plot(series.x[chosen], series.y[chosen], "o", color=colour, markerfacecolor=face)
            name_marks(marks, series.titles[chosen])
        labels.append((series.sizes[-1], series.medians[-1], f"{LETTERS[series.by]} = {series.value:.0f}", colour))
    x = np.concatenate([s.x for s in numbers.series])
    log_axis(ax, "x", [x.min() / 1.1, x.max() * 1.1], at=spread_ticks(list(x)))
    log_axis(ax, "y", np.concatenate([s.y for s in numbers.series]))
    ax.set(title=axis_label(numbers.measure), xlabel=axis_label(numbers.against))
    soft_grid(ax)
    label_ends(ax, labels)


def block_variability(final: pa.Table) -> FigureBlock:
    """The figure of variability against K and d, or why there is none."""
    found = [numbers_variability(final, m, "num_classes", "feature_dim") for m in VARIABILITY]
    if len(distinct(final, "feature_dim")) > 1:
        found.append(numbers_variability(final, "gnc1_rank", "feature_dim", "num_classes"))
    found, trials = [n for n in found if n.series], frames.usual_rows(final)["trial"].to_pylist()
    return block_of("variability", found, _alt_variability, draw_variability, trials=trials)


def _alt_variability(numbers: VariabilityNumbers) -> str:
    last = [(s, f"{numbers.against} = {s.sizes[-1]:.0f}") for s in numbers.series]
    parts = [f"{s.by} = {s.value:.0f}: median {number(float(s.medians[-1]))} at {at}" for s, at in last]
    return f"{numbers.measure} against {numbers.against}; {'; '.join(parts)}."
