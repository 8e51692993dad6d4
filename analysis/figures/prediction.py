"""Trends beyond the measured sizes: the form that predicted best, its band, and the sizes it was tested on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from analysis.figures.panels import FigureBlock, panels_of
from analysis.figures.style import CATEGORIES, INK, log_axis, soft_grid, spread_ticks
from analysis.rows.wording import axis_label, number
from analysis.scaling.form_choice import FormComparison
from analysis.scaling.forms import FORMS

BEYOND = 2.0  # times the largest size that was measured
MOST_PANELS = 6
POINTS = 40


@dataclass(frozen=True)
class PredictionNumbers:
    """One group of one comparison: its cells, which were held out of the test, and the curve with its 90 % band."""

    measure: str
    feature_dim: int
    form: str
    group: str
    sizes: np.ndarray
    measured: np.ndarray
    held_out: np.ndarray
    curve_sizes: np.ndarray
    curve: np.ndarray
    low: np.ndarray
    high: np.ndarray


def numbers_prediction(comparison: FormComparison) -> PredictionNumbers | None:
    """The chosen form over the group of cells with the most sizes; None where no form was chosen."""
    verdict = next((v for v in comparison.verdicts if v.form == comparison.chosen), None)
    if verdict is None or verdict.fit is None or verdict.held_out is None:
        return None
    cells = comparison.cells
    sizes = np.exp(cells.log_predictors[:, 0])
    group = max(sorted(set(cells.group)), key=cells.group.count)
    mine = np.array([g == group for g in cells.group], dtype=bool)
    at = np.geomspace(sizes.min(), BEYOND * sizes.max(), POINTS)
    low, high = verdict.fit.predict_interval(at, group)
    return PredictionNumbers(
        measure=comparison.measure,
        feature_dim=comparison.feature_dim,
        form=verdict.form,
        group=group,
        sizes=sizes[mine],
        measured=np.exp(cells.log_measure[mine]),
        held_out=np.isin(np.round(sizes[mine]), verdict.held_out.sizes),
        curve_sizes=at,
        curve=verdict.fit.predict(at, group),
        low=low,
        high=high,
    )


def draw_prediction(ax: Axes, numbers: PredictionNumbers) -> None:
    """Cells as dots, open where they were held out of the test; the band is where a new cell is expected."""
    colour = CATEGORIES[0]
    ax.fill_between(numbers.curve_sizes, numbers.low, numbers.high, color=colour, alpha=0.16, linewidth=0)
    ax.plot(numbers.curve_sizes, numbers.curve, color=colour, linewidth=1.3)
    for chosen, face in ((~numbers.held_out, INK), (numbers.held_out, "none")):
        ax.plot(numbers.sizes[chosen], numbers.measured[chosen], "o", color=INK, markerfacecolor=face)
    log_axis(ax, "x", numbers.curve_sizes, at=spread_ticks([*numbers.sizes, numbers.curve_sizes[-1]], ratio=1.6))
    log_axis(ax, "y", np.concatenate([numbers.measured, numbers.low, numbers.high]))
    ax.set_xlabel(axis_label("num_classes"))
    ax.set_title(f"d = {numbers.feature_dim}: {numbers.measure}")
    soft_grid(ax)


def block_prediction(comparisons: Sequence[FormComparison]) -> FigureBlock:
    """The figure of trends beyond their data, or why there is none."""
    found = [n for n in map(numbers_prediction, comparisons) if n is not None][:MOST_PANELS]
    forms = "; ".join(
        f"{n.measure} at d = {n.feature_dim}: {n.form}" + (f" ({n.group})" if n.group else "") for n in found
    )
    return FigureBlock(
        name="prediction",
        heading="Trends beyond their data",
        caption="Dots are cells; open dots were held out to test the forms. The line is the form that predicted them best, "
        "fitted to all cells, and the band is where 90 % of new cells are expected, up to twice the largest number of "
        f"classes. {forms}.",
        rows="cells of the trials that reached the terminal phase",
        panels=panels_of(found, alt_of, draw_prediction),
        missing=None if found else "No form predicted its largest class counts, so no trend is drawn beyond its data.",
    )


def alt_of(numbers: PredictionNumbers) -> str:
    """The panel in a sentence."""
    return (
        f"{numbers.measure} against number of classes, d = {numbers.feature_dim}, with {FORMS[numbers.form].formula}; "
        f"at K = {numbers.curve_sizes[-1]:.0f} it predicts {number(float(numbers.curve[-1]))}, 90 % between "
        f"{number(float(numbers.low[-1]))} and {number(float(numbers.high[-1]))}."
    )
