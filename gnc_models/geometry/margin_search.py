"""The search behind certified margins: candidates, bounds and supports of all classes, improved batch by batch.
The rows that support a class's hull point so far are always candidates. Knows torch and the small hull solvers."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from gnc_models.geometry.hull import HullPoints, nearest_hull_points
from gnc_models.geometry.pairwise import EPS
from gnc_models.geometry.product_hull import nearest_by_products
from gnc_models.shapes import Bool, Float, Int

# Entries of one tile of scores, and of one batch of gathered candidates: 32 MiB and 16 MiB in float64.
TILE_ENTRIES = 1 << 22
BATCH_ENTRIES = 1 << 21
# With at most this many other rows all of them are candidates, and one round certifies.
ALL_ROWS = 64
# Relative gaps of the first rounds' solves: exact answers to pools that are not final yet are wasted, and in mode
# "min" most classes are ruled out by a bound that is not tight.
COARSE = {"all": (1e-2,), "min": (3e-2, 3e-3)}
# From so many dimensions on, hulls away from the origin are solved by inner products. Sets of candidates made at once.
PRODUCTS_DIM, PRODUCTS_BATCH = 32, 16
POOLED = 64  # nearest rows that are candidates at first, in many dimensions
NEXT = 32  # foremost rows that are candidates beside the support in later rounds
# Lengths whose squares are near the smallest float64; rows come with a largest entry near 1.
VANISHING = 1e-140
Step = Callable[[], None]  # works on a batch of classes; those of one round may run side by side


class MarginSearch:
    """Bounds so far, with what it takes to improve them. Weights are float64, their largest entry near 1."""

    def __init__(
        self, weights: Float[Tensor, "classes dim"], tolerance: float, mode: str, *, exact: bool = True
    ) -> None:
        """exact: whether rows that are equal were equal before they were brought near 1."""
        num_classes, dim = weights.shape
        others = num_classes - 1
        self.weights, self.tolerance, self.mode, self.exact = weights, tolerance, mode, exact
        self.norms = weights.norm(dim=1)
        self.narrow = self._narrow()
        self.lower = torch.zeros_like(self.norms)
        self.upper = torch.full_like(self.norms, torch.inf)
        self.stuck = torch.zeros(num_classes, dtype=torch.bool, device=weights.device)
        # of the sizes tried, those that solve (10000, 10), (10000, 64) and (10000, 512) fastest
        size = others if others <= ALL_ROWS else min(others, max(32, min(POOLED, 3 * dim // 2)))
        self.joining = min(max(8, min(64, dim)), size)  # missed rows that join the pool in one round
        self.coarse = size < others  # whether the first round's solves may be
        self.size = size
        self.by_products = self.coarse and dim >= PRODUCTS_DIM
        # too near to the hull for inner products: all digits come from differences
        self.close = torch.full_like(self.stuck, not self.by_products)
        self.closeness = (64 * EPS * (dim + 8) / tolerance) ** 0.5 * self.norms.max()
        self.all_products = weights @ weights.T if self.by_products and num_classes <= 4 * dim else None
        self.pool = torch.full((num_classes, size), -1, dtype=torch.int64, device=weights.device)
        self.support = torch.full((num_classes, dim + 1), -1, dtype=torch.int64, device=weights.device)
        self.coefficients = torch.zeros(num_classes, dim + 1, dtype=torch.float64, device=weights.device)
        most = (
            max(128, min(256, BATCH_ENTRIES // (POOLED * dim))) if self.by_products else BATCH_ENTRIES // (size * dim)
        )
        self.batch = max(16, min(most, TILE_ENTRIES // num_classes))

    def begin(self) -> Iterator[Step]:
        """Start each class from the rows nearest to it; a step is a batch of classes."""
        return self._scan(torch.arange(len(self.weights), device=self.weights.device))

    def begin_from(
        self, support: Int[Tensor, "classes width"], coefficients: Float[Tensor, "classes width"]
    ) -> Iterator[Step]:
        """Start each class's working set from rows that supported it elsewhere, whose bounds come first."""
        self.coarse = False
        width = min(self.support.shape[1], support.shape[1])
        support, coefficients = (x[:, :width].to(self.support.device) for x in (support, coefficients))
        own = torch.arange(len(support), device=support.device).unsqueeze(1)
        other = (support >= 0) & (support < len(support)) & (support != own)
        order = (~other).to(torch.int8).argsort(dim=1, stable=True)
        self.support[:, :width] = torch.where(other, support, -1).gather(1, order)
        self.coefficients[:, :width] = torch.where(other, coefficients, 0.0).gather(1, order)
        known = (self.support[:, 0] >= 0) & self.by_products
        yield from self._scan((~known).nonzero()[:, 0])
        for rows in torch.split(known.nonzero()[:, 0], self.batch) if bool(known.any()) else ():
            yield partial(self._certify_start, rows)

    def _certify_start(self, rows: Tensor) -> None:
        width = int((self.support[rows] >= 0).sum(1).max())
        coefficients = self.coefficients[rows, :width].clamp_min(0.0)
        total = coefficients.sum(1, keepdim=True)
        coefficients = coefficients / torch.where(total > 0, total, 1.0)
        self._certify(rows, self.support[rows, :width], coefficients, narrow=False)

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

    def _scan(self, rows: Int[Tensor, " rows"]) -> Iterator[Step]:
        """Pool the nearest other rows of each row; in mode min also a lower bound from the row's own direction."""
        weights = self.weights if self.narrow is None else self.narrow
        half = weights.square().sum(1) / 2
        for part in torch.split(rows, max(1, TILE_ENTRIES // len(half))):
            yield partial(self._scan_part, part, weights, half)

    def _scan_part(self, part: Tensor, weights: Tensor, half: Tensor) -> None:
        scores = (weights[part] @ weights.T).scatter_(1, part.unsqueeze(1), -torch.inf)
        if self.mode == "min":
            bound = self.norms[part] - scores.amax(1) / self.norms[part]
            bound -= self._rounding(part, scores.dtype)
            # a shorter row has no direction in float32
            self.lower[part] = torch.where(self.norms[part] > 1e-30, bound.clamp_min(0.0), 0.0)
        self.pool[part] = scores.sub_(half).topk(self.size, dim=1, sorted=False).indices

    def open(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " open"]:
        """Those of the classes that still need a round; in mode min the most promising first."""
        unfinished = ~self.stuck[rows] & ~self._certified(rows)
        if self.mode == "all":
            return rows[unfinished]
        rows = rows[unfinished & (self.lower[rows] <= self.upper.min())]
        return rows[self.lower[rows].argsort(stable=True)]

    def _certified(self, rows: Int[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
        """Whose intervals are as narrow as asked for, or as can be: the row is inside the hull, or touches it."""
        lower, upper = self.lower[rows], self.upper[rows]
        narrow = (upper - lower <= self.tolerance * upper) | (upper <= 2 * self._rounding(rows, torch.float64))
        return narrow & upper.isfinite()

    def progress(self) -> tuple[int, int]:
        """How many classes are certified, in mode min or ruled out, and how many there are."""
        done = self._certified(torch.arange(len(self.upper), device=self.upper.device))
        if self.mode == "min":
            done |= self.lower > self.upper.min()
        return int(done.sum()), len(done)

    def nearest_distance(self) -> Float[Tensor, " classes"]:
        """The distance of each row to a near other row: an upper bound of its margin that takes no solve."""
        near = torch.empty_like(self.upper)
        for rows in torch.split(torch.arange(len(near), device=near.device), self.batch):
            other = torch.where(self.pool[rows] >= 0, self.pool[rows], (rows.unsqueeze(1) + 1) % len(near))
            points = self.weights[other] - self.weights[rows].unsqueeze(1)
            near[rows] = points.norm(dim=2).amin(1) * (1.0 + EPS * (points.shape[2] + 8))
        return torch.where(near < VANISHING, near + VANISHING, near)

    def improve_all(self, pending: Int[Tensor, " rows"], *, round_index: int) -> Iterator[Step]:
        """A round of all pending classes; a step is a batch."""
        if self.mode == "all" and self.by_products:
            # a batch is as wide as its widest support
            pending = pending[(self.support[pending] >= 0).sum(1).argsort(stable=True)]
        yield from (partial(self.improve, rows, round_index=round_index) for rows in torch.split(pending, self.batch))

    def improve(self, rows: Int[Tensor, " rows"], *, round_index: int) -> None:
        """Solve classes against their candidates, certify them against all rows, take in the rows they missed."""
        rows = self.open(rows)  # in mode "min" the batches before may have ruled some out
        gaps = COARSE[self.mode] if self.coarse else ()
        coarse = round_index < len(gaps)
        tolerance = max(self.tolerance / 4, gaps[round_index] if coarse else 0.0)
        close = self.close[rows]
        if not bool(close.all()):
            self._improve_by_products(rows[~close], tolerance, coarse=coarse)
        if bool(close.any()):
            self._improve_by_points(rows[close], tolerance, coarse=coarse)

    def _improve_by_products(self, rows: Tensor, tolerance: float, *, coarse: bool) -> None:
        first = bool((self.support[rows, 0] < 0).any())
        candidates, valid, start = self._arranged(rows, self.size if first else min(self.size, NEXT))
        products = self._products(rows, candidates, narrow=coarse)
        solved = nearest_by_products(products, valid, tolerance=tolerance, capacity=self.support.shape[1], start=start)
        width = max((1, *(solved.used.any(0).nonzero()[:, 0] + 1).tolist()[-1:]))
        support = candidates.gather(1, solved.positions).masked_fill(~solved.used, -1)[:, :width]
        gained = self._certify(rows, support, solved.coefficients[:, :width], narrow=coarse)
        if not coarse:
            self.close[rows] |= ~gained

    def _products(self, rows: Tensor, candidates: Tensor, *, narrow: bool) -> Float[Tensor, "rows points points"]:
        """Inner products of the candidates' differences from their rows."""
        if self.all_products is not None:
            every = self.all_products
            pairs = (candidates * len(every)).unsqueeze(2) + candidates.unsqueeze(1)
            found = every.view(-1).index_select(0, pairs.view(-1)).view(pairs.shape)
            own = every[rows.unsqueeze(1), candidates] - every.diagonal()[rows].unsqueeze(1) / 2
            return found.sub_(own.unsqueeze(1)).sub_(own.unsqueeze(2))
        weights = self.weights if self.narrow is None or not narrow else self.narrow
        size = candidates.shape[1]
        found = torch.empty(len(rows), size, size, dtype=torch.float64, device=rows.device)
        for part in torch.split(torch.arange(len(rows), device=rows.device), PRODUCTS_BATCH):
            points = weights[candidates[part]] - weights[rows[part]].unsqueeze(1)
            found[part] = torch.bmm(points, points.transpose(1, 2)).to(torch.float64)
        return found

    def _certify(self, rows: Tensor, support: Tensor, coefficients: Tensor, *, narrow: bool) -> Bool[Tensor, " rows"]:
        """Both bounds that points of the hull give, and the rows that lie foremost; which classes gained anything."""
        weights = self.weights if self.narrow is None or not narrow else self.narrow
        largest, dim = self.norms.max(), self.weights.shape[1]
        held = torch.where(support >= 0, support, rows.unsqueeze(1))
        coefficients = torch.where(support >= 0, coefficients, 0.0)
        point = torch.nn.functional.embedding_bag(held, self.weights, per_sample_weights=coefficients, mode="sum")
        nearest = self.weights[rows] - point
        distance = nearest.norm(dim=1)
        width = support.shape[1]
        upper = distance + EPS * (3 * width + dim + 8) * (self.norms[rows] + largest)
        upper = upper.masked_fill(~((coefficients.sum(1) - 1.0).abs() <= EPS * width), torch.inf)
        direction = nearest / distance.clamp_min(1e-300).unsqueeze(1)
        scores = (direction.to(weights.dtype) @ weights.T).scatter_(1, rows.unsqueeze(1), -torch.inf)
        own = (direction * self.weights[rows]).sum(1)
        lower = own - scores.amax(1) - self._rounding(rows, weights.dtype)
        lower = lower * (1.0 - EPS * (dim + 4))
        lower = torch.where(lower >= VANISHING, lower, 0.0)  # and where it is NaN
        close = upper < self.closeness
        self.close[rows] |= close
        # points give these to all digits; what is known of them here is a direction
        gained = self._keep(rows, support, coefficients, lower, upper.masked_fill(close, torch.inf))
        cut = (self.lower[rows] < self.upper[rows] * (1.0 - self.tolerance)).nonzero()[:, 0]
        if len(cut):
            foremost = min(self.size, NEXT)
            self.pool[rows[cut], :foremost] = scores[cut].topk(foremost, dim=1, sorted=False).indices
        return gained

    def _improve_by_points(self, rows: Tensor, tolerance: float, *, coarse: bool) -> None:
        candidates, valid, start = self._arranged(rows, self.size)
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
        support = candidates.gather(1, solved.positions).masked_fill(~solved.used, -1)
        gained = self._keep(rows, support, solved.coefficients, lower, upper)
        # a coarse round's padding may hide what the next one finds
        self.stuck[rows] = ~gained & (missed < 0).all(1) & (not coarse)
        self._refill(rows, slack, missed)

    def _arranged(self, rows: Tensor, pooled: int) -> tuple[Tensor, Tensor, HullPoints | None]:
        """Candidates as [support | pool]: their indices, which count, and the support as the working set."""
        pool, support = self.pool[rows, :pooled], self.support[rows]
        pool = torch.where(pool >= 0, pool, rows.unsqueeze(1))
        used = support >= 0
        if not bool(used.any()):
            return pool, pool != rows.unsqueeze(1), None
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
        self, rows: Tensor, support: Tensor, coefficients: Tensor, lower: Tensor, upper: Tensor
    ) -> Bool[Tensor, " rows"]:
        """Keep each bound where it is better than before, and the support with its upper bound; which gained anything."""
        better = upper < self.upper[rows]
        gained = better | (lower > self.lower[rows])
        self.lower[rows] = torch.maximum(self.lower[rows], lower)
        at, width = rows[better], support.shape[1]
        self.upper[at] = upper[better]
        self.support[at, :width] = support[better]
        self.support[at, width:] = -1
        self.coefficients[at, :width] = coefficients[better]
        self.coefficients[at, width:] = 0.0
        return gained

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
