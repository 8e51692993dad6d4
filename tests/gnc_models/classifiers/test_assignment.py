"""Classes and points of a code brought together: against every permutation, planted matches, and no swap that helps."""

import itertools

import pytest
import torch

from gnc_models.classifiers.fixed import assign_classes, code_rows


def draw_similarity(classes, seed=0, dim=4):
    points = torch.randn(classes, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = torch.nn.functional.normalize(points, dim=1)
    return points @ points.T


def value(similarity, gram, order):
    return float((similarity * gram[order][:, order]).sum())


def ref_best_value(similarity, gram):
    classes = range(len(gram))
    return max(value(similarity, gram, torch.tensor(order)) for order in itertools.permutations(classes))


@pytest.mark.parametrize("seed", range(4))
def test_no_permutation_of_six_classes_is_better(seed):
    similarity, gram = draw_similarity(6, seed), draw_similarity(6, seed + 50)
    found = value(similarity, gram, assign_classes(similarity, gram))
    assert found == pytest.approx(ref_best_value(similarity, gram), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_planted_assignment_is_recovered(seed):
    gram = draw_similarity(20, seed)
    planted = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(assign_classes(gram[planted][:, planted], gram), planted)


def test_similar_classes_are_neighbours_on_a_polygon_where_every_point_is_alike():
    """On a symmetric code the centre of all assignments has no slope: only other starts get away from it."""
    polygon = code_rows("best", 9, 2)
    angle = torch.randperm(9, generator=torch.Generator().manual_seed(0)) * 2 * torch.pi / 9
    similarity = torch.cos(angle[:, None] - angle)
    rows = polygon[assign_classes(similarity, polygon @ polygon.T)]
    assert rows @ rows.T == pytest.approx(similarity.double(), abs=1e-6)


def test_no_swap_improves_and_a_random_order_is_worse():
    similarity, gram = draw_similarity(40, 0), code_rows("best", 40, 4)
    gram = gram @ gram.T
    order = assign_classes(similarity, gram)
    assert torch.equal(order.sort().values, torch.arange(40))
    best = value(similarity, gram, order)
    for i, j in itertools.combinations(range(40), 2):
        swapped = order.clone()
        swapped[[i, j]] = order[[j, i]]
        assert value(similarity, gram, swapped) <= best + 1e-6
    generator = torch.Generator().manual_seed(1)
    others = [value(similarity, gram, torch.randperm(40, generator=generator)) for _ in range(50)]
    assert best > max(others)


def test_neither_units_nor_the_diagonal_nor_precision_nor_the_global_seed_matter():
    similarity, gram = draw_similarity(12, 0), draw_similarity(12, 1)
    order = assign_classes(similarity, gram)
    torch.manual_seed(7)
    assert torch.equal(assign_classes(1e-3 * similarity + 5 * torch.eye(12), gram), order)
    assert torch.equal(assign_classes(similarity.float(), gram.float()), order)


@pytest.mark.parametrize("spoil", [lambda m: m.triu(), lambda m: m.fill_diagonal_(torch.nan)])
def test_matrices_that_are_not_symmetric_or_not_finite_are_refused(spoil):
    with pytest.raises(ValueError, match=r"similarity must be square, finite and symmetric, got one of \(5, 5\)"):
        assign_classes(spoil(draw_similarity(5)), draw_similarity(5))
    with pytest.raises(ValueError, match="gram must be square, finite and symmetric"):
        assign_classes(draw_similarity(5), spoil(draw_similarity(5)))


def test_more_classes_than_can_be_matched_are_refused():
    with pytest.raises(ValueError, match=r"similarity must have at most 2000 classes, got 2001\. Use assignment"):
        assign_classes(torch.eye(2001), torch.eye(2001))
