"""Nearest points of many small convex hulls at once: a batched active-set method in float64.

Knows torch only; does not know classes, margins or how the points of a hull were chosen.

For one hull with points v_1..v_m the method keeps a working set S and the coefficients of the point of aff(S) nearest
to the origin, as Wolfe's and Lawson and Hanson's methods do, but takes in several violated points at a time: those
that get a negative coefficient leave again before the point moves, and at least one of them stays, so every step
still comes nearer to the origin. The affine problem is `(V_S V_S^T + 1 1^T) u = 1`, `coefficients = u / sum u`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Relative ridge of the affine solves. Affinely dependent points (orthoplex, root systems) make them singular but
# consistent; the refinement step takes the ridge's effect out again.
RIDGE = 1e-13


@dataclass(frozen=True)
class HullPoints:
    """The point of each hull nearest to the origin, as convex coefficients of at most `width` of its points."""

    positions: Int[Tensor, "hulls width"]  # which points of the hull; 0 where unused
    used: Bool[Tensor, "hulls width"]
    coefficients: Float[Tensor, "hulls width"]  # non-negative, sum 1; 0 where unused


def nearest_hull_points(
    points: Float[Tensor, "hulls points dim"],
    valid: Bool[Tensor, "hulls points"],
    *,
    tolerance: float,
    start: HullPoints | None = None,
) -> HullPoints:
    """The point nearest to the origin in the convex hull of each set of points.

    A solve that stalls ends early: its point is in the hull but not the nearest, which the caller sees because the
    lower bound that the point gives stays below its norm.

    Args:
        points: float64, one set a hull; any scale.
        valid: which points are real; each hull needs one.
        tolerance: a hull is done when `min_j <v_j, p> >= (1 - tolerance) |p|^2` at its point p.
        start: working sets to begin with; by default the point nearest to the origin.
    Source: Wolfe, Math. Programming 11 (1976); Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23.
    """
    _, num_points, dim = points.shape
    width = min(num_points, dim + 1)
    sizes = points.square().sum(-1).masked_fill(~valid, torch.inf)
    # the unit of length: with it the row of ones weighs as much as the points do
    unit = sizes.masked_fill(sizes == 0, torch.inf).amin(1).sqrt()
    unit = torch.where(unit.isfinite(), unit, torch.ones_like(unit))
    solve = _Solve(points, valid, unit, _start(sizes, width, start), tolerance)
    for _ in range(20 + 4 * dim):
        solve.settle()
        if not solve.grow():
            return solve.result
    solve.settle()
    solve.store()
    return solve.result


def _start(sizes: Tensor, width: int, start: HullPoints | None) -> HullPoints:
    """Given working sets cut or padded to `width`; the nearest point alone where there is none."""
    num_hulls = len(sizes)
    positions = torch.zeros(num_hulls, width, dtype=torch.int64, device=sizes.device)
    used = torch.zeros_like(positions, dtype=torch.bool)
    coefficients = torch.zeros_like(positions, dtype=torch.float64)
    if start is not None:
        kept = min(width, start.used.shape[1])
        positions[:, :kept] = start.positions[:, :kept]
        used[:, :kept] = start.used[:, :kept]
        coefficients[:, :kept] = start.coefficients[:, :kept] * used[:, :kept]
        total = coefficients.sum(1, keepdim=True)
        coefficients = torch.where(total > 0, coefficients / total.clamp_min(1e-300), 0.0)
        used &= coefficients > 0
    empty = ~used.any(1)
    positions[empty, 0] = sizes[empty].argmin(1)
    used[empty, 0] = True
    coefficients[empty, 0] = 1.0
    return HullPoints(positions, used, coefficients)


class _Solve:
    """The hulls still moving (compressed as they finish) and the result of all of them."""

    def __init__(self, points: Tensor, valid: Tensor, unit: Tensor, start: HullPoints, tolerance: float) -> None:
        self.result, self.tolerance = start, tolerance
        self.rows = torch.arange(len(points), device=points.device)
        self.points, self.valid, self.unit = points, valid, unit
        self.positions, self.used, self.coefficients = (
            start.positions.clone(),
            start.used.clone(),
            start.coefficients.clone(),
        )
        self.norms = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
        dim = points.shape[2]
        self.step = max(1, dim // 4)

    def _members(self, rows: Tensor | slice) -> Tensor:
        """Points of the working sets in the hulls' units, zero where a slot is free."""
        where = self.positions[rows].unsqueeze(-1).expand(-1, -1, self.points.shape[2])
        members = torch.gather(self.points[rows], 1, where) / self.unit[rows, None, None]
        return members * self.used[rows].unsqueeze(-1)

    def settle(self) -> None:
        """Move to the affine nearest point, dropping points on the way until all coefficients are positive."""
        rows: Tensor | slice = slice(None)
        members = self._members(rows)
        used, coefficients = self.used, self.coefficients
        while True:
            target = _affine_coefficients(members, used)
            negative = used & (target <= 0)
            ratio = torch.where(negative, coefficients / (coefficients - target).clamp_min(1e-300), torch.inf)
            reach = ratio.amin(1, keepdim=True).clamp_max(1.0)
            moved = torch.where(used, coefficients + reach * (target - coefficients), 0.0)
            kept = used & ~(negative & (ratio <= reach))
            self.used[rows] = kept
            self.coefficients[rows] = torch.where(kept, moved, 0.0)
            again = negative.any(1).nonzero()[:, 0]
            if not len(again):
                return
            rows = again if isinstance(rows, slice) else rows[again]
            used, coefficients = self.used[rows], self.coefficients[rows]
            members = members[again] * used.unsqueeze(-1)

    def _thin(self, members: Tensor) -> None:
        """Free a slot of each full working set by moving along an affine dependence, which leaves its point in place.

        A full set has more members than dimensions, so away from the origin they depend on each other: several may
        have come in at once.
        """
        full = self.used.all(1).nonzero()[:, 0]
        if not len(full):
            return
        system = torch.cat([members[full], torch.ones_like(members[full, :, :1])], 2)
        eigenvalues, vectors = torch.linalg.eigh(torch.bmm(system, system.transpose(1, 2)))
        singular = eigenvalues[:, 0] < 1e-12 * eigenvalues[:, -1]
        full, dependence = full[singular], vectors[singular, :, 0]
        dependence = dependence * torch.where(dependence.amax(1) > 0, 1.0, -1.0).unsqueeze(1)
        ratio = torch.where(dependence > 0, self.coefficients[full] / dependence, torch.inf)
        reach, first = ratio.min(1)
        moved = (self.coefficients[full] - reach.unsqueeze(1) * dependence).clamp_min(0.0)
        moved.scatter_(1, first.unsqueeze(1), 0.0)
        self.coefficients[full] = moved
        self.used[full, first] = False

    def grow(self) -> bool:
        """Take in the most violated points of each hull; store and drop the hulls that are done. False: all done."""
        members = self._members(slice(None))
        self._thin(members)
        point = torch.einsum("bs,bsd->bd", self.coefficients, members)
        square = point.square().sum(1)
        # in units of the hull: values below square mean points beyond the supporting plane
        values = torch.bmm(self.points, point.unsqueeze(-1)).squeeze(-1) / self.unit.unsqueeze(-1)
        values.masked_fill_(~self.valid, torch.inf)
        members_out = self.used.to(values.dtype).mul_(2).sub_(1).mul_(torch.inf)  # +inf where used, else -inf
        values.scatter_reduce_(1, self.positions, members_out, "amax")
        count = min(self.step, self.positions.shape[1], values.shape[1])
        best, where = torch.topk(values, count, dim=1, largest=False, sorted=True)
        free_order = torch.argsort(self.used.to(torch.int8), dim=1, stable=True)[:, :count]
        free = ~torch.gather(self.used, 1, free_order)
        enter = (best < (square * (1.0 - self.tolerance)).unsqueeze(1)) & free
        # rounding alone can move a finished hull: going on needs a real step toward the origin
        stalled = square >= self.norms * (1.0 - 1e-14)
        going = enter.any(1) & ~stalled & (square > 1e-30)
        self.norms = square
        enter &= going.unsqueeze(1)
        self.store(~going)
        self.positions.scatter_(1, free_order, torch.where(enter, where, torch.gather(self.positions, 1, free_order)))
        self.used.scatter_(1, free_order, enter | torch.gather(self.used, 1, free_order))
        return self._compress(going)

    def store(self, done: Tensor | slice = slice(None)) -> None:
        rows = self.rows[done]
        self.result.positions[rows] = self.positions[done]
        self.result.used[rows] = self.used[done]
        self.result.coefficients[rows] = self.coefficients[done]

    def _compress(self, going: Tensor) -> bool:
        if bool(going.all()):
            return True
        for name in ("rows", "points", "valid", "unit", "positions", "used", "coefficients", "norms"):
            setattr(self, name, getattr(self, name)[going])
        return len(self.rows) > 0


def _affine_coefficients(members: Tensor, used: Tensor) -> Tensor:
    """Coefficients of the point of each affine hull nearest to the origin; 0 where unused."""
    ones = used.to(torch.float64)
    gram = torch.bmm(members, members.transpose(1, 2)) + ones.unsqueeze(2) * ones.unsqueeze(1)
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal.mul_(1.0 + RIDGE).add_(1.0 - ones)
    factor = torch.linalg.cholesky_ex(gram)[0]
    right = ones.unsqueeze(2)
    solution = torch.cholesky_solve(right, factor)
    for _ in range(2):
        # the residual comes from the points, not from their Gram matrix, whose condition number is squared
        image = torch.bmm(members, torch.bmm(members.transpose(1, 2), solution))
        residual = right * (1.0 - solution.sum(1, keepdim=True)) - image
        solution = solution + torch.cholesky_solve(residual * right, factor)
    solution = solution.squeeze(2)
    return solution / solution.sum(1, keepdim=True)
