"""Lays one spherical code over another by the rotation and matching of points under which they agree best: a learned code
equals the optimum only up to a rotation, a mirror image and the order of the classes. Knows numpy and scipy."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment

STARTS = 60
ROUNDS = 30


@dataclass(frozen=True)
class Alignment:
    """rotation [dim, dim]: `points @ rotation` lies over the target; match [points]: the target row of each point.
    angle: root mean square angle between matched unit rows, radians."""

    rotation: np.ndarray
    match: np.ndarray
    angle: float


def unit_rows(points: np.ndarray) -> np.ndarray:
    """Rows [n, dim] scaled to length 1; a zero row stays zero."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points / np.where(norms > 0, norms, 1.0), dtype=float)


def align(points: np.ndarray, target: np.ndarray) -> Alignment:
    """Rotate and match unit rows [n, dim] to a target code: the best of random starts; mirror images are allowed.
    ValueError: shapes differ.
    Source: iterated closest points with a one-to-one matching; Schoenemann, Psychometrika 31 (1966)."""
    if points.shape != target.shape:
        raise ValueError(f"points must have the shape of the target {target.shape}, got {points.shape!r}.")
    rng = np.random.default_rng(0)
    best_score, best = -np.inf, (np.eye(points.shape[1]), np.arange(len(points)))
    for _ in range(STARTS):
        rotation, _ = np.linalg.qr(rng.normal(size=(points.shape[1],) * 2))
        score, candidate = _settle(points, target, rotation)
        if score > best_score + 1e-12:
            best_score, best = score, candidate
        if best_score > len(points) * (1 - 1e-9):
            break
    rotation, match = best
    cosines = np.clip(((points @ rotation) * target[match]).sum(axis=1), -1, 1)
    return Alignment(rotation, match, float(np.sqrt(np.mean(np.arccos(cosines) ** 2))))


def _settle(
    points: np.ndarray, target: np.ndarray, rotation: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    match = np.full(len(points), -1)
    for _ in range(ROUNDS):
        _, found = linear_sum_assignment(points @ rotation @ target.T, maximize=True)
        if np.array_equal(found, match):
            break
        match = found
        rotation, _ = orthogonal_procrustes(points, target[match])
    return float(((points @ rotation) * target[match]).sum()), (rotation, match)
