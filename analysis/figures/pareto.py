"""The Pareto front: the trials that no other trial beats in both objectives."""

import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from analysis.figures.panels import FigureBlock, evenly, panels_of
from analysis.figures.style import CATEGORIES, MUTED, end_at_one, name_marks, soft_grid
from analysis.rows.frames import groups
from analysis.rows.measures import measure_values
from analysis.rows.wording import axis_label, number, size_label, trial_titles, unit_of
from study.design.where import ConditionRefused

MOST_DOTS, MOST_SIZES, MIN_ON_FRONT = 600, 4, 3
SIZES = ("feature_dim", "num_classes")
ROOM = ((4.6, 3.4), (0.75, 0.3, 0.52, 0.4))  # inches of a panel, and of its margins
LARGE = {"max": "large", "min": "small"}
DEFAULT = (("margin_ratio_upper", "max"), ("test_accuracy", "max"))


@dataclass(frozen=True)
class ParetoNumbers:
    """Two objectives (name and whether max or min is better) of the trials of one size, and which of them are on the front."""

    feature_dim: int
    num_classes: int
    objectives: tuple[tuple[str, str], tuple[str, str]]
    trials: tuple[str, ...]
    titles: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    front: np.ndarray

    @property
    def front_trials(self) -> tuple[str, ...]:
        """Keys on the front, by the first objective."""
        order = np.argsort(self.x, kind="stable")
        return tuple(self.trials[i] for i in order if self.front[i])


def objectives_of(study: str | None) -> tuple[tuple[str, str], tuple[str, str]]:
    """The first two metrics of the study file's [tune] with their modes; margin and test accuracy where it has fewer."""
    try:
        tune = tomllib.loads(study or "").get("tune", {})
    except tomllib.TOMLDecodeError:
        return DEFAULT
    metrics, modes = ((given if isinstance(given, list) else [given]) for given in map(tune.get, ("metric", "mode")))
    pairs = [(str(metric), str(mode)) for metric, mode in zip(metrics, modes, strict=False)]
    return (pairs[0], pairs[1]) if len(pairs) > 1 else DEFAULT


def numbers_pareto(
    final: pa.Table, objectives: tuple[tuple[str, str], tuple[str, str]] = DEFAULT
) -> list[ParetoNumbers]:
    """A front for each of the sizes with most trials: trials of different K and d solve different problems.

    Raises:
        ConditionRefused: an objective that is no column of the rows.
    """
    by_size = [(where, rows) for where, rows in groups(final, SIZES) if rows.num_rows >= MIN_ON_FRONT]
    most = sorted(by_size, key=lambda pair: -pair[1].num_rows)[:MOST_SIZES]
    found = [_numbers(where, rows, objectives) for where, rows in most]
    return [numbers for numbers in found if len(numbers.x) >= MIN_ON_FRONT]


def _numbers(
    where: dict[str, Any], rows: pa.Table, objectives: tuple[tuple[str, str], tuple[str, str]]
) -> ParetoNumbers:
    x, y = (measure_values(rows, name) for name, _ in objectives)
    kept = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    trials, titles = rows["trial"].to_pylist(), trial_titles(rows)
    signs = np.array([1.0 if mode == "max" else -1.0 for _, mode in objectives])
    front = on_front(np.stack([x[kept], y[kept]], axis=1) * signs)
    return ParetoNumbers(
        feature_dim=where["feature_dim"],
        num_classes=where["num_classes"],
        objectives=objectives,
        trials=tuple(trials[i] for i in kept),
        titles=tuple(titles[i] for i in kept),
        x=x[kept],
        y=y[kept],
        front=front,
    )


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
    order = np.flatnonzero(numbers.front)[np.argsort(numbers.x[numbers.front], kind="stable")]
    along = "post" if numbers.objectives[0][1] == "min" else "pre"
    ax.step(numbers.x[order], numbers.y[order], where=along, color=CATEGORIES[0], linewidth=1.3)  # type: ignore[arg-type]
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
    problem = f"No size has {MIN_ON_FRONT} complete trials with both objectives, so there is no front."
    found: list[ParetoNumbers] = []
    try:
        found = numbers_pareto(final, objectives_of(study))
    except ConditionRefused as refusal:
        problem = f"No front is drawn: {refusal}"
    return FigureBlock(
        name="pareto",
        heading="Pareto front",
        caption="Blue dots are trials that no other trial of the same K and d beats in both objectives; the others are "
        "grey. The objectives are those of the study's search, or the margin over the best known margin and test accuracy "
        "where it names fewer than two. Each dot is a single seed, so chance alone can place a trial on the front.",
        rows=f"final rows of the complete trials at the {MOST_SIZES} sizes with most of them; the keys are those of trials on the fronts",
        trials=tuple(t for n in found for t in n.front_trials),
        panels=panels_of(found, alt_pareto, draw_pareto, *ROOM),
        missing=None if found else problem,
        columns=2,
    )


def alt_pareto(numbers: ParetoNumbers) -> str:
    """The panel in a sentence."""
    (across, _), (up, _) = numbers.objectives
    ends = [int(i) for i in (numbers.x.argmax(), numbers.y.argmax())]
    parts = [f"{across} {number(float(numbers.x[i]))} with {up} {number(float(numbers.y[i]))}" for i in ends]
    return f"{int(numbers.front.sum())} of {len(numbers.x)} trials on the front; its ends: {'; '.join(parts)}."
