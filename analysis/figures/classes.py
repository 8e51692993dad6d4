"""The sorted margins of the classes, and the ladder of margins from the best code to the worst training sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from analysis.effects.shares import RUNGS
from analysis.figures.panels import FigureBlock, block_of, evenly
from analysis.figures.style import CATEGORIES, INK, MUTED, RULE, label_ends, name_marks, ramp, soft_grid
from analysis.rows.frames import best_trial, distinct, groups, of_trials, usual_rows
from analysis.rows.wording import number, size_label, trial_titles
from gnc_models.progress import amount

ReadMargins = Callable[[str], pa.Table | None]  # by the trial's key
MOST_DIMS, MOST_CURVES, MOST_RUNGS = 4, 6, 16
RUNG_LOOKS = {  # colour, marker and its face
    "best known code": (INK, "D", "none"),
    "classifier rows": (CATEGORIES[0], "o", CATEGORIES[0]),
    "class means": (CATEGORIES[1], "s", CATEGORIES[1]),
    "worst sample": (MUTED, "o", "none"),
}


@dataclass(frozen=True)
class MarginCurve:
    """Sorted margins of one trial's classes (midpoints)."""

    trial: str
    title: str
    num_classes: int
    margin: np.ndarray
    best_known: float | None


@dataclass(frozen=True)
class ClassNumbers:
    """The curves of one feature_dim."""

    feature_dim: int
    curves: tuple[MarginCurve, ...]


def numbers_classes(final: pa.Table, read_margins: ReadMargins, feature_dim: int) -> ClassNumbers:
    """For up to six class counts the trial with the largest minimum margin at the usual settings."""
    here = usual_rows(final)
    here = here.filter(pc.equal(here["feature_dim"], feature_dim))
    best = evenly([best_trial(rows) for _, rows in groups(here, ["num_classes"])], MOST_CURVES)
    drawn = of_trials(here, [row["trial"] for row in best])
    titles, curves = dict(zip(drawn["trial"].to_pylist(), trial_titles(drawn, here), strict=True)), []
    for row in best:
        margins = read_margins(row["trial"])
        if margins is not None and margins.num_rows:
            lower, upper = (np.asarray(margins[name].to_pylist(), dtype=float) for name in ("lower", "upper"))
            known = (np.sort((lower + upper) / 2), row["reference_margin_lower"])
            curves.append(MarginCurve(row["trial"], titles[row["trial"]], row["num_classes"], *known))
    return ClassNumbers(feature_dim, tuple(curves))


def draw_classes(ax: Axes, numbers: ClassNumbers) -> None:
    """Margin over the share of classes with a smaller one; a short bar on the left is the best known minimum."""
    labels = []
    for curve, colour in zip(numbers.curves, ramp(len(numbers.curves)), strict=True):
        (line,) = ax.plot(np.linspace(0, 1, len(curve.margin)), curve.margin, color=colour)
        name_marks(line, [curve.title])
        labels.append((1.0, float(curve.margin[-1]), f"K = {curve.num_classes}", colour))
        if curve.best_known is not None:
            ax.hlines(curve.best_known, -0.06, 0.0, color=colour, linewidth=2.4)
    ax.set(xlim=(-0.07, 1.0), ylim=(0, None), xlabel="share of classes with a smaller margin")
    ax.set_title(f"d = {numbers.feature_dim}: margin of each class (distance)")
    soft_grid(ax)
    label_ends(ax, labels)


def block_classes(final: pa.Table, read_margins: ReadMargins) -> FigureBlock:
    """The figure of per-class margins, or why there is none."""
    dims = evenly(distinct(final, "feature_dim"), MOST_DIMS)
    found = [n for n in (numbers_classes(final, read_margins, dim) for dim in dims) if n.curves]
    return block_of("classes", found, _alt_classes, draw_classes, trials=[c.trial for n in found for c in n.curves])


def _alt_classes(numbers: ClassNumbers) -> str:
    ends = ((c.num_classes, float(c.margin[0]), float(c.margin[-1])) for c in numbers.curves)
    parts = [f"K = {k}: {number(least)} to {number(largest)}" for k, least, largest in ends]
    return f"Sorted margins of the classes, d = {numbers.feature_dim}; smallest to largest, {'; '.join(parts)}."


@dataclass(frozen=True)
class LadderNumbers:
    """One row per size: label and the four rungs, NaN where not known."""

    labels: tuple[str, ...]
    rungs: np.ndarray
    trials: tuple[str, ...]
    hidden: int


def numbers_ladder(final: pa.Table) -> LadderNumbers:
    """The rungs of the best trial at each (feature_dim, num_classes) of the usual settings."""
    best = [best_trial(rows) for _, rows in groups(usual_rows(final), ["feature_dim", "num_classes"])]
    shown = evenly(best, MOST_RUNGS)
    rungs = np.array([[row[name] for name in RUNGS] for row in shown], dtype=float).reshape(-1, len(RUNGS))
    labels = tuple(size_label(row["feature_dim"], row["num_classes"]) for row in shown)
    return LadderNumbers(labels, rungs, tuple(r["trial"] for r in shown), len(best) - len(shown))


def draw_ladder(ax: Axes, numbers: LadderNumbers) -> None:
    """One line of dots per setting, from the best code on the right to the worst sample on the left."""
    places = np.arange(len(numbers.labels))[::-1]
    finite = np.where(np.isfinite(numbers.rungs), numbers.rungs, numbers.rungs[:, 1:2])
    ax.hlines(places, finite.min(axis=1), finite.max(axis=1), color=RULE, linewidth=3, zorder=1)
    for rungs, (label, (colour, marker, face)) in zip(numbers.rungs.T, RUNG_LOOKS.items(), strict=True):
        known = np.isfinite(rungs)
        (marks,) = ax.plot(rungs[known], places[known], marker, color=colour, markerfacecolor=face, label=label)
        name_marks(marks, [f"{label} of {numbers.trials[i]}: {numbers.labels[i]}" for i in np.flatnonzero(known)])
    ax.set_yticks(places, labels=numbers.labels)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.set(ylim=(-0.7, len(places) - 0.3), xlabel="margin (distance)")
    soft_grid(ax, "x")
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.45, 1.0), "ncols": 2}
    ax.legend(**place, frameon=False, handletextpad=0.3, columnspacing=1.2)


def block_ladder(final: pa.Table) -> FigureBlock:
    """The margin ladder, or why there is none."""
    numbers = numbers_ladder(final)
    more = f"{amount(numbers.hidden, 'more size is', 'more sizes are')} in the table." if numbers.hidden else ""
    room = ((5.1, 1.2 + 0.32 * max(len(numbers.labels), 3)), (1.2, 0.15, 0.52, 0.62))
    found = [numbers] if numbers.labels else []
    return block_of("ladder", found, _alt_ladder, draw_ladder, room, trials=numbers.trials, notes=[more])


def _alt_ladder(numbers: LadderNumbers) -> str:
    rows = [
        f"{label}: " + ", ".join(f"{name} {number(float(v))}" for name, v in zip(RUNG_LOOKS, rung, strict=True))
        for label, rung in zip(numbers.labels[:8], numbers.rungs, strict=False)
    ]
    return f"Margin ladder; {'; '.join(rows)}."
