"""Signs in the residuals that a fit is wrong: a bend, noise that changes with size, a single cell that decides the fit.
They are warnings and decide nothing."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from analysis.statistics.additive import added_columns_p
from analysis.statistics.huber import LinearFit

MIN_RESIDUALS = 6
FAR = 3.5  # robust scales: beyond it a cell is called far off
LEAN = 0.9  # leverage beyond which the fit runs through the cell whatever its value


@dataclass(frozen=True)
class Diagnostics:
    """bend_p: p value of no parabola in the residuals over log size; spread_p: of no change of their size with log size.
    Both are None under MIN_RESIDUALS cells. far_off: share of cells beyond FAR robust scales. leverage: the largest, 0..1."""

    bend_p: float | None
    spread_p: float | None
    far_off: float
    leverage: float

    def warnings(self) -> list[str]:
        """What a reader should know, in a few words each; empty where nothing stands out."""
        signs = {
            "residuals bend with size": self.bend_p is not None and self.bend_p < 0.01,
            "noise changes with size": self.spread_p is not None and self.spread_p < 0.01,
            f"{self.far_off:.0%} of cells far off": self.far_off > 0.1,
            "one cell decides": self.leverage > LEAN,
        }
        return [warning for warning, shows in signs.items() if shows]


def diagnose(fit: LinearFit, log_size: np.ndarray) -> Diagnostics:
    """Diagnostics of a fit with one row per cell; log_size: [n], logarithm of the predictor that trends are read over."""
    far_off = float(np.mean(np.abs(fit.residuals) > FAR * max(fit.scale, 1e-12)))
    leverage = float(fit.leverages.max(initial=0.0))
    if len(log_size) < MIN_RESIDUALS or len(np.unique(log_size)) < 4 or np.ptp(fit.residuals) < 1e-12:
        return Diagnostics(None, None, far_off, leverage)
    spread = float(spearmanr(np.abs(fit.residuals), log_size).pvalue)
    return Diagnostics(_bend(fit.residuals, log_size), spread, far_off, leverage)


def _bend(residuals: np.ndarray, log_size: np.ndarray) -> float | None:
    """p value of the quadratic coefficient of clipped residuals, so that one outlier makes no bend."""
    scale = max(float(np.median(np.abs(residuals)) / 0.6745), 1e-12)
    x = (log_size - log_size.mean()) / log_size.std()
    line = np.stack([np.ones_like(x), x], axis=1)
    return added_columns_p(np.clip(residuals, -2 * scale, 2 * scale), line, x[:, None] ** 2)
