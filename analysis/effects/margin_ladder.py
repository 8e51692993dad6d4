"""The margin ladder: how much of the best known margin is lost to geometry, to duality and to variability.

The rungs are four margins in one unit: of the best code known, of the classifier rows, of the class means, and of the
worst training sample.

Gaps are shares of the best known margin, so that they can be averaged over sizes. Knows frames and contrasts; draws
nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.effects.contrast import held_settings
from analysis.rows.frames import distinct, settings_of_rows, values
from analysis.statistics.inference import MIN_CELLS, mean_interval

# Best first: each is at least the next (the last where the third is not negative). A gap is a step, over the first.
RUNGS = ("reference_margin_lower", "margin_min_lower", "mean_direction_margin_min", "sample_margin_min")
GAPS = ("geometry", "duality", "variability")


@dataclass(frozen=True)
class LadderGaps:
    """One value of a setting: the share of the best known margin that each step loses, and what is left, over cells.

    gaps: (mean, low, high) by the names in GAPS, the ends None under MIN_CELLS cells. kept: the share that the worst
    sample has left, below 0 where it is misclassified. cells: those that have every value of the setting.
    """

    setting: str
    value: Any
    gaps: dict[str, tuple[float, float | None, float | None]]
    kept: float
    cells: int


def ladder_gaps(final: pa.Table, setting: str) -> list[LadderGaps]:
    """The gaps at each value of a setting, over cells that have all values where there are such, else all cells."""
    rungs = np.stack([values(final, name) for name in RUNGS], axis=1)
    known = np.isfinite(rungs).all(axis=1) & (rungs[:, 0] > 0)
    rows, rungs = final.take(np.flatnonzero(known)), rungs[known]
    if rows.num_rows == 0:
        return []
    held, _, _ = held_settings(rows, setting)
    keys = settings_of_rows(rows, [name for name in held if name != "seed"])
    taken = rows[setting].to_pylist()
    found = distinct(rows, setting)
    where = {value: {key for key, v in zip(keys, taken, strict=True) if v == value} for value in found}
    shared = set.intersection(*where.values())
    return [_gaps(setting, value, shared or where[value], keys, taken, rungs) for value in found]


def _gaps(
    setting: str, value: Any, shared: set[tuple], keys: list[tuple], taken: list[Any], rungs: np.ndarray
) -> LadderGaps:
    by_cell: dict[tuple, list[np.ndarray]] = {}
    for key, v, rung in zip(keys, taken, rungs, strict=True):
        if v == value and key in shared:
            by_cell.setdefault(key, []).append(rung / rung[0])
    means = np.array([np.mean(found, axis=0) for found in by_cell.values()])
    steps = means[:, :-1] - means[:, 1:]
    gaps = {}
    for name, lost in zip(GAPS, steps.T, strict=True):
        mean, low, high = mean_interval(lost)
        gaps[name] = (mean, low, high) if len(means) >= MIN_CELLS else (mean, None, None)
    return LadderGaps(setting, value, gaps, float(means[:, -1].mean()), len(means))
