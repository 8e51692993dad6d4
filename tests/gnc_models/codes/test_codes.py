"""The optimiser finds proven codes, the same ones for the same seed, and u(W) is as good a code as W's margin says."""

import math

import pytest
import torch

from gnc_models.codes.best_code import best_code, make_found_code
from gnc_models.codes.code import Code, explicit_code, spherical_code_of
from gnc_models.codes.linear_program_polish import polish_code
from gnc_models.codes.search import optimise_code, random_codes, relax_rows, soft_max_cosine
from gnc_models.codes.sphere_lbfgs import minimise_on_spheres
from gnc_models.constructions.words import binary_words, mixed_codes
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.geometry.pairwise import max_cosine
from gnc_models.references.margin import reference_margin
from gnc_models.references.tables import read_table

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("num_classes", "feature_dim", "starts"),
    [(8, 2, 4), (7, 3, 8), (12, 3, 4), (14, 3, 8), (24, 3, 8), (16, 5, 4), (27, 6, 4), (56, 7, 4)],
)
def test_proven_codes_are_found(num_classes: int, feature_dim: int, starts: int):
    reference = reference_margin(num_classes, feature_dim)
    found = optimise_code(num_classes, feature_dim, starts=starts, seed=0)
    assert found.margin_lower == pytest.approx(reference.upper, abs=1.1e-6)
    assert found.margin_lower <= reference.upper + 1e-12


def test_same_seed_gives_the_same_code_and_another_another():
    first, again, other = (optimise_code(20, 4, starts=2, seed=s, iterations=10, polish=False) for s in (0, 0, 1))
    assert torch.equal(first.points, again.points)
    assert not torch.equal(first.points, other.points)


def test_margin_lower_is_below_the_certified_margin():
    for seed in range(3):
        code = Code.of(random_codes(30, 5, starts=1, seed=seed)[0])
        assert code.margin_lower <= one_vs_rest_margins(code.points).minimum[0] + 1e-9
        assert code.margin_lower == pytest.approx(1 - max_cosine(code.points))


def test_max_cosine_in_tiles_equals_the_full_gram_matrix():
    points = random_codes(2_500, 3, starts=1, seed=0)[0]
    cosines = points @ points.T
    cosines.fill_diagonal_(-1)
    assert max_cosine(points) == pytest.approx(float(cosines.max()), abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("num_classes", "feature_dim"), [(5, 2), (9, 3), (24, 3), (40, 6), (30, 40)])
def test_spherical_code_is_as_good_as_the_margin(num_classes: int, feature_dim: int, seed: int):
    weights = random_codes(num_classes, feature_dim, starts=1, seed=seed)[0]
    code = spherical_code_of(weights)
    assert code.margin_lower >= one_vs_rest_margins(weights).minimum[0] - 1e-9


def test_spherical_code_of_an_optimal_code_keeps_its_margin():
    code = optimise_code(24, 3, starts=8, seed=0)
    assert spherical_code_of(code.points).margin_lower == pytest.approx(code.margin_lower, abs=1e-7)


def test_equal_rows_have_no_spherical_code():
    with pytest.raises(ValueError, match="weights must have a positive margin"):
        spherical_code_of(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))


def test_polishing_never_loses_and_finds_the_octahedron():
    rough = Code.of(random_codes(6, 3, starts=1, seed=3)[0])
    assert polish_code(rough.points, rounds=1).margin_lower >= rough.margin_lower
    near = torch.cat([torch.eye(3), -torch.eye(3)]).double() + 1e-3 * torch.randn(6, 3, generator=torch.manual_seed(0))
    assert polish_code(near / near.norm(dim=1, keepdim=True)).margin_lower == pytest.approx(1.0, abs=1e-10)


def test_soft_max_gradient_equals_autograd():
    points = random_codes(9, 4, starts=3, seed=0).requires_grad_()
    cosines = points @ points.mT - 1e9 * torch.eye(9)
    value = (7.0 * cosines).flatten(1).logsumexp(1) / 7.0
    (expected,) = torch.autograd.grad(value.sum(), points)
    got_value, got = soft_max_cosine(7.0)(points.detach(), torch.arange(len(points)))
    assert torch.allclose(got_value, value.detach(), atol=1e-14)
    assert torch.allclose(got, expected, atol=1e-14)


def test_starts_of_a_batch_do_not_touch_each_other():
    points = random_codes(10, 3, starts=4, seed=0)
    together, _ = minimise_on_spheres(soft_max_cosine(20.0), points, iterations=8)
    alone, _ = minimise_on_spheres(soft_max_cosine(20.0), points[2:3], iterations=8)
    assert torch.allclose(together[2], alone[0], atol=1e-9)


def test_descent_never_rises():
    points = random_codes(30, 5, starts=6, seed=1)
    before, _ = soft_max_cosine(50.0)(points, torch.arange(len(points)))
    for iterations in (1, 5, 40):
        _, after = minimise_on_spheres(soft_max_cosine(50.0), points, iterations=iterations)
        assert (after <= before).all()
        before = after


def test_explicit_codes_reach_the_exact_margins():
    for num_classes, feature_dim in ((7, 2), (9, 9), (5, 8), (13, 7), (12, 3), (27, 6), (240, 8), (200, 8)):
        code = explicit_code(num_classes, feature_dim)
        assert code.points.shape == (num_classes, feature_dim)
        assert code.margin_lower == pytest.approx(min(reference_margin(num_classes, feature_dim).lower, 2), abs=2e-2)
    assert explicit_code(13, 3) is None


def test_two_rows_are_opposite():
    assert optimise_code(2, 3, starts=2).margin_lower == pytest.approx(2.0, abs=1e-9)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        optimise_code(1, 3)
    with pytest.raises(ValueError, match="feature_dim must be at least 2, got 1"):
        optimise_code(4, 1)
    with pytest.raises(ValueError, match="starts must be at least 1, got 0"):
        optimise_code(4, 3, starts=0)


def test_code_margin_is_finite_for_a_single_dimension_of_difference():
    code = Code.of(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    assert math.isclose(code.margin_lower, 1.0)


def test_structured_starts_find_the_roots_of_e8():
    plain = optimise_code(240, 8, starts=1, seed=0, iterations=10, structured=False)
    structured = optimise_code(240, 8, starts=1, seed=0, iterations=10)
    assert plain.margin_lower < 0.47
    assert structured.margin_lower == pytest.approx(0.5, abs=1e-9)
    assert structured.points.shape == (240, 8)


def test_mirrored_energy_is_that_of_the_whole_code():
    points = random_codes(7, 4, starts=2, seed=0)
    signs = torch.tensor([-1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    whole = torch.cat([points, points * signs], dim=1)
    mirrored, slope = soft_max_cosine(9.0, signs)(points, torch.arange(len(points)))
    full, full_slope = soft_max_cosine(9.0)(whole, torch.arange(len(whole)))
    # the whole counts every pair of images twice; its gradient has two equal halves up to the mirror
    assert torch.allclose(mirrored, full - math.log(2) / 9.0)
    assert torch.allclose(slope, 2 * full_slope[:, :7])


@pytest.mark.parametrize(("num_classes", "feature_dim"), [(5, 9), (9, 2), (7, 4), (12, 3), (16, 5), (24, 4)])
def test_best_code_reaches_a_known_reference(num_classes: int, feature_dim: int, tmp_path, monkeypatch):
    monkeypatch.setenv("GNC_CACHE", str(tmp_path))
    code = best_code(num_classes, feature_dim)
    assert code.points.shape == (num_classes, feature_dim)
    assert code.margin_lower == pytest.approx(reference_margin(num_classes, feature_dim).upper, abs=2e-6)


def test_best_code_uses_a_found_recipe_and_beats_what_can_be_written_down(tmp_path, monkeypatch):
    monkeypatch.setenv("GNC_CACHE", str(tmp_path / "first"))
    found = best_code(60, 6)
    assert found.margin_lower == pytest.approx(0.5, abs=1e-9)
    searched = best_code(18, 4)
    assert searched.margin_lower > 1.1 * explicit_code(18, 4).margin_lower
    best_code.cache_clear()
    assert torch.equal(best_code(18, 4).points, searched.points)
    monkeypatch.setenv("GNC_CACHE", str(tmp_path / "second"))
    best_code.cache_clear()
    assert torch.equal(best_code(18, 4).points, searched.points)


def test_best_code_of_many_rows_is_better_than_random():
    rows = random_codes(1_200, 6, starts=1, seed=0)[0]
    relaxed = Code.of(relax_rows(rows, steps=20))
    assert relaxed.margin_lower > 10 * Code.of(rows).margin_lower
    assert relaxed.points.shape == rows.shape


def test_best_code_refuses_a_line():
    with pytest.raises(ValueError, match="feature_dim must be at least 2, got 1"):
        best_code(2, 1)


@pytest.mark.parametrize("size", [("4", "80"), ("6", "20")])
def test_a_found_code_is_made_again_from_its_row(size: tuple[str, str]):
    (row,) = (r for r in read_table("found_codes.csv") if (r["feature_dim"], r["num_classes"]) == size)
    code = make_found_code(row)
    assert code.points.shape == (int(size[1]), int(size[0]))
    # Another CPU or version may end at another of many local optima of nearly the same margin.
    assert code.margin_lower > 0.98 * float(row["margin"])


def test_a_found_code_without_recipe_is_refused():
    row = {"num_classes": "8", "feature_dim": "3", "method": "guesswork(3)", "starts": "1", "seed": "0"}
    with pytest.raises(ValueError, match="method must be one of"):
        make_found_code(row)


def test_shapes_of_words_join_into_one_code_of_the_margin_asked_for():
    for rows in mixed_codes(8, 1 / 3, 1 / 3 + 1e-6):
        assert Code.of(torch.from_numpy(rows)).margin_lower >= 1 / 3 - 1e-9
    # words of weight 3 with all signs, words of even weight as signs, and the axes
    assert max(len(rows) for rows in mixed_codes(8, 1 / 3, 1 / 3 + 1e-6)) >= 448 + 128 + 16


def test_binary_words_are_the_codes_that_they_should_be():
    for length, distance, size in ((8, 4, 16), (16, 8, 32), (7, 3, 16), (12, 4, 128), (5, 1, 32)):
        rows = binary_words(length, distance)
        assert rows.shape == (size, length)
        if distance > 1:
            assert max_cosine(torch.from_numpy(rows)) == pytest.approx(1 - 2 * distance / length)


def test_a_structured_start_with_too_few_rows_is_filled_and_annealed():
    found = optimise_code(30, 9, starts=1, iterations=20, polish=False)
    plain = optimise_code(30, 9, starts=1, iterations=20, polish=False, structured=False)
    assert found.points.shape == (30, 9)
    assert found.margin_lower >= plain.margin_lower
