"""Huber regression: linear fits that one outlier cannot bend, for many right-hand sides at once, and their errors.

Each row is a cell whose seeds were averaged already, so rows are independent. Knows numpy only.
"""

from dataclasses import dataclass

import numpy as np

ROUNDS = 60
FEW_COLUMNS = 16  # up to so many, the products of all pairs of columns are made once
# 1.345 residual scales keep 95 % of least squares' precision on Gaussian noise (Huber 1964).
HUBER_SCALES = 1.345
FLOOR = 1e-12  # threshold of data without noise


@dataclass(frozen=True)
class LinearFit:
    """coefficients [p], their covariance [p, p], residuals [n], leverages [n] in 0..1, the Huber threshold, (X'X)^-1 [p, p]."""

    coefficients: np.ndarray
    residuals: np.ndarray
    leverages: np.ndarray
    covariance: np.ndarray
    threshold: float
    inverse_gram: np.ndarray

    @property
    def degrees(self) -> int:
        """Degrees of freedom left, at least 1."""
        return max(len(self.residuals) - len(self.coefficients), 1)

    @property
    def variance(self) -> float:
        """Of the noise, from all residuals: without the bias that `scale` has where few residuals are left."""
        return float(self.residuals @ self.residuals) / self.degrees

    @property
    def standard_errors(self) -> np.ndarray:
        """HC3 errors [p]."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    @property
    def scale(self) -> float:
        """Robust spread of a residual, for the degrees of freedom left."""
        return self.threshold / HUBER_SCALES


def fit_linear(design: np.ndarray, target: np.ndarray) -> LinearFit:
    """Minimise the summed Huber loss of `target - design @ coefficients`; design [n, p] of full column rank, target [n].

    The threshold is HUBER_SCALES robust residual scales of a first fit by least absolute deviations.
    Source: Huber, Ann. Math. Statist. 35 (1964); HC3 errors: MacKinnon and White, J. Econometrics 29 (1985).
    """
    rough = _reweighted(design, target[None], 0.0)[0]
    spread = np.abs(target - design @ rough)
    degrees = max(len(target) - design.shape[1], 1)
    # least absolute deviations passes through p rows exactly: the median is taken over the others
    scale = float(np.median(np.sort(spread)[-degrees:])) / 0.6745
    threshold = HUBER_SCALES * scale
    coefficients = _reweighted(design, target[None], threshold)[0]
    residuals = target - design @ coefficients
    hold, pull = _hold_and_pull(residuals, threshold)
    projected = design @ np.linalg.inv(_gram(design, hold))
    leverages = np.clip((projected * design).sum(axis=1) * hold, 0.0, 1 - 1e-9)
    pulls = projected * (pull / (1 - leverages))[:, None]
    inverse = np.linalg.inv(_gram(design, np.ones(len(target))))
    return LinearFit(coefficients, residuals, leverages, pulls.T @ pulls, threshold, inverse)


def clustered_covariance(design: np.ndarray, fit: LinearFit, cluster: np.ndarray) -> np.ndarray:
    """Covariance [p, p] where the residuals of a cluster [n] may have anything in common.

    Source: CR3 of Bell and McCaffrey, Survey Methodology 28 (2002), their jackknife form.
    """
    hold, pull = _hold_and_pull(fit.residuals, fit.threshold)
    inverse = np.linalg.inv(_gram(design, hold))
    scores = []
    for name in np.unique(cluster):
        own = design[cluster == name]
        apart = np.eye(len(own)) - own @ inverse @ (own * hold[cluster == name, None]).T
        scores.append(own.T @ np.linalg.lstsq(apart, pull[cluster == name], rcond=1e-9)[0])
    pulls = np.stack(scores) @ inverse
    return np.asarray(pulls.T @ pulls)


def huber_losses(design: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
    """The least summed Huber loss of every row of targets [batch, n]: the inner half of variable projection."""
    residuals = np.abs(targets - _reweighted(design, targets, threshold) @ design.T)
    bent = np.where(residuals <= threshold, residuals**2 / 2, threshold * (residuals - threshold / 2))
    return np.asarray(bent.sum(axis=1))


def _hold_and_pull(residuals: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Curvature and slope of the loss at each residual."""
    # beyond the threshold there is no curvature; a tenth is left, so that a matrix of few cells inside stays invertible
    hold = np.maximum(np.abs(residuals) <= max(threshold, FLOOR) * (1 + 1e-9), 0.1)
    return hold, _huber_weights(residuals, threshold) * residuals


def _reweighted(design: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
    """Iteratively reweighted least squares; threshold 0 is least absolute deviations, smoothed at round-off."""
    weights = np.ones_like(targets)
    floor = max(threshold, 1e-9 * (1 + float(np.abs(targets).max(initial=0.0))))
    basis, triangle = np.linalg.qr(design)  # columns that are nearly alike and weights of 1e-9 together are singular
    columns = design.shape[1]
    few = columns <= FEW_COLUMNS
    products = (basis[:, :, None] * basis[:, None, :]).reshape(len(design), -1) if few else None
    coefficients = np.zeros((len(targets), columns))
    for _ in range(ROUNDS):
        gram = _gram(basis, weights) if products is None else (weights @ products).reshape(-1, columns, columns)
        updated = np.linalg.solve(gram, ((weights * targets) @ basis)[..., None])[..., 0]
        moved = float(np.abs(updated - coefficients).max())
        coefficients = updated
        if moved < 1e-12 * (1 + float(np.abs(updated).max())):
            break
        weights = _huber_weights(targets - coefficients @ basis.T, floor)
    return np.asarray(np.linalg.solve(triangle, coefficients.T).T)


def _gram(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(design.T @ (weights[..., None] * design))


def _huber_weights(residuals: np.ndarray, threshold: float) -> np.ndarray:
    floor = max(threshold, FLOOR)
    return floor / np.maximum(np.abs(residuals), floor)
