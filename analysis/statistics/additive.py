"""Additive layouts: what blocks share is told from the levels of groups, and columns are tested for what they add."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import f as fisher_f

from analysis.statistics.huber import fit_linear

EXACT = 1e-9  # residuals below this are the rounding of an exact law


@dataclass(frozen=True)
class Additive:
    """The fit of `target = level[group] + effect[block]`, the effect of the first block being 0.
    effects: [blocks] in sorted order. levels: by group. spread: of one residual, robust. design: [n, groups and blocks]."""

    effects: np.ndarray
    levels: Mapping[str, float]
    spread: float
    design: np.ndarray


def fit_additive(target: np.ndarray, group: Sequence[str], block: np.ndarray) -> Additive:
    """Tell groups (a label of each entry) from blocks (the number that entries of one block share) by summed Huber loss.
    target, block: [n]. All entries are of one piece; with every pair present, effects are robust means over the groups."""
    labels, own = np.unique(np.asarray(group, dtype=str), return_inverse=True)
    blocks, index = np.unique(block, return_inverse=True)
    design = np.concatenate([np.eye(len(labels))[own], np.eye(len(blocks))[index][:, 1:]], axis=1)
    if len(target) > design.shape[1]:
        fit = fit_linear(design, target)
        coefficients, spread = fit.coefficients, fit.scale
    else:
        coefficients, spread = np.linalg.solve(design, target), 0.0
    levels = dict(zip(map(str, labels), map(float, coefficients), strict=False))
    return Additive(np.array([0.0, *coefficients[len(labels) :]]), levels, spread, design)


def largest_piece(group: Sequence[str], block: np.ndarray) -> np.ndarray:
    """Which entries are of the largest piece, a set of groups that chains of shared blocks connect."""
    labels, own = np.unique(np.asarray(group, dtype=str), return_inverse=True)
    blocks, index = np.unique(block, return_inverse=True)
    ties = csr_matrix((np.ones(len(own)), (own, len(labels) + index)), shape=(len(labels) + len(blocks),) * 2)
    piece = connected_components(ties, directed=False)[1][own]
    return np.asarray(piece == np.bincount(piece).argmax())


def added_columns_p(target: np.ndarray, base: np.ndarray, extra: np.ndarray) -> float | None:
    """p value of the F test that extra columns explain nothing beyond base; None where no degree of freedom is left."""
    entries, scale = len(target), EXACT * (1 + float(np.abs(target).max(initial=0.0)))
    rank, left = _least_squares(base, target)
    full_rank, full_left = _least_squares(np.concatenate([base, extra], axis=1), target)
    more, degrees = full_rank - rank, entries - full_rank
    if more <= 0 or degrees <= 0:
        return None
    if left <= entries * scale**2 or full_left <= entries * scale**2:
        return 1.0 if left <= entries * scale**2 else 0.0
    return float(fisher_f.sf((left - full_left) / more / (full_left / degrees), more, degrees))


def _least_squares(design: np.ndarray, target: np.ndarray) -> tuple[int, float]:
    """Rank of the design and the sum of squares that it leaves."""
    coefficients, _, rank, _ = np.linalg.lstsq(design, target, rcond=1e-10)
    return int(rank), float(((target - design @ coefficients) ** 2).sum())
