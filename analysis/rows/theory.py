"""The margins that theory gives at (num_classes, feature_dim): curves that figures draw and fits compare with.

From below: the margin of random rows. From above: the best code known and the proven upper bound. Knows
`gnc_models.references.margin`; does not know rows.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gnc_models.references import margin as bounds


@dataclass(frozen=True)
class MarginCurves:
    """Reference margins over the number of classes at one feature_dim; arrays of equal length, NaN where unknown."""

    num_classes: np.ndarray
    random: np.ndarray
    best_known: np.ndarray
    upper_bound: np.ndarray


def margin_curves(num_classes: Iterable[int], feature_dim: int) -> MarginCurves:
    """The reference margins at each number of classes.

    Args:
        num_classes: any order, repeats allowed; the curves are sorted.
        feature_dim: dimension d of the unit vectors, at least 1.
    Returns:
        Random rows, best known code and proven bound.
    Source: `gnc_models.references.margin`; Jiang et al., arXiv 2310.05351 (the softmax code).
    """
    sizes = sorted({int(k) for k in num_classes if k >= 2})
    references = [bounds.reference_margin(k, feature_dim) for k in sizes]
    random = [bounds.random_margin(k, feature_dim) for k in sizes]
    return MarginCurves(
        num_classes=np.array(sizes, dtype=float),
        random=_floats(random),
        best_known=_floats([r.lower for r in references]),
        upper_bound=_floats([r.upper for r in references]),
    )


asymptotic_exponent = bounds.asymptotic_exponent


def sizes_between(num_classes: Iterable[int], *, most: int = 24) -> list[int]:
    """The sizes asked for and others between them, evenly spaced in the logarithm, so that a curve looks like one."""
    asked = sorted({int(k) for k in num_classes})
    if len(asked) < 2:
        return asked
    between = np.geomspace(asked[0], asked[-1], max(most - len(asked), 2))
    return sorted({*asked, *(round(k) for k in between)})


def best_known_curve(num_classes: np.ndarray, feature_dim: int) -> np.ndarray:
    """Margin of the best code known at each number of classes (rounded to whole classes)."""
    return _floats([_best_known(round(float(k)), feature_dim) for k in num_classes])


def levenshtein_curve(num_classes: np.ndarray, feature_dim: int) -> np.ndarray:
    """Levenshtein's upper bound of the margin at each number of classes (rounded to whole classes)."""
    return _floats([_levenshtein(round(float(k)), feature_dim) for k in num_classes])


@functools.cache  # a fit asks for the same few sizes again and again
def _best_known(num_classes: int, feature_dim: int) -> float:
    return float(bounds.reference_margin(num_classes, feature_dim).lower)


@functools.cache
def _levenshtein(num_classes: int, feature_dim: int) -> float:
    return float(bounds.levenshtein_margin_bound(num_classes, feature_dim))


def coldness(reference: np.ndarray, temperature: np.ndarray, num_classes: np.ndarray) -> np.ndarray:
    """reference / (temperature ln num_classes): how sharply cross-entropy sees the smallest margin; no unit."""
    return np.asarray(reference / (temperature * np.log(num_classes)))


def _floats(numbers: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in numbers], dtype=float)
