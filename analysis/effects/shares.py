"""Two accounts of what settings do: the margin ladder tells how much of the best known margin is lost to geometry, duality and
variability, and shares of variance how much of a measure's spread each setting explains, and how much is chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.effects.contrast import held_settings
from analysis.rows.frames import codes, distinct, independent_settings, ranks, values
from analysis.statistics.inference import MIN_CELLS, mean_interval

MIN_TRIALS = 8
RANK = 1e-10  # eigenvalues below this share of the largest are zero
# Best first: each is at least the next (the last where the third is not negative). A gap is a step, over the first.
RUNGS = ("reference_margin_lower", "margin_min_lower", "mean_direction_margin_min", "sample_margin_min")
GAPS = ("geometry", "duality", "variability")


@dataclass(frozen=True)
class LadderGaps:
    """One value of a setting: the share of the best known margin that each step loses, and what is left, over cells.
    gaps: (mean, low, high) by the names in GAPS, the ends None under MIN_CELLS cells. kept: the share that the worst
    sample has left, below 0 where it is misclassified. cells: those that have every value of the setting."""

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
    cell, _ = codes(rows, [name for name in held if name != "seed"])
    code, first = codes(rows, [setting])
    both, index = np.unique(code * len(cell) + cell, return_inverse=True)
    sums = np.stack([np.bincount(index, share) for share in (rungs / rungs[:, :1]).T], axis=1)
    cells = sums / np.bincount(index)[:, None]
    code, cell = np.divmod(both, len(cell))
    is_shared = (np.bincount(cell) == len(first))[cell]
    places, found = {value: i for i, value in enumerate(rows[setting].take(first).to_pylist())}, []
    for value in distinct(rows, setting):
        means = cells[(code == places[value]) & (is_shared | ~is_shared.any())]
        gaps = {name: mean_interval(lost) for name, lost in zip(GAPS, (means[:, :-1] - means[:, 1:]).T, strict=True)}
        if len(means) < MIN_CELLS:
            gaps = {name: (mean, None, None) for name, (mean, _, _) in gaps.items()}
        found.append(LadderGaps(setting, value, gaps, float(means[:, -1].mean()), len(means)))
    return found


@dataclass(frozen=True)
class Share:
    """The share of the total variance that is no longer explained without the setting, and how many values it takes."""

    setting: str
    share: float
    levels: int


@dataclass(frozen=True)
class Spread:
    """Standard deviations of log measure: of what the settings do, and of chance between the seeds of one cell."""

    settings: float
    seeds: float

    @property
    def seed_share(self) -> float:
        """The seeds' share of the variance of a single trial; 0 where nothing varies."""
        total = self.settings**2 + self.seeds**2
        return self.seeds**2 / total if total else 0.0


@dataclass(frozen=True)
class Explained:
    """Shares of variance lost when one setting is left out of an additive model of log measure.
    They need not add up to `together`, the share of all settings, because settings overlap. spread: of settings and of
    seeds, None where no cell has two trials. trials: how many there were."""

    measure: str
    relative_to: str | None
    shares: tuple[Share, ...]
    together: float
    spread: Spread | None
    trials: int


def explain(final: pa.Table, measure: str, *, relative_to: str | None = None) -> Explained | None:
    """Decompose the variance of the log of a measure, or of its ratio to another column.
    Args:
        final: one row per complete trial. measure: a positive column; trials where it is not are left out.
        relative_to: a positive column to divide by, as the best known margin.
    Returns:
        None under MIN_TRIALS trials, without spread, or where there are as many settings as trials."""
    measured = values(final, measure) / (values(final, relative_to) if relative_to else 1.0)
    kept = np.flatnonzero(np.isfinite(measured) & (measured > 0))
    rows, logs = final.take(kept), np.log(measured[kept])
    if rows.num_rows < MIN_TRIALS or np.var(logs) == 0:
        return None
    names = ["feature_dim", "num_classes", *independent_settings(rows)]
    values_of = {name: codes(rows, [name])[0] for name in names if len(rows[name].unique()) > 1}
    full = _residual(logs, list(values_of.values()))
    if full is None:
        return None
    total = float(((logs - logs.mean()) ** 2).sum())
    shares = []
    for name, own in values_of.items():
        without = _residual(logs, [code for other, code in values_of.items() if other != name])
        assert without is not None  # fewer columns than the full model had
        shares.append(Share(name, max(without - full, 0.0) / total, int(own.max()) + 1))
    ordered = tuple(sorted(shares, key=lambda s: -s.share))
    spread = spread_of(logs, ranks(rows, "cell"))
    return Explained(measure, relative_to, ordered, 1 - full / total, spread, rows.num_rows)


def _residual(logs: np.ndarray, codes: list[np.ndarray]) -> float | None:
    """Sum of squares left by the additive model; None where it has as many columns as there are rows."""
    every = [np.zeros(len(logs), dtype=int), *codes]
    counts = [int(code.max()) + 1 for code in every]
    # a hundred thousand trials have as many rows, and the products of their columns are counts
    gram = np.block([
        [np.bincount(a * n + b, minlength=m * n).reshape(m, n) for b, n in zip(every, counts, strict=True)]
        for a, m in zip(every, counts, strict=True)
    ])  # fmt: skip
    eigenvalues, vectors = np.linalg.eigh(gram.astype(float))
    kept = eigenvalues > RANK * eigenvalues[-1]
    if kept.sum() >= len(logs) - 1:
        return None
    sums = np.concatenate([np.bincount(code, logs) for code in every])
    levels = np.split(vectors[:, kept] @ (vectors[:, kept].T @ sums / eigenvalues[kept]), np.cumsum(counts)[:-1])
    fitted = sum(level[code] for level, code in zip(levels, every, strict=True))
    return float(((logs - fitted) ** 2).sum())


def spread_of(logs: np.ndarray, cell: Sequence[str] | np.ndarray) -> Spread | None:
    """The spread between cells and between their seeds [trials], moment estimates, of an average over few seeds no chance.
    None without two cells or a cell of two trials; a spread between cells below what their seeds alone would give is 0.
    Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 3 (one-way analysis of variance)."""
    _, index, counts = np.unique(np.asarray(cell), return_inverse=True, return_counts=True)
    trials, cells = len(logs), len(counts)
    if cells < 2 or trials == cells:
        return None
    means = np.bincount(index, weights=logs) / counts
    within = float(((logs - means[index]) ** 2).sum()) / (trials - cells)
    between = float((counts * (means - logs.mean()) ** 2).sum()) / (cells - 1)
    seeds_of_a_cell = (trials - float((counts**2).sum()) / trials) / (cells - 1)
    return Spread(math.sqrt(max(between - within, 0.0) / seeds_of_a_cell), math.sqrt(within))
