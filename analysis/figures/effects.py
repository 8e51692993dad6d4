"""The effect of temperature and of normalization: lines join cells that differ in nothing else."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from analysis.effects.effects import LOG_MEASURES, SharedCell, shared_cells
from analysis.figures.panels import FigureBlock, Panel, evenly
from analysis.figures.style import CATEGORIES, label_ends, log_axis, soft_grid, spread_ticks
from analysis.rows.wording import axis_label, number

MEASURES = ("margin_min_lower", "gnc1_rank", "gnc3_uncentred", "test_accuracy")
NORMALIZATIONS = ("both", "features", "weights", "none")
MOST_CELLS = 24


@dataclass(frozen=True)
class EffectNumbers:
    """One measure over the values of a setting; hidden: shared cells beyond those drawn."""

    setting: str
    measure: str
    cells: tuple[SharedCell, ...]
    hidden: int


def numbers_effect(final: pa.Table, setting: str, measure: str) -> EffectNumbers:
    """Cells that share all but the setting; for a logarithmic axis only positive values."""
    cells = shared_cells(final, setting, measure)
    if measure in LOG_MEASURES:
        cells = [cell for cell in cells if min(cell.medians) > 0]
    shown = evenly(cells, MOST_CELLS)
    return EffectNumbers(setting, measure, tuple(shown), len(cells) - len(shown))


def draw_effect(ax: Axes, numbers: EffectNumbers) -> None:
    """A line a shared cell; colour is feature_dim, the label its size."""
    dims = sorted({cell.held["feature_dim"] for cell in numbers.cells})
    colours = {dim: CATEGORIES[i % len(CATEGORIES)] for i, dim in enumerate(dims)}
    place = _places(numbers)
    labels = []
    for cell in numbers.cells:
        order = sorted(range(len(cell.levels)), key=lambda i: place[cell.levels[i]])
        x = [place[cell.levels[i]] for i in order]
        y = [cell.medians[i] for i in order]
        colour = colours[cell.held["feature_dim"]]
        ax.plot(x, y, "o-", color=colour, alpha=0.9)
        labels.append((x[-1], y[-1], f"{cell.held['feature_dim']}, {cell.held['num_classes']}", colour))
    _frame(ax, numbers, place)
    if len(labels) <= 8:
        label_ends(ax, labels)


def _places(numbers: EffectNumbers) -> dict[Any, float]:
    levels = {level for cell in numbers.cells for level in cell.levels}
    if numbers.setting == "normalization":
        return {level: float(i) for i, level in enumerate(n for n in NORMALIZATIONS if n in levels)}
    return {level: float(level) for level in levels}


def _frame(ax: Axes, numbers: EffectNumbers, place: dict[Any, float]) -> None:
    heights = np.array([m for cell in numbers.cells for m in cell.medians])
    if numbers.setting == "normalization":
        ax.set_xticks(list(place.values()), labels=list(place))
        ax.set_xlim(-0.3, max(place.values()) + 0.5)
    else:
        log_axis(ax, "x", list(place.values()), at=spread_ticks(list(place.values())))
    if numbers.measure in LOG_MEASURES:
        log_axis(ax, "y", heights)
    elif numbers.measure != "test_accuracy":
        ax.set_ylim(min(0.0, float(heights.min())), float(heights.max()) * 1.1 or 1.0)
    ax.set_xlabel(axis_label(numbers.setting))
    ax.set_title(axis_label(numbers.measure))
    soft_grid(ax)


def block_effect(final: pa.Table, setting: str) -> FigureBlock:
    """The figure of one setting's effect, or why there is none."""
    found = [numbers_effect(final, setting, measure) for measure in MEASURES]
    found = [n for n in found if n.cells]
    hidden = max((n.hidden for n in found), default=0)
    more = f" {hidden} more shared cells are in the table." if hidden else ""
    at = " at the temperature that most normalizations share" if setting == "normalization" else ""
    return FigureBlock(
        name=f"effect-{setting}",
        heading=f"The effect of {setting}",
        caption=f"Each line joins cells that differ in {setting} alone{at}; dots are medians over seeds, labels are d, "
        "K, colour is d." + more,
        rows=f"final rows of the complete trials in cells shared by at least two values of {setting}",
        trials=tuple(sorted({t for n in found for cell in n.cells for t in cell.trials})),
        panels=tuple(
            Panel(f"{n.measure} against {setting}", alt_of(n), partial(draw_effect, numbers=n)) for n in found
        ),
        missing=None if found else f"No two complete cells differ in {setting} alone, so its effect cannot be told.",
        columns=2,
    )


def alt_of(numbers: EffectNumbers) -> str:
    """The panel in a sentence."""
    parts = [
        f"d = {c.held['feature_dim']}, K = {c.held['num_classes']}: "
        + ", ".join(f"{level}: {number(m)}" for level, m in zip(c.levels, c.medians, strict=True))
        for c in numbers.cells[:8]
    ]
    return f"{numbers.measure} by {numbers.setting}; {'; '.join(parts)}."
