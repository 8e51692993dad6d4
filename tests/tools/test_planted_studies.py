"""Planted studies: their tables follow the law, the report's statements about them are counted rightly, bad input is refused."""

import numpy as np
import pytest

from analysis.rows.measures import MARGIN
from tools.planted_studies import (
    ASYMPTOTES,
    PREDICTED,
    Layout,
    asymptotes,
    exponents,
    joint,
    main,
    power,
    predictions,
    with_margins,
)


def test_without_noise_the_rows_follow_the_law_and_series_differ_by_a_factor():
    layout = Layout(5, 3, seeds=2, shared=0.0, cell=0.0, seed=0.0)
    logs, slopes = layout.draw(power(-0.5), np.random.default_rng(0))
    final = with_margins(layout.frame(), logs, np.ones(30, dtype=bool))
    assert final.num_rows == len(set(final["trial"].to_pylist())) == 30
    assert len(set(final["cell"].to_pylist())) == 15
    k, margin = final["num_classes"].to_numpy(), final[MARGIN].to_numpy()
    series = (margin * k**0.5).reshape(3, 10)
    assert np.ptp(series, axis=1) == pytest.approx(0, abs=1e-9)
    assert (slopes == 0).all()


def test_a_shared_deviation_is_the_same_in_every_series():
    layout = Layout(5, 3, shared=0.1, cell=0.0, seed=0.0)
    logs = layout.draw(power(-0.5), np.random.default_rng(0))[0][..., 0]
    centred = logs - logs.mean(axis=1, keepdims=True)
    assert np.ptp(centred, axis=0) == pytest.approx(0, abs=1e-12)
    assert np.ptp(centred[0] + 0.5 * np.log(layout.num_classes())) > 0.05


def test_pooled_intervals_cover_though_sizes_deviate_and_trials_are_dropped():
    found = exponents(Layout(6, 4, dropped=0.1), 60)
    assert found.pooled + found.refused + found.differ == 60
    assert found.pooled >= 45
    assert found.covered > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 45)


def test_unequal_slopes_are_said_to_differ_and_too_few_sizes_have_no_interval():
    assert exponents(Layout(7, 3, slopes=0.2, shared=0.02), 5).differ == 5
    few = exponents(Layout(4, 5), 5)
    assert few.pooled == 0
    assert np.isnan(few.covered)


def test_shares_of_a_sentence_add_up_and_a_wrong_law_is_outside():
    layout = Layout(7, dim=3, least=64, shared=0.01)
    assert asymptotes("twice theory's exponent", layout, 5)["outside"] == 1
    assert sum(asymptotes("Levenshtein's bound", layout, 5).values()) == pytest.approx(1)
    assert all(np.isfinite(law(layout.num_classes(), 3)).all() for law in (*ASYMPTOTES.values(), *PREDICTED.values()))


def test_predictions_are_scored_in_every_series():
    covered, error, cells = predictions("power", Layout(6, 2, largest=256), 3)
    assert cells == 6
    assert 0 <= covered <= 1
    assert error < 0.2


def test_too_few_studies_are_refused():
    with pytest.raises(SystemExit):
        main(["--studies", "1"])


def test_joint_forms_cover_over_five_dimensions_and_have_no_intervals_over_four(monkeypatch):
    found = joint("power", Layout(6, 2, largest=256), 4)
    assert found.refused == 0
    assert found.cells == 4 * 5 * 2
    assert min(found.parameters.values()) >= 0.5  # a true share of .95 is below 2 of 4 once in 2,000 tests
    assert found.predicted > 0.7
    monkeypatch.setattr("tools.planted_studies.DIMS", (4, 5, 6, 8))
    few = joint("power", Layout(6, 2, largest=256), 1)
    assert few.refused == 1
    assert np.isnan(few.parameters["a"])
