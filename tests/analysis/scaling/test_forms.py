"""Forms of a trend: planted parameters come back, predictions and their intervals hold, the right form is chosen."""

from types import SimpleNamespace

import numpy as np
import pytest

from analysis.rows import theory
from analysis.rows.frames import final_rows
from analysis.scaling.cells import Cells, select
from analysis.scaling.form_choice import compare_all, compare_forms, hold_out
from analysis.scaling.forms import FORMS, aicc, fit_form, weigh
from analysis.scaling.power_law import FitRefused

SIZES = np.array([12.0, 16, 24, 32, 48, 64, 96, 128, 192, 256])
# Each law in d = 3 with the parameters that its form should find; K is counted from the centre in the offset form.
CENTRE = float(np.exp(np.log(SIZES).mean()))
LAWS = {
    "power": (2 * SIZES**-0.8, {"a": -0.8}),
    "offset": (3 * ((SIZES / CENTRE) ** -1.2 + 0.3), {"a": -1.2, "log c": np.log(0.3)}),
    "theory": (1.5 / SIZES * np.exp(-2 / SIZES), {"c": -2.0}),
    "corrected": (2 * SIZES**-1.2 * np.exp(-4 / SIZES), {"a": -1.2, "c": -4.0}),
    "levenshtein": (0.8 * theory.levenshtein_curve(SIZES, 3), {}),
    "reference": (0.9 * theory.best_known_curve(SIZES, 3), {}),
    "curved": (np.exp(0.5 * np.log(SIZES) - 0.2 * np.log(SIZES) ** 2), {"a": 0.5, "b": -0.2}),
    "corrected-slow": (2 * SIZES**-1.2 * np.exp(-2 / SIZES**0.5), {"a": -1.2, "c": -2.0}),
    "corrected-fast": (2 * SIZES**-1.2 * np.exp(-9 / SIZES**2), {"a": -1.2, "c": -9.0}),
}


def cells_of(measure, sizes=SIZES, group=None) -> Cells:
    names = tuple(group) if group is not None else ("",) * len(sizes)
    return Cells(np.log(measure), np.log(sizes)[:, None], names, np.ones(len(sizes), dtype=int))


@pytest.mark.parametrize("form", FORMS)
def test_planted_parameters_are_recovered(form):
    measure, planted = LAWS[form]
    fit = fit_form(form, cells_of(measure), 3)
    found = {p.name: p.estimate for p in fit.parameters}
    assert found == pytest.approx(planted, abs=2e-5)
    assert fit.predict(SIZES) == pytest.approx(measure, rel=1e-5)


@pytest.mark.parametrize("form", ["power", "offset", "curved"])
def test_a_prefactor_of_each_group_is_recovered(form):
    measure, planted = LAWS[form]
    both = cells_of(np.concatenate([measure, 5 * measure]), np.tile(SIZES, 2), ["cold"] * 10 + ["hot"] * 10)
    fit = fit_form(form, both, 3)
    assert {p.name: p.estimate for p in fit.parameters} == pytest.approx(planted, abs=2e-5)
    assert fit.levels["hot"] - fit.levels["cold"] == pytest.approx(np.log(5), abs=1e-6)
    assert fit.predict(np.array([512.0]), "hot") / fit.predict(np.array([512.0]), "cold") == pytest.approx(5)


@pytest.mark.parametrize("form", ["power", "curved", "levenshtein"])
def test_a_90_percent_prediction_interval_covers_near_90_percent_of_new_cells(form):
    rng = np.random.default_rng(7)
    measure, _ = LAWS[form]
    new = {"power": 2 * 512**-0.8, "curved": np.exp(0.5 * np.log(512) - 0.2 * np.log(512) ** 2)}
    new["levenshtein"] = 0.8 * float(theory.levenshtein_curve(np.array([512]), 3)[0])
    inside, studies = 0, 150
    for _ in range(studies):
        fit = fit_form(form, cells_of(measure * np.exp(0.05 * rng.normal(size=len(SIZES)))), 3)
        (low,), (high,) = fit.predict_interval(512)
        inside += low <= new[form] * np.exp(0.05 * rng.normal()) <= high
    assert abs(inside / studies - 0.9) < 4 * np.sqrt(0.9 * 0.1 / studies)


@pytest.mark.parametrize(
    ("law", "wrong"), [("offset", "power"), ("curved", "power"), ("power", "levenshtein"), ("theory", "power")]
)
def test_the_right_form_predicts_the_largest_sizes_better(law, wrong):
    rng = np.random.default_rng(11)
    cells = cells_of(LAWS[law][0] * np.exp(0.003 * rng.normal(size=len(SIZES))))
    assert hold_out(law, cells, 3).median_error < hold_out(wrong, cells, 3).median_error


def test_the_largest_sizes_are_held_out_and_never_seen():
    cells = cells_of(LAWS["power"][0])
    spoiled = Cells(
        cells.log_measure + np.where(SIZES > 100, 1.0, 0.0), cells.log_predictors, cells.group, cells.trials
    )
    held = hold_out("power", spoiled, 3)
    assert held.sizes == (192, 256)
    # 128 is above 100 too but is fitted: only cells of the two largest sizes are predicted
    assert held.cells == 2
    clean = hold_out("power", select(spoiled, SIZES != 128), 3)
    assert clean.median_error == pytest.approx(1 - np.exp(-1), rel=1e-6)


def test_a_bend_makes_the_pure_power_law_misspecified_and_its_absence_does_not():
    rng = np.random.default_rng(2)
    noise = np.exp(0.005 * rng.normal(size=len(SIZES)))
    assert compare_forms(cells_of(LAWS["curved"][0] * noise), 3, "margin_min_lower").power_law_is_misspecified
    assert not compare_forms(cells_of(LAWS["power"][0] * noise), 3, "margin_min_lower").power_law_is_misspecified


def test_aicc_prefers_the_smaller_of_two_forms_that_fit_alike():
    rng = np.random.default_rng(4)
    cells = cells_of(LAWS["power"][0] * np.exp(0.02 * rng.normal(size=len(SIZES))))
    assert fit_form("power", cells, 3).aicc < fit_form("curved", cells, 3).aicc
    assert aicc(np.full(10, 0.1), 1.0, 2) == pytest.approx(10 * np.log(0.01) + 6 + 24 / 6)


def test_what_the_cells_cannot_carry_is_refused():
    with pytest.raises(FitRefused, match="4 values of num_classes, at least 5"):
        fit_form("power", cells_of(LAWS["power"][0][:4], SIZES[:4]), 3)
    repeated = np.tile(SIZES[:3], 4)
    with pytest.raises(FitRefused, match="3 values of num_classes, at least 5"):
        fit_form("curved", cells_of(repeated**-1.0, repeated), 3)
    with pytest.raises(ValueError, match="form must be one of"):
        fit_form("cubic", cells_of(LAWS["power"][0]), 3)


def test_comparisons_of_a_study_keep_refusals(full_store):
    comparisons = compare_all(final_rows(full_store))
    assert {(c.measure, c.feature_dim) for c in comparisons} == {
        (m, d) for m in ("margin_min_lower", "gnc1_rank", "trace_within", "cdnv_nearest") for d in (3, 10)
    }
    assert any("at least" in (v.refused or "") for c in comparisons for v in c.verdicts)
    for comparison in comparisons:
        assert all((v.fit is None) == (v.refused is not None) for v in comparison.verdicts)


def test_no_form_is_chosen_where_all_of_them_fail():
    broken = np.where(SIZES > 150, 1e-3, 1.0) * LAWS["power"][0]
    comparison = compare_forms(cells_of(broken), 3, "margin_min_lower")
    assert comparison.chosen is None
    assert all(v.held_out.median_error > 0.5 for v in comparison.verdicts if v.held_out)


def test_an_offset_of_nothing_is_refused_and_not_given_an_endless_interval():
    steeper_and_steeper = SIZES**-0.8 * np.exp(-0.05 * np.log(SIZES) ** 2)
    with pytest.raises(FitRefused, match="do not tell log c: its best value lies beyond -9 to 3"):
        fit_form("offset", cells_of(steeper_and_steeper), 3)


def test_a_form_weighs_by_its_held_out_error_down_to_the_noise():
    fits = [SimpleNamespace(form=form, scale=scale) for form, scale in (("power", 0.02), ("theory", 0.03))]
    weights = [weight.value for _, weight in weigh([(0.1, fits[0]), (0.0, fits[1])])]
    assert weights[1] / weights[0] == pytest.approx(26**0.5)  # 1 / .02 beside 1 / root of .1^2 + .02^2
    assert sum(weights) == pytest.approx(1)
    assert weigh([(0.0, SimpleNamespace(form="power", scale=0.0))])[0][1] == (1, 1)


def test_in_the_interval_the_form_that_bends_has_odds_of_six_where_it_scatters_no_more_than_others():
    fits = [SimpleNamespace(form=form, scale=0.02) for form in ("power", "curved", "theory")]
    weights = [weight for _, weight in weigh([(0.0, fits[0]), (0.5, fits[1]), (0.0, fits[2])])]
    assert [weight.interval * 14 for weight in weights] == pytest.approx([1, 12, 1])
    assert weights[1].value < 0.03
    assert weigh([(2.0, fits[0]), (0.0, fits[1])])[1][1].interval > 0.98
    assert weigh([(0.5, fits[1])]) == [(fits[1], (1.0, 1.0))]
    wide = SimpleNamespace(form="curved", scale=0.06)
    weights = [weight.interval * 5 for _, weight in weigh([(0.0, fits[0]), (50.0, wide)])]
    assert weights == pytest.approx([3, 2], rel=1e-3)
