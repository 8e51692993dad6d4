"""Margins against closed forms, an independent solver with its own certificate, and what geometry demands."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import torch

import gnc_models.geometry.margin_search
from gnc_models.geometry.margins import Margins, one_vs_rest_margins
from tests.gnc_models.known_codes import KINDS, KNOWN, clustered_rows, degenerate_rows, kerdock, random_rows, rotated


def ref_margin_bounds(weights: torch.Tensor, k: int) -> tuple[float, float]:
    """One class by SciPy's non-negative least squares, with the two bounds of whatever point it returned."""
    rest = np.delete(weights.numpy(), k, axis=0) - weights[k].numpy()
    system = np.vstack([rest.T, np.ones(len(rest))])
    target = np.zeros(len(system))
    target[-1] = 1.0
    solution = scipy.optimize.nnls(system, target)[0]
    point = rest.T @ (solution / solution.sum())
    upper = float(np.linalg.norm(point))
    return max(0.0, float((rest @ point).min()) / upper if upper else 0.0), upper


def projection(weights: torch.Tensor, margins: Margins, k: int) -> torch.Tensor:
    """The nearest hull point that the certificate names."""
    rows = margins.support_rows[k]
    used = rows >= 0
    return margins.coefficients[k][used] @ weights[rows[used]]


def gaps(margins: Margins) -> torch.Tensor:
    return (margins.upper - margins.lower) / margins.upper.clamp_min(1e-300)


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("name", KNOWN)
def test_known_codes_have_their_margin_to_nine_digits(name, seed):
    weights, margin = KNOWN[name]
    weights = weights if seed is None else rotated(weights, seed)
    found = one_vs_rest_margins(weights, tolerance=1e-10)
    assert (found.lower <= found.upper).all()
    assert float((found.lower / margin - 1).abs().max()) < 1e-9
    assert float((found.upper / margin - 1).abs().max()) < 1e-9


def test_every_33rd_row_of_the_kerdock_code_of_4224_has_its_margin_to_nine_digits():
    weights = kerdock(64)
    search = gnc_models.geometry.margin_search.MarginSearch(weights, 1e-10, "all")
    for step in search.begin():
        step()
    rows = torch.arange(0, len(weights), 33)
    for round_index in range(4):
        search.improve(rows, round_index=round_index)
    assert float((search.lower[rows] / (1 - 1 / 8) - 1).abs().max()) < 1e-9
    assert float((search.upper[rows] / (1 - 1 / 8) - 1).abs().max()) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("num_classes", "feature_dim"), [(40, 2), (150, 3), (120, 8), (90, 24), (70, 64), (150, 128), (60, 512), (80, 1024)]
)
def test_bounds_bracket_an_independent_solve(kind, num_classes, feature_dim):
    weights = KINDS[kind](num_classes, feature_dim, seed=feature_dim)
    found = one_vs_rest_margins(weights, tolerance=1e-8)
    scale = float(weights.norm(dim=1).max())
    certified = 0
    for k in range(0, num_classes, 3 if feature_dim < 100 else 11):
        lower, upper = ref_margin_bounds(weights, k)
        assert float(found.lower[k]) <= upper + 1e-13 * scale
        assert float(found.upper[k]) >= lower - 1e-13 * scale
        certified += upper - lower <= 1e-8 * upper or upper < 1e-12 * scale
    assert certified > 0  # the reference is wrong on some degenerate rows, never on all
    tight = (gaps(found) <= 1e-8) | (found.upper <= 1e-12 * scale)
    assert tight.all()


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_bounds_bracket_an_independent_solve_with_more_rows_than_1024_dimensions(kind):
    weights = KINDS[kind](1100, 1024, seed=1)
    search = gnc_models.geometry.margin_search.MarginSearch(weights, 1e-6, "all")
    for step in search.begin():
        step()
    rows = torch.tensor([7, 600])
    for round_index in range(8):
        search.improve(search.open(rows), round_index=round_index)
    for k in rows.tolist():
        lower, upper = ref_margin_bounds(weights, k)
        assert upper - lower <= 1e-6 * upper
        assert float(search.lower[k]) <= upper
        assert float(search.upper[k]) >= lower
        assert float(search.upper[k] - search.lower[k]) <= 1e-6 * upper


@pytest.mark.parametrize("kind", KINDS)
def test_few_candidates_and_small_tiles_find_what_all_rows_find(kind, monkeypatch):
    weights = KINDS[kind](400, 5, seed=3)
    few = one_vs_rest_margins(weights)
    monkeypatch.setattr(gnc_models.geometry.margin_search, "ALL_ROWS", 10_000)
    every = one_vs_rest_margins(weights)
    assert every.rounds == 1
    assert few.rounds > 1 or kind == "degenerate"
    torch.testing.assert_close(few.upper, every.upper, rtol=2e-6, atol=1e-13)
    torch.testing.assert_close(few.lower, every.lower, rtol=2e-6, atol=1e-13)
    monkeypatch.setattr(gnc_models.geometry.margin_search, "ALL_ROWS", 0)
    monkeypatch.setattr(gnc_models.geometry.margin_search, "TILE_ENTRIES", 400 * 7)
    tiled = one_vs_rest_margins(weights)
    torch.testing.assert_close(tiled.upper, every.upper, rtol=2e-6, atol=1e-13)


def test_margins_do_not_see_rotation_and_order_and_scale_with_the_rows():
    weights = random_rows(120, 6, seed=5)
    found = one_vs_rest_margins(weights)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(6))
    moved = one_vs_rest_margins(3.5 * rotated(weights, 7)[order])
    torch.testing.assert_close(moved.upper, 3.5 * found.upper[order], rtol=1e-6, atol=0)
    torch.testing.assert_close(moved.lower, 3.5 * found.lower[order], rtol=1e-6, atol=0)


def test_a_row_behind_the_supporting_plane_changes_nothing():
    weights = random_rows(60, 5, seed=8)
    found = one_vs_rest_margins(weights, tolerance=1e-10)
    k = int(found.upper.argmin())
    point = projection(weights, found, k)
    normal = weights[k] - point
    added = random_rows(400, 5, seed=9)
    added = added[(added - point) @ normal <= -1e-6][:50]
    assert len(added) == 50
    again = one_vs_rest_margins(torch.cat([weights, added]), tolerance=1e-10)
    assert float(again.upper[k]) == pytest.approx(float(found.upper[k]), rel=1e-9)


def test_the_midpoint_of_a_row_and_its_projection_halves_the_margin():
    weights = random_rows(60, 5, seed=10)
    found = one_vs_rest_margins(weights, tolerance=1e-10)
    for k in range(0, 60, 7):
        middle = (weights[k] + projection(weights, found, k)) / 2
        again = one_vs_rest_margins(torch.cat([weights, middle[None]]), tolerance=1e-10)
        assert float(again.upper[k]) == pytest.approx(float(found.upper[k]) / 2, rel=1e-9)
        assert float(again.lower[k]) == pytest.approx(float(found.lower[k]) / 2, rel=1e-9)


@pytest.mark.parametrize("kind", ["random", "clustered", "degenerate"])
def test_the_support_carries_the_upper_bound(kind):
    weights = KINDS[kind](300, 7, seed=11)
    found = one_vs_rest_margins(weights)
    assert (found.coefficients >= 0).all()
    torch.testing.assert_close(found.coefficients.sum(1), torch.ones(300, dtype=torch.float64))
    for k in range(300):
        assert k not in found.support[k]
        assert len(found.support[k]) <= 8
        distance = float((weights[k] - projection(weights, found, k)).norm())
        assert distance == pytest.approx(float(found.upper[k]), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("seed", range(5))
def test_a_spherical_code_with_at_least_the_margin_exists(seed):
    """Walking from w_k + h_k along h_k to the sphere of radius 2 gives rows whose cosines are at most 1 - margin."""
    weights = [random_rows(40, 3, seed), clustered_rows(60, 8, seed)][seed % 2]
    found = one_vs_rest_margins(weights, tolerance=1e-9)
    points = torch.stack([projection(weights, found, k) for k in range(len(weights))])
    normals = torch.nn.functional.normalize(weights - points, dim=1)
    start = weights + normals
    along = (start * normals).sum(1)
    reach = -along + (along**2 + 4 - start.square().sum(1)).sqrt()
    code = (start + reach[:, None] * normals) / 2
    cosines = code @ code.T - 2 * torch.eye(len(code), dtype=torch.float64)
    assert 1 - float(cosines.max()) >= found.minimum[0] - 1e-9


def test_a_row_inside_the_hull_of_the_others_has_margin_zero():
    weights = torch.cat([2 * random_rows(50, 3, seed=12), 0.1 * random_rows(10, 3, seed=13)])
    found = one_vs_rest_margins(weights)
    assert (found.lower[50:] == 0).all()
    assert (found.upper[50:] < 1e-14).all()
    assert found.rounds < 20


def test_a_row_that_stands_twice_has_margin_zero_exactly():
    weights = random_rows(80, 6, seed=14)
    weights[3] = weights[70]
    found = one_vs_rest_margins(weights)
    assert float(found.lower[3]) == float(found.upper[3]) == float(found.upper[70]) == 0.0
    assert found.support[3] == [70]
    assert found.minimum == (0.0, 0.0)


def test_on_a_line_only_the_two_ends_have_a_margin():
    weights = torch.tensor([[-3.0], [0.5], [1.0], [4.0], [4.75]], dtype=torch.float64)
    found = one_vs_rest_margins(weights)
    torch.testing.assert_close(found.upper, torch.tensor([3.5, 0, 0, 0, 0.75], dtype=torch.float64))
    torch.testing.assert_close(found.lower, torch.tensor([3.5, 0, 0, 0, 0.75], dtype=torch.float64))


def test_two_classes_have_their_distance():
    weights = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
    found = one_vs_rest_margins(weights)
    assert found.minimum == pytest.approx((5.0, 5.0), rel=1e-14)
    assert found.support == [[1], [0]]


def test_neighbours_closer_than_the_root_of_rounding_are_still_certified():
    weights = random_rows(2000, 2, seed=15)
    found = one_vs_rest_margins(weights)
    angles = torch.atan2(weights[:, 1], weights[:, 0]).sort()
    ahead = angles.values.roll(-1) - angles.values
    ahead[-1] += 2 * math.pi
    half, rest = (ahead / 2).sin(), (ahead.roll(1) / 2).sin()
    # the height of w_k over the chord between its two neighbours
    expected = (2 * half * rest)[angles.indices.argsort()]
    wide = expected > 1e-9
    torch.testing.assert_close(found.upper[wide], expected[wide], rtol=1e-6, atol=0)
    assert (gaps(found)[wide] <= 1e-6).all()
    assert (found.upper[~wide] < 2e-9).all()


def test_float32_rows_are_taken_exactly_as_stored():
    weights = random_rows(50, 4, seed=16).to(torch.float32)
    narrow, wide = one_vs_rest_margins(weights), one_vs_rest_margins(weights.to(torch.float64))
    assert torch.equal(narrow.lower, wide.lower)
    assert torch.equal(narrow.upper, wide.upper)


@pytest.mark.parametrize("kind", KINDS)
def test_mode_min_certifies_the_smallest_margin_and_stays_an_interval_elsewhere(kind):
    weights = KINDS[kind](500, 8, seed=17)
    every = one_vs_rest_margins(weights, tolerance=1e-8)
    least = one_vs_rest_margins(weights, tolerance=1e-8, mode="min")
    assert least.minimum == pytest.approx(every.minimum, rel=1e-7, abs=1e-12)
    assert (least.lower <= every.upper + 1e-13).all()
    assert (least.upper >= every.lower - 1e-13).all()


def test_a_round_limit_gives_a_wider_interval_that_still_holds_the_margin(monkeypatch):
    monkeypatch.setattr(gnc_models.geometry.margin_search, "ALL_ROWS", 0)
    weights = clustered_rows(800, 6, seed=18)
    full, cut = one_vs_rest_margins(weights), one_vs_rest_margins(weights, max_rounds=1)
    assert cut.rounds == 1 < full.rounds
    assert float(gaps(cut).max()) > 1e-6 >= float(gaps(full).max())
    assert (cut.lower <= full.upper).all()
    assert (cut.upper >= full.lower).all()


def test_a_warm_start_ends_at_the_same_margins():
    weights = clustered_rows(300, 6, seed=19)
    start = one_vs_rest_margins(degenerate_rows(300, 9, seed=20))
    warm, cold = one_vs_rest_margins(weights, warm_start=start), one_vs_rest_margins(weights)
    torch.testing.assert_close(warm.upper, cold.upper, rtol=2e-6, atol=0)
    again = one_vs_rest_margins(weights, warm_start=cold)
    torch.testing.assert_close(again.upper, cold.upper, rtol=2e-6, atol=0)


def test_the_same_rows_give_the_same_bits():
    weights = random_rows(300, 6, seed=21)
    first, second = one_vs_rest_margins(weights), one_vs_rest_margins(weights)
    assert torch.equal(first.lower, second.lower)
    assert torch.equal(first.upper, second.upper)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu():
    weights = clustered_rows(500, 10, seed=22)
    here, there = one_vs_rest_margins(weights), one_vs_rest_margins(weights.cuda())
    torch.testing.assert_close(there.upper.cpu(), here.upper, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"weights": torch.zeros(1, 3)}, "at least 2 rows, got 1"),
        ({"weights": torch.tensor([[0.0, 1.0], [math.nan, 1.0], [1.0, 0.0]])}, "must be finite.* in 1 rows: 1"),
        ({"weights": torch.full((9, 2), math.inf)}, "in 9 rows: 0, 1, 2, 3, 4 and 4 more"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
        ({"tolerance": math.nan}, "tolerance must be above 0"),
        ({"max_rounds": 0}, "max_rounds must be at least 1, got 0"),
        ({"warm_start": one_vs_rest_margins(torch.eye(3))}, r"warm_start must have one margin per class \(4\), got 3"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, text):
    weights = arguments.pop("weights", torch.eye(4))
    with pytest.raises(ValueError, match=text) as error:
        one_vs_rest_margins(weights, **arguments)
    assert "\n" not in str(error.value)


def test_memory_grows_with_rows_and_not_with_their_square():
    """The matrix of all pairs of these rows alone would take 0.5 GiB."""
    script = """
import resource, torch
from gnc_models.geometry.margins import one_vs_rest_margins
torch.set_num_threads(1)
weights = torch.nn.functional.normalize(torch.randn(8_000, 3).double(), dim=1)
one_vs_rest_margins(weights[:300])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
one_vs_rest_margins(weights, max_rounds=1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 250


@pytest.mark.parametrize("kind", ["clustered", "degenerate"])
@pytest.mark.parametrize("mode", ["all", "min"])
def test_a_search_that_is_ended_early_keeps_intervals_that_hold_the_margins(kind, mode):
    weights = KINDS[kind](140, 33, seed=23)
    full = one_vs_rest_margins(weights)
    told: list[tuple] = []

    def stop_at(calls: int):
        told.clear()

        def progress(*state) -> bool:
            told.append(state)
            return len(told) >= calls

        return progress

    one_vs_rest_margins(weights, mode=mode, progress=stop_at(10_000))
    every = list(told)
    assert every[-1][:2] == (140, 140)
    for calls in range(1, len(every), max(1, len(every) // 3)):
        cut = one_vs_rest_margins(weights, mode=mode, progress=stop_at(calls))
        assert len(told) == calls
        assert (cut.lower <= full.upper).all()
        assert (cut.upper >= full.lower).all()
        assert cut.minimum[0] <= full.minimum[1]
        assert cut.minimum[1] >= full.minimum[0]
        assert bool(cut.upper.isfinite().all())


@pytest.mark.parametrize("kind", ["random", "clustered", "degenerate"])
@pytest.mark.parametrize("mode", ["all", "min"])
def test_a_warm_start_in_many_dimensions_ends_at_the_same_smallest_margin(kind, mode):
    weights = KINDS[kind](140, 33, seed=24)
    before = one_vs_rest_margins(weights + 1e-3 * random_rows(140, 33, seed=25), mode=mode)
    cold = one_vs_rest_margins(weights)
    warm = one_vs_rest_margins(weights, mode=mode, warm_start=before)
    scale = float(weights.norm(dim=1).max())
    assert warm.minimum == pytest.approx(cold.minimum, rel=2e-6, abs=1e-12 * scale)
    assert (warm.lower <= cold.upper + 1e-13 * scale).all()
    assert (warm.upper >= cold.lower - 1e-13 * scale).all()


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-6])
@pytest.mark.parametrize("mode", ["all", "min"])
def test_rows_that_are_one_in_float32_have_the_margins_of_their_differences(apart, mode):
    """Their inner products, and in float32 the rows themselves, cannot be told apart."""
    axes = torch.cat([torch.eye(40), -torch.eye(40)]).double()
    offset = torch.zeros(1, 40, dtype=torch.float64)
    offset[0, 0] = 1 / 7
    weights = apart * axes + offset
    found = one_vs_rest_margins(weights, mode=mode)
    # each axis is this far from the centre of the others, as the rows are after rounding
    exact = float((weights[1:40] - weights[41:80]).norm(dim=1).min()) / 2
    exact = min(exact, float(weights[0, 0] - 1 / 7), float(1 / 7 - weights[40, 0]))
    assert found.minimum[0] <= exact * (1 + 1e-9)
    assert found.minimum[1] >= exact * (1 - 1e-9)
    assert found.minimum[1] <= (1 + 1e-4) * exact
