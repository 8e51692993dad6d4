"""Rows that are the same or nearly, against slow twins in exact arithmetic, and the spread of rows in closed form."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gnc_models.geometry.duplicates import _joined, near_rows, same_rows, spread, welch_floor
from gnc_models.geometry.pairwise import unit


def random_rows(num_rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ref_same_directions(rows: torch.Tensor) -> list[list[int]]:
    def key(row: list[float]) -> tuple[Fraction, ...]:
        largest = max(abs(Fraction(x)) for x in row)
        return tuple(Fraction(x) / largest for x in row)

    groups: dict[tuple[Fraction, ...], list[int]] = {}
    for k, row in enumerate(rows.tolist()):
        if any(row):
            groups.setdefault(key(row), []).append(k)
    return sorted(group for group in groups.values() if len(group) > 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("factor", [1.0, 2.0**-40, 3.0, 1 / 3, -1.0])
def test_same_directions_are_those_of_exact_arithmetic(dtype, factor):
    rows = random_rows(60, 3, seed=1).to(dtype).double()
    rows[40:50] = (rows[:10] * factor).to(dtype).double()  # rounded: some are multiples no more
    rows[50:55], rows[55], rows[56] = rows[3], 0.0, 0.0
    assert same_rows(rows) == ref_same_directions(rows)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e300])
def test_same_directions_at_the_ends_of_the_float_range(scale):
    rows = torch.tensor([[1.0, 2.0, -3.0], [0.5, 1.0, -1.5], [2.0, 4.0, -6.1]], dtype=torch.float64)
    rows[0] *= scale
    assert same_rows(rows) == ref_same_directions(rows)


def test_equal_rows_are_told_from_parallel_ones_and_zero_has_no_sign():
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, -0.0], [0.0, 0.0], [-0.0, 0.0]], dtype=torch.float64)
    assert same_rows(rows) == [[0, 1, 2]]
    assert same_rows(rows, directions=False) == [[0, 2], [3, 4]]


@pytest.mark.parametrize(("dim", "cosine"), [(3, 0.9995), (100, 0.9), (100, 0.999)])
def test_near_rows_are_the_chains_of_all_pairs(dim, cosine, monkeypatch):
    monkeypatch.setattr("gnc_models.geometry.duplicates.TILE_ENTRIES", 300 * 7)
    noise = 0.7 * ((1 - cosine) / dim) ** 0.5
    centres = unit(random_rows(60, dim))
    rows = unit(centres.repeat(5, 1) + noise * random_rows(300, dim, seed=2))
    joined = rows @ rows.T > cosine
    labels = list(range(300))
    for left, right in joined.nonzero().tolist():
        old, new = labels[right], labels[left]
        labels = [new if label == old else label for label in labels]
    groups = [[k for k in range(300) if labels[k] == label] for label in sorted(set(labels))]
    wanted = sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group))
    assert near_rows(rows, cosine=cosine) == wanted
    assert 10 < len(wanted) < 150


def test_spread_is_the_mean_over_pairs_and_reaches_its_floor_on_a_tight_frame():
    rows = random_rows(30, 4)
    cosines = unit(rows) @ unit(rows).T
    pairs = cosines[~torch.eye(30, dtype=torch.bool)]
    assert spread(rows) == pytest.approx(4 * float(pairs.square().mean()), rel=1e-12)
    orthoplex = torch.cat([torch.eye(5), -torch.eye(5)]).double()
    assert spread(orthoplex) == pytest.approx(welch_floor(10, 5), rel=1e-12) == 5 / 9
    assert spread(rows) > welch_floor(30, 4)
    assert welch_floor(3, 8) == 0.0


@pytest.mark.parametrize(("rows", "pairs"), [(1, 0), (10, 5), (300, 150), (300, 290), (50, 2000)])
@pytest.mark.parametrize("seed", range(5))
def test_joining_pairs_in_parts_gives_the_connected_components(rows, pairs, seed):
    ends = torch.randint(0, rows, (pairs, 2), generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(rows)
    for part in ends.split(max(1, pairs // 3)):
        labels = _joined(labels, part)
    graph = coo_array((np.ones(pairs), tuple(ends.T.numpy())), shape=(rows, rows))
    wanted = connected_components(graph, directed=False)[1]
    first = [int((wanted == group).argmax()) for group in wanted]
    assert labels.tolist() == first
