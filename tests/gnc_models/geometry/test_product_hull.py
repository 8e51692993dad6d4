"""Hulls solved by inner products against the same hulls solved by points."""

import pytest
import torch

from gnc_models.geometry.hull import HullPoints, nearest_hull_points
from gnc_models.geometry.product_hull import nearest_by_products


def point_of(points: torch.Tensor, found: HullPoints) -> torch.Tensor:
    members = torch.gather(points, 1, found.positions.unsqueeze(-1).expand(-1, -1, points.shape[2]))
    return torch.einsum("bs,bsd->bd", torch.where(found.used, found.coefficients, 0.0), members)


@pytest.mark.parametrize(("num_points", "dim"), [(2, 5), (40, 32), (96, 40), (60, 200)])
def test_the_nearest_points_are_those_found_by_points(num_points, dim):
    generator = torch.Generator().manual_seed(dim)
    points = torch.randn(9, num_points, dim, generator=generator, dtype=torch.float64)
    points += 2 * torch.randn(9, 1, dim, generator=generator, dtype=torch.float64)  # the origin lies outside
    valid = torch.rand(9, num_points, generator=generator) < 0.8
    valid[:, 0] = True
    products = points @ points.transpose(1, 2)
    found = nearest_by_products(products, valid, tolerance=1e-10, capacity=dim + 1)
    wanted = nearest_hull_points(points, valid, tolerance=1e-10)
    assert torch.allclose(found.coefficients.sum(1), torch.ones(9, dtype=torch.float64), rtol=1e-14)
    assert (found.coefficients >= 0).all()
    assert bool(valid.gather(1, found.positions)[found.used].all())
    torch.testing.assert_close(point_of(points, found), point_of(points, wanted), rtol=1e-6, atol=1e-6)


def test_a_start_changes_nothing_but_the_way():
    points = torch.randn(4, 50, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 1.0
    products, valid = points @ points.transpose(1, 2), torch.ones(4, 50, dtype=torch.bool)
    cold = nearest_by_products(products, valid, tolerance=1e-10, capacity=65)
    start = HullPoints(*(x[:, :30] for x in (cold.positions, cold.used, cold.coefficients)))
    none = HullPoints(start.positions, torch.zeros_like(start.used), torch.zeros_like(start.coefficients))
    for given in (cold, start, none):
        warm = nearest_by_products(products, valid, tolerance=1e-10, capacity=65, start=given)
        torch.testing.assert_close(point_of(points, warm), point_of(points, cold), rtol=1e-6, atol=1e-6)
