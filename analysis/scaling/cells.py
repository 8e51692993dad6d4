"""Seeds averaged to cells, and cells of one size to what that size shares: a class count at which codes are better than the
trend is better at every temperature, so the number of sizes, not that of cells, decides how sure a trend is."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.statistics.additive import equal_slopes_p, fit_additive, largest_piece
from analysis.statistics.huber import Design

HELD_OUT_SHARE = 0.25  # of the sizes, which forms must predict


@dataclass(frozen=True)
class Cells:
    """Averages over the seeds of each cell: log measure, log predictors [cells, predictors], group, trial count.
    log_upper: upper ends where log_measure holds lower ends (-inf: none); None where measures are numbers."""

    log_measure: np.ndarray
    log_predictors: np.ndarray
    group: tuple[str, ...]
    trials: np.ndarray
    log_upper: np.ndarray | None = None

    @cached_property
    def means(self) -> "SizeMeans":
        """What the cells of each size share; every form is fitted to it."""
        return size_means(self)

    @cached_property
    def halves(self) -> "tuple[Cells, Cells]":
        """The cells of the smaller sizes, and those of the largest HELD_OUT_SHARE of the sizes, at least one size."""
        sizes = np.unique(self.log_predictors[:, 0])
        out = self.log_predictors[:, 0] >= sizes[-max(1, round(HELD_OUT_SHARE * len(sizes)))]
        return select(self, ~out), select(self, out)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        return Counter(self.group)


def select(cells: Cells, keep: np.ndarray) -> Cells:
    group = tuple(g for g, k in zip(cells.group, keep, strict=True) if k)
    upper = None if cells.log_upper is None else cells.log_upper[keep]
    return Cells(cells.log_measure[keep], cells.log_predictors[keep], group, cells.trials[keep], upper)


def with_levels(columns: np.ndarray, group: Sequence[str], labels: Sequence[str]) -> Design:
    """A design [cells, columns and labels] that gives each group a level of its own; labels: sorted, all that there are."""
    return Design(columns, np.searchsorted(np.asarray(labels, dtype=str), np.asarray(group, dtype=str)), len(labels))


def average_cells(
    measure: np.ndarray, predictors: Mapping[str, np.ndarray], cell: Sequence[str] | np.ndarray, group: Sequence[str],
    upper: np.ndarray | None = None,
) -> Cells:  # fmt: skip
    """Mean log measure of each cell. All arrays are [trials]; predictors must be positive, measure too without upper.
    upper: upper end of each measure, positive; measure is then the lower end, and one at or below 0 is none."""
    names, first, index = np.unique(np.asarray(cell), return_index=True, return_inverse=True)
    trials = np.bincount(index, minlength=len(names))
    measure = np.asarray(measure)
    lows = np.where(measure > 0, np.log(np.where(measure > 0, measure, 1.0)), -np.inf)
    ends = [lows] if upper is None else [lows, np.log(upper)]
    means = [np.bincount(index, weights=logs, minlength=len(names)) / trials for logs in ends]
    every = np.stack([np.log(np.asarray(x, dtype=float)) for x in predictors.values()], axis=1)
    logs = every[first]
    for i in np.flatnonzero(~((every == logs[index]) | np.isnan(every)).all(axis=1))[:1]:
        got = f"got {' and '.join(f'{math.exp(row[0]):.10g}' for row in (logs[index[i]], every[i]))} in cell {names[index[i]]!s}"
        raise ValueError(f"the rows of a cell must be of one {' and '.join(predictors)}, {got}. Give another cell=.")
    return Cells(means[0], logs, tuple(group[i] for i in first), trials, means[1] if upper is not None else None)


@dataclass(frozen=True)
class SizeMeans:
    """One value for each size: what its cells share once the levels of their groups are taken out.
    log_measure, log_size: [sizes]. levels: of each group beside these values. own_variance: by group, the variance of a new
    cell beyond that of its size's value, known with own_degrees of freedom. slopes_p: p value of equal slopes over log
    size in every group; None where it cannot be tested. apart: cells left out because no chain of groups with common sizes leads to them."""

    log_measure: np.ndarray
    log_size: np.ndarray
    levels: Mapping[str, float]
    own_variance: Mapping[str, float]
    own_degrees: int
    slopes_p: float | None
    apart: int


def size_means(cells: Cells) -> SizeMeans:
    """Average the cells of each size (the first predictor), each freed of its group's level."""
    kept = largest_piece(cells.group, cells.log_predictors[:, 0])
    cells = select(cells, kept)
    log_size, labels = cells.log_predictors[:, 0], sorted(cells.counts)
    sizes = np.unique(log_size)
    fit = fit_additive(cells.log_measure, cells.group, log_size)
    shared = 1 - len(sizes) / len(cells.group)
    return SizeMeans(
        log_measure=fit.effects, log_size=sizes, levels=fit.levels,
        own_variance={g: fit.spread**2 * shared * (1 + 1 / cells.counts[g]) for g in labels},
        own_degrees=len(cells.group) - len(sizes) - len(labels) + 1,
        slopes_p=equal_slopes_p(cells.log_measure, cells.group, log_size, log_size) if len(labels) > 1 else None,
        apart=int((~kept).sum()),
    )  # fmt: skip
