"""The unconstrained-feature model at finite temperature: free unit rows W and H, cross-entropy of `W h / temperature`.

Knows torch and the margin solver; does not know data, training or the results folder. It is what a network that can
fit everything would reach: the ceiling that a trained margin and loss at the same temperature are compared with.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gnc_models.codes.code import Code, spherical_code_of
from gnc_models.codes.linear_program_polish import polish_code
from gnc_models.codes.search import check_search, random_codes
from gnc_models.codes.sphere_lbfgs import Objective, minimise_on_spheres
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.log_space import log_softplus

# Starts whose temperature * log(loss) is within this of the best count as near it; a distance, as the margin is.
NEAR = 1e-3
LARGEST_BATCH = 1 << 18  # logits held at once: more at a time take twice as long each


@dataclass(frozen=True)
class Optimum:
    """The best of several local optima; margins are lower bounds from the margin solver, exact to 1e-6."""

    loss: float
    margin: float
    margin_low: float
    margin_high: float
    starts: int
    weights: Float[Tensor, "classes dim"]
    features: Float[Tensor, "classes dim"]


def optimise_unconstrained(
    num_classes: int, feature_dim: int, temperature: float, *, starts: int = 12, seed: int = 0, iterations: int = 1500
) -> Optimum:
    """Smallest mean cross-entropy over unit W and H with one feature per class, from random starts.

    `temperature * log(loss)` is minimised, in log space: the loss itself stalls from temperature 1/50 on, where it is
    far below rounding. Starts are annealed from temperature 0.3 down, since cold starts freeze where they begin.

    Args:
        num_classes: K, at least 2.
        feature_dim: d, at least 2.
        temperature: tau, above 0.
        starts: random starts, W and H independent.
        seed: of the starts.
        iterations: most L-BFGS steps at the last temperature; a quarter of them at each warmer one.
    Returns:
        The lowest loss found, its margin, and the margin's range over starts near it: a local minimiser bounds the
        loss from above, not the margin.
    Raises:
        ValueError: a size or temperature out of range.
    """
    check_search(num_classes, feature_dim, starts)
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature!r}.")
    weights = random_codes(num_classes, feature_dim, starts=starts, seed=seed)
    # features begin at their class's row, as the optimum has them: a random match would have to be unlearned
    points = torch.cat([weights, weights], dim=1)
    for tau in (tau for tau in (0.3, 0.15, 0.075, 0.04) if tau > 1.2 * temperature):
        points, _ = _descend(points, tau, iterations // 4, 1e-5)
    points, value = _descend(points, temperature, iterations, 1e-9)
    best = int(value.argmin())
    near = torch.nonzero(value <= value[best] + NEAR).flatten()
    margins = [one_vs_rest_margins(points[i, :num_classes], mode="min").minimum[0] for i in near.tolist()]
    return Optimum(
        loss=math.exp(float(value[best]) / temperature),
        margin=margins[near.tolist().index(best)],
        margin_low=min(margins),
        margin_high=max(margins),
        starts=starts,
        weights=points[best, :num_classes],
        features=points[best, num_classes:],
    )


def code_from_optimum(
    num_classes: int, feature_dim: int, temperature: float, *, starts: int = 12, seed: int = 0
) -> Code:
    """The spherical code u(W) of the optimum's rows, polished: at times better than a search for codes.

    Raises:
        ValueError: a size or temperature out of range, or an optimum with two equal rows.
    """
    optimum = optimise_unconstrained(num_classes, feature_dim, temperature, starts=starts, seed=seed)
    return polish_code(spherical_code_of(optimum.weights).points)


def _descend(points: Tensor, temperature: float, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    size = max(1, LARGEST_BATCH // (points.shape[1] // 2) ** 2)
    found = [
        minimise_on_spheres(cold_loss(temperature), part, iterations=iterations, tolerance=tolerance)
        for part in points.split(size)
    ]
    return torch.cat([p for p, _ in found]), torch.cat([v for _, v in found])


def cold_loss(temperature: float) -> Objective:
    """`temperature * log(mean cross-entropy)` of W (first half of the rows) and H (second half), with its gradient."""

    def objective(points: Float[Tensor, "starts rows dim"]) -> tuple[Tensor, Tensor]:
        weights, features = points.chunk(2, dim=1)
        logits = features @ weights.mT / temperature
        own = logits.diagonal(dim1=1, dim2=2)
        gaps = logits - own[..., None]
        gaps.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        odds = gaps.logsumexp(-1)  # log of the sum of exp((w_j - w_k) h_k / tau)
        log_losses = log_softplus(odds)
        total = log_losses.logsumexp(-1)
        # d total / d odds = share of the class * sigmoid(odds) / softplus(odds), the latter 1 where odds << 0
        share = (log_losses - total[:, None]).exp() * (torch.nn.functional.logsigmoid(odds) - log_losses).exp()
        slopes = share[..., None] * (gaps - odds[..., None]).exp()
        slopes.diagonal(dim1=1, dim2=2).copy_(-share)
        gradient = torch.cat([slopes.mT @ features, slopes @ weights], dim=1)
        return temperature * (total - math.log(weights.shape[1])), gradient

    return objective
