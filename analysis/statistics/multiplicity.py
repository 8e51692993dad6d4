"""Several tests at once: p values that stay honest when a table asks many questions. Knows numpy only."""

from collections.abc import Sequence

import numpy as np


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
