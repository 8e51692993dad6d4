"""Every explicit code has the size, dimension and cosine it is listed with, counted row against row."""

import numpy as np
import pytest

from gnc_models.constructions.binary import golay_words
from gnc_models.constructions.explicit import FAMILIES, KISSING, make_points, orthoplex, polygon, simplex
from gnc_models.references.margin import reference_margin

COUNTED = {(dim, size) for _, dim, size, _ in KISSING}  # in whole numbers, by test_kissing
AFFORDABLE = [name for name, (dim, size, _) in FAMILIES.items() if size * dim <= 300_000 and (dim, size) not in COUNTED]
LARGE = ["Leech section 20", "Gold 127", "quadratic forms 64"]  # checked on a sample of rows


@pytest.mark.parametrize("name", AFFORDABLE)
def test_small_families_have_their_listed_cosine(name: str):
    dim, size, _ = FAMILIES[name]
    points = make_points(name)
    assert points.shape == (size, dim)
    cosines = points @ points.T
    np.fill_diagonal(cosines, -1)
    assert 1 - cosines.max() == pytest.approx(reference_margin(size, dim).lower, abs=1e-12)


@pytest.mark.parametrize("name", LARGE)
def test_large_families_have_their_listed_cosine(name: str):
    dim, size, _ = FAMILIES[name]
    points = make_points(name)
    assert points.shape == (size, dim)
    rows = np.random.default_rng(0).choice(size, 40, replace=False)
    cosines = points[rows] @ points.T
    cosines[np.arange(40), rows] = -1
    assert 1 - cosines.max() == pytest.approx(reference_margin(size, dim).lower, abs=1e-12)


def test_golay_code_has_its_weights():
    weights, counts = np.unique(golay_words().sum(1), return_counts=True)
    assert weights.tolist() == [0, 8, 12, 16, 24]
    assert counts.tolist() == [1, 759, 2576, 759, 1]


def test_exact_families_have_their_cosines():
    for num_classes in (3, 7, 50):
        points = polygon(num_classes)
        assert points[0] @ points[1] == pytest.approx(np.cos(2 * np.pi / num_classes))
        gram = simplex(num_classes) @ simplex(num_classes).T
        gram /= gram[0, 0]
        assert simplex(num_classes).shape == (num_classes, num_classes - 1)
        assert np.allclose(gram[~np.eye(num_classes, dtype=bool)], -1 / (num_classes - 1))
    assert orthoplex(4).shape == (8, 4)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"name must be one of .*icosahedron.*, got 'icosaedron'"):
        make_points("icosaedron")
