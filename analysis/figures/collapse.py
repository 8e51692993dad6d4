"""Collapse over training steps: variability, margin and duality of every trial."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from analysis.figures.panels import FigureBlock, block_of, evenly
from analysis.figures.style import MUTED, label_ends, log_axis, name_marks, ramp, soft_grid
from analysis.rows.frames import distinct, groups, is_usual, of_trials, usual_normalization, values
from analysis.rows.wording import axis_label, number, trial_titles

MEASURES = ("gnc1_rank", "margin_min_lower", "gnc3_uncentred")
ON_LOG_AXIS = frozenset({"gnc1_rank", "gnc3_uncentred"})
MOST_LINES, MOST_DIMS = 60, 4


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
    usual = dict(zip(here["trial"].to_pylist(), is_usual(here), strict=True))
    shown = set(evenly(sorted(usual, key=lambda t: (not usual[t], t)), MOST_LINES))
    drawn = of_trials(here, shown)
    titles = dict(zip(drawn["trial"].to_pylist(), trial_titles(drawn, here), strict=True))
    courses = []
    mine = of_trials(rows.select(["trial", "num_classes", "step", measure]), shown)
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
    ax.set_title(f"d = {numbers.feature_dim}: {axis_label(numbers.measure)}")
    ax.set_xlabel(axis_label("step"))
    soft_grid(ax)
    last = {c.num_classes: c for c in numbers.courses if c.usual}
    label_ends(ax, [(last[k].step[-1], last[k].value[-1], f"K = {k}", colours[k]) for k in evenly(sizes, 5)])


def block_collapse(rows: pa.Table, final: pa.Table) -> FigureBlock:
    """The figure of collapse over steps, or why there is none."""
    dims = evenly(distinct(final, "feature_dim"), MOST_DIMS)
    found = [numbers_collapse(rows, final, measure, dim) for dim in dims for measure in MEASURES]
    found = [n for n in found if any(len(course.step) > 1 for course in n.courses)]
    hidden = max((n.hidden for n in found), default=0)
    left_out = f"{MOST_LINES} trials per panel are drawn; up to {hidden} more are in the table." if hidden else ""
    return block_of(
        *("collapse", found, alt_of, draw_collapse),
        trials=sorted({c.trial for n in found for c in n.courses}),
        notes=[left_out],
        lead=lambda i: (found[i].measure == MEASURES[0], len(found[i].courses)),
        usual=usual_normalization(final),
    )


def alt_of(numbers: CollapseNumbers) -> str:
    """The panel in a sentence."""
    first, last = (float(np.median([c.value[end] for c in numbers.courses])) for end in (0, -1))
    return (
        f"{numbers.measure} over step for {len(numbers.courses)} trials with d = {numbers.feature_dim}: "
        f"median {number(first)} at the first measured epoch shown, {number(last)} at the last."
    )
