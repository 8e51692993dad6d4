"""Within-class variability against the number of classes and the dimension."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from analysis.figures.panels import FigureBlock, block_of, evenly
from analysis.figures.style import label_ends, log_axis, name_marks, ramp, soft_grid, spread_ticks
from analysis.rows.frames import distinct, groups, usual_rows, values
from analysis.rows.measures import VARIABILITY
from analysis.rows.wording import LETTERS, axis_label, number, trial_titles

MOST_DOTS = 200  # of a series: beyond it dots cover each other; medians use every trial


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
    rows = usual_rows(final)
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
    ax.set_xlabel(axis_label(numbers.against))
    ax.set_title(axis_label(numbers.measure))
    soft_grid(ax)
    label_ends(ax, labels)


def block_variability(final: pa.Table) -> FigureBlock:
    """The figure of variability against K and d, or why there is none."""
    found = [numbers_variability(final, m, "num_classes", "feature_dim") for m in VARIABILITY]
    if len(distinct(final, "feature_dim")) > 1:
        found.append(numbers_variability(final, "gnc1_rank", "feature_dim", "num_classes"))
    found, trials = [n for n in found if n.series], usual_rows(final)["trial"].to_pylist()
    return block_of("variability", found, alt_variability, draw_variability, trials=trials)


def alt_variability(numbers: VariabilityNumbers) -> str:
    """The panel in a sentence."""
    last = [(s, f"{numbers.against} = {s.sizes[-1]:.0f}") for s in numbers.series]
    parts = [f"{s.by} = {s.value:.0f}: median {number(float(s.medians[-1]))} at {at}" for s, at in last]
    return f"{numbers.measure} against {numbers.against}; {'; '.join(parts)}."
