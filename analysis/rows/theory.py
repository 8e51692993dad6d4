"""The margins that theory gives at (num_classes, feature_dim), which figures draw and fits compare with: of random rows, of
the best code known, and the proven bound. Knows `gnc_models.references.margin`; does not know rows."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gnc_models.references import margin as bounds

MOST_SIZES = 24  # of a curve between those that were asked for


@dataclass(frozen=True)
class MarginCurves:
    """Reference margins over the number of classes at one feature_dim; arrays of equal length, NaN where unknown."""

    num_classes: np.ndarray
    random: np.ndarray
    best_known: np.ndarray
    upper_bound: np.ndarray


def margin_curves(num_classes: Iterable[int], feature_dim: int) -> MarginCurves:
    """The reference margins at each number of classes, in any order; the curves are sorted. feature_dim: at least 1.
    Source: `gnc_models.references.margin`; Jiang et al., arXiv 2310.05351 (the softmax code)."""
    sizes = sorted({int(k) for k in num_classes if k >= 2})
    references = [bounds.reference_margin(k, feature_dim) for k in sizes]
    random = [bounds.random_margin(k, feature_dim) for k in sizes]
    columns = (sizes, random, [r.lower for r in references], [r.upper for r in references])
    return MarginCurves(*(np.array(column, dtype=float) for column in columns))


asymptotic_exponent = bounds.asymptotic_exponent


def sizes_between(num_classes: Iterable[int]) -> list[int]:
    """The sizes asked for and others between them, evenly spaced in the logarithm, so that a curve looks like one."""
    asked = sorted({int(k) for k in num_classes})
    if len(asked) < 2:
        return asked
    between = np.geomspace(asked[0], asked[-1], max(MOST_SIZES - len(asked), 2))
    return sorted({*asked, *(round(k) for k in between)})


def best_known_curve(num_classes: np.ndarray, feature_dim: int) -> np.ndarray:
    """Margin of the best code known at each number of classes (rounded to whole classes)."""
    return np.array([_references(round(float(k)), feature_dim)[0] for k in num_classes])


def levenshtein_curve(num_classes: np.ndarray, feature_dim: int) -> np.ndarray:
    """Levenshtein's upper bound of the margin at each number of classes (rounded to whole classes)."""
    return np.array([_references(round(float(k)), feature_dim)[1] for k in num_classes])


@functools.cache  # a fit asks for the same few sizes again and again
def _references(num_classes: int, feature_dim: int) -> tuple[float, float]:
    best = bounds.reference_margin(num_classes, feature_dim).lower
    return float(best), float(bounds.levenshtein_margin_bound(num_classes, feature_dim))


def coldness(reference: np.ndarray, temperature: np.ndarray, num_classes: np.ndarray) -> np.ndarray:
    """reference / (temperature ln num_classes): how sharply cross-entropy sees the smallest margin; no unit."""
    return np.asarray(reference / (temperature * np.log(num_classes)))
