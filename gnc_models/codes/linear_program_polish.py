"""Balancing the closest pairs of a code exactly, by successive linear programs over tangent moves."""

import math

import numpy as np
import torch
from scipy import optimize, sparse
from torch import Tensor

from gnc_models.codes.code import Code
from gnc_models.shapes import Float


def polish_code(points: Float[Tensor, "classes dim"], *, rounds: int = 30) -> Code:
    """Largest 1 - max cosine near a code of unit rows, by successive linear programs over its close pairs.
    Each program moves every row within its tangent plane, inside a trust region, to lower the linearised largest
    cosine; at a jammed code the rounds converge quadratically. Cost grows fast beyond K d = 1500."""
    best = Code.of(points)
    radius = 1e-3 * math.sqrt(2 * max(best.margin_lower, 1e-6))
    for _ in range(rounds):
        moved = _linear_step(best.points.numpy(), radius)
        if moved is None:
            break
        trial = Code.of(torch.from_numpy(moved))
        gain = trial.margin_lower - best.margin_lower
        best = trial if gain > 0 else best
        radius *= 2.0 if gain > 0 else 0.1
        # rounding is all that is left to gain
        if radius < 1e-8 or 0 < gain < 1e-14:
            break
    return best


def _linear_step(points: Float[np.ndarray, "classes dim"], radius: float) -> Float[np.ndarray, "classes dim"] | None:
    """Minimise t over tangent moves with `<x_i + u_i, x_j> + <x_i, u_j> <= t` for every pair that could matter."""
    num_classes, dim = points.shape
    bases = _tangent_bases(points)
    cosines = points @ points.T
    first, second = np.triu_indices(num_classes, 1)
    close = cosines[first, second] > cosines[first, second].max() - 4 * radius
    first, second = first[close], second[close]
    ends, width = ((first, second), (second, first)), dim - 1
    entries = [np.einsum("pd,pdt->pt", points[other], bases[own]) for own, other in ends]
    columns = [own[:, None] * width + np.arange(width) for own, _ in ends]
    values = np.concatenate([*entries, -np.ones((len(first), 1))], axis=1)
    places = np.concatenate([*columns, np.full((len(first), 1), num_classes * width)], axis=1)
    rows = np.repeat(np.arange(len(first)), values.shape[1])
    matrix = sparse.csr_matrix((values.ravel(), (rows, places.ravel())), shape=(len(first), num_classes * width + 1))
    cost = np.zeros(num_classes * width + 1)
    cost[-1] = 1.0
    # in units of the radius, so that late, tiny steps are as well scaled as early ones
    slack = (cosines[first, second].max() - cosines[first, second]) / radius
    limits = [(-1.0, 1.0)] * (num_classes * width) + [(None, None)]
    answer = optimize.linprog(cost, matrix, slack, bounds=limits, method="highs", options={"time_limit": 20.0})
    if answer.x is None or answer.fun * radius > -1e-14:
        return None  # nothing to gain above rounding
    moves = radius * answer.x[:-1].reshape(num_classes, width)
    return points + np.einsum("kdt,kt->kd", bases, moves)


def _tangent_bases(points: Float[np.ndarray, "classes dim"]) -> Float[np.ndarray, "classes dim tangent"]:
    """Orthonormal basis of each row's tangent plane: the last columns of its Householder reflection."""
    signs = np.where(points[:, 0] >= 0, 1.0, -1.0)
    normal = points.copy()
    normal[:, 0] += signs
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return np.eye(points.shape[1])[None, :, 1:] - 2 * normal[:, :, None] * normal[:, None, 1:]
