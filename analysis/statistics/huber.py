"""Huber regression: linear fits that one outlier cannot bend, for many right-hand sides at once, and their errors.

Each row is a cell whose seeds were averaged already, so rows are independent. Knows numpy only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]  # weights, targets [batch, n] -> coefficients [batch, p]
ROUNDS = 60
# 1.345 residual scales keep 95 % of least squares' precision on Gaussian noise (Huber 1964).
HUBER_SCALES = 1.345
FLOOR = 1e-12  # threshold of data without noise


@dataclass(frozen=True)
class LinearFit:
    """coefficients [p] with their covariance [p, p], residuals [n], leverages [n] in 0..1, the Huber threshold used."""

    coefficients: np.ndarray
    residuals: np.ndarray
    leverages: np.ndarray
    covariance: np.ndarray
    threshold: float

    @property
    def standard_errors(self) -> np.ndarray:
        """HC3 errors [p]."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    @property
    def scale(self) -> float:
        """Robust spread of a residual, for the degrees of freedom left."""
        return self.threshold / HUBER_SCALES


def fit_linear(design: np.ndarray, target: np.ndarray) -> LinearFit:
    """Minimise the summed Huber loss of `target - design @ coefficients`.

    Args:
        design: [n, p], full column rank. target: [n].
    Returns:
        The fit; its threshold is HUBER_SCALES robust residual scales of a first fit by least absolute deviations.
    Source: Huber, Ann. Math. Statist. 35 (1964); HC3 errors: MacKinnon and White, J. Econometrics 29 (1985).
    """
    rough = _reweighted(design, target[None], 0.0)[0]
    spread = np.abs(target - design @ rough)
    degrees = max(len(target) - design.shape[1], 1)
    # least absolute deviations passes through p rows exactly: the median is taken over the others
    scale = float(np.median(np.sort(spread)[-degrees:])) / 0.6745
    coefficients, pulls, residuals, leverages = _fits_with_pulls(design, target[None], HUBER_SCALES * scale)
    return LinearFit(coefficients[0], residuals[0], leverages[0], pulls[0].T @ pulls[0], HUBER_SCALES * scale)


def huber_losses(design: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
    """The least summed Huber loss of every row of targets [batch, n]: the inner half of variable projection."""
    residuals = np.abs(targets - _reweighted(design, targets, threshold) @ design.T)
    bent = np.where(residuals <= threshold, residuals**2 / 2, threshold * (residuals - threshold / 2))
    return np.asarray(bent.sum(axis=1))


def wild_bootstrap_t(design: np.ndarray, fit: LinearFit, *, samples: int, seed: int) -> np.ndarray:
    """Studentised deviations of wild bootstrap refits, the spread that a coefficient's t statistic really has.

    Args:
        design: [n, p] of the fit. samples: refits. seed: of the random signs; same seed, same numbers.
    Returns:
        t [samples, p].
    Source: Cameron, Gelbach and Miller, Rev. Econ. Stat. 90 (2008); six-point weights: Webb, QED 1315 (2014).
    """
    webb = np.sqrt([0.5, 1.0, 1.5])
    signs = np.random.default_rng(seed).choice(np.concatenate([-webb, webb]), size=(samples, len(design)))
    # residuals shrink by sqrt(1 - leverage) in the fit: undone, or few cells look more certain than they are
    noise = fit.residuals / np.sqrt(1 - fit.leverages)
    fitted = design @ fit.coefficients
    coefficients, pulls, _, _ = _fits_with_pulls(design, fitted + signs * noise, fit.threshold)
    errors = np.sqrt((pulls**2).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num((coefficients - fit.coefficients) / errors)


def _fits_with_pulls(
    design: np.ndarray, targets: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients [batch, p], the HC3 pulls on them [batch, n, p], residuals and leverages of targets [batch, n]."""
    coefficients = _reweighted(design, targets, threshold)
    residuals = targets - coefficients @ design.T
    # beyond the threshold the loss is linear and has no curvature; a tenth of the curvature is left to such cells, so that
    # the matrix stays invertible when few cells lie inside
    hold = np.maximum(np.abs(residuals) <= max(threshold, FLOOR) * (1 + 1e-9), 0.1)
    inverse = np.linalg.inv(_gram(design, hold))
    projected = design @ inverse  # [batch, n, p]: the inverse is symmetric
    leverages = np.clip((projected * design).sum(axis=2) * hold, 0.0, 1 - 1e-9)
    pull = _huber_weights(residuals, threshold) * residuals
    return coefficients, projected * (pull / (1 - leverages))[..., None], residuals, leverages


def _reweighted(design: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
    """Iteratively reweighted least squares; threshold 0 is least absolute deviations, smoothed at round-off."""
    solve = _group_means(design) if _is_one_hot(design) else _solve_of(design)
    weights = np.ones_like(targets)
    floor = max(threshold, 1e-9 * (1 + float(np.abs(targets).max(initial=0.0))))
    coefficients = np.zeros((len(targets), design.shape[1]))
    for _ in range(ROUNDS):
        updated = solve(weights, targets)
        moved = float(np.abs(updated - coefficients).max())
        coefficients = updated
        if moved < 1e-12 * (1 + float(np.abs(updated).max())):
            break
        weights = _huber_weights(targets - coefficients @ design.T, floor)
    return coefficients


def _gram(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(design.T @ (weights[..., None] * design))


def _solve_of(design: np.ndarray) -> Solve:
    """Weighted least squares of every row of targets."""
    return lambda weights, targets: np.asarray(
        np.linalg.solve(_gram(design, weights), ((weights * targets) @ design)[..., None])[..., 0]
    )


def _is_one_hot(design: np.ndarray) -> bool:
    return bool(((design == 0) | (design == 1)).all() and (design.sum(axis=1) == 1).all() and design.any(axis=0).all())


def _group_means(design: np.ndarray) -> Solve:
    """The same where columns only say which group a row is in: means, in time that does not grow with the groups."""
    member = design.argmax(axis=1)
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(design.shape[1]))

    def means(weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        sums = np.add.reduceat((weights * targets)[:, order], starts, axis=1)
        return np.asarray(sums / np.add.reduceat(weights[:, order], starts, axis=1))

    return means


def _huber_weights(residuals: np.ndarray, threshold: float) -> np.ndarray:
    floor = max(threshold, FLOOR)
    return floor / np.maximum(np.abs(residuals), floor)
