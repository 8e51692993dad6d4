"""The opening sentences: exponents with what they rest on, refusals with what is missing, and nothing found in nothing."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.effects.shares import Explained, Share, Spread
from analysis.report.sentences import (
    clause_ratio,
    sentence_asymptote,
    sentence_classes,
    sentence_codes,
    sentence_collapse,
    sentence_trend,
    sentences_opposite,
    sentences_trend,
)
from analysis.rows.frames import final_rows, load_study
from analysis.rows.measures import MARGIN, VARIABILITY
from analysis.scaling.form_choice import cells_of, compare_all, compare_forms
from analysis.scaling.forms import fit_form
from analysis.scaling.trends import fit_trend, trends_of
from analysis.statistics.inference import sizes_needed
from tools.planted_studies import OTHERS, Layout, with_margins


def planted(layout: Layout, logs: np.ndarray, terminal: np.ndarray | None = None) -> pa.Table:
    everything = np.broadcast_to(logs, (layout.series, layout.sizes, layout.seeds))
    return with_margins(layout.frame(), everything, np.ones(everything.size, bool) if terminal is None else terminal)


def told(layout: Layout, logs: np.ndarray, terminal: np.ndarray | None = None) -> str:
    return " ".join(sentences_trend(trends_of(planted(layout, logs, terminal), MARGIN, OTHERS)))


def law(layout: Layout, exponent: float, noise: float = 0.01) -> np.ndarray:
    shake = noise * np.random.default_rng(0).normal(size=layout.sizes)
    return (exponent * np.log(layout.num_classes()) + shake)[None, :, None]


def test_a_trend_says_its_interval_and_what_it_rests_on():
    layout = Layout(7, 2, seeds=3)
    text = told(layout, law(layout, -0.5))
    assert text.startswith("At d = 5 the minimum margin falls as K to the power −0.")  # noqa: RUF001
    assert "(95 % interval" in text
    assert "7 class counts from 24 to 512, 3 seeds each, with one prefactor for each temperature." in text
    assert "rises as K" in told(layout, law(layout, 0.2))


@pytest.mark.parametrize(("sizes", "missing"), [(2, "three more class counts"), (4, "one more class count.")])
def test_under_five_sizes_the_sentence_says_how_many_are_missing_and_the_estimate(sizes, missing):
    layout = Layout(sizes, 3)
    text = told(layout, law(layout, -0.5, noise=0.0))
    assert "no exponent of the minimum margin is claimed" in text
    assert missing in text
    assert "bare estimate is K to the power −0.5" in text  # noqa: RUF001
    assert "interval −" not in text  # noqa: RUF001


def test_series_with_unequal_exponents_are_told_one_by_one():
    layout = Layout(7, 2)
    logs = np.concatenate([law(layout, -0.5), law(layout, -0.8)]) + 0.002 * np.random.default_rng(1).normal(
        size=(2, 7, 1)
    )
    text = told(layout, logs)
    assert "the exponents of the minimum margin differ between the 2 series" in text
    assert text.count("(95 % interval") == 2
    assert "at temperature 0.05; K to the power" in text


def test_an_interval_that_holds_zero_is_no_finding_and_the_sentence_says_what_would_settle_it():
    layout = Layout(7)
    text = told(layout, law(layout, -0.01, noise=0.1))
    assert "no trend of the minimum margin in K is found" in text
    assert "holds 0" in text
    assert "falls as" not in text
    assert "rises as" not in text
    assert "would be told from 0" in text


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_zeros_negative_values_and_nan_are_left_out_and_leave_too_few_sizes(bad):
    layout = Layout(5)
    final = planted(layout, law(layout, -0.5))
    margins = [bad, *final[MARGIN].to_pylist()[1:]]
    for name in (MARGIN, "margin_min_upper"):
        final = final.set_column(final.schema.get_field_index(name), name, pa.array(margins, pa.float64()))
    trend = fit_trend(final, MARGIN, {"feature_dim": 5}, OTHERS)
    assert (trend.not_positive, trend.believed) == (1, None)
    assert trend.refused == "4 values of num_classes, at least 5 are needed for an interval"
    assert trend.fit.exponent.estimate == pytest.approx(-0.5, abs=0.05)


def test_a_size_that_never_became_terminal_does_not_count():
    layout = Layout(5)
    text = told(layout, law(layout, -0.5), np.array([True] * 4 + [False]))
    assert "needs one more class count." in text


def test_one_class_count_and_equal_values_give_no_interval():
    assert "1 class count, at least 5" in told(Layout(1), np.zeros((1, 1, 1)))
    layout = Layout(6, 2)
    text = told(layout, np.full((1, 6, 1), -1.0))
    assert "the values of all sizes are equal" in text
    assert "The bare estimate is K to the power" in text


def compared(layout: Layout, logs: np.ndarray):
    return compare_forms(
        cells_of(planted(layout, logs), MARGIN, OTHERS), layout.dim, MARGIN, OTHERS, names=("corrected",)
    )


def test_the_asymptote_is_told_by_the_form_with_a_correction():
    layout = Layout(7, dim=5, least=64)
    k = layout.num_classes()
    shake = 0.002 * np.random.default_rng(2).normal(size=7)
    bent = (-0.5 * np.log(k) - 2 * k**-0.5 + shake)[None, :, None]
    assert "−0.5, lies inside the interval" in sentence_asymptote(compared(layout, bent))  # noqa: RUF001
    steep = (-1.0 * np.log(k) - 2 * k**-0.5 + shake)[None, :, None]
    assert "−0.5, lies outside the interval" in sentence_asymptote(compared(layout, steep))  # noqa: RUF001
    noisy = compared(layout, bent + 0.2 * np.random.default_rng(2).normal(size=(1, 7, 1)))
    assert "cannot be told" in sentence_asymptote(noisy)
    assert "cannot be compared" in sentence_asymptote(compared(Layout(4), law(Layout(4), -0.5)))


def test_opposite_exponents_under_two_conditions_are_explained():
    layout = Layout(7)
    rising, falling = (planted(layout, law(layout, a)) for a in (0.3, -0.3))
    at_end = fit_trend(rising, MARGIN, {"feature_dim": 5}, OTHERS)
    matched = fit_trend(falling, MARGIN, {"feature_dim": 5}, OTHERS, "100 steps after 99 %")
    (sentence,) = sentences_opposite([at_end, matched])
    assert "rises with K (end of training" in sentence
    assert "falls (100 steps after 99 %" in sentence
    assert "different questions" in sentence
    other = fit_trend(falling, MARGIN, {"feature_dim": 5, "temperature": 0.1}, OTHERS)
    assert "depends on this setting" in sentences_opposite([at_end, other])[0]
    assert sentences_opposite([at_end, at_end]) == []


def test_equal_ratios_are_said_once(make_store):
    final = final_rows(make_store([(3, k, 0.1, "both", 0) for k in (12, 24)]))
    rows = [row | {MARGIN: 0.871 * row["reference_margin_lower"]} for row in final.to_pylist()]
    two = pa.Table.from_pylist(rows, schema=final.schema)
    assert clause_ratio(two) == "the minimum margin reaches 87.1 % of the best known code's in all 2 trials"
    assert clause_ratio(two.slice(0, 1)).count("87.1 %") == 1


def test_both_ends_of_a_range_are_told_apart_by_the_settings_that_differ(make_store):
    final = final_rows(make_store([(3, 12, 0.1, "both", seed) for seed in (0, 1)]))
    rows = [
        row | {MARGIN: share * row["reference_margin_lower"], "width": width, "seed": 0}
        for row, share, width in zip(final.to_pylist(), (0.6, 0.9), (8, 32), strict=True)
    ]
    clause = clause_ratio(pa.Table.from_pylist(rows, schema=final.schema))
    assert ", width 8 to 90 % at" in clause
    assert clause.endswith(", width 32")


@pytest.mark.parametrize(
    ("settings", "seeds", "is_told"), [(("num_classes",), 0.1, False), (("num_classes", "width"), 0.1, True),
                                       (("num_classes", "width"), 5.0, False)],
)  # fmt: skip
def test_a_setting_matters_most_only_beside_others_and_beside_chance(make_store, settings, seeds, is_told):
    final = final_rows(make_store([(3, k, 0.1, "both", 0) for k in (12, 24)]))
    shares = tuple(Share(name, 0.6 - 0.1 * at, 2) for at, name in enumerate(settings))
    explained = Explained(MARGIN, None, shares, 0.9, Spread(1.0, seeds), 4)
    assert ("matters most" in sentence_codes(final, [explained])) == is_told


def test_the_number_of_sizes_that_settles_a_question():
    assert sizes_needed(0.1, 7, 2, 0.05) == 19
    assert sizes_needed(0.1, 7, 2, 0.09) == 8
    assert sizes_needed(1.0, 7, 2, 0.001) is None


def test_where_no_series_can_tell_the_sentence_still_names_theory_and_whose_interval_it_shows():
    layout = Layout(7, 2, dim=14)
    noise = 0.05 * np.random.default_rng(2).normal(size=(2, 7, 1))
    final = planted(layout, np.concatenate([law(layout, 0.0, 0.0), law(layout, -0.5, 0.0)]) + noise)
    compared = compare_forms(cells_of(final, MARGIN, OTHERS), 14, MARGIN, OTHERS, names=("corrected",))
    assert len(compared.series) == 2
    text = sentence_asymptote(compared)
    assert text.startswith("Theory's large-K exponent of the best codes, −0.154, is inside the interval")  # noqa: RUF001
    assert " at temperature = 0.05, which holds 0" in text
    assert text.endswith("The other series cannot tell either.")


def claimed(layout: Layout, logs: np.ndarray) -> str:
    final = planted(layout, logs)
    return sentence_classes(trends_of(final, MARGIN, OTHERS), ())


def test_the_third_sentence_says_how_the_margin_goes_or_why_that_cannot_be_told():
    layout = Layout(7)
    assert claimed(layout, law(layout, -0.5)).startswith(
        "With more classes the minimum margin falls: K to the power −0."  # noqa: RUF001
    )
    assert claimed(layout, law(layout, 0.3)).startswith("With more classes the minimum margin rises: K to the power 0.")
    assert "for every interval holds 0" in claimed(layout, law(layout, -0.01, noise=0.1))
    assert claimed(layout, law(layout, -0.5)).endswith(" This rests on 7 class counts from 24 to 512, one seed each.")
    other, noise = Layout(7, dim=8), law(Layout(7), -0.01, noise=0.1)
    both = pa.concat_tables([planted(layout, law(layout, -0.5)), planted(other, noise)])
    text = sentence_classes(trends_of(both, MARGIN, OTHERS), ())
    assert text.startswith("With more classes the minimum margin falls: ")
    assert " at d = 5, where theory's −0.5 is neither shown nor excluded" in text  # noqa: RUF001
    assert "; none is found at d = 8, where the interval holds 0. This rests on 7 class" in text
    two = Layout(7, 2, cell=0.001)
    apart = claimed(two, np.concatenate([law(two, -0.5, 0.0), law(two, 0.5, 0.0)]))
    assert apart.startswith("No one exponent in the number of classes holds: the exponents of the 2 series differ (p ")
    few = Layout(3)
    assert claimed(few, law(few, -0.5)).endswith("an exponent needs five class counts, and there are 3 at d = 5.")


def test_the_third_sentence_names_the_dimensions_in_which_nothing_is_claimed():
    whole, few, two = Layout(7), Layout(3, dim=8), Layout(7, 2, dim=10, cell=0.001)
    apart = np.concatenate([law(two, -0.5, 0.0), law(two, 0.5, 0.0)])
    final = pa.concat_tables([planted(whole, law(whole, -0.5)), planted(few, law(few, -0.5)), planted(two, apart)])
    text = sentence_classes(trends_of(final, MARGIN, OTHERS), ())
    assert "At d = 8 none is claimed: 2 more class counts would give one." in text
    assert "At d = 10 none is claimed: the exponents of the 2 series differ" in text


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_a_class_count_without_a_positive_margin_ends_the_claim(bad):
    layout = Layout(8)
    final = planted(layout, law(layout, -0.5))
    margins = [*final[MARGIN].to_pylist()[:-1], bad]
    for name in (MARGIN, "margin_min_upper"):
        final = final.set_column(final.schema.get_field_index(name), name, pa.array(margins, pa.float64()))
    trend = fit_trend(final, MARGIN, {"feature_dim": 5}, OTHERS)
    assert trend.believed is None
    assert trend.refused.startswith("at num_classes = 512 no trial has a positive value")
    assert trend.fit.exponent.estimate == pytest.approx(-0.5, abs=0.05)
    assert "1 trial without a positive value left out." in sentence_trend(trend)
    for name in VARIABILITY:
        final = final.append_column(name, pa.nulls(8, pa.float64()))
    (forms,) = compare_all(final)
    assert forms.chosen is None
    assert {v.refused for v in forms.verdicts} == {trend.refused}
    assert "cannot be compared" in sentence_asymptote(forms)


def test_a_class_count_whose_margin_was_not_measured_is_no_reason_to_refuse():
    layout = Layout(8)
    final = planted(layout, law(layout, -0.5))
    for name in (MARGIN, "margin_min_upper"):
        margins = [*final[name].to_pylist()[:-1], None]
        final = final.set_column(final.schema.get_field_index(name), name, pa.array(margins, pa.float64()))
    assert fit_trend(final, MARGIN, {"feature_dim": 5}, OTHERS).believed.sizes == 7


def test_equal_margins_say_nothing_of_theory_nor_do_intervals_that_hold_0():
    layout = Layout(7, dim=5, least=64)
    for shake in (0.0, 1e-8):
        level = np.log(0.3) + shake * np.random.default_rng(1).normal(size=(1, 7, 1))
        assert "cannot be compared" in sentence_asymptote(compared(layout, level))
    noisy = compared(layout, (1.5 * np.log(layout.num_classes()))[None, :, None]
                     + 0.3 * np.random.default_rng(4).normal(size=(1, 7, 1)))  # fmt: skip
    assert "lies outside" not in sentence_asymptote(noisy)


def test_a_correction_that_fades_otherwise_is_not_read_as_another_exponent():
    layout = Layout(12, dim=8, least=24)
    k, shake = layout.num_classes(), 0.001 * np.random.default_rng(2).normal(size=12)
    bent = (-2 / 7 * np.log(k) + np.log1p(-1.5 * k ** (-2 / 7)) + shake)[None, :, None]
    one = fit_form("corrected", cells_of(planted(layout, bent), MARGIN, OTHERS), 8).parameters[0]
    assert not one.holds(-2 / 7)  # one correction alone is sure of what is not so
    assert "lies inside the interval" in sentence_asymptote(compared(layout, bent))


@pytest.mark.parametrize(
    ("share", "verdict"), [(1.2, "better than"), (0.97, "nearly"), (0.7, "short of"), (0.2, "far from"), (None, "No")]
)
def test_the_second_sentence_calls_the_codes_by_their_share_of_the_best_known(make_store, share, verdict):
    final = final_rows(make_store([(3, k, 0.1, "both", 0) for k in (12, 24)]))
    rows = [row | {MARGIN: share and share * row["reference_margin_lower"]} for row in final.to_pylist()]
    sentence = sentence_codes(pa.Table.from_pylist(rows, schema=final.schema))
    assert sentence.startswith("No complete trial has measured" if share is None else "The codes ")
    assert verdict in sentence
    assert sentence.count(".") <= 3


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.01, "Features collapse:"), (0.5, "Features collapse in part:"), (1.5, "Features do not collapse:")],
)
def test_the_first_sentence_says_whether_features_collapsed(make_store, factor, verdict):
    store = make_store([(3, 12, 0.1, "both", s) for s in (0, 1)])
    rows = store.results.to_pylist()
    for row in rows:
        row["gnc1_rank"] = factor if row["step"] > 100 else 1.0
    store.results = store.results.from_pylist(rows, schema=store.results.schema)
    assert sentence_collapse(load_study(store)).startswith(verdict)
    for row in rows:
        row |= {"gnc1_rank": None, "gnc3_uncentred": None}
    store.results = store.results.from_pylist(rows, schema=store.results.schema)
    assert sentence_collapse(load_study(store)).startswith("Whether features collapse cannot be told")
