"""GNC1, GNC2 and GNC3 against each other and against the excess of the loss over its optimum."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from scipy.stats import spearmanr

from analysis.figures.panels import FigureBlock, evenly, panels_of
from analysis.figures.style import CATEGORIES, log_axis, soft_grid
from analysis.rows.frames import cell_rows
from analysis.rows.wording import axis_label, number
from analysis.statistics.inference import MIN_CELLS

MOST_DOTS = 400
SHORT = "shortfall"
LABELS = {SHORT: "1 - margin / best (GNC2)"}
PAIRS = (
    ("gnc1_rank", "gnc3_uncentred"), ("gnc1_rank", SHORT), ("gnc3_uncentred", SHORT),
    ("loss_excess", "gnc1_rank"), ("loss_excess", "gnc3_uncentred"), ("loss_excess", SHORT),
)  # fmt: skip
ROOM = ((4.2, 3.1), (0.62, 0.85, 0.52, 0.36))  # inches of a panel, and of its margins


@dataclass(frozen=True)
class RelationNumbers:
    """Two positive measures of the same cells, their feature_dim, and Spearman's correlation within dimensions.

    correlation: of ranks taken within each feature_dim, so that size alone makes none; None under MIN_CELLS cells.
    """

    across: str
    up: str
    x: np.ndarray
    y: np.ndarray
    feature_dim: np.ndarray
    correlation: float | None


def numbers_relation(final: pa.Table, across: str, up: str) -> RelationNumbers:
    """Cells where both measures are positive, medians over seeds."""
    cells = cell_rows(
        final, ("gnc1_rank", "gnc3_uncentred", "loss_excess", "margin_min_lower", "reference_margin_lower")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        cells[SHORT] = 1 - cells["margin_min_lower"] / cells["reference_margin_lower"]
        kept = (cells[across] > 0) & (cells[up] > 0)
    x, y, dims = cells[across][kept], cells[up][kept], cells["feature_dim"][kept]
    shown = np.array(evenly(range(len(x)), MOST_DOTS), dtype=int)
    return RelationNumbers(across, up, x[shown], y[shown], dims[shown], rank_correlation(x, y, dims))


def rank_correlation(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> float | None:
    """Mean over groups of Spearman's correlation, weighted by size; None where no group has MIN_CELLS that vary."""
    found = []
    for value in np.unique(group):
        here = group == value
        if here.sum() >= MIN_CELLS and np.ptp(x[here]) > 0 and np.ptp(y[here]) > 0:
            found.append((float(spearmanr(x[here], y[here]).statistic), int(here.sum())))
    return float(np.average([r for r, _ in found], weights=[n for _, n in found])) if found else None


def draw_relation(ax: Axes, numbers: RelationNumbers) -> None:
    """A dot per cell on logarithmic axes; colour is feature_dim."""
    for index, dim in enumerate(np.unique(numbers.feature_dim)):
        here = numbers.feature_dim == dim
        colour = CATEGORIES[index % len(CATEGORIES)]
        ax.plot(numbers.x[here], numbers.y[here], "o", color=colour, alpha=0.8, label=f"d = {dim:.0f}")
    log_axis(ax, "x", np.append(numbers.x, [numbers.x.min() / 1.1, numbers.x.max() * 1.1]))
    log_axis(ax, "y", np.append(numbers.y, [numbers.y.min() / 1.1, numbers.y.max() * 1.1]))
    ax.set_xlabel(LABELS.get(numbers.across, axis_label(numbers.across)))
    correlation = "" if numbers.correlation is None else f"; rank corr. {number(numbers.correlation)}"
    ax.set_title(LABELS.get(numbers.up, axis_label(numbers.up)) + correlation, fontsize=9.5)
    soft_grid(ax, "both")
    if len(np.unique(numbers.feature_dim)) <= 8:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.2)


def block_relations(final: pa.Table) -> FigureBlock:
    """The measures against each other, or why there is nothing to see."""
    found = [numbers_relation(final, across, up) for across, up in PAIRS] if final.num_rows else []
    found = [n for n in found if len(n.x) > 1]
    return FigureBlock(
        name="relations",
        heading="GNC1, GNC2, GNC3 and the loss",
        caption="Each dot is a cell, the median over its seeds: variability (GNC1), how far the minimum margin stays below the "
        "best known (GNC2), the angle between means and rows (GNC3), and the excess of the loss over the "
        "optimum of unconstrained features at the same temperature. Rank correlations are computed within each feature_dim "
        "and averaged. Cells at or beyond a reference have no place on a logarithmic axis and are left out.",
        rows="final rows of the complete trials, medians of cells",
        panels=panels_of(found, alt_relation, draw_relation, *ROOM),
        missing=None if found else "Fewer than two cells have two positive measures, so none is set against another.",
        columns=3,
    )


def alt_relation(numbers: RelationNumbers) -> str:
    """The panel in a sentence."""
    correlation = "" if numbers.correlation is None else f", rank correlation within d {number(numbers.correlation)}"
    return f"{numbers.up} against {numbers.across} of {len(numbers.x)} cells{correlation}."
