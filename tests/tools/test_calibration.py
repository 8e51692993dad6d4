"""The calibration itself: its laws are the forms, simulated intervals cover, seeds decide the numbers."""

import numpy as np
import pytest

from analysis.scaling.forms import FORMS, MARGIN_FORMS
from tools.calibration import DISTINCT, TRUTHS, calibrate, choices, distances, law, print_choices, simulate, sizes_of


def test_every_form_has_a_truth_for_every_parameter():
    assert set(TRUTHS) == set(FORMS)
    for name, form in FORMS.items():
        assert set(TRUTHS[name]) == {*form.names, *form.shapes}


@pytest.mark.parametrize("form", FORMS)
def test_without_noise_the_simulated_cells_follow_the_law(form):
    cells, new = simulate(form, 6, np.random.default_rng(0), noise=0.0, outliers=0.0)
    sizes = sizes_of(6)
    centre = float(np.exp(np.log(sizes).mean()))
    assert cells.log_measure == pytest.approx(law(form, sizes, centre))
    assert new == pytest.approx(float(law(form, np.array([768.0]), centre)[0]))


def test_intervals_cover_in_simulated_studies_with_outliers_and_missing_cells():
    (line,) = calibrate("power", 12, 80)
    assert line.studies == 80
    assert line.covered > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 80)
    assert line.predicted > 0.9 - 4 * np.sqrt(0.9 * 0.1 / 80)
    assert line.median_error < 0.03


def test_the_same_seed_gives_the_same_line_and_another_seed_another():
    first, again, other = (calibrate("power", 6, 5, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_strongly_curved_law_is_chosen_as_such():
    rates = choices("curved", 12, 4, noise=0.001)
    assert rates["curved"] + rates["offset"] >= 0.75  # an offset bends alike over this range
    assert rates["power"] == 0


def test_a_form_that_holds_the_law_cannot_be_told_from_it_and_less_noise_tells_more_forms_apart():
    for noise in (0.01, 0.001):
        power = distances("power", 12, noise=noise)
        assert power["power"] == pytest.approx(0, abs=1e-6)
        assert power["curved"] == pytest.approx(0, abs=1e-6)  # its bend is 0
        assert power["corrected"] == pytest.approx(0, abs=1e-6)
        assert power["reference"] > DISTINCT
    assert distances("power", 12, noise=0.01)["levenshtein"] < DISTINCT < power["levenshtein"]


def test_forms_are_distant_by_what_noise_is_seen_at_the_held_out_cells():
    far, near = (distances("curved", 12, noise=noise)["power"] for noise in (0.01, 0.02))
    assert far == pytest.approx(2 * near)
    assert distances("curved", 30)["power"] > distances("curved", 12)["power"]


def test_the_table_of_choices_has_a_row_and_a_column_for_each_form_that_is_chosen_among(capsys):
    print_choices(1, 12, 0.001)
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows] == list(MARGIN_FORMS)
    assert all(len(row.split("|")) == len(head.split("|")) == len(MARGIN_FORMS) + 5 for row in rows)
