"""Means with Student intervals, paired tests and Holm's correction, with the least data that each needs."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

LEVEL = 0.95
MIN_SEEDS = 5  # of a claim about seeds
MIN_CELLS = 5  # of an interval over cells
MIN_SIZES = 3  # of a trend: values of its predictor
ROUNDING = 1e-14  # gaps below it are the last bits of numbers about 1, however regular


def mean_interval(numbers: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and the ends of its LEVEL Student interval; no ends under two numbers, NaN without any."""
    if len(numbers) < 2:
        return (float(numbers[0]) if len(numbers) else float("nan")), None, None
    half = float(student_t.ppf((1 + LEVEL) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return float(numbers.mean()), float(numbers.mean()) - half, float(numbers.mean()) + half


def paired_p(gaps: np.ndarray) -> float:
    """Two-sided p value of a paired t test that the mean gap is zero; NaN under MIN_SEEDS gaps."""
    if len(gaps) < MIN_SEEDS:
        return float("nan")
    if np.abs(gaps).max() < ROUNDING:
        return 1.0
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    if error == 0:
        return 1.0 if gaps[0] == 0 else 0.0
    return float(2 * student_t.sf(abs(gaps.mean()) / error, len(gaps) - 1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm-adjusted p values, in the order given; the chance of any false rejection stays below the level.

    Args:
        p_values: each in 0..1; NaN (not tested) stays NaN and does not count.
    Raises:
        ValueError: a value outside 0..1.
    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    raw = np.asarray(p_values, dtype=float)
    tested = np.flatnonzero(~np.isnan(raw))
    if ((raw[tested] < 0) | (raw[tested] > 1)).any():
        raise ValueError(f"p_values must lie in 0..1, got {list(map(float, raw))[:5]!r}. Leave untested ones NaN.")
    adjusted = np.full(len(raw), np.nan)
    order = tested[np.argsort(raw[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1.0)
    return adjusted
