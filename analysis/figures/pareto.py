"""The Pareto front: the trials that no other trial beats in both objectives."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from analysis.figures.panels import BROAD_ROOM, FigureBlock, block_of, evenly
from analysis.figures.style import CATEGORIES, MUTED, end_at_one, name_marks, soft_grid
from analysis.rows.frames import groups, study_document
from analysis.rows.measures import measure_values
from analysis.rows.wording import axis_label, number, size_label, trial_titles, unit_of
from study.design.where import ConditionRefused

MOST_DOTS, MOST_SIZES, MIN_ON_FRONT = 600, 4, 3
LARGE = {"max": "large", "min": "small"}
Objectives = tuple[tuple[str, str], tuple[str, str]]  # two metrics, each with max or min as what is better
DEFAULT: Objectives = (("margin_ratio_upper", "max"), ("test_accuracy", "max"))


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
        ConditionRefused: an objective that is no column of the rows.
    """
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


def on_front(points: np.ndarray) -> np.ndarray:
    """Which rows [n, 2] no other row beats: as good in both and better in one, more being better."""
    order = np.lexsort((-points[:, 1], -points[:, 0]))
    front = np.zeros(len(points), dtype=bool)
    best, last = -np.inf, None
    for i in order:
        if points[i, 1] > best:
            front[i], best, last = True, points[i, 1], tuple(points[i])
        elif tuple(points[i]) == last:
            front[i] = True  # the same point again is not beaten
    return front


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
    drawn = ("pareto", found, alt_pareto, draw_pareto, BROAD_ROOM)
    return block_of(*drawn, trials=trials, missing=problem, sizes=MOST_SIZES, least=MIN_ON_FRONT)


def alt_pareto(numbers: ParetoNumbers) -> str:
    """The panel in a sentence."""
    (across, _), (up, _) = numbers.objectives
    ends = [int(i) for i in (numbers.x.argmax(), numbers.y.argmax())]
    parts = [f"{across} {number(float(numbers.x[i]))} with {up} {number(float(numbers.y[i]))}" for i in ends]
    return f"{int(numbers.front.sum())} of {len(numbers.x)} trials on the front; its ends: {'; '.join(parts)}."
