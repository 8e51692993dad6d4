"""Contrasts of a setting's values: planted differences come back, too few seeds are no verdict, null is a value."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.effects.contrast import adjust_together, contrasts, numbers_contrast, verdict
from analysis.figures.contrast import block_contrast, is_numeric, places
from analysis.figures.panels import figure_file
from analysis.report.effect_tables import caveats, contrast_parts
from analysis.report.writers import parts_to_markdown
from analysis.rows.frames import final_rows, parts_by, values
from analysis.rows.measures import measure_values
from analysis.statistics.inference import detectable_gap, equivalence_bound, holm, mean_interval, paired_p
from study.design.where import ConditionRefused, rows_where


def planted(make_store, seeds: int, effect: float) -> pa.Table:
    """Two normalizations at two sizes; `features` moves the margin by `effect`, seeds by what both values share."""
    grid = [(3, k, 0.1, n, s) for k in (12, 24) for n in ("both", "features") for s in range(seeds)]
    final = final_rows(make_store(grid))
    chance = np.random.default_rng(3)
    common = dict(enumerate(0.05 * chance.normal(size=seeds)))
    rows = final.to_pylist()
    for row in rows:
        own = effect if row["normalization"] == "features" else 0.0
        row["margin_min_lower"] = 0.5 + common[row["seed"]] + own + 1e-3 * chance.normal()
    return pa.Table.from_pylist(rows, schema=final.schema)


def test_holm_of_a_known_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, float("nan"), 0.8])[[0, 2]] == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1"):
        holm([1.5])


def test_a_planted_difference_is_found_though_seeds_differ_more(make_store):
    found = numbers_contrast(planted(make_store, 6, -0.02), "normalization", "margin_min_lower")
    assert (found.base, found.is_log, [v.value for v in found.levels]) == ("both", False, ["both", "features"])
    gap = found.levels[1].difference
    assert (gap.seeds, gap.cells) == (6, 2)
    assert gap.low < -0.02 < gap.high
    assert gap.high - gap.low < 0.004
    assert verdict(gap) == "lower"
    # unpaired, the two means could not be told apart
    assert found.levels[0].low < found.levels[1].mean < found.levels[0].high


def test_no_effect_is_no_difference_and_adjustment_counts_every_measure(make_store):
    final = planted(make_store, 6, 0.0)
    found = contrasts(final, "normalization", ["margin_min_lower", "gnc1_rank", "test_accuracy"])
    gaps = [c.levels[1].difference for c in found]
    assert all(g.adjusted >= g.p for g in gaps)
    assert max(g.adjusted / g.p for g in gaps if g.p > 0) > 1.5
    assert verdict(gaps[0]) == "no difference shown"
    assert adjust_together(found) == found


def test_a_bound_is_met_where_the_difference_is_shown_to_stay_below_it(make_store):
    found = numbers_contrast(planted(make_store, 6, -0.02), "normalization", "margin_min_lower")
    gap = found.levels[1].difference
    assert 0.02 < gap.within < 0.024
    assert 0 < gap.detectable < 0.004
    assert verdict(gap, 0.03) == "lower, inside the bound"
    assert verdict(gap, 0.02) == "lower, not inside the bound"
    text = parts_to_markdown(contrast_parts([found], {"margin_min_lower": 0.03}))
    assert "inside the bound" in text
    with pytest.raises(ValueError, match=r"bound of margin_min_lower must be above 0, got -1.*It is a difference"):
        contrast_parts([found], {"margin_min_lower": -1.0})


def test_two_equal_values_are_called_equivalent_in_one_study_of_twenty_at_the_bound_itself():
    chance = np.random.default_rng(0)
    bound = 0.3  # the true difference lies exactly on it: the test must then err in at most 5 %
    called = [equivalence_bound(bound + 0.1 * chance.normal(size=6)) < bound for _ in range(1000)]
    assert np.mean(called) == pytest.approx(0.05, abs=0.022)


@pytest.mark.parametrize("seeds", [5, 6, 12])
def test_the_detectable_difference_is_found_in_four_studies_of_five(seeds):
    chance = np.random.default_rng(1)
    scatter = chance.normal(size=seeds)
    gap = detectable_gap((scatter - scatter.mean()) / scatter.std(ddof=1))
    found = [paired_p(gap + chance.normal(size=seeds)) < 0.05 for _ in range(1000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_nothing_is_bounded_or_called_detectable_under_five_seeds():
    assert np.isnan([equivalence_bound(np.arange(4.0)), detectable_gap(np.arange(4.0))]).all()
    assert (equivalence_bound(np.zeros(5)), detectable_gap(np.zeros(5))) == (0.0, 0.0)
    gaps = np.array([0.1, -0.2, 0.3, 0.0, 0.15])
    assert equivalence_bound(gaps) < max(map(abs, mean_interval(gaps)[1:]))  # 90 % inside 95 %


def test_a_setting_tuned_for_each_value_need_not_agree_and_is_named(make_store):
    final = planted(make_store, 6, -0.02)
    rates = [0.1 if name == "both" or seed == 0 else 0.4 for name, seed in
             zip(final["normalization"].to_pylist(), final["seed"].to_pylist(), strict=True)]  # fmt: skip
    final = final.set_column(final.column_names.index("learning_rate"), "learning_rate", pa.array(rates))
    assert numbers_contrast(final, "normalization", "margin_min_lower").levels[1].difference.seeds == 1
    found = numbers_contrast(final, "normalization", "margin_min_lower", tuned=["learning_rate"])
    assert found.levels[1].difference.seeds == 6
    assert "Confounded: learning_rate changes together with normalization." in caveats(found)


def test_under_five_seeds_there_is_an_interval_but_no_verdict(make_store):
    found = numbers_contrast(planted(make_store, 4, -0.3), "normalization", "margin_min_lower")
    gap = found.levels[1].difference
    assert gap.high < 0
    assert np.isnan(gap.adjusted)
    assert "at least 5 are needed" in parts_to_markdown(contrast_parts([found]))


def test_only_shared_seeds_and_cells_are_paired(make_store):
    final = planted(make_store, 6, -0.1)
    final = rows_where(final, "not (normalization == 'features' and (seed == 0 or num_classes == 24))")
    gap = numbers_contrast(final, "normalization", "margin_min_lower").levels[1].difference
    assert (gap.seeds, gap.cells) == (5, 1)


def test_a_whole_number_is_a_base_though_another_value_shares_nothing_with_it(make_store):
    grid = [(3, 12, t, "both", s) for t, seeds in ((0.1, range(5)), (1.0, range(5)), (0.3, [9])) for s in seeds]
    final = final_rows(make_store(grid))
    for against in (1.0, "1.0", "1"):
        found = numbers_contrast(final, "temperature", "margin_min_lower", against=against)
        assert (found.base, found.apart) == (1.0, (0.3,))


def test_null_is_a_value_of_its_own(make_store):
    grid = [(3, 12, t, n, s) for t, n in ((0.1, "both"), (None, "none")) for s in range(5)]
    final = final_rows(make_store(grid))
    found = numbers_contrast(final, "temperature", "margin_min_lower", against="null")
    assert found.moving == ("normalization",)
    assert found.base is None
    assert [v.value for v in found.levels] == [0.1, None]
    assert "| null | 5 |" in parts_to_markdown(contrast_parts([found]))
    assert not is_numeric(found)


def test_a_setting_that_exists_for_some_values_is_pooled_and_said_so(make_store):
    cells = [("both", 0.1), ("both", 0.3), ("none", None)]
    final = final_rows(make_store([(3, 12, t, n, s) for n, t in cells for s in range(5)]))
    found = numbers_contrast(final, "normalization", "margin_min_lower")
    assert "temperature" in found.pooled
    both = values(rows_where(final, "normalization == 'both' and seed == 0"), "margin_min_lower")
    assert found.levels[0].by_seed[0] == pytest.approx(both.mean())


def test_wide_measures_are_compared_as_ratios(make_store):
    final = planted(make_store, 5, 0.0)
    rows = final.to_pylist()
    for row in rows:
        row["gnc1_rank"] = 1e-3 * 1.1 ** row["seed"] * (40.0 if row["normalization"] == "features" else 1.0)
    found = numbers_contrast(pa.Table.from_pylist(rows, schema=final.schema), "normalization", "gnc1_rank")
    assert found.is_log
    assert np.exp(found.levels[1].difference.mean) == pytest.approx(40)


def test_an_entry_of_a_list_column_is_a_measure():
    table = pa.table({"layers": pa.array([[1.0, 2.0], None, [3.0]], pa.list_(pa.float64())), "name": ["a", "b", "c"]})
    np.testing.assert_equal(measure_values(table, "layers[1]"), [2.0, np.nan, np.nan])
    np.testing.assert_equal(measure_values(table, "layers[-1]"), [2.0, np.nan, 3.0])
    with pytest.raises(ConditionRefused, match=r"Write layers\[-1\]"):
        measure_values(table, "layers")
    with pytest.raises(ConditionRefused, match="holds string"):
        measure_values(table, "name")
    with pytest.raises(ConditionRefused, match="Did you mean 'layers'"):
        measure_values(table, "layer")


@pytest.mark.parametrize("condition", ["k = 2", "k == name", "__import__('os')", "k == 'a'", "wat == 1"])
def test_other_conditions_are_refused(condition):
    with pytest.raises(ConditionRefused, match="must"):
        rows_where(pa.table({"k": [1], "name": ["a"]}), condition)


def test_numbers_stand_to_scale_and_names_in_order(make_store):
    final = final_rows(make_store([(3, 12, t, "both", s) for t in (0.05, 0.1, 1.0) for s in range(2)]))
    found = numbers_contrast(final, "temperature", "margin_min_lower")
    assert places(found) == {0.05: 0.05, 0.1: 0.1, 1.0: 1.0}
    optimum = [v.references["ufm_margin_high"] for v in found.levels]
    assert optimum == sorted(optimum, reverse=True)
    for suffix, start in ((".svg", b"<?xml"), (".pdf", b"%PDF"), (".png", b"\x89PNG")):
        assert figure_file(block_contrast([found]), suffix).startswith(start)


def test_values_are_compared_where_they_have_the_same_of_what_one_of_them_lacks(full_store):
    # `none` has no temperature; `both` was run at four and `features` at 0.1 alone
    found = numbers_contrast(final_rows(full_store), "normalization", "margin_min_lower")
    final = {row["trial"]: row for row in final_rows(full_store).to_pylist()}
    assert {final[key]["temperature"] for key in found.keys} == {0.1, None}
    assert [(level.value, len(level.by_cell)) for level in found.levels] == [("both", 2), ("features", 2), ("none", 2)]
    assert found.pooled == ()


def test_a_value_that_shares_nothing_is_named_and_changes_no_other(full_store):
    final = final_rows(full_store)
    found = numbers_contrast(final, "temperature", "margin_min_lower")
    assert found.apart == (None,)
    assert [level.value for level in found.levels] == [0.05, 0.1, 0.2, 0.3, 1.0]
    assert "share no seed and cell with 0.1 and are not compared: null" in " ".join(caveats(found))
    alone = numbers_contrast(rows_where(final, "temperature is not None"), "temperature", "margin_min_lower")
    assert repr(found.levels) == repr(alone.levels)  # NaN is not equal to itself


def test_rows_are_parted_by_a_column_with_the_conditions_that_select_them(make_store):
    final = planted(make_store, 5, -0.1)
    parts = parts_by(final, "num_classes", ["seed < 9"])
    assert [(rows.num_rows, where) for rows, where in parts] == [
        (10, "seed < 9 and num_classes = 12"),
        (10, "seed < 9 and num_classes = 24"),
    ]
    assert parts_by(final, None) == [(final, "")]


def test_gaps_in_the_last_bits_are_no_difference():
    assert paired_p(np.full(5, 1.1e-16)) == 1.0
    assert paired_p(np.full(5, 1e-3)) == 0.0


def test_a_measure_that_no_row_has_is_left_out_whatever_it_is_compared_with(make_store):
    final = final_rows(make_store([(3, 24, t, "both", s) for t in (0.1, 0.3) for s in (0, 1)]))
    place = final.schema.get_field_index("test_accuracy")
    final = final.set_column(place, "test_accuracy", pa.nulls(final.num_rows, pa.float64()))
    found = contrasts(final, "temperature", ("margin_min_lower", "test_accuracy"), against=0.3)
    assert [contrast.measure for contrast in found] == ["margin_min_lower"]
