"""Certified one-vs-rest margins: how far each classifier row is from the convex hull of all the others.

Knows torch and the small hull solver; does not know heads, features, files or the disk.

Every margin is an interval that provably holds it. Any point of the hull gives an upper bound; any direction h gives
the lower bound `min_j <w_k - w_j, h> / |h|`. Most classes are decided by few neighbours, so each class is solved
against a few candidate rows, one streamed pass over all rows certifies it or names the rows it had missed, these
join the candidates, and so on. Memory is O(classes x dim) and one tile, never classes x classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnc_models.hull import HullPoints, nearest_hull_points

EPS = torch.finfo(torch.float64).eps
# Entries of one tile of scores, and of one batch of gathered candidates: 32 MiB and 16 MiB in float64.
TILE_ENTRIES = 1 << 22
BATCH_ENTRIES = 1 << 21
# With at most this many other rows all of them are candidates, and one round certifies.
ALL_ROWS = 64


@dataclass(frozen=True)
class Margins:
    """One-vs-rest margins as intervals, with their certificate.

    `upper[k]` is `|w_k - sum_j coefficients[k, j] w_j|` over the rows j = support_rows[k], and the direction of that
    difference (or one found earlier) gives `lower[k]`, both padded outward for rounding.
    """

    lower: Float[Tensor, " classes"]
    upper: Float[Tensor, " classes"]
    support_rows: Int[Tensor, "classes width"]  # rows that carry the nearest hull point found; -1 where unused
    coefficients: Float[Tensor, "classes width"]  # convex coefficients of these rows; 0 where unused
    rounds: int

    @property
    def minimum(self) -> tuple[float, float]:
        """The interval that holds the smallest margin of all classes."""
        return float(self.lower.min()), float(self.upper.min())

    @cached_property
    def support(self) -> list[list[int]]:
        """The rows that carry each class's nearest hull point."""
        return [[j for j in row if j >= 0] for row in self.support_rows.tolist()]


def one_vs_rest_margins(
    weights: Float[Tensor, "classes dim"],
    *,
    tolerance: float = 1e-6,
    mode: Literal["all", "min"] = "all",
    max_rounds: int = 50,
    warm_start: Margins | None = None,
) -> Margins:
    """Distance from each class weight to the convex hull of all the others, as a certified interval.

    Args:
        weights: one row a class, taken as given (not normalised); any scale, distances are in the same unit.
            float32 is converted to float64 first.
        tolerance: stop when (upper - lower) / upper is below it; relative, no unit.
        mode: "all" certifies every class; "min" only the smallest margin: classes whose lower bound exceeds the best
            upper bound are left with the wide interval they had.
        max_rounds: passes over all rows at most; a class not certified by then keeps a wider interval.
        warm_start: margins of similar weights with the same classes, to begin from.
    Returns:
        Lower and upper bound per class, the rows that support each hull point, and the rounds it took. The margin of
        a row inside the hull of the others is 0: its lower bound is 0 and its upper bound of the order of rounding.
    Raises:
        ValueError: not a matrix, fewer than 2 classes, a row that is not finite, or a tolerance, mode, number of
            rounds or warm start that cannot be.
    Source: Jiang et al., arXiv 2310.05351 (definition); bounds by convex duality.
    """
    _check(weights, tolerance, mode, max_rounds, warm_start)
    search = _Search(weights.detach().to(torch.float64), tolerance, warm_start)
    rounds = 0
    pending = torch.arange(len(weights), device=weights.device)
    while len(pending) and rounds < max_rounds:
        rounds += 1
        for rows in torch.split(pending, search.batch):
            search.improve(rows)
        pending = pending[search.is_open(pending, mode)]
    return search.margins(rounds)


def _check(weights: Tensor, tolerance: float, mode: str, max_rounds: int, warm_start: Margins | None) -> None:
    if weights.ndim != 2 or weights.shape[1] < 1 or not weights.is_floating_point():
        raise ValueError(
            f"weights must be a matrix of floating-point rows, one a class, got shape {tuple(weights.shape)} "
            f"of {weights.dtype}."
        )
    if len(weights) < 2:
        raise ValueError(f"weights must have at least 2 rows, got {len(weights)!r}. One class has no margin.")
    broken = (~weights.isfinite().all(1)).nonzero()[:, 0].tolist()
    if broken:
        shown = ", ".join(map(str, broken[:5])) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
        raise ValueError(f"weights must be finite, got NaN or infinity in {len(broken)} rows: {shown}.")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be above 0 and below 1, got {tolerance!r}. It is a relative gap.")
    if mode not in ("all", "min"):
        raise ValueError(f"mode must be 'all' or 'min', got {mode!r}.")
    if max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1, got {max_rounds!r}.")
    if warm_start is not None and len(warm_start.lower) != len(weights):
        raise ValueError(
            f"warm_start must have one margin a class ({len(weights)}), got {len(warm_start.lower)}. Leave it out."
        )


class _Search:
    """Candidates, bounds and supports of all classes while they are improved batch by batch."""

    def __init__(self, weights: Tensor, tolerance: float, warm_start: Margins | None) -> None:
        num_classes, dim = weights.shape
        self.weights, self.tolerance = weights, tolerance
        self.norms = weights.norm(dim=1)
        # rounding of a difference of two scores, each a sum of `dim` products
        self.pad = EPS * (dim + 4) * (self.norms + self.norms.max())
        others = num_classes - 1
        self.pool = self._nearest(others if others <= ALL_ROWS else min(others, max(32, 2 * dim)))
        self.entering = min(max(8, dim), self.pool.shape[1])  # missed rows that join the pool in one round
        self.lower = torch.zeros_like(self.norms)
        self.upper = torch.full_like(self.norms, torch.inf)
        self.stuck = torch.zeros(num_classes, dtype=torch.bool, device=weights.device)
        width = dim + 1
        self.support = torch.full((num_classes, width), -1, dtype=torch.int64, device=weights.device)
        self.coefficients = torch.zeros(num_classes, width, dtype=torch.float64, device=weights.device)
        if warm_start is not None:
            kept = min(width, warm_start.support_rows.shape[1])
            self.support[:, :kept] = warm_start.support_rows[:, :kept].to(weights.device)
            self.coefficients[:, :kept] = warm_start.coefficients[:, :kept].to(weights.device)
        self.batch = max(16, min(BATCH_ENTRIES // (self.pool.shape[1] * dim), TILE_ENTRIES // num_classes))

    def _nearest(self, count: int) -> Int[Tensor, "classes count"]:
        """The `count` nearest other rows of each row."""
        half = self.norms.square() / 2
        nearest = []
        for rows in torch.split(torch.arange(len(half), device=half.device), max(1, TILE_ENTRIES // len(half))):
            closeness = self.weights[rows] @ self.weights.T - half
            closeness.scatter_(1, rows.unsqueeze(1), -torch.inf)
            nearest.append(closeness.topk(count, dim=1, sorted=False).indices)
        return torch.cat(nearest)

    def margins(self, rounds: int) -> Margins:
        """The result, with supports as narrow as the widest one."""
        order = (self.support < 0).to(torch.int8).argsort(dim=1, stable=True)
        width = int((self.support >= 0).sum(1).max())
        support, coefficients = (held.gather(1, order)[:, :width] for held in (self.support, self.coefficients))
        return Margins(self.lower, self.upper, support, coefficients, rounds)

    def is_open(self, rows: Tensor, mode: str) -> Bool[Tensor, " rows"]:
        """Which classes still need a round."""
        lower, upper = self.lower[rows], self.upper[rows]
        # below twice the padding no interval can be narrower: the row is inside the hull, or touches it
        is_open = (upper - lower > self.tolerance * upper) & (upper > 2 * self.pad[rows]) & ~self.stuck[rows]
        return is_open & (lower <= self.upper.min()) if mode == "min" else is_open

    def improve(self, rows: Int[Tensor, " rows"]) -> None:
        """Solve classes against their candidates, certify them against all rows, take in the rows they missed."""
        candidates, valid, start = self._arranged(rows)
        points = self.weights[candidates] - self.weights[rows].unsqueeze(1)
        solved = nearest_hull_points(points, valid, tolerance=self.tolerance / 4, start=start)
        members = torch.gather(points, 1, solved.positions.unsqueeze(-1).expand(-1, -1, points.shape[2]))
        nearest = torch.einsum("bs,bsd->bd", solved.coefficients, members)
        distance = nearest.norm(dim=1)
        reach = (solved.coefficients * members.norm(dim=2)).sum(1)
        # every v_j and every sum is relatively exact up to a few roundings, so the error is in proportion to `reach`
        upper = distance + EPS * (2 * solved.used.shape[1] + points.shape[2] + 8) * reach
        direction = -nearest / distance.clamp_min(1e-300).unsqueeze(1)
        slack, near = self._near_bound(points, valid, direction)
        far, missed = self._far_bound(rows, candidates, direction, distance)
        lower = torch.minimum(near, far) * (1.0 - EPS * (points.shape[2] + 4))
        self._keep(rows, candidates, solved, lower, upper, missed)
        self._refill(rows, slack, missed)

    def _arranged(self, rows: Tensor) -> tuple[Tensor, Tensor, HullPoints | None]:
        """Candidates as [support | pool]: their indices, which count, and the support as the working set."""
        pool, support = self.pool[rows], self.support[rows]
        used = support >= 0
        if not bool(used.any()):
            return pool, torch.ones_like(pool, dtype=torch.bool), None
        held = support.masked_fill(~used, 0) + (~used) * rows.unsqueeze(1)  # free slots hold the class itself
        marked = torch.zeros(len(rows), len(self.weights), dtype=torch.bool, device=pool.device)
        marked.scatter_(1, held, True)
        start = HullPoints(
            torch.arange(used.shape[1], device=pool.device).expand_as(used), used, self.coefficients[rows]
        )
        return torch.cat([held, pool], 1), torch.cat([used, ~marked.gather(1, pool)], 1), start

    def _near_bound(self, points: Tensor, valid: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Slack of each candidate, and the least: from differences of rows, so right to a relative rounding."""
        slack = -torch.bmm(points, direction.unsqueeze(-1)).squeeze(-1)
        slack -= EPS * (points.shape[2] + 3) * points.norm(dim=2)
        slack.masked_fill_(~valid, torch.inf)
        return slack, slack.amin(1)

    def _far_bound(
        self, rows: Tensor, candidates: Tensor, direction: Tensor, distance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The least slack of the rows that are no candidates, and the rows beyond the supporting plane (else -1)."""
        scores = direction @ self.weights.T
        own = scores.gather(1, rows.unsqueeze(1)).squeeze(1)
        scores.scatter_(1, rows.unsqueeze(1), -torch.inf)
        scores.scatter_(1, candidates, -torch.inf)
        bound = own - scores.amax(1) - self.pad[rows]
        missed = torch.full((len(rows), self.entering), -1, dtype=torch.int64, device=rows.device)
        plane = own - distance * (1.0 - self.tolerance / 4)
        cut = (bound < distance * (1.0 - self.tolerance / 4)).nonzero()[:, 0]
        if len(cut):
            best, where = scores[cut].topk(self.entering, dim=1, sorted=False)
            missed[cut] = where.masked_fill(best <= plane[cut].unsqueeze(1), -1)
        return bound, missed

    def _keep(
        self, rows: Tensor, candidates: Tensor, solved: HullPoints, lower: Tensor, upper: Tensor, missed: Tensor
    ) -> None:
        """Keep each bound where it is better than before, and the support with its upper bound."""
        better = upper < self.upper[rows]
        improved = better | (lower > self.lower[rows])
        self.stuck[rows] = ~improved & (missed < 0).all(1)
        self.lower[rows] = torch.maximum(self.lower[rows], lower)
        at = rows[better]
        self.upper[at] = upper[better]
        chosen = candidates.gather(1, solved.positions).masked_fill(~solved.used, -1)[better]
        width = chosen.shape[1]
        self.support[at, :width] = chosen
        self.support[at, width:] = -1
        self.coefficients[at, :width] = solved.coefficients[better]
        self.coefficients[at, width:] = 0.0

    def _refill(self, rows: Tensor, slack: Tensor, missed: Tensor) -> None:
        """Missed rows take the places of the candidates with most slack; supports have places of their own."""
        cut = (missed >= 0).any(1)
        if bool(cut.any()):
            at, entering = rows[cut], missed[cut]
            pool = self.pool[at]
            leaving = slack[cut][:, -pool.shape[1] :].topk(self.entering, dim=1, sorted=False).indices
            pool.scatter_(1, leaving, torch.where(entering >= 0, entering, pool.gather(1, leaving)))
            self.pool[at] = pool
