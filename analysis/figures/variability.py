"""Within-class variability against the number of classes and the dimension."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from analysis.figures.panels import FigureBlock, evenly, panels_of
from analysis.figures.style import label_ends, log_axis, name_marks, ramp, soft_grid, spread_ticks
from analysis.rows.frames import groups, is_usual, values
from analysis.rows.matched_time import VARIABILITY
from analysis.rows.wording import LETTERS, axis_label, number, trial_titles

MOST_DOTS = 200  # of a series: beyond it dots cover each other; medians use every trial


@dataclass(frozen=True)
class VariabilitySeries:
    """Trials that share one value of `by`: x, y and whether training accuracy had reached the terminal phase.

    sizes, medians: over all trials; x, y, terminal and titles hold at most MOST_DOTS of them.
    """

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
    rows = final.take(np.flatnonzero(is_usual(final)))
    y = values(rows, measure)
    rows = rows.take(np.flatnonzero(np.isfinite(y) & (y > 0)))
    series = [_series(members, measure, against, by) for _, members in groups(rows, [by])]
    return VariabilityNumbers(measure, against, tuple(evenly(series, 6)))


def _series(rows: pa.Table, measure: str, against: str, by: str) -> VariabilitySeries:
    x, y = values(rows, against), values(rows, measure)
    sizes = np.unique(x)
    dots = evenly(range(rows.num_rows), MOST_DOTS)
    return VariabilitySeries(
        by=by,
        value=float(rows[by][0].as_py()),
        x=x[dots],
        y=y[dots],
        terminal=values(rows, "terminal")[dots],
        titles=np.array(trial_titles(rows.take(pa.array(dots, pa.int64())))),
        sizes=sizes,
        medians=np.array([np.median(y[x == size]) for size in sizes]),
    )


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
    ax.set_xlabel(axis_label(numbers.against))
    ax.set_title(axis_label(numbers.measure))
    soft_grid(ax)
    label_ends(ax, labels)


def block_variability(final: pa.Table) -> FigureBlock:
    """The figure of variability against K and d, or why there is none."""
    found = [numbers_variability(final, m, "num_classes", "feature_dim") for m in VARIABILITY]
    if len(set(final["feature_dim"].to_pylist())) > 1:
        found.append(numbers_variability(final, "gnc1_rank", "feature_dim", "num_classes"))
    found = [n for n in found if n.series]
    usual = final.take(np.flatnonzero(is_usual(final))) if final.num_rows else final
    return FigureBlock(
        name="variability",
        heading="Variability against the number of classes and the dimension",
        caption="Within-class variability at the end of training: the rank form of GNC1, the trace of the "
        "within-class covariance of unit features, and the spread of a class over the squared distance to its nearest "
        "neighbour. Open dots had not reached 99 % training accuracy; lines join medians. Trials end after equal "
        "budgets, not at equal loss, so a slope here mixes geometry with training time.",
        rows="final rows of the complete trials at the usual normalization and, for each d, the temperature that "
        "most class counts share",
        trials=tuple(usual["trial"].to_pylist()),
        panels=panels_of(found, alt_variability, draw_variability),
        missing=None if found else "No complete trial has a within-class variability above zero.",
        columns=2,
    )


def alt_variability(numbers: VariabilityNumbers) -> str:
    """The panel in a sentence."""
    last = [(s, f"{numbers.against} = {s.sizes[-1]:.0f}") for s in numbers.series]
    parts = [f"{s.by} = {s.value:.0f}: median {number(float(s.medians[-1]))} at {at}" for s, at in last]
    return f"{numbers.measure} against {numbers.against}; {'; '.join(parts)}."
