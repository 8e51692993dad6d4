"""Nearest points of many small convex hulls at once: a batched active-set method in float64. Knows torch only.
As Wolfe's and Lawson and Hanson's methods, but several violated points come into the working sets at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gnc_models.shapes import Bool, Float, Int

# Relative ridge of the affine solves. Affinely dependent points (orthoplex, root systems) make them singular but
# consistent; the refinement takes the ridge's effect out again.
RIDGE = 1e-13


@dataclass(frozen=True)
class HullPoints:
    """The point of each hull nearest to the origin, as convex coefficients of a few of its points."""

    positions: Int[Tensor, "hulls width"]  # which points of the hull; 0 where unused
    used: Bool[Tensor, "hulls width"]  # the first slots of each row
    coefficients: Float[Tensor, "hulls width"]  # non-negative, sum 1; 0 where unused


def nearest_hull_points(
    points: Float[Tensor, "hulls points dim"], valid: Bool[Tensor, "hulls points"], *, tolerance: float,
    start: HullPoints | None = None,
) -> HullPoints:  # fmt: skip
    """The point nearest to the origin in the convex hull of each set of points, of any scale.
    A solve that stalls ends early: its point is in the hull but not the nearest, which the caller sees because the
    lower bound that the point gives stays below its norm.
    Args:
        valid: which points are real; each hull needs one.
        tolerance: a hull is done when `min_j <v_j, p> >= (1 - tolerance) |p|^2` at its point p.
        start: working sets to begin with, at most dim + 1 points each; by default the point nearest to the origin.
    Source: Wolfe, Math. Programming 11 (1976); Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23."""
    return PointSets(points, valid, tolerance, start).solve(20 + 4 * points.shape[2])


class PointSets:
    """The hulls that still move, some finished ones that are not removed yet, and the result of all of them."""

    per_hull = ("rows", "live", "points", "valid", "unit", "positions", "used", "coefficients", "squares", "bound")

    def __init__(self, points: Tensor, valid: Tensor, tolerance: float, start: HullPoints | None) -> None:
        num_hulls, num_points, dim = points.shape
        self.points, self.valid, self.tolerance = points, valid, tolerance
        self.rows = torch.arange(num_hulls, device=points.device)
        self.live = torch.ones(num_hulls, dtype=torch.bool, device=points.device)  # not finished yet
        sizes = points.square().sum(-1).masked_fill(~valid, torch.inf)
        nearest = sizes.masked_fill(sizes == 0, torch.inf).amin(1).sqrt()
        # the unit of length: with it the row of ones weighs as much as the points do
        self.unit = torch.where(nearest.isfinite(), nearest, 1.0)
        self.capacity = min(num_points, dim + 1)
        self.entering = max(1, min(16, dim // 6))  # points taken in at a time
        self.positions = sizes.argmin(1, keepdim=True)
        self.used = torch.ones_like(self.positions, dtype=torch.bool)
        self.coefficients = torch.ones_like(self.positions, dtype=torch.float64)
        if start is not None:
            self._begin_from(start, sizes.amin(1, keepdim=True) > 0)  # a point at the origin is the answer
        self._make_ready(started=start is not None)

    def _make_ready(self, *, started: bool) -> None:
        self._gather()
        self.squares = torch.full_like(self.unit, torch.inf)
        # what a step must come below: a given start may not get worse, a single point has nowhere to go
        self.bound = self._square() if started else self.squares
        empty = self.unit.new_zeros(len(self.rows), self.capacity)
        self.result = HullPoints(empty.long(), empty.bool(), empty)

    def solve(self, most_steps: int) -> HullPoints:
        for _ in range(most_steps):
            self.settle()
            if not self.grow():
                return self.result
        self.settle()
        self.store(self.live)
        return self.result

    def _begin_from(self, start: HullPoints, wanted: Tensor) -> None:
        """Given working sets, where there are any, in place of the nearest points."""
        coefficients = torch.where(start.used, start.coefficients, 0.0)
        total = coefficients.sum(1, keepdim=True)
        given = (total > 0) & wanted
        spare = start.used.shape[1] - 1
        positions, used, alone = (
            torch.nn.functional.pad(x, (0, spare)) for x in (self.positions, self.used, self.coefficients)
        )
        self.positions = torch.where(given, start.positions, positions)
        self.used = torch.where(given, coefficients > 0, used)
        self.coefficients = torch.where(given, coefficients / total.clamp_min(1e-300), alone)
        self._compact()

    def _compact(self) -> None:
        """Used slots first, and no more slots than the fullest working set has."""
        order = torch.argsort((~self.used).to(torch.int8), dim=1, stable=True)[:, : int(self.used.sum(1).max())]
        for name in ("positions", "used", "coefficients"):
            setattr(self, name, getattr(self, name).gather(1, order))

    def _gather(self) -> None:
        """The working sets' points in their hull's unit, and the matrix of the affine problem."""
        where = self.positions.unsqueeze(-1).expand(-1, -1, self.points.shape[2])
        self.members = torch.gather(self.points, 1, where).div_(self.unit[:, None, None])
        self.gram = torch.bmm(self.members, self.members.transpose(1, 2)).add_(1.0)

    def _square(self) -> Float[Tensor, " hulls"]:
        return torch.einsum("bs,bsd->bd", self.coefficients, self.members).square().sum(1)

    def _square_and_values(self) -> tuple[Float[Tensor, " hulls"], Float[Tensor, "hulls points"]]:
        """The squared length of each hull's point p, and `<v_j, p>` of all points of the hull."""
        point = torch.einsum("bs,bsd->bd", self.coefficients, self.members)
        values = torch.bmm(self.points, point.unsqueeze(-1)).squeeze(-1).div_(self.unit.unsqueeze(-1))
        return point.square().sum(1), values

    def _affine(self, gram: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of the point of each affine hull nearest to the origin, 0 where unused, and the factor."""
        factor, ones = affine_factor(gram, used)
        solution = torch.cholesky_solve(ones.unsqueeze(2), factor).squeeze(2)
        return solution / solution.sum(1, keepdim=True), factor

    def _refined(self, rows: Tensor, used: Tensor, coefficients: Tensor, factor: Tensor) -> Tensor:
        """Two refinements of affine coefficients, by the points: their Gram matrix squares the condition number."""
        members, ones = self.members[rows], used.to(torch.float64)
        for _ in range(2):
            point = torch.einsum("bs,bsd->bd", coefficients, members)
            slack = torch.bmm(members, point.unsqueeze(-1)).squeeze(-1)
            # at the solution <v, p> = |p|^2 for every member
            residual = (point.square().sum(1, keepdim=True) - slack) * ones
            coefficients = coefficients + torch.cholesky_solve(residual.unsqueeze(2), factor).squeeze(2)
            coefficients = coefficients / coefficients.sum(1, keepdim=True)
        return coefficients

    def settle(self) -> None:
        """Move to the affine nearest point of a part of each working set, whose coefficients are all positive.
        First every point with a negative coefficient is dropped at once, which takes few solves. Where that does not
        come nearer to the origin, points are dropped one by one on the way, which always does."""
        used, coefficients = self.used.clone(), self.coefficients.clone()
        self._drop(self.live.nonzero()[:, 0], at_once=True)
        farther = (self.live & (self._square() >= self.bound * (1.0 - 1e-14))).nonzero()[:, 0]
        if len(farther):
            self.used[farther], self.coefficients[farther] = used[farther], coefficients[farther]
            self._drop(farther, at_once=False)

    def _drop(self, rows: Tensor, *, at_once: bool) -> None:
        gram, used, coefficients = self.gram[rows], self.used[rows], self.coefficients[rows]
        while len(rows):
            target, factor = self._affine(gram, used)
            inside = (target > 0).logical_or_(~used).all(1)
            if bool(inside.any()):
                target[inside] = self._refined(rows[inside], used[inside], target[inside], factor[inside])
            leaving = used & (target <= 0)
            if at_once:
                used = used & ~leaving
                coefficients = torch.where(used, target, 0.0)
            else:
                ratio = torch.where(leaving, coefficients / (coefficients - target).clamp_min(1e-300), torch.inf)
                reach = ratio.amin(1, keepdim=True).clamp_max(1.0)
                moved = coefficients + reach * (target - coefficients)
                used = used & ~(leaving & (ratio <= reach))
                coefficients = torch.where(used, moved, 0.0)
            self.used[rows], self.coefficients[rows] = used, coefficients
            again = leaving.any(1)
            rows, gram, used, coefficients = rows[again], gram[again], used[again], coefficients[again]

    def grow(self) -> bool:
        """Take in the most violated points of each hull; store and drop the hulls that are done. False: all done."""
        square, values = self._square_and_values()
        values.masked_fill_(~self.valid, torch.inf)
        self._compact()
        values.scatter_reduce_(1, self.positions, torch.where(self.used, 1.0, -1.0).double() * torch.inf, "amax")
        best, where = torch.topk(values, min(self.entering, values.shape[1]), dim=1, largest=False)
        self._thin(square)
        free = self.capacity - self.used.sum(1, keepdim=True)
        enter = best < (square * (1.0 - self.tolerance)).unsqueeze(1)
        enter &= torch.arange(best.shape[1], device=free.device) < free
        # rounding alone can move a finished hull: going on needs a real step toward the origin
        stalled = square >= self.squares * (1.0 - 1e-14)
        going = self.live & enter.any(1) & ~stalled & (square > 1e-30)
        self.squares = self.bound = square
        self.store(self.live & ~going)
        self.live = going
        enter &= going.unsqueeze(1)
        self.positions = torch.cat([self.positions, where], 1)
        self.used = torch.cat([self.used, enter], 1)
        self.coefficients = torch.nn.functional.pad(self.coefficients, (0, where.shape[1]))
        self._compress()
        return bool(self.live.any())

    def _thin(self, square: Tensor) -> None:
        """Free a slot of each full working set by moving along an affine dependence, which leaves its point in place.
        A full set has more members than dimensions, so away from the origin they depend on each other: several may
        have come in at once. Where members are so far away that rounding hides the dependence, the set stays full."""
        full = (self.used.sum(1) >= self.capacity).nonzero()[:, 0]
        if not len(full) or self.used.shape[1] <= 1:
            return
        where = self.positions[full].unsqueeze(-1).expand(-1, -1, self.points.shape[2])
        members = torch.gather(self.points[full], 1, where) / self.unit[full, None, None]
        system = torch.cat([members, torch.ones_like(members[:, :, :1])], 2)
        eigenvalues, vectors = torch.linalg.eigh(torch.bmm(system, system.transpose(1, 2)))
        dependence = vectors[:, :, 0]
        dependence = dependence * torch.where(dependence.amax(1) > 0, 1.0, -1.0).unsqueeze(1)
        ratio = torch.where(dependence > 0, self.coefficients[full] / dependence, torch.inf)
        reach, first = ratio.min(1)
        moved = (self.coefficients[full] - reach.unsqueeze(1) * dependence).clamp_min(0.0)
        moved = moved.scatter_(1, first.unsqueeze(1), 0.0)
        moved = moved / moved.sum(1, keepdim=True)
        # rounding moves the point by this share of how far away its members are
        rounding = 1e-12 * (moved * members.norm(dim=2)).sum(1)
        farther = torch.einsum("bs,bsd->bd", moved, members).norm(dim=1) > square[full].sqrt() + rounding
        kept = (eigenvalues[:, 0] < 1e-12 * eigenvalues[:, -1]) & ~farther & moved.isfinite().all(1)
        full, first = full[kept], first[kept]
        self.coefficients[full] = moved[kept]
        self.used[full, first] = False

    def store(self, done: Tensor) -> None:
        """Write the working sets of these hulls to the result."""
        rows, width = self.rows[done], min(self.used.shape[1], self.capacity)
        self.result.positions[rows, :width] = self.positions[done, :width]
        self.result.used[rows, :width] = self.used[done, :width]
        self.result.coefficients[rows, :width] = self.coefficients[done, :width]

    def _compress(self) -> None:
        """Forget finished hulls when they are many: copying the points of the others costs as much as a step."""
        live = int(self.live.sum())
        if live <= 0.6 * len(self.rows):
            live_rows = self.live
            for name in self.per_hull:
                setattr(self, name, getattr(self, name)[live_rows])
        if live:
            self._gather()


def affine_factor(
    gram: Float[Tensor, "hulls width width"], used: Bool[Tensor, "hulls width"]
) -> tuple[Float[Tensor, "hulls width width"], Float[Tensor, "hulls width"]]:
    """The Cholesky factor of each affine problem, with rows of the identity where unused, and its right-hand side."""
    ones = used.to(torch.float64)
    masked = gram * ones.unsqueeze(2) * ones.unsqueeze(1)
    masked.diagonal(dim1=1, dim2=2).mul_(1.0 + RIDGE).add_(1.0 - ones)
    return torch.linalg.cholesky_ex(masked)[0], ones
