"""Additive layouts: what blocks share is told from the levels of groups, and whether the groups have one slope is tested.
Knows the Huber fit and scipy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import f as fisher_f

from analysis.statistics.huber import Design, Groups, fit_linear

EXACT = 1e-9  # residuals below this are the rounding of an exact law


@dataclass(frozen=True)
class Additive:
    """The fit of `target = level[group] + effect[block]`, the effect of the first block being 0.
    effects: [blocks] in sorted order. levels: by group. spread: of one residual, robust."""

    effects: np.ndarray
    levels: Mapping[str, float]
    spread: float


def fit_additive(target: np.ndarray, group: Sequence[str], block: np.ndarray) -> Additive:
    """Tell groups (a label of each entry) from blocks (the number that entries of one block share) by summed Huber loss.
    target, block: [n]. All entries are of one piece; with every pair present, effects are robust means over the groups."""
    labels, own = np.unique(np.asarray(group, dtype=str), return_inverse=True)
    blocks, index = np.unique(block, return_inverse=True)
    if len(labels) >= len(blocks):
        coefficients, spread = _solved(Design(np.eye(len(blocks))[index][:, 1:], own, len(labels)), target)
        coefficients = np.roll(coefficients, len(labels))
    else:  # the more numerous are eliminated
        found, spread = _solved(Design(np.eye(len(labels))[own][:, 1:], index, len(blocks)), target)
        first, rest = found[len(labels) - 1], found[len(labels) :]
        coefficients = np.concatenate([[first], found[: len(labels) - 1] + first, rest - first])
    levels = dict(zip(map(str, labels), map(float, coefficients), strict=False))
    return Additive(np.array([0.0, *coefficients[len(labels) :]]), levels, spread)


def _solved(design: Design, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients and the spread of a residual; exact where there are as many of them as entries."""
    if len(target) > design.shape[1]:
        fit = fit_linear(design, target)
        return fit.coefficients, fit.scale
    return np.linalg.solve(design.dense, target), 0.0


def largest_piece(group: Sequence[str], block: np.ndarray) -> np.ndarray:
    """Which entries are of the largest piece, a set of groups that chains of shared blocks connect."""
    labels, own = np.unique(np.asarray(group, dtype=str), return_inverse=True)
    blocks, index = np.unique(block, return_inverse=True)
    ties = csr_matrix((np.ones(len(own)), (own, len(labels) + index)), shape=(len(labels) + len(blocks),) * 2)
    piece = connected_components(ties, directed=False)[1][own]
    return np.asarray(piece == np.bincount(piece).argmax())


def equal_slopes_p(target: np.ndarray, group: Sequence[str], block: np.ndarray, along: np.ndarray) -> float | None:
    """p value of the F test that `along` has one slope in all groups, beside their levels and effects of the blocks.
    target, block, along: [n]; blocks tell what the groups share. None where no degree of freedom is left."""
    _, own = np.unique(np.asarray(group, dtype=str), return_inverse=True)
    _, index = np.unique(block, return_inverse=True)
    # groups have disjoint rows, so levels and slopes leave what each leaves; the blocks are solved for in what is left
    level = [np.eye(index.max() + 1)[index], target[:, None], along[:, None]]
    groups = Groups(own)
    level = [groups.centred(columns) for columns in level]
    steepness = groups.means(level[2] ** 2)
    is_steep = steepness > (EXACT * (1 + np.abs(along).max())) ** 2
    unit = level[2] / np.sqrt(np.where(is_steep, steepness, np.inf))[own]
    line = [columns - unit * groups.means(unit * columns)[own] for columns in level[:2]]
    most, levels = np.bincount(index).max(), int(own.max()) + 1
    rank, left = _solved_by_products(level[0], level[1][:, 0], most)
    full_rank, full_left = _solved_by_products(line[0], line[1][:, 0], most)
    return _f_test(target, levels + rank, left, levels + int(is_steep.sum()) + full_rank, full_left)


def _solved_by_products(design: np.ndarray, target: np.ndarray, most: int) -> tuple[int, float]:
    """Rank and what is left, as `_least_squares`; most: of the squares of a column before it was projected."""
    values, vectors = np.linalg.eigh(design.T @ design)
    kept = values > EXACT * most
    coefficients = vectors[:, kept] @ (vectors[:, kept].T @ (design.T @ target) / values[kept])
    return int(kept.sum()), float(((target - design @ coefficients) ** 2).sum())


def added_columns_p(target: np.ndarray, base: np.ndarray, extra: np.ndarray) -> float | None:
    """p value of the F test that extra columns explain nothing beyond base; None where no degree of freedom is left."""
    both = np.concatenate([base, extra], axis=1)
    return _f_test(target, *_least_squares(base, target), *_least_squares(both, target))


def _f_test(target: np.ndarray, rank: int, left: float, full_rank: int, full_left: float) -> float | None:
    entries, exact = len(target), len(target) * (EXACT * (1 + float(np.abs(target).max(initial=0.0)))) ** 2
    more, degrees = full_rank - rank, entries - full_rank
    if more <= 0 or degrees <= 0:
        return None
    if left <= exact or full_left <= exact:
        return 1.0 if left <= exact else 0.0
    return float(fisher_f.sf((left - full_left) / more / (full_left / degrees), more, degrees))


def _least_squares(design: np.ndarray, target: np.ndarray) -> tuple[int, float]:
    """Rank of the design and the sum of squares that it leaves."""
    coefficients, _, rank, _ = np.linalg.lstsq(design, target, rcond=1e-10)
    return int(rank), float(((target - design @ coefficients) ** 2).sum())
