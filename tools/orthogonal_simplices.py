"""Free features between d + 2 and 2 d classes, in closed form: orthogonal simplices, and two pairs with a pushed simplex.

Unit rows W and unit features H, one per class, logits `W h / temperature`. Knows NumPy and SciPy; searches for nothing.

* m = K - d regular simplices of p_1, ..., p_m rows (at least 2 each, K together) in orthogonal subspaces, with H = W. Every
  such split has margin 1. The loss of a class depends on K and on the size of its own simplex alone, so the best split at a
  temperature is a sum to be minimised over partitions of K. While it is warm the sizes are as even as can be; from
  `last_split_switch` down all simplices but one are pairs.
* For K = d + 2: two pairs and a simplex of d - 2 rows, all at an angle to one more axis, the pairs on one side and the simplex
  on the other. The margin is below 1, and from `push_switch` down the loss is below that of every split.

That nothing else is lower was searched for (tools.phase_diagram), not proven.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import logsumexp


def split_cold_loss(sizes: Sequence[int], temperature: float) -> float:
    """`temperature * log(mean cross-entropy)` in nats of orthogonal simplices of these sizes, at least 2 each."""
    counts = np.array(sizes)
    return _mean([_class_log_loss(p, sum(sizes), temperature) for p in sizes], counts, temperature)


def best_split(num_classes: int, feature_dim: int, temperature: float) -> tuple[int, ...]:
    """The sizes, ascending, of the K - d orthogonal simplices of least loss; K from d + 1 to 2 d."""
    parts = num_classes - feature_dim
    logs = {p: math.log(p) + _class_log_loss(p, num_classes, temperature) for p in range(2, num_classes + 1)}
    scale = max(logs.values())

    @functools.cache
    def best(left: int, parts: int, least: int) -> tuple[float, tuple[int, ...]]:
        if parts == 1:
            return (math.exp(logs[left] - scale), (left,)) if left >= least else (math.inf, ())
        tried = []
        for p in range(least, left // parts + 1):
            rest, sizes = best(left - p, parts - 1, p)
            tried.append((math.exp(logs[p] - scale) + rest, (p, *sizes)))
        return min(tried, default=(math.inf, ()))

    return best(num_classes, parts, 2)[1]


def split_switches(
    num_classes: int, feature_dim: int, *, hot: float = 2.0, cold: float = 0.02
) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """Where the best split changes as the temperature falls: the temperature, the sizes above it and those below it."""
    found = []
    grid = np.geomspace(hot, cold, 400)
    above = best_split(num_classes, feature_dim, hot)
    for warm, cool in itertools.pairwise(grid):
        while (below := best_split(num_classes, feature_dim, cool)) != above:
            # a third split may lie between: go to the first change
            low, high, target = cool, warm, below
            for _ in range(60):
                middle = math.sqrt(low * high)
                here = best_split(num_classes, feature_dim, middle)
                low, high, target = (low, middle, target) if here == above else (middle, high, here)
            found.append((low, above, target))
            above, warm = target, low
    return found


def splits(num_classes: int, feature_dim: int) -> list[tuple[int, ...]]:
    """The splits that are the best one somewhere between the temperatures 2 and 0.02, from hot to cold."""
    found = split_switches(num_classes, feature_dim)
    return [best_split(num_classes, feature_dim, 2.0), *(below for _, _, below in found)]


def simplices(sizes: Sequence[int]) -> np.ndarray:
    """Unit rows [K, d] of regular simplices of these sizes in orthogonal subspaces."""
    rows = np.zeros((sum(sizes), sum(sizes) - len(sizes)))
    row = column = 0
    for size in sizes:
        values, vectors = np.linalg.eigh(np.eye(size) - 1 / size)
        simplex = vectors[:, values > 0.5]
        rows[row : row + size, column : column + size - 1] = simplex / np.linalg.norm(simplex, axis=1, keepdims=True)
        row, column = row + size, column + size - 1
    return rows


def even_split(num_classes: int, feature_dim: int) -> tuple[int, ...]:
    """K - d sizes that differ by at most one."""
    parts = num_classes - feature_dim
    return tuple(sorted(num_classes // parts + (i < num_classes % parts) for i in range(parts)))


def balance_switch(feature_dim: int) -> float:
    """K = d + 2: where even simplices and a pair with a simplex of d rows have the same loss; d at least 4.

    For many dimensions it is 1 / x, where `x^2 / 4 = exp(-x) - 1 + x`: .391094. With K large the log loss of a class is, but for what all
    share, `(1 / K) (p - 1) (exp(-x / (p - 1)) - 1) + x / K`, so the sum over a simplex of 2 rows is `2 (exp(-x) - 1 + x)` and of one of many
    rows `x^2 / 2`: two large simplices, `x^2`, and a pair with a large one, `2 (exp(-x) - 1 + x) + x^2 / 2`, meet there.
    """
    even, uneven = even_split(feature_dim + 2, feature_dim), (2, feature_dim)
    difference = lambda tau: split_cold_loss(even, tau) - split_cold_loss(uneven, tau)
    return float(brentq(difference, 0.3, 0.9, xtol=1e-14))


def pushed_cold_loss(feature_dim: int, temperature: float) -> tuple[float, float]:
    """K = d + 2: `temperature * log(loss)` of two pairs and a pushed simplex of d - 2 rows, and its minimum margin.

    The row of a pair is `s u + sqrt(1 - s^2) e` for the axis u and a direction e of its own, its partner has -e; a row of the
    simplex is `t u + sqrt(1 - t^2) v` for a vertex v of a regular simplex. Features likewise, with angles of their own; the four
    angles are where the loss is stationary. No convex combination of the other rows has a positive component along e, and
    the middle of the other pair has the same one along u: the margin is `sqrt(1 - s^2)`.

    Args:
        feature_dim: d, at least 3.
        temperature: tau, above 0.
    """
    simplex = feature_dim - 2

    def value(angles: np.ndarray) -> float:
        pair, pair_feature, push, push_feature = angles
        if simplex == 1:  # a single row lies on the axis
            push = push_feature = -math.pi / 2
        to_pair = math.sin(pair_feature) * math.sin(pair)
        along = math.cos(pair_feature) * math.cos(pair)
        of_pair = _log_loss(
            [-2 * along, -along, math.sin(pair_feature) * math.sin(push) - to_pair - along],
            [1, 2, simplex],
            temperature,
        )
        own = math.sin(push_feature) * math.sin(push) + math.cos(push_feature) * math.cos(push)
        other = math.sin(push_feature) * math.sin(push) - math.cos(push_feature) * math.cos(push) / max(simplex - 1, 1)
        of_simplex = _log_loss(
            [other - own, math.sin(push_feature) * math.sin(pair) - own], [simplex - 1, 4], temperature
        )
        return _mean([of_pair, of_simplex], np.array([4, simplex]), temperature)

    start = min(0.5, math.sqrt(temperature))
    push = start / math.sqrt(simplex)
    found = [
        minimize(value, [scale * start, scale * start, -push, -push], method="BFGS", options={"gtol": 1e-11})
        for scale in (0.5, 1.0)
    ]
    best = min(found, key=lambda result: result.fun)
    return float(best.fun), abs(math.cos(best.x[0]))


def push_switch(feature_dim: int) -> float:
    """K = d + 2: below this temperature the pushed arrangement has a lower loss than a pair and a simplex; d at least 3.

    For many dimensions `1 / (d tau)` is `log d - log log d - log(kappa)`, kappa = 4 / (m^2 + 2 m) = 1.109218 and exp(m) = m + 2. With
    y = 1 / (d tau), the angles a of the pairs and q of the simplex, A = a^2 / tau and m = a q / tau, the sum of the losses over exp(-1 / tau)
    and d is 4 + d exp(-y) for the split and `8 exp(-m) + 8 exp(A) / d + d exp(-y) exp(m^2 / A)` for the pushed one. They are equal where
    `4 = 8 exp(-m) + 8 exp(A) / d + d exp(-y) (exp(m^2 / A) - 1)`, least over m and A: A is near log d, so with kappa = d exp(-y) / log d it
    is `4 = 8 exp(-m) + kappa m^2`. What is left falls like log log d / log d: .76 at d = 10,000, .09 at 1e40.
    """
    difference = lambda tau: split_cold_loss((2, feature_dim), tau) - pushed_cold_loss(feature_dim, tau)[0]
    return float(brentq(difference, 0.1 / feature_dim, 0.6 / feature_dim, xtol=1e-14))


def _class_log_loss(size: int, num_classes: int, temperature: float) -> float:
    return _log_loss([-size / (size - 1), -1.0], [size - 1, num_classes - size], temperature)


def _log_loss(gaps: Sequence[float], counts: Sequence[int], temperature: float) -> float:
    """log of `log(1 + sum of counts * exp(gaps / temperature))`."""
    kept = [(gap / temperature + math.log(count)) for gap, count in zip(gaps, counts, strict=True) if count]
    odds = float(logsumexp(kept))
    return odds if odds < -30 else math.log(np.logaddexp(0.0, odds))  # below -30 equal to rounding


def _mean(log_losses: Sequence[float], counts: np.ndarray, temperature: float) -> float:
    return temperature * float(logsumexp(np.array(log_losses) + np.log(counts / counts.sum())))
