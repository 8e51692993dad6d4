"""Bounds of the best one-vs-rest margin that have a formula: simplex, orthoplex, Levenshtein, the GNC theorem."""

import math
from collections.abc import Callable

import numpy as np


def check_sizes(num_classes: int, feature_dim: int, *, least_dim: int = 1) -> None:
    """ValueError unless there are at least two classes and one dimension, or `least_dim` of them, in whole numbers."""
    for name, value in (("num_classes", num_classes), ("feature_dim", feature_dim)):
        if value % 1:  # or NaN
            raise ValueError(f"{name} must be a whole number, got {value!r}.")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes!r}. One class has no rest to be far from.")
    if feature_dim < least_dim:
        raise ValueError(f"feature_dim must be at least {least_dim}, got {feature_dim!r}.")


def polygon_margin(num_classes: int) -> float:
    """The best margin in two dimensions, that of the regular polygon: 1 - cos(2 pi / K)."""
    return 2.0 * math.sin(math.pi / num_classes) ** 2


def simplex_orthoplex_bound(num_classes: int, feature_dim: int) -> float:
    """Rankin's bounds as margins: K/(K-1) up to d+1 classes, 1 from d+2 on; exact up to 2d classes."""
    check_sizes(num_classes, feature_dim)
    if feature_dim == 1 and num_classes > 2:
        return 0.0
    return num_classes / (num_classes - 1) if num_classes <= feature_dim + 1 else 1.0


def theorem_bounds(num_classes: int, feature_dim: int) -> tuple[float, float]:
    """Lower and upper bound of rho*(d, K) from the GNC paper, a Euclidean distance, d at least 2; valid and very loose.
    `1/2 [sqrt(pi)/K G((d+1)/2)/G(d/2+1)]^(2/(d-1))` and `2 [2 sqrt(pi)/K G((d+1)/2)/G(d/2)]^(1/(d-1))`, G the Gamma
    function. Source: Jiang et al., Generalized Neural Collapse for a Large Number of Classes, arXiv 2310.05351."""
    check_sizes(num_classes, feature_dim, least_dim=2)
    d = feature_dim
    start = 0.5 * math.log(math.pi) - math.log(num_classes) + math.lgamma((d + 1) / 2)
    lower = 0.5 * math.exp(2 / (d - 1) * (start - math.lgamma(d / 2 + 1)))
    upper = 2.0 * math.exp(1 / (d - 1) * (start + math.log(2) - math.lgamma(d / 2)))
    return lower, upper


def asymptotic_exponent(feature_dim: int) -> float:
    """Power of K with which rho*(d, K) falls as K grows without end: -2/(d-1).
    At the sizes trained here the curve is not yet there: chord slopes of the best codes are -.214 to -.255 in d = 8
    (K 64 to 240), where this gives -.286."""
    if feature_dim < 2:
        raise ValueError(f"feature_dim must be at least 2, got {feature_dim!r}. On a line more than 2 rows coincide.")
    return -2.0 / (feature_dim - 1)


def levenshtein_margin_bound(num_classes: int, feature_dim: int) -> float:
    """Levenshtein's upper bound of 1 - max cosine, and so of the one-vs-rest margin (docs/margins.md); d at least 2.
    `1 - s` with s the cosine at which his bound on the size of a spherical code equals K, rounded outward by 1e-12. It
    may exceed 1 for K < 2d, where Rankin's bound is the sharper one.
    Source: V. I. Levenshtein, Universal bounds for codes and designs, Handbook of Coding Theory (1998), section 5."""
    check_sizes(num_classes, feature_dim, least_dim=2)
    if feature_dim == 2:
        return polygon_margin(num_classes)
    strength = 1
    while _design_size(feature_dim, strength + 1) <= num_classes:
        strength += 1
    low, high, size_at = _levenshtein_piece(feature_dim, strength)
    for _ in range(80):
        middle = 0.5 * (low + high)
        # not(...): NaN, met only at the piece's very end, counts as too large
        low, high = (middle, high) if size_at(middle) < num_classes else (low, middle)
    return 1.0 - low + 1e-12


def _design_size(dim: int, strength: int) -> int:
    """Least size of a spherical design (Delsarte, Goethals, Seidel): where Levenshtein's pieces meet."""
    half = strength // 2
    if strength % 2:
        return 2 * math.comb(dim + half - 1, dim - 1)
    return math.comb(dim + half - 1, dim - 1) + math.comb(dim + half - 2, dim - 1)


def _levenshtein_piece(dim: int, strength: int) -> tuple[float, float, Callable[[float], float]]:
    """Interval of cosines of one piece of the bound, and the piece itself."""
    alpha, k, odd = (dim - 1) / 2, (strength + 1) // 2, strength % 2
    low = _largest_jacobi_root(k - odd, alpha, alpha - (1 - odd))
    high = _largest_jacobi_root(k, alpha, alpha - odd)
    scale, shift = float(math.comb(k + dim - 2 - odd, k - odd)), (2 * (k - odd) + dim - 1) / (dim - 1)

    def piece(s: float) -> float:
        p = _gegenbauer(dim, k + 1, s)
        if odd:
            return scale * (shift - (p[k - 1] - p[k]) / ((1 - s) * p[k]))
        return scale * (shift - (1 + s) * (p[k] - p[k + 1]) / ((1 - s) * (p[k] + p[k + 1])))

    return low, high, piece


def _gegenbauer(dim: int, degree: int, t: float) -> list[float]:
    """Gegenbauer polynomials of degrees 0 to `degree` in `dim` dimensions, 1 at t = 1."""
    values = [1.0, t]
    for i in range(1, degree):
        values.append(((2 * i + dim - 2) * t * values[i] - i * values[i - 1]) / (i + dim - 2))
    return values


def _largest_jacobi_root(degree: int, alpha: float, beta: float) -> float:
    """Largest zero of the Jacobi polynomial, by Golub and Welsch; -1 for degree 0, where the first piece begins."""
    if degree == 0:
        return -1.0
    n = np.arange(degree, dtype=float)
    total = 2 * n + alpha + beta
    m, both = n[1:], total[1:]
    squares = 4 * m * (m + alpha) * (m + beta) * (m + alpha + beta) / (both**2 * (both + 1) * (both - 1))
    diagonal, side = (beta**2 - alpha**2) / (total * (total + 2)), np.sqrt(squares)
    return float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(side, 1) + np.diag(side, -1))[-1])
