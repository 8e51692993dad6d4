"""The table of phases: in order and without holes, its rows found again from the stored points, one answer for all who ask."""

import itertools
import math

import numpy as np
import pytest
import torch

from gnc_models.codes.phases import _cell, _phases, phase_optimum, unconstrained_optimum
from gnc_models.codes.unconstrained_features import cold_loss, lowest_from, optimise_unconstrained
from gnc_models.references.tables import NO_OPTIMA, OwnOptima, read_table, tabulated_optimum

CELLS = sorted(_phases(), key=lambda cell: cell[::-1])
SMALL = [cell for cell in CELLS if cell[0] <= 8]


def test_every_size_up_to_twice_the_dimensions_is_there():
    assert {(K, d) for d in range(2, 13) for K in range(d + 2, 2 * d + 1)} <= set(CELLS)


@pytest.mark.parametrize(("num_classes", "feature_dim"), CELLS)
def test_phases_follow_each_other_from_hot_to_cold_without_holes(num_classes, feature_dim):
    phases, points = _cell(num_classes, feature_dim)
    assert (float(phases[0]["hot"]), float(phases[-1]["cold"])) == (2.0, 0.02)
    for above, below in itertools.pairwise(phases):
        assert above["cold"] == below["hot"]
        # at a switch both sides have the same loss; where they have not, the table says so
        matched = float(above["cold_loss"]) == pytest.approx(float(below["hot_loss"]), rel=1.001e-6)
        assert below["entered"] in (("jump", "smooth") if matched else ("unmatched",))
        assert matched or num_classes > 2 * feature_dim
    for phase, part in zip(phases, points, strict=True):
        assert float(phase["hot"]) > float(phase["cold"])
        assert part.shape == (int(phase["points"]), 2 * num_classes, feature_dim)
        assert int(phase["found"]) <= int(phase["starts"])
        for end in ("hot", "cold"):
            assert float(phase[f"{end}_margin_lower"]) <= float(phase[f"{end}_margin_upper"])


@pytest.mark.parametrize(("num_classes", "feature_dim"), [*SMALL, (12, 3), (11, 9), (24, 12)])
def test_rows_are_found_again_from_the_stored_points(num_classes, feature_dim):
    for phase, part in zip(*_cell(num_classes, feature_dim), strict=True):
        for end, points in (("hot", part[0]), ("cold", part[-1])):
            rows = torch.nn.functional.normalize(torch.from_numpy(points.astype(np.float64)), dim=-1)
            found = lowest_from(rows[None], float(phase[end]))
            assert found.loss == pytest.approx(float(phase[f"{end}_loss"]), rel=1e-9)


def test_an_answer_on_either_side_of_a_switch_is_that_sides_arrangement():
    """Five classes in three dimensions: the triangular bipyramid above .145242, the square pyramid below."""
    above, below = (phase_optimum(5, 3, t) for t in (0.1453, 0.1452))
    assert above.margin == pytest.approx(1.0, abs=1e-5)
    assert below.margin == pytest.approx(0.98853, abs=1e-4)
    assert above.margin_low < 0.99 < above.margin_high  # the other side is near there
    assert below.source == "phases"
    assert phase_optimum(5, 3, 2.1) is None
    assert phase_optimum(5, 3, 0.019) is None
    assert phase_optimum(400, 3, 0.1) is None


@pytest.mark.parametrize(("num_classes", "feature_dim", "temperature"), [(6, 4, 0.3), (7, 4, 1.9), (9, 5, 0.1)])
def test_a_search_finds_nothing_lower(num_classes, feature_dim, temperature):
    found = optimise_unconstrained(num_classes, feature_dim, temperature, starts=12, seed=3)
    assert found.loss >= phase_optimum(num_classes, feature_dim, temperature).loss * (1 - 1e-6)


def test_single_temperatures_of_the_older_table_have_the_same_loss():
    tried = 0
    for row in read_table("unconstrained_optima.csv"):
        cell = int(row["num_classes"]), int(row["feature_dim"])
        if (
            cell[0] <= 12
            and 0.1 <= float(row["temperature"]) < 1
            and (found := phase_optimum(*cell, float(row["temperature"])))
        ):
            assert found.loss == pytest.approx(float(row["loss"]), rel=1e-6), row
            tried += 1
    assert tried >= 20


def test_one_function_answers_from_whatever_knows_most():
    assert unconstrained_optimum(4, 3, 0.3).source == "closed form"
    assert unconstrained_optimum(12, 3, 0.1) is tabulated_optimum(12, 3, 0.1)
    assert unconstrained_optimum(12, 3, 0.1234).source == "phases"
    assert unconstrained_optimum(50, 3, 0.1234) is None
    worse = OwnOptima.parse(["5,3,0.13,0.9,1,1,1,4,0"])
    assert unconstrained_optimum(5, 3, 0.13, worse).source == "phases"
    lower = OwnOptima.parse(["5,3,0.13,1e-9,1,1,1,4,0"])
    assert unconstrained_optimum(5, 3, 0.13, lower).source == "results"
    assert unconstrained_optimum(5, 3, 0.13, NO_OPTIMA).weights.shape == (5, 3)


def test_the_optimum_of_an_answer_is_stationary():
    found = phase_optimum(7, 4, 0.3)
    temperature = torch.tensor([0.3], dtype=torch.float64)
    points = torch.cat([found.weights, found.features])[None]
    value, gradient = cold_loss(temperature)(points, torch.tensor([0]))
    assert math.exp(float(value[0]) / 0.3) == pytest.approx(found.loss, rel=1e-9)
    tangent = gradient - (gradient * points).sum(-1, keepdim=True) * points
    assert float(tangent.abs().max()) < 1e-6
