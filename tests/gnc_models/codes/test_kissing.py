"""Kissing configurations counted in whole numbers: no cosine above 1/2 among the rows, and as many rows as are said.

All pairs in 20 and 21 dimensions take a minute: `python -m tests.gnc_models.codes.test_kissing`.
"""

import math

import numpy as np
import pytest

from gnc_models.constructions import kissing
from gnc_models.constructions.binary import golay_words
from gnc_models.constructions.explicit import FAMILIES, KISSING, e6_roots, layer, make_points
from gnc_models.references.tables import read_table

# dimensions: rows, constructor, squared length of each column's unit
WHOLE = {
    13: (1154, kissing.thirteen, [1] * 13),
    17: (5730, kissing.seventeen, [1] * 16 + [2]),
    18: (8358, kissing.eighteen, [1] * 16 + [2, 2]),
    19: (11948, lambda: kissing.odd_golay(19), [1] * 19),
    20: (19448, lambda: kissing.odd_golay(20), [1] * 20),
    21: (29768, lambda: kissing.odd_golay(21), [1] * 21),
}
SAMPLE = 300


def whole_parts(rows: np.ndarray, units: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole numbers a, b with rows = (a + b sqrt(3)) sqrt(units), and the units."""
    entries = rows / np.sqrt(units)
    for b in range(13):
        for signed in (b, -b):
            rest = entries - signed * math.sqrt(3)
            fits = abs(rest - np.rint(rest)) < 1e-9
            if b == 0:
                first, second = np.where(fits, np.rint(rest), np.nan), np.zeros_like(entries)
            else:
                new = fits & np.isnan(first)
                first[new], second[new] = np.rint(rest[new]), signed
    assert not np.isnan(first).any()
    return first, second, np.array(units, dtype=float)


def is_at_most_half(one: tuple[np.ndarray, ...], all_of: tuple[np.ndarray, ...], units: np.ndarray) -> np.ndarray:
    """Whether 2 <x, y> <= |x| |y|, decided in whole numbers: for rows with roots all norms must be one number."""
    (a, b), (c, d) = one, all_of
    plain = (a * units) @ c.T + 3 * (b * units) @ d.T
    root = (a * units) @ d.T + (b * units) @ c.T
    norms, others = ((x**2 + 3 * y**2) @ units for x, y in (one, all_of))
    if not root.any():
        return (plain <= 0) | (4 * plain**2 <= norms[:, None] * others)
    assert len(set(norms) | set(others)) == 1
    # r sqrt(3) <= n / 2 - p, where both sides are compared by their squares
    left, right = root, norms[0] / 2 - plain
    return np.where(left <= 0, (right >= 0) | (3 * left**2 >= right**2), (right >= 0) & (3 * left**2 <= right**2))


def check(dim: int, sample: int) -> None:
    size, make, units = WHOLE[dim]
    first, second, weights = whole_parts(make(), units)
    assert first.shape == (size, dim)
    chosen = np.sort(np.random.default_rng(0).choice(size, min(sample, size), replace=False))
    for rows in np.array_split(chosen, math.ceil(len(chosen) / 500)):
        fits = is_at_most_half((first[rows], second[rows]), (first, second), weights)
        fits[np.arange(len(rows)), rows] = True
        assert fits.all()


@pytest.mark.parametrize("dim", WHOLE)
def test_no_pair_of_rows_is_nearer_than_sixty_degrees(dim: int):
    check(dim, 10**6 if dim < 18 else SAMPLE)


def test_a_row_too_near_is_noticed():
    units = [1, 1]
    exact = whole_parts(np.array([[2.0, 0.0], [1.0, math.sqrt(3)], [math.sqrt(3), 1.0]]), units)
    fits = is_at_most_half(exact[:2], exact[:2], exact[2])
    assert fits.tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_e6_is_the_root_system():
    products = e6_roots() @ e6_roots().T  # roots have squared length 2
    assert products.shape == (72, 72)
    values, counts = np.unique(np.rint(products), return_counts=True)
    assert np.allclose(products, np.rint(products), atol=1e-12)
    # each root has itself, 20 at 60 degrees, 30 at 90, 20 at 120 and its opposite
    assert dict(zip(values.tolist(), (counts / 72).tolist(), strict=True)) == {-2: 1, -1: 20, 0: 30, 1: 20, 2: 1}


def test_words_of_length_nineteen_lie_at_distance_five_within_the_cut_golay_code():
    rows = kissing.odd_golay(19)
    words = rows[(abs(rows) == 1).all(1)] < 0
    assert len(words) == 1280
    distances = words.astype(int) @ (1 - words.T) + (1 - words) @ words.T.astype(int)
    assert distances[distances > 0].min() == 5
    code = {tuple(word) for word in golay_words()[:, :19].tolist()}
    assert {tuple(word) for word in words.astype(int).tolist()} <= code


def test_names_and_sizes_are_those_that_the_reference_knows():
    for name, dim, size, _ in KISSING:
        assert FAMILIES[f"{name}, {dim} dimensions"][:2] == (dim, size)


LAYERS = [row for row in read_table("found_codes.csv") if row["method"].startswith("layer")]


@pytest.mark.parametrize("row", LAYERS[:: max(1, len(LAYERS) // 8)], ids=lambda row: row["method"])
def test_layers_are_made_again_by_their_recipe(row: dict[str, str]):
    dim, size, *steps = (float(part) for part in row["method"].removeprefix("layer(").removesuffix(")").split(";"))
    rows = layer(int(dim), int(size), *steps)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows.shape == (int(row["num_classes"]), int(row["feature_dim"]))
    cosines = rows[:500] @ rows.T - 3 * np.eye(min(500, len(rows)), len(rows))
    assert float(row["margin"]) <= 1 - cosines.max() + 2e-12


def test_rows_of_a_family_keep_their_order():
    # the first rows of a family are a code of fewer classes: another order would change it
    roots = make_points("E8 roots") * math.sqrt(2)
    assert roots[0] == pytest.approx([1, 1, 0, 0, 0, 0, 0, 0])
    assert roots[112] == pytest.approx([0.5] * 8)
    assert roots[113] == pytest.approx([0.5] * 6 + [-0.5] * 2)


if __name__ == "__main__":
    for dimension in WHOLE:
        check(dimension, 10**6)
        print(dimension, WHOLE[dimension][0], "rows, all pairs: no cosine above 1/2")
