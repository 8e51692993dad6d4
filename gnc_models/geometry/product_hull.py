"""Nearest points of small convex hulls from inner products of their points, faster in many dimensions than `hull`.
A square below 1e-16 times that of the points' lengths is lost: for hulls away from the origin, to be certified."""

import torch
from torch import Tensor

from gnc_models.geometry.hull import HullPoints, PointSets, affine_factor
from gnc_models.shapes import Bool, Float

FIRST = 16  # points of the first working set, where none is given
ENTERING = 8  # points taken in at a time
MOST_STEPS = 100


def nearest_by_products(
    products: Float[Tensor, "hulls points points"], valid: Bool[Tensor, "hulls points"], *, tolerance: float,
    capacity: int, start: HullPoints | None = None,
) -> HullPoints:  # fmt: skip
    """As `nearest_hull_points`, of points whose inner products these are, in float64, and at most `capacity` in use.
    A result can be worse than asked for, or no convex combination at all, where the products' rounding is too coarse."""
    return ProductSets(products, valid, tolerance, capacity, start).solve(MOST_STEPS)


class ProductSets(PointSets):
    """Working sets as in `hull`, with products in place of points."""

    per_hull = ("rows", "live", "products", "valid", "unit", "positions", "used", "coefficients", "squares", "bound")

    def __init__(
        self, products: Tensor, valid: Tensor, tolerance: float, capacity: int, start: HullPoints | None
    ) -> None:
        num_hulls, num_points, _ = products.shape
        self.valid, self.tolerance = valid, tolerance
        self.rows = torch.arange(num_hulls, device=products.device)
        self.live = torch.ones(num_hulls, dtype=torch.bool, device=products.device)
        sizes = products.diagonal(dim1=1, dim2=2).masked_fill(~valid, torch.inf)
        self.unit = sizes.amin(1).clamp_min(1e-300).sqrt()
        self.products = products / self.unit.square()[:, None, None]
        self.capacity, self.entering = min(capacity, num_points), ENTERING
        self.positions = sizes.topk(min(FIRST, self.capacity), dim=1, largest=False).indices
        self.used = valid.gather(1, self.positions)
        self.coefficients = self.used / self.used.sum(1, keepdim=True).to(torch.float64)
        if start is not None:
            self._begin_from(start, torch.ones_like(self.live).unsqueeze(1))
        self._make_ready(started=False)

    def _begin_from(self, start: HullPoints, wanted: Tensor) -> None:
        spare = self.positions.shape[1] - start.positions.shape[1]
        wider, narrower = max(-spare, 0), max(spare, 0)
        given = start.used.any(1, keepdim=True) & wanted
        for name in ("positions", "used", "coefficients"):
            there = torch.nn.functional.pad(getattr(start, name), (0, narrower))
            setattr(self, name, torch.where(given, there, torch.nn.functional.pad(getattr(self, name), (0, wider))))
        self._compact()

    def _gather(self) -> None:
        width = self.positions.shape[1]
        rows = self.products.gather(1, self.positions.unsqueeze(2).expand(-1, -1, self.products.shape[2]))
        self.members = rows.gather(2, self.positions.unsqueeze(1).expand(-1, width, -1))
        self.gram = self.members + 1.0

    def _square(self) -> Float[Tensor, " hulls"]:
        return (torch.bmm(self.members, self.coefficients.unsqueeze(2)).squeeze(2) * self.coefficients).sum(1)

    def _square_and_values(self) -> tuple[Float[Tensor, " hulls"], Float[Tensor, "hulls points"]]:
        spread = torch.zeros_like(self.valid, dtype=torch.float64)
        spread.scatter_add_(1, self.positions, torch.where(self.used, self.coefficients, 0.0))
        values = torch.bmm(self.products, spread.unsqueeze(2)).squeeze(2)
        return (values * spread).sum(1), values

    def _affine(self, gram: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        factor, ones = affine_factor(gram, used)
        solution = _substituted(factor, ones)
        return solution / solution.sum(1, keepdim=True), factor

    def _refined(self, rows: Tensor, used: Tensor, coefficients: Tensor, factor: Tensor) -> Tensor:
        slopes = torch.bmm(self.members[rows], coefficients.unsqueeze(2)).squeeze(2)
        residual = ((slopes * coefficients).sum(1, keepdim=True) - slopes) * used
        coefficients = coefficients + _substituted(factor, residual)
        return coefficients / coefficients.sum(1, keepdim=True)

    def _thin(self, square: Tensor) -> None:
        """A full set stays full: the caller goes on with points."""


def _substituted(factor: Tensor, right: Tensor) -> Float[Tensor, "hulls width"]:
    """Solutions by two substitutions: `cholesky_solve` takes eight times as long on many small systems."""
    half = torch.linalg.solve_triangular(factor, right.unsqueeze(2), upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(2)
