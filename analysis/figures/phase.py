"""The phase map: collapse and margin over the number of classes per dimension and the coldness of the loss."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from analysis.figures.panels import FigureBlock, Room, block_of, evenly
from analysis.figures.style import MUTED, RAMP, log_axis, name_marks, soft_grid
from analysis.rows import theory
from analysis.rows.frames import cell_rows
from analysis.rows.wording import axis_label, number
from gnc_models.progress import amount

MOST_DOTS = 400
RATIO, COLLAPSE = "margin / best known", "gnc1_rank"
RATIO_EDGES = (0.2, 0.4, 0.6, 0.8, 0.95)
ROOM: Room = ((5.2, 3.4), (0.75, 1.65, 0.52, 0.36))


@dataclass(frozen=True)
class PhaseNumbers:
    """One map: cells with x = K / d, y = coldness, their measure, the step of the colour ramp each falls into (0..5).
    edges: values between the steps. terminal: whether every seed reached 99 %. left_out: cells without a temperature."""

    measure: str
    x: np.ndarray
    y: np.ndarray
    value: np.ndarray
    step: np.ndarray
    edges: tuple[float, ...]
    terminal: np.ndarray
    titles: np.ndarray
    left_out: int


def numbers_phase(final: pa.Table, measure: str) -> PhaseNumbers:
    """Cells with a temperature and a best known margin; RATIO, or a column with positive values."""
    cells = cell_rows(final, ("margin_min_lower", "gnc1_rank", "reference_margin_lower"))
    best = cells["reference_margin_lower"]
    with np.errstate(divide="ignore", invalid="ignore"):
        y = theory.coldness(best, cells["temperature"], cells["num_classes"])
        value = cells["margin_min_lower"] / best if measure == RATIO else cells[measure]
    known = np.isfinite(y) & (y > 0) & np.isfinite(value) & ((value > 0) | (measure == RATIO))
    kept = np.array(evenly(np.flatnonzero(known).tolist(), MOST_DOTS), dtype=int)
    edges: tuple[float, ...] = RATIO_EDGES if measure == RATIO else ()
    seen = value[known]
    if measure != RATIO and len(seen) and seen.max() > seen.min() * 1.01:  # equal parts of the logarithm, rounded
        edges = tuple(sorted({float(f"{x:.0e}") for x in np.geomspace(seen.min(), seen.max(), 7)[1:-1]}))
    x, y, value = (numbers[kept] for numbers in (cells["num_classes"] / cells["feature_dim"], y, value))
    step, terminal = np.searchsorted(edges, value, side="right"), cells["terminal"][kept] > 0
    return PhaseNumbers(measure, x, y, value, step, edges, terminal, cells["title"][kept], int((~known).sum()))


def draw_phase(ax: Axes, numbers: PhaseNumbers) -> None:
    """Cells as dots, light where the measure is large; open ones did not reach 99 % training accuracy."""
    bounds = ["", *map(number, numbers.edges), ""]
    for step in sorted(set(numbers.step.tolist())):
        low, high = bounds[step], bounds[step + 1]
        text = f"{low} to {high}" if low and high else f"below {high}" if high else f"{low} and more" if low else "all"
        here, colour = numbers.step == step, RAMP[min(step, len(RAMP) - 1)]
        for chosen, face in ((numbers.terminal, colour), (~numbers.terminal, "none")):
            x, y = numbers.x[here & chosen], numbers.y[here & chosen]
            (marks,) = ax.plot(x, y, "o", color=colour, markerfacecolor=face, markersize=7)
            name_marks(marks, numbers.titles[here & chosen])
        ax.plot([], [], "o", label=text, color=colour, markersize=7)
    ax.axvline(1.0, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    for which, data in (("x", numbers.x), ("y", numbers.y)):
        log_axis(ax, which, [data.min() / 1.15, data.max() * 1.15])
    ax.set(xlabel="classes per dimension, K / d", ylabel="coldness, best known / (τ ln K)")
    ax.set_title(axis_label(numbers.measure))
    soft_grid(ax, "both")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.2, fontsize=8.5)


def block_phase(final: pa.Table) -> FigureBlock:
    """The phase map, or why there is none."""
    found = [numbers_phase(final, measure) for measure in (RATIO, COLLAPSE)] if final.num_rows else []
    found = [n for n in found if len(n.x)]
    left_out = [f"Without a temperature, not shown: {amount(n.left_out, 'cell')}." for n in found[:1] if n.left_out]
    return block_of("phase", found, _alt_phase, draw_phase, ROOM, notes=left_out)


def _alt_phase(numbers: PhaseNumbers) -> str:
    ends = (int(numbers.value.argmax()), int(numbers.value.argmin()))
    told = ([number(float(found[i])) for found in (numbers.value, numbers.x, numbers.y)] for i in ends)
    largest, smallest = (f"{value} at K / d = {x}, coldness {y}" for value, x, y in told)
    cells = f"{numbers.measure} of {amount(len(numbers.x), 'cell')} over K / d and coldness"
    return f"{cells}: largest {largest}, smallest {smallest}."
