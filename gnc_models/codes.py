"""Softmax codes: K unit rows in d dimensions whose margin is as large as can be found.

Knows torch, scipy and the reference tables; does not know data, training or the results folder.

    python -m gnc_models.codes find --classes 24 --dim 3 --starts 64 --seed 0      one code, its margin, the reference
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize, sparse
from torch import Tensor

from gnc_models.bounds import reference_margin
from gnc_models.families import FAMILIES, make_points, orthoplex, polygon, simplex
from gnc_models.margins import one_vs_rest_margins
from gnc_models.sphere_descent import Objective, minimise_on_spheres

# Sharpness of the soft maximum, in units of 1 / (margin expected): coarse enough to move points past each other at
# first, sharp enough at the end that its value is the maximum to about log(pairs) / sharpness.
SHARPNESS = (10.0, 40.0, 160.0, 640.0, 2560.0)
FINAL_SHARPNESS = (1e4, 4e4, 1.6e5, 6.4e5)
LARGEST_BATCH = 1 << 22  # cosines held at once
LARGEST_POLISH = 1500  # K d up to which linear programs are quick


@dataclass(frozen=True)
class Code:
    """Unit rows and what is certain about them: their minimum margin is at least 1 - max cosine."""

    points: Float[Tensor, "classes dim"]
    margin_lower: float

    @classmethod
    def of(cls, points: Float[Tensor, "classes dim"]) -> "Code":
        points = points.to(torch.float64)
        points = points / points.norm(dim=1, keepdim=True)
        return cls(points, 1.0 - max_cosine(points))


def make_code(name: str) -> Code:
    """An explicit code by its name in `families.FAMILIES`; ValueError for an unknown name."""
    return Code.of(torch.from_numpy(make_points(name)))


def explicit_code(num_classes: int, feature_dim: int) -> Code | None:
    """The best code that can be written down with at least K rows in at most d dimensions, cut and padded to (K, d).

    Args:
        num_classes: K, at least 2.
        feature_dim: d, at least 2.
    Returns:
        Simplex, polygon or orthoplex where they are optimal, else the listed family with the largest margin; None
        where no family is large enough. Dropping rows and adding dimensions keeps the margin.
    """
    _check(num_classes, feature_dim, 1)
    points = _optimal_points(num_classes, feature_dim)
    if points is None:
        fitting = [(d, k, make) for d, k, make in FAMILIES.values() if k >= num_classes and d <= feature_dim]
        if not fitting:
            return None
        # the reference knows each family's cosine without building it
        best = max(fitting, key=lambda family: reference_margin(family[1], family[0]).lower)
        points = best[2]()
    padded = np.zeros((num_classes, feature_dim))
    padded[:, : points.shape[1]] = points[:num_classes]
    return Code.of(torch.from_numpy(padded))


def _optimal_points(num_classes: int, feature_dim: int) -> Float[np.ndarray, "classes dim"] | None:
    if num_classes <= feature_dim + 1:
        return simplex(num_classes)
    if feature_dim == 2:
        return polygon(num_classes)
    return orthoplex(feature_dim)[:num_classes] if num_classes <= 2 * feature_dim else None


def spherical_code_of(weights: Float[Tensor, "classes dim"]) -> Code:
    """The spherical code u(W) of unit rows: its 1 - max cosine is at least the margin of W (docs/margins.md).

    With h_k the unit direction from the hull of the others to w_k, walk from w_k + h_k along h_k to the sphere of
    radius 2 and halve. This turns a margin into a point set that anyone can check, and is a free test of the margin.

    Args:
        weights: unit rows with a positive margin.
    Raises:
        ValueError: a row lies within 1e-9 of the hull of the others, so that it has no direction away from it.
    """
    rows = weights.to(torch.float64)
    margins = one_vs_rest_margins(rows, tolerance=1e-9)
    if not float(margins.upper.min()) > 1e-9:
        raise ValueError(f"weights must have a positive margin, got {margins.minimum!r}. Two rows may be equal.")
    nearest = torch.einsum("kw,kwd->kd", margins.coefficients, rows[margins.support_rows.clamp_min(0)])
    direction = torch.nn.functional.normalize(rows - nearest, dim=1)
    start = rows + direction
    along = (start * direction).sum(1, keepdim=True)
    # |start + t direction| = 2
    step = -along + (along.square() - start.square().sum(1, keepdim=True) + 4).sqrt()
    return Code.of(start + step * direction)


def max_cosine(points: Float[Tensor, "classes dim"]) -> float:
    """Largest cosine between two of the unit rows, in tiles of 2,048 rows."""
    largest = -1.0
    for start in range(0, len(points), 2048):
        cosines = points[start : start + 2048] @ points.T
        rows = torch.arange(len(cosines))
        cosines[rows, start + rows] = -1.0
        largest = max(largest, float(cosines.max()))
    return largest


def optimise_code(
    num_classes: int, feature_dim: int, *, starts: int = 16, seed: int = 0, iterations: int = 60, polish: bool = True
) -> Code:
    """The best code found from random starts: annealed soft maximum of the cosines, then exact polishing.

    Args:
        num_classes: K, at least 2.
        feature_dim: d, at least 2.
        starts: independent random starts; a quarter of them is kept after the coarse half of the annealing, the best
            four are sharpened, and the best one is polished.
        seed: of the starts; same seed, same code on one machine.
        iterations: L-BFGS steps at each sharpness.
        polish: whether to balance the closest pairs exactly; done where K d <= 1500, without effect elsewhere.
    Returns:
        The code with the largest 1 - max cosine. It is a lower bound of rho*(d, K), not an optimum.
    Raises:
        ValueError: fewer than two classes, dimensions, or no start.
    """
    _check(num_classes, feature_dim, starts)
    points = random_codes(num_classes, feature_dim, starts=starts, seed=seed)
    unit = expected_margin(num_classes, feature_dim)
    for level, sharpness in enumerate(SHARPNESS):
        points, value = _anneal(points, sharpness / unit, iterations)
        keep = max(4, math.ceil(starts / 4)) if level == len(SHARPNESS) // 2 else starts
        points = points[value.argsort()[: keep if level < len(SHARPNESS) - 1 else 4]]
    for sharpness in FINAL_SHARPNESS:
        points, value = _anneal(points, sharpness / unit, iterations)
    best = max((Code.of(p) for p in points), key=lambda code: code.margin_lower)
    return polish_code(best.points) if polish and best.points.numel() <= LARGEST_POLISH else best


def _check(num_classes: int, feature_dim: int, starts: int) -> None:
    for name, given, least in (
        ("num_classes", num_classes, 2),
        ("feature_dim", feature_dim, 2),
        ("starts", starts, 1),
    ):
        if given < least:
            raise ValueError(f"{name} must be at least {least}, got {given!r}.")


def random_codes(num_classes: int, feature_dim: int, *, starts: int, seed: int) -> Float[Tensor, "starts classes dim"]:
    """Independent uniform unit rows in float64."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(starts, num_classes, feature_dim, generator=generator, dtype=torch.float64)
    return points / points.norm(dim=-1, keepdim=True)


def expected_margin(num_classes: int, feature_dim: int) -> float:
    """The scale of a good code's margin, for step sizes and sharpness only: caps of equal area, at most 1."""
    return min(1.0, 2.0 * num_classes ** (-2.0 / (feature_dim - 1)))


def _anneal(points: Tensor, sharpness: float, iterations: int) -> tuple[Tensor, Tensor]:
    """One level of the annealing, in batches that fit LARGEST_BATCH."""
    size = max(1, LARGEST_BATCH // points.shape[1] ** 2)
    parts = [
        minimise_on_spheres(soft_max_cosine(sharpness), part, iterations=iterations) for part in points.split(size)
    ]
    return torch.cat([p for p, _ in parts]), torch.cat([v for _, v in parts])


def soft_max_cosine(sharpness: float) -> Objective:
    """`log(sum over ordered pairs exp(sharpness * cos)) / sharpness`: above the largest cosine, by little when sharp."""

    def energy(points: Float[Tensor, "starts rows dim"]) -> tuple[Tensor, Tensor]:
        cosines = points @ points.mT
        cosines.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        largest = cosines.amax((1, 2))
        weights = cosines.sub_(largest[:, None, None]).mul_(sharpness).exp_()
        total = weights.sum((1, 2))
        value = largest + total.log() / sharpness
        return value, 2.0 * (weights @ points) / total[:, None, None]

    return energy


def polish_code(points: Float[Tensor, "classes dim"], *, rounds: int = 30) -> Code:
    """Largest 1 - max cosine near a code, by successive linear programs over its close pairs.

    Each program moves every row within its tangent plane, inside a trust region, to lower the linearised largest
    cosine; at a jammed code the rounds converge quadratically.

    Args:
        points: unit rows near a local optimum; cost grows fast beyond K d = 1500.
        rounds: most programs solved.
    """
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
    pairs = np.arange(len(first))
    entries = [
        np.einsum("pd,pdt->pt", points[second], bases[first]),
        np.einsum("pd,pdt->pt", points[first], bases[second]),
        -np.ones((len(first), 1)),
    ]
    width = dim - 1
    columns = [first[:, None] * width + np.arange(width), second[:, None] * width + np.arange(width)]
    columns.append(np.full((len(first), 1), num_classes * width))
    values, places = np.concatenate(entries, axis=1), np.concatenate(columns, axis=1)
    rows = np.repeat(pairs, values.shape[1])
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
    dim = points.shape[1]
    return np.eye(dim)[None, :, 1:] - 2 * normal[:, :, None] * normal[:, None, 1:]


def main() -> None:
    """`find`: optimise one code, print its margin beside the reference interval, keep its rows where asked."""
    parser = argparse.ArgumentParser(description="Find a softmax code from random starts.")
    parser.add_argument("command", choices=["find"])
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="write the rows to this .npy file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    code = optimise_code(given.classes, given.dim, starts=given.starts, seed=given.seed)
    reference = reference_margin(given.classes, given.dim)
    print(
        f"margin {code.margin_lower:.12f} reference [{reference.lower:.9f}, {reference.upper:.9f}] {reference.source}"
    )
    if given.out:
        np.save(given.out, code.points.numpy())


if __name__ == "__main__":
    main()
