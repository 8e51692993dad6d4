"""The margin ladder: how much of the best known margin is lost to geometry, to duality and to variability. Gaps are shares
of the best known margin, so that they can be averaged over sizes. Knows frames and contrasts; draws nothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.effects.contrast import held_settings
from analysis.rows.frames import distinct, gathered, settings_of_rows, values
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
    shares = zip(rows[setting].to_pylist(), zip(keys, rungs / rungs[:, :1], strict=True), strict=True)
    by_value = {value: gathered(pairs) for value, pairs in gathered(shares).items()}
    shared = set.intersection(*map(set, by_value.values()))
    found = []
    for value in distinct(rows, setting):
        cells = by_value[value]
        means = np.array([np.mean(cells[key], axis=0) for key in cells if key in shared or not shared])
        gaps = {name: mean_interval(lost) for name, lost in zip(GAPS, (means[:, :-1] - means[:, 1:]).T, strict=True)}
        if len(means) < MIN_CELLS:
            gaps = {name: (mean, None, None) for name, (mean, _, _) in gaps.items()}
        found.append(LadderGaps(setting, value, gaps, float(means[:, -1].mean()), len(means)))
    return found
