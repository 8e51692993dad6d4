"""The unconstrained-feature model at finite temperature: free unit rows W and H, cross-entropy of `W h / temperature`.
It is what a network that can fit everything would reach, the ceiling of trained margins and losses. Knows no data."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gnc_models.catalog.settings import check_at_least
from gnc_models.codes.code import Code, spherical_code_of
from gnc_models.codes.linear_program_polish import polish_code
from gnc_models.codes.search import check_search, random_codes
from gnc_models.codes.sphere_lbfgs import Objective, minimise_on_spheres
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.log_space import log_softplus
from gnc_models.progress import counted
from gnc_models.references.tables import UnconstrainedOptimum
from gnc_models.shapes import Float

NEAR = 1e-4  # minima whose loss is at most this much above the lowest, relative, give the margin's range
SAME = 1e-6  # minima whose losses differ by less, relative, count as the same one
FAR = 3e-4  # starts whose roughly minimised temperature * log(loss) is so far above the lowest are given up; a distance
HOTTEST, COLDEST = 1.0, 1 / 3  # the warmest first temperature of a ladder, and the coldest in units of the last one
LEVELS = 6  # temperatures of a ladder
LEVEL_STEPS, ROUGH_STEPS, HOP_STEPS, LAST_STEPS = 40, 200, 100, 1500  # most L-BFGS steps
HOPPING, PLACES = 8, 256  # minima that hop, places tried for each class that moves
MOVES = (8, 0, 2, 4, 0)  # classes that move in the hops of five rounds; 0: every class moves a little
SHAKE = 0.3  # length of that move
LARGEST_BATCH = 1 << 18  # logits held at once: more at a time take longer each


@dataclass(frozen=True, kw_only=True)
class Optimum(UnconstrainedOptimum):
    """The best of several local optima with its rows; margins are lower bounds from the solver, exact to 1e-6."""

    weights: Float[Tensor, "classes dim"]
    features: Float[Tensor, "classes dim"]


def optimise_unconstrained(
    num_classes: int, feature_dim: int, temperature: float, *, starts: int = 24, hops: int = 0, seed: int = 0
) -> Optimum:
    """Smallest mean cross-entropy over unit W and H with one feature per class, from random starts.
    `temperature * log(loss)` is minimised, in log space: the loss itself stalls from temperature 1/50 on, where it is
    far below rounding. Every start has its own ladder of temperatures, from one that begins at a third of the last one
    through none at all, which most are near, to one that begins at 1: none is best at all sizes. W = H during the
    search, which costs half as much and ends within 2e-7 of the free minimum at (10, 100); at the end both are free.
    hops: rounds in which each of the eight lowest starts moves a few of its classes to free places and keeps what comes
    of it if the loss is lower. Worth its time from some 100 classes on. Same seed, same optimum on one machine."""
    check_search(num_classes, feature_dim, starts)
    check_at_least(0, hops=hops)
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature!r}.")
    rows = random_codes(num_classes, feature_dim, starts=starts, seed=seed)
    for level in counted(_ladders(temperature, starts), "temperatures", LEVELS):
        rows, _ = _descend(rows, level, LEVEL_STEPS, 1e-5)
    last = torch.full((starts,), temperature, dtype=torch.float64)
    rows, value = _descend(rows, last, ROUGH_STEPS, 1e-8)
    hopping = _lowest_apart(value, SAME * temperature)[:HOPPING]
    generator = torch.Generator().manual_seed(seed)
    for hop in counted(range(hops), "hops", hops):
        moved = _hopped(rows[hopping], MOVES[hop % len(MOVES)], generator)
        tried, reached = _descend(moved, last[hopping], HOP_STEPS, 1e-8)
        lower = reached < value[hopping]
        rows[hopping[lower]], value[hopping[lower]] = tried[lower], reached[lower]
    kept = value <= value.min() + FAR
    points = rows[kept].repeat(1, 2, 1)  # features begin at their class's row
    return _lowest(*_descend(points, last[kept], LAST_STEPS, 1e-9, tied=False), temperature, starts)


def lowest_from(points: Float[Tensor, "starts rows dim"], temperature: float) -> Optimum:
    """The lowest minimum that unit rows W above features H lead to at a temperature."""
    last = torch.full((len(points),), temperature, dtype=torch.float64)
    return _lowest(*_descend(points, last, LAST_STEPS, 1e-10, tied=False), temperature, len(points))


def code_from_optimum(
    num_classes: int, feature_dim: int, temperature: float, *, starts: int = 24, seed: int = 0
) -> Code:
    """The spherical code u(W) of the optimum's rows, polished: at times better than a search for codes."""
    optimum = optimise_unconstrained(num_classes, feature_dim, temperature, starts=starts, seed=seed)
    return polish_code(spherical_code_of(optimum.weights).points)


def _ladders(temperature: float, starts: int) -> Float[Tensor, "levels starts"]:
    """The temperatures at which each start is minimised before the last one; half of them are within 13 % of the way."""
    height = torch.linspace(-1.0, 1.0, starts, dtype=torch.float64) ** 3
    ends = torch.where(height < 0, -math.log(COLDEST), math.log(max(HOTTEST / temperature, 1.0)))
    way = torch.linspace(1.0, 1.0 / LEVELS, LEVELS, dtype=torch.float64)
    return temperature * (way[:, None] * height * ends).exp()


def _lowest_apart(value: Float[Tensor, " starts"], same: float) -> Tensor:
    """Starts by rising value, one of those that ended at the same minimum: its copies would hop for nothing."""
    order = value.argsort()
    return order[torch.cat([torch.tensor([True]), value[order].diff() > same])]


def _hopped(
    rows: Float[Tensor, "starts classes dim"], moves: int, generator: torch.Generator
) -> Float[Tensor, "starts classes dim"]:
    """So many random classes of each start at the emptiest of some random places; with 0 moves, all rows a little off."""
    rows, every = rows.clone(), torch.arange(len(rows))
    if not moves:
        noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64) / math.sqrt(rows.shape[2])
        return torch.nn.functional.normalize(rows + SHAKE * noise, dim=-1)
    for moved in torch.rand(rows.shape[:2], generator=generator).argsort(1)[:, :moves].T:
        places = torch.randn(len(rows), PLACES, rows.shape[2], generator=generator, dtype=torch.float64)
        places = places / places.norm(dim=-1, keepdim=True)
        cosines = places @ rows.mT
        cosines[every, :, moved] = -1.0
        rows[every, moved] = places[every, cosines.amax(-1).argmin(-1)]
    return rows


def _lowest(points: Tensor, value: Tensor, temperature: float, starts: int) -> Optimum:
    """The start of least value, with the margins of those near it."""
    excess = (value - value.min()) / temperature  # of log(loss)
    near = torch.nonzero(excess <= NEAR).flatten().tolist()
    weights, features = points.chunk(2, dim=1)
    margins = {i: one_vs_rest_margins(weights[i], mode="min").minimum[0] for i in near}
    best = int(value.argmin())
    loss, found = math.exp(float(value[best]) / temperature), int((excess <= SAME).sum())
    low, high = min(margins.values()), max(margins.values())
    rows = {"weights": weights[best], "features": features[best]}
    return Optimum(loss, margins[best], low, high, starts, found, "search", **rows)


def _descend(
    points: Tensor, temperatures: Float[Tensor, " starts"], iterations: int, tolerance: float, *, tied: bool = True
) -> tuple[Tensor, Tensor]:
    """Minima near the points, in batches that fit LARGEST_BATCH; tied points are W and H at once."""
    size = max(1, LARGEST_BATCH // (points.shape[1] if tied else points.shape[1] // 2) ** 2)
    objective = cold_loss(temperatures, tied=tied)
    return minimise_on_spheres(objective, points, iterations=iterations, tolerance=tolerance, at_once=size)


def cold_loss(temperatures: Float[Tensor, " starts"], *, tied: bool = False) -> Objective:
    """`temperature * log(mean cross-entropy)`, and its gradient, of W and then H as rows; tied, of W and H = W."""

    def objective(points: Float[Tensor, "starts rows dim"], starts: Tensor) -> tuple[Tensor, Tensor]:
        weights, features = (points, points) if tied else points.chunk(2, dim=1)
        tau = temperatures[starts]
        # the memory of the logits is used again for all that follows: asking for more takes longer than computing
        gaps = (features @ weights.mT).div_(tau[:, None, None])
        gaps.sub_(gaps.diagonal(dim1=1, dim2=2)[..., None].clone()).diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        largest = gaps.amax(-1)
        ratios = gaps.sub_(largest[..., None]).exp_()
        sums = ratios.sum(-1)
        odds = largest + sums.log()  # log of the sum of exp((w_j - w_k) h_k / tau)
        log_losses = log_softplus(odds)
        total = log_losses.logsumexp(-1)
        # d total / d odds = share of the class * sigmoid(odds) / softplus(odds), the latter 1 where odds << 0
        share = (log_losses - total[:, None]).exp() * (logsigmoid(odds) - log_losses).exp()
        slopes = ratios.mul_((share / sums)[..., None])
        slopes.diagonal(dim1=1, dim2=2).copy_(-share)
        of_weights, of_features = slopes.mT @ features, slopes @ weights
        gradient = of_weights + of_features if tied else torch.cat([of_weights, of_features], dim=1)
        return tau * (total - math.log(weights.shape[1])), gradient

    return objective
