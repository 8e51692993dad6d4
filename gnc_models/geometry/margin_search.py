"""The search behind certified margins: candidates, bounds and supports of all classes, improved batch by batch.

Knows torch and the small hull solver; does not know what the rows stand for. A class is solved against a pool of
candidate rows, one streamed pass over all rows certifies it or names the rows it missed, and these take the places of
the candidates with most slack. The rows that support its hull point so far are always candidates too.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnc_models.geometry.hull import HullPoints, nearest_hull_points
from gnc_models.geometry.pairwise import EPS

# Entries of one tile of scores, and of one batch of gathered candidates: 32 MiB and 16 MiB in float64.
TILE_ENTRIES = 1 << 22
BATCH_ENTRIES = 1 << 21
# With at most this many other rows all of them are candidates, and one round certifies.
ALL_ROWS = 64
# Relative gaps of the first rounds' solves: exact answers to pools that are not final yet are wasted, and in mode
# "min" most classes are ruled out by a bound that is not tight.
COARSE = {"all": (1e-2,), "min": (3e-2, 3e-3)}
# Lengths whose squares are near the smallest float64; rows come with a largest entry near 1.
VANISHING = 1e-140


class MarginSearch:
    """Bounds so far, with what it takes to improve them. Weights are float64, their largest entry near 1."""

    def __init__(
        self, weights: Float[Tensor, "classes dim"], tolerance: float, mode: str, *, exact: bool = True
    ) -> None:
        """`exact`: whether rows that are equal were equal before they were brought near 1."""
        num_classes, dim = weights.shape
        others = num_classes - 1
        self.weights, self.tolerance, self.mode, self.exact = weights, tolerance, mode, exact
        self.norms = weights.norm(dim=1)
        self.narrow = self._narrow()
        self.lower = torch.zeros_like(self.norms)
        self.upper = torch.full_like(self.norms, torch.inf)
        self.stuck = torch.zeros(num_classes, dtype=torch.bool, device=weights.device)
        # of the sizes tried, those that solve (10000, 10), (10000, 64) and (10000, 512) fastest
        size = others if others <= ALL_ROWS else min(others, max(32, min(96, 3 * dim // 2)))
        self.joining = min(max(8, min(64, dim)), size)  # missed rows that join the pool in one round
        self.coarse = size < others  # whether the first round's solves may be
        self.pool = self._scan(size)
        self.support = torch.full((num_classes, dim + 1), -1, dtype=torch.int64, device=weights.device)
        self.coefficients = torch.zeros(num_classes, dim + 1, dtype=torch.float64, device=weights.device)
        self.batch = max(16, min(BATCH_ENTRIES // (size * dim), TILE_ENTRIES // num_classes))

    def begin_from(self, support: Int[Tensor, "classes width"], coefficients: Float[Tensor, "classes width"]) -> None:
        """Start each class's working set from rows that supported it elsewhere."""
        self.coarse = False
        width = min(self.support.shape[1], support.shape[1])
        support, coefficients = (x[:, :width].to(self.support.device) for x in (support, coefficients))
        own = torch.arange(len(support), device=support.device).unsqueeze(1)
        other = (support >= 0) & (support < len(support)) & (support != own)
        order = (~other).to(torch.int8).argsort(dim=1, stable=True)
        self.support[:, :width] = torch.where(other, support, -1).gather(1, order)
        self.coefficients[:, :width] = torch.where(other, coefficients, 0.0).gather(1, order)

    def _narrow(self) -> Tensor | None:
        """The rows in float32 for passes that need few digits, where these are cheaper and can be bounded."""
        largest = float(self.norms.max())
        exact = torch.get_float32_matmul_precision() == "highest"  # else products may be of bfloat16
        worth = self.weights.device.type == "cpu" and self.weights.shape[1] >= 32
        return self.weights.float() if worth and exact and 1e-6 < largest < 1e6 else None

    def _rounding(self, rows: Tensor, dtype: torch.dtype) -> Float[Tensor, " rows"]:
        """Bounds the error of a difference of two scores with a unit direction, each a sum of `dim` products."""
        roundings = self.weights.shape[1] + 8  # and those of row and direction when they become float32
        return torch.finfo(dtype).eps * roundings * (self.norms[rows] + self.norms.max())

    def _scan(self, size: int) -> Int[Tensor, "classes size"]:
        """The `size` nearest other rows of each row; in mode min also a lower bound from the row's own direction."""
        weights = self.weights if self.narrow is None else self.narrow
        half = weights.square().sum(1) / 2
        # filled, not collected: small results kept between large scores leave holes that no later scores fit into
        nearest = torch.empty(len(half), size, dtype=torch.int64, device=half.device)
        every = torch.arange(len(half), device=half.device)
        for rows in torch.split(every, max(1, TILE_ENTRIES // len(half))):
            scores = (weights[rows] @ weights.T).scatter_(1, rows.unsqueeze(1), -torch.inf)
            if self.mode == "min":
                bound = self.norms[rows] - scores.amax(1) / self.norms[rows]
                bound -= self._rounding(rows, scores.dtype)
                # a shorter row has no direction in float32
                self.lower[rows] = torch.where(self.norms[rows] > 1e-30, bound.clamp_min(0.0), 0.0)
            nearest[rows] = scores.sub_(half).topk(size, dim=1, sorted=False).indices
        return nearest

    def open(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " open"]:
        """Those of the classes that still need a round; in mode min the most promising first."""
        lower, upper = self.lower[rows], self.upper[rows]
        # at the size of rounding no interval can be narrower: the row is inside the hull, or touches it
        certified = (upper - lower <= self.tolerance * upper) | (upper <= 2 * self._rounding(rows, torch.float64))
        unfinished = ~self.stuck[rows] & (upper.isinf() | ~certified)
        if self.mode == "all":
            return rows[unfinished]
        rows = rows[unfinished & (lower <= self.upper.min())]
        return rows[self.lower[rows].argsort(stable=True)]

    def nearest_distance(self) -> Float[Tensor, " classes"]:
        """The distance of each row to a near other row: an upper bound of its margin that takes no solve."""
        near = torch.empty_like(self.upper)
        for rows in torch.split(torch.arange(len(near), device=near.device), self.batch):
            points = self.weights[self.pool[rows]] - self.weights[rows].unsqueeze(1)
            near[rows] = points.norm(dim=2).amin(1) * (1.0 + EPS * (points.shape[2] + 8))
        return torch.where(near < VANISHING, near + VANISHING, near)

    def improve(self, rows: Int[Tensor, " rows"], *, round_index: int) -> None:
        """Solve classes against their candidates, certify them against all rows, take in the rows they missed."""
        if not len(rows):
            return
        gaps = COARSE[self.mode] if self.coarse else ()
        coarse = round_index < len(gaps)
        tolerance = max(self.tolerance / 4, gaps[round_index] if coarse else 0.0)
        candidates, valid, start = self._arranged(rows)
        points = self.weights[candidates] - self.weights[rows].unsqueeze(1)
        solved = nearest_hull_points(points, valid, tolerance=tolerance, start=start)
        members = torch.gather(points, 1, solved.positions.unsqueeze(-1).expand(-1, -1, points.shape[2]))
        nearest = torch.einsum("bs,bsd->bd", solved.coefficients, members)
        distance = nearest.norm(dim=1)
        reach = (solved.coefficients * members.norm(dim=2)).sum(1)
        # every v_j and every sum is relatively exact up to a few roundings, so the error is in proportion to `reach`
        width = solved.used.shape[1]
        upper = distance + EPS * (2 * width + points.shape[2] + 8) * reach
        # only of a point at the row itself are squares of such lengths exact
        apart = ((solved.coefficients > 0) & (members != 0).any(2)).any(1) | (not self.exact)
        upper = torch.where((distance < VANISHING) & apart, upper + VANISHING, upper)
        convex = (solved.coefficients.sum(1) - 1.0).abs() <= EPS * width
        upper = upper.masked_fill(~convex, torch.inf)
        direction = -nearest / distance.clamp_min(1e-300).unsqueeze(1)
        slack = _slack(points, valid, direction)
        far, missed = self._far_bound(rows, candidates, direction, distance, narrow=coarse)
        lower = torch.minimum(slack.amin(1), far) * (1.0 - EPS * (points.shape[2] + 4))
        lower = torch.where((distance >= VANISHING) & (lower >= VANISHING), lower, 0.0)  # and where either is NaN
        stuck = self._keep(rows, candidates, solved, lower, upper, missed)
        # a coarse round's padding may hide what the next one finds
        self.stuck[rows] = stuck & (not coarse)
        self._refill(rows, slack, missed)

    def _arranged(self, rows: Tensor) -> tuple[Tensor, Tensor, HullPoints | None]:
        """Candidates as [support | pool]: their indices, which count, and the support as the working set."""
        pool, support = self.pool[rows], self.support[rows]
        used = support >= 0
        if not bool(used.any()):
            return pool, torch.ones_like(pool, dtype=torch.bool), None
        support, used = support[:, : int(used.sum(1).max())], used[:, : int(used.sum(1).max())]
        held = torch.where(used, support, rows.unsqueeze(1))  # free slots hold the class itself
        marked = torch.zeros(len(rows), len(self.weights), dtype=torch.bool, device=pool.device)
        marked.scatter_(1, held, True)
        positions = torch.arange(used.shape[1], device=pool.device).expand_as(used)
        start = HullPoints(positions, used, self.coefficients[rows, : used.shape[1]])
        return torch.cat([held, pool], 1), torch.cat([used, ~marked.gather(1, pool)], 1), start

    def _far_bound(
        self, rows: Tensor, candidates: Tensor, direction: Tensor, distance: Tensor, *, narrow: bool
    ) -> tuple[Tensor, Tensor]:
        """The least slack of the rows that are no candidates, and the rows beyond the supporting plane (else -1)."""
        weights = self.weights if self.narrow is None or not narrow else self.narrow
        scores = direction.to(weights.dtype) @ weights.T
        own = (direction * self.weights[rows]).sum(1)
        scores.scatter_(1, rows.unsqueeze(1), -torch.inf)
        scores.scatter_(1, candidates, -torch.inf)
        bound = own - scores.amax(1) - self._rounding(rows, weights.dtype)
        missed = torch.full((len(rows), self.joining), -1, dtype=torch.int64, device=rows.device)
        wanted = distance * (1.0 - self.tolerance / 4)
        cut = (bound < wanted).nonzero()[:, 0]
        if len(cut):
            best, where = scores[cut].topk(self.joining, dim=1, sorted=False)
            missed[cut] = where.masked_fill(best <= (own - wanted)[cut].unsqueeze(1), -1)
        return bound, missed

    def _keep(
        self, rows: Tensor, candidates: Tensor, solved: HullPoints, lower: Tensor, upper: Tensor, missed: Tensor
    ) -> Bool[Tensor, " rows"]:
        """Keep each bound where it is better than before, and the support with its upper bound; which gained nothing."""
        better = upper < self.upper[rows]
        stuck = ~(better | (lower > self.lower[rows])) & (missed < 0).all(1)
        self.lower[rows] = torch.maximum(self.lower[rows], lower)
        at = rows[better]
        self.upper[at] = upper[better]
        chosen = candidates.gather(1, solved.positions).masked_fill(~solved.used, -1)[better]
        width = chosen.shape[1]
        self.support[at, :width] = chosen
        self.support[at, width:] = -1
        self.coefficients[at, :width] = solved.coefficients[better]
        self.coefficients[at, width:] = 0.0
        return stuck

    def _refill(self, rows: Tensor, slack: Tensor, missed: Tensor) -> None:
        """Missed rows take the places of the candidates with most slack; supports have places of their own."""
        cut = (missed >= 0).any(1)
        if bool(cut.any()):
            at, joining = rows[cut], missed[cut]
            pool = self.pool[at]
            leaving = slack[cut][:, -pool.shape[1] :].topk(self.joining, dim=1, sorted=False).indices
            self.pool[at] = pool.scatter(1, leaving, torch.where(joining >= 0, joining, pool.gather(1, leaving)))


def _slack(points: Tensor, valid: Tensor, direction: Tensor) -> Float[Tensor, "rows candidates"]:
    """`<w_k - w_j, h>` of each candidate, rounded down: from differences of rows, so right to a relative rounding."""
    slack = -torch.bmm(points, direction.unsqueeze(-1)).squeeze(-1)
    slack -= EPS * (points.shape[2] + 3) * points.norm(dim=2)
    return slack.masked_fill_(~valid, torch.inf)
