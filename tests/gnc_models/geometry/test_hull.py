"""Small hulls against their optimality conditions: every answer proves itself."""

import pytest
import torch

from gnc_models.geometry.hull import HullPoints, nearest_hull_points
from tests.gnc_models.known_codes import KINDS, orthoplex, polygon


def solve(points, tolerance=1e-10, valid=None, start=None):
    valid = torch.ones(points.shape[:2], dtype=torch.bool) if valid is None else valid
    found = nearest_hull_points(points, valid, tolerance=tolerance, start=start)
    members = points.gather(1, found.positions.unsqueeze(-1).expand(-1, -1, points.shape[2]))
    return found, torch.einsum("bs,bsd->bd", found.coefficients, members)


def assert_nearest(points, point, valid=None, rel=1e-10):
    """`<v, p> >= |p|^2` for every v: no point of the hull is nearer to the origin than p."""
    values = torch.einsum("bmd,bd->bm", points, point)
    if valid is not None:
        values = values.masked_fill(~valid, torch.inf)
    square = point.square().sum(1)
    scale = points.square().sum(2).amax(1)
    assert (values.amin(1) >= square - rel * square - 1e-15 * scale).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_points", "dim"), [(1, 3), (2, 1), (5, 9), (40, 2), (60, 12)])
def test_answers_are_nearest_convex_and_small(kind, num_points, dim):
    points = torch.stack([KINDS[kind](num_points, dim, seed) + 0.3 for seed in range(20)])
    found, point = solve(points)
    assert (found.coefficients >= 0).all()
    torch.testing.assert_close(found.coefficients.sum(1), torch.ones(20, dtype=torch.float64))
    assert (found.coefficients[~found.used] == 0).all()
    assert int(found.used.sum(1).max()) <= min(num_points, dim + 1)
    assert_nearest(points, point)


def test_hulls_that_finish_at_different_times_do_not_disturb_each_other():
    points = torch.stack(
        [KINDS[kind](30, 6, seed) + shift for kind in KINDS for seed in range(8) for shift in (0.1, 1)]
    )
    _, together = solve(points)
    alone = torch.cat([solve(points[i : i + 1])[1] for i in range(len(points))])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-13)


def test_points_that_do_not_count_are_left_out():
    points = torch.stack([KINDS["random"](30, 4, seed) + 1.0 for seed in range(10)])
    valid = torch.rand(10, 30, generator=torch.Generator().manual_seed(0)) < 0.4
    valid[:, 0] = True
    found, point = solve(points, valid=valid)
    assert valid.gather(1, found.positions)[found.used].all()
    assert_nearest(points, point, valid)


def test_many_dependent_points_at_equal_distance_leave_the_working_set_small():
    rest = torch.stack([torch.cat([orthoplex(12)[:k], orthoplex(12)[k + 1 :]]) - orthoplex(12)[k] for k in range(24)])
    found, point = solve(rest)
    torch.testing.assert_close(point.norm(dim=1), torch.ones(24, dtype=torch.float64))
    assert int(found.used.sum(1).max()) <= 13


def test_nearly_flat_hulls_keep_their_digits():
    """Two neighbours on a polygon of 10,000 rows: the nearest point is 1e-5 of their distance away."""
    rows = polygon(10_000)
    points = (torch.stack([rows[-1], rows[1]]) - rows[0]).unsqueeze(0)
    _, point = solve(points)
    assert float(point.norm()) == pytest.approx(float(points.mean(1).norm()), rel=1e-9)


def test_any_start_ends_at_the_same_point():
    points = torch.stack([KINDS["random"](50, 8, seed) + 0.5 for seed in range(10)])
    found, cold = solve(points)
    start = HullPoints(
        torch.arange(20, 28).expand(10, 8), torch.ones(10, 8, dtype=torch.bool), torch.rand(10, 8).double()
    )
    torch.testing.assert_close(solve(points, start=start)[1], cold, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(solve(points, start=found)[1], cold, rtol=1e-9, atol=1e-12)


def test_a_point_at_the_origin_is_the_answer_exactly():
    points = KINDS["random"](9, 3, 0).unsqueeze(0) + 1.0
    points[0, 4] = 0.0
    start = HullPoints(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool), torch.full((1, 2), 0.5).double())
    for begin in (None, start):
        found, point = solve(points, start=begin)
        assert (point == 0).all()
        assert found.positions[found.used].tolist() == [4]


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_scale_does_not_matter(scale):
    points = torch.stack([KINDS["clustered"](40, 5, seed) + 0.2 for seed in range(6)])
    torch.testing.assert_close(solve(scale * points)[1], scale * solve(points)[1], rtol=1e-9, atol=0)
