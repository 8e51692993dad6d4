"""One code laid over another: rotation, mirror image and order are undone."""

import numpy as np
import pytest

from analysis.statistics.procrustes import align, unit_rows


def polygon(num_classes: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(num_classes) / num_classes
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def icosahedron() -> np.ndarray:
    golden = (1 + np.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (1, -1) for b in (1, -1)]
    return unit_rows(np.array([np.roll(c, shift) for c in corners for shift in range(3)]))


@pytest.mark.parametrize("target", [polygon(7), icosahedron()], ids=["heptagon", "icosahedron"])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_turned_mirrored_shuffled_code_is_laid_back_exactly(target, mirror):
    rng = np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.normal(size=(target.shape[1],) * 2))
    turn[:, 0] *= mirror
    order = rng.permutation(len(target))
    points = target[order] @ turn
    laid = align(points, target)
    assert laid.angle < 1e-6
    assert np.allclose(points @ laid.rotation, target[laid.match], atol=1e-9)
    assert sorted(laid.match) == list(range(len(target)))


def test_the_angle_left_over_grows_with_the_noise():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(12, 3))
    small, large = (align(unit_rows(icosahedron() + s * noise), icosahedron()).angle for s in (0.02, 0.2))
    assert 0.005 < small < 0.06 < large


def test_the_rotation_is_orthogonal_and_the_same_seed_gives_the_same():
    points = unit_rows(np.random.default_rng(3).normal(size=(20, 3)))
    target = unit_rows(np.random.default_rng(4).normal(size=(20, 3)))
    first, second = align(points, target), align(points, target)
    assert np.allclose(first.rotation @ first.rotation.T, np.eye(3), atol=1e-12)
    assert np.array_equal(first.rotation, second.rotation)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"points must have the shape of the target \(5, 2\), got \(6, 2\)"):
        align(polygon(6), polygon(5))
