"""Values known only as intervals: a certified margin, a shortfall under an uncertain optimum, GNC1 at the float floor. Such a
value enters a fit as its expected value between its bounds, given the fit; no midpoint replaces it."""

import numpy as np
from scipy.special import ndtr

from analysis.statistics.huber import Design, LinearFit, fit_linear

ROUNDS = 40
NARROW = 1e-3  # of the logarithm: certified bounds closer than this are one number
MOST_CENSORED = 0.5  # share of cells; with more of them the fit would mostly be fitted to its own expectations


def complete(design: np.ndarray | Design, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, float]:
    """Replace intervals by their expectation under a linear fit and Gaussian noise, until the two agree.
    design: [n, p]. low, high: [n] ends of the log values; -inf where there is no lower end. Gives the values, and the share
    of intervals wider than the spread of the values about the fit, which say little of where one lies. ValueError: an upper end
    that is not finite, or below its lower end.
    Source: Schmee and Hahn, Technometrics 21 (1979): iterated least squares for censored data, here by Huber's loss."""
    if not (np.isfinite(high) & (low <= high)).all():
        raise ValueError("low must be at most high, and high finite, got another order. Leave such values out.")
    wide = (high - low) > NARROW
    target = np.where(np.isfinite(low), (np.maximum(low, high - 2.0) + high) / 2, high)
    if not wide.any():
        return target, 0.0
    design = design if isinstance(design, Design) else Design(design)
    if (exact := design.select(~wide)).shape[0] > design.shape[1] and exact.has_full_rank():
        start = design.at(fit_linear(exact, target[~wide]).coefficients)
        target = np.where(wide, np.clip(start, low, high), target)
    for _ in range(ROUNDS):
        fit = fit_linear(design, target)
        updated = _expected(target - fit.residuals, _scale(fit, wide), low, high, target, wide)
        moved = float(np.abs(updated - target).max())
        target = updated
        if moved < 1e-6:
            break
    return target, float((wide & (high - low > _scale(fit, wide))).mean())


def _scale(fit: LinearFit, wide: np.ndarray) -> float:
    """Spread of the exact values around the fit; of all where too few are exact."""
    exact = fit.residuals[~wide]
    return max(float(np.median(np.abs(exact)) / 0.6745) if len(exact) > 3 else fit.scale, 1e-6)


def _expected(
    middle: np.ndarray, scale: float, low: np.ndarray, high: np.ndarray, target: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    updated = target.copy()
    a, b = (low[wide] - middle[wide]) / scale, (high[wide] - middle[wide]) / scale
    density = [np.exp(-np.minimum(x * x, 1400.0) / 2) / np.sqrt(2 * np.pi) for x in (a, b)]
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = middle[wide] + scale * (density[0] - density[1]) / (ndtr(b) - ndtr(a))
    # far out in a tail the expectation is the nearer end, where the formula loses its digits
    tail = ~np.isfinite(inside) | (a > 5) | (b < -5)
    inside = np.clip(inside, low[wide], high[wide])
    updated[wide] = np.where(tail, np.clip(middle[wide], low[wide], high[wide]), inside)
    return updated
