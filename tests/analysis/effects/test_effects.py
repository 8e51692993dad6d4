"""Paired differences: cells that share everything but one setting, and nothing else, are compared."""

import numpy as np
import pytest

from analysis.effects.effects import SharedCell, paired_differences, shared_cells
from analysis.rows.frames import final_rows


def test_temperature_is_compared_within_size_and_normalization(full_store):
    cells = shared_cells(final_rows(full_store), "temperature", "margin_min_lower")
    sizes = {(c.held["feature_dim"], c.held["num_classes"]): c.levels for c in cells}
    assert sizes == {(3, k): (0.05, 0.1, 0.3, 1.0) for k in (12, 24, 48)} | {(10, 100): (0.1, 0.2, 1.0)}
    assert {c.held["normalization"] for c in cells} == {"both"}


def test_normalizations_are_compared_at_the_temperature_they_share(full_store):
    cells = shared_cells(final_rows(full_store), "normalization", "margin_min_lower")
    assert [(c.held["feature_dim"], c.held["num_classes"], c.levels) for c in cells] == [
        (3, 24, ("both", "features", "none")),
        (10, 100, ("both", "features", "none")),
    ]
    final = {row["trial"]: row for row in final_rows(full_store).to_pylist()}
    used = {final[t]["temperature"] for c in cells for t in c.trials}
    assert used == {0.1, None}


def test_a_planted_difference_is_found_with_its_interval():
    rng = np.random.default_rng(0)
    cells = [SharedCell({}, (0.1, 1.0), (b, b - 0.2 + 0.01 * rng.normal()), ()) for b in rng.uniform(0.4, 0.6, 12)]
    (found,) = paired_differences(cells, "margin_min_lower", 0.1)
    assert found.mean == pytest.approx(-0.2, abs=0.01)
    assert found.low < -0.2 < found.high
    assert found.high - found.low < 0.03
    assert (found.base, found.level, found.cells, found.is_log) == (0.1, 1.0, 12, False)


def test_variability_is_compared_as_a_ratio():
    cells = [SharedCell({}, ("both", "none"), (0.01 * i, 0.04 * i), ()) for i in range(1, 7)]
    (found,) = paired_differences(cells, "gnc1_rank", "both")
    assert found.is_log
    assert np.exp(found.mean) == pytest.approx(4)


def test_under_five_cells_there_is_a_difference_but_no_interval():
    cells = [SharedCell({}, (0.1, 1.0), (0.5, 0.3), ())] * 4
    (found,) = paired_differences(cells, "margin_min_lower", 0.1)
    assert found.mean == pytest.approx(-0.2)
    assert found.low is None
    assert found.high is None


def test_one_value_of_a_setting_shares_nothing(make_store):
    final = final_rows(make_store([(3, k, 0.1, "both", s) for k in (12, 24) for s in (0, 1)]))
    assert shared_cells(final, "temperature", "margin_min_lower") == []
    assert shared_cells(final, "normalization", "margin_min_lower") == []
