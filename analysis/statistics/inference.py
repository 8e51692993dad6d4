"""Means with Student intervals, mixtures of them, paired tests and Holm's correction, with the least data each needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit
from scipy.stats import nct
from scipy.stats import t as student_t

LEVEL = 0.95
POWER = 0.8  # chance of finding a difference that is called detectable
MIN_SEEDS = 5  # of a claim about seeds
MIN_CELLS = 5  # of an interval over cells
MIN_SIZES = 3  # of a trend: values of its predictor
BISECTIONS = 40
ROUNDING = 1e-14  # gaps below it are the last bits of numbers about 1, however regular


def p_text(p: float) -> str:
    """A p value in words; below what floating point tells it is no number."""
    return f"p = {p:.1g}" if p >= 1e-16 else "p below 1e-16"


def mean_interval(numbers: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and the ends of its LEVEL Student interval; no ends under two numbers, NaN without any."""
    if len(numbers) < 2:
        return (float(numbers[0]) if len(numbers) else float("nan")), None, None
    half = float(student_t.ppf((1 + LEVEL) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return float(numbers.mean()), float(numbers.mean()) - half, float(numbers.mean()) + half


@dataclass(frozen=True)
class Expected:
    """Where new values lie: Student's t about `middle` [n], scaled by `spread` [n], with `degrees` of freedom ([n] or one)."""

    middle: np.ndarray
    spread: np.ndarray
    degrees: np.ndarray | float


class Weight(NamedTuple):
    """Of a part of a mixture: in the expected value, where it is divided by the part's variance, and in the interval."""

    value: float = 1.0
    interval: float = 1.0


def mixed_interval(parts: Sequence[tuple[Expected, Weight]], level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted mean, and the ends of the central interval of the mixture of the parts, [n] each."""
    middles = np.stack([part.middle for part, _ in parts])
    spreads = np.maximum([part.spread for part, _ in parts], 1e-12)
    of_value, weights = np.array([weight for _, weight in parts]).T[..., None]
    of_value = of_value / (spreads / spreads.min(axis=0)) ** 2
    weights = weights / weights.sum()
    degrees = np.stack([np.broadcast_to(part.degrees, part.middle.shape) for part, _ in parts])
    shares = np.array([(1 - level) / 2, (1 + level) / 2])[:, None, None]
    own = middles + spreads * stdtrit(degrees, shares)
    low, high = own.min(axis=1), own.max(axis=1)  # the mixture's quantiles lie between those of its parts
    for _ in range(BISECTIONS if len(parts) > 1 else 0):
        middle = (low + high) / 2
        is_below = (weights * stdtr(degrees, (middle[:, None] - middles) / spreads)).sum(axis=1) < shares[:, 0]
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    mean = (of_value * middles).sum(axis=0) / of_value.sum(axis=0)
    return mean, np.minimum(high[0], mean), np.maximum(high[1], mean)


def sizes_needed(half: float, sizes: int, parameters: int, wanted: float, *, most: int = 60) -> int | None:
    """How many sizes over the same range bring an interval's half width below `wanted`, if the scatter stays; None: over most.
    The half width goes as Student's quantile over the square root of the number of sizes."""
    unit = half * np.sqrt(sizes) / student_t.ppf((1 + LEVEL) / 2, sizes - parameters)
    for more in range(sizes + 1, most + 1):
        if unit * student_t.ppf((1 + LEVEL) / 2, more - parameters) / np.sqrt(more) < wanted:
            return more
    return None


def paired_p(gaps: np.ndarray) -> float:
    """Two-sided p value of a paired t test that the mean gap is zero; NaN under MIN_SEEDS gaps."""
    if len(gaps) < MIN_SEEDS:
        return float("nan")
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    if np.abs(gaps).max() < ROUNDING or error == 0:
        return float(np.abs(gaps).max() < ROUNDING)
    return float(2 * student_t.sf(abs(gaps.mean()) / error, len(gaps) - 1))


def equivalence_bound(gaps: np.ndarray) -> float:
    """Smallest bound that the absolute mean gap is shown to stay below, by two one-sided t tests at 1 - LEVEL.
    It is the far end of the interval at 2 LEVEL - 1 (90 %). NaN under MIN_SEEDS gaps.
    Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987)."""
    if len(gaps) < MIN_SEEDS:
        return float("nan")
    return float(abs(gaps.mean()) + student_t.ppf(LEVEL, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))


def detectable_gap(gaps: np.ndarray) -> float:
    """Smallest true mean gap that a paired t test at 1 - LEVEL finds with POWER; NaN under MIN_SEEDS gaps."""
    if len(gaps) < MIN_SEEDS:
        return float("nan")
    critical = student_t.ppf((1 + LEVEL) / 2, len(gaps) - 1)
    shift = brentq(lambda x: nct.sf(critical, len(gaps) - 1, x) - POWER, 0.0, 4 * critical)
    return float(shift * gaps.std(ddof=1) / np.sqrt(len(gaps)))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm-adjusted p values, in the order given; NaN (not tested) stays NaN and does not count.
    ValueError: a value outside 0..1.
    Source: Holm, Scandinavian Journal of Statistics 6 (1979)."""
    raw = np.asarray(p_values, dtype=float)
    tested = np.flatnonzero(~np.isnan(raw))
    if ((raw[tested] < 0) | (raw[tested] > 1)).any():
        raise ValueError(f"p_values must lie in 0..1, got {list(map(float, raw))[:5]!r}. Leave untested ones NaN.")
    adjusted = np.full(len(raw), np.nan)
    order = tested[np.argsort(raw[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1.0)
    return adjusted
