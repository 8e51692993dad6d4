"""Means with Student intervals and paired tests: the small statistics that effects, contrasts and laws share."""

import numpy as np
from scipy.stats import t as student_t

LEVEL = 0.95
MIN_SEEDS = 5  # of a claim about seeds
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
