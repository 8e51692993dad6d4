"""Which power laws a study is asked for, what enters them and what is counted as left out."""

import pyarrow as pa

from analysis.rows.frames import final_rows, independent_settings, values
from analysis.scaling.trends import fit_trend, fit_trends


def replaced(table: pa.Table, name: str, numbers: list) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), pa.array(numbers, table.schema.field(index).type))


def planted(make_store, exponent=-0.5):
    """Final rows at d = 3 whose margin is a power law in K with another prefactor at each temperature."""
    final = final_rows(
        make_store([(3, k, t, "both", s) for k in (12, 17, 24, 34, 48) for t in (0.1, 0.3) for s in (0, 1)])
    )
    margin = values(final, "num_classes") ** exponent * (1 - values(final, "temperature"))
    return with_margins(final, margin)


def with_margins(final: pa.Table, margin) -> pa.Table:
    """Both certified bounds at these values."""
    return replaced(replaced(final, "margin_min_lower", list(margin)), "margin_min_upper", list(margin))


def test_a_common_exponent_is_found_across_temperatures(make_store):
    trend = fit_trend(planted(make_store), "margin_min_lower", {"feature_dim": 3}, ["temperature"])
    assert trend.refused is None
    assert trend.with_all == ()
    assert abs(trend.fit.exponent.estimate + 0.5) < 1e-9
    assert set(trend.fit.levels) == {"temperature = 0.1", "temperature = 0.3"}
    assert (trend.fit.cells, trend.fit.trials) == (10, 20)


def test_trials_short_of_the_terminal_phase_are_left_out_and_counted(make_store):
    final = planted(make_store)
    final = replaced(final, "terminal", [i >= 2 for i in range(final.num_rows)])
    trend = fit_trend(final, "margin_min_lower", {}, ["temperature"])
    assert trend.not_terminal == 2
    assert trend.fit.trials == final.num_rows - 2
    assert [e.name for e in trend.with_all] == ["num_classes"]
    assert abs(trend.with_all[0].estimate + 0.5) < 1e-9


def test_a_margin_of_zero_is_left_out_and_counted_not_fitted(make_store):
    final = planted(make_store)
    final = with_margins(final, [0.0, *values(final, "margin_min_lower")[1:].tolist()])
    trend = fit_trend(final, "margin_min_lower", {}, ["temperature"])
    assert trend.not_positive == 1
    assert trend.fit.trials == final.num_rows - 1


def test_variability_that_is_null_everywhere_is_refused_in_words(make_store):
    final = planted(make_store)
    final = replaced(final, "gnc1_rank", [None] * final.num_rows)
    trend = fit_trend(final, "gnc1_rank", {}, [])
    assert trend.fit is None
    assert trend.refused == "no trial reached the terminal phase with a positive value"
    assert trend.not_positive == final.num_rows


def test_the_pinv_form_is_never_fitted(full_store):
    assert "gnc1_pinv" not in {trend.measure for trend in fit_trends(final_rows(full_store))}


def test_every_refused_series_says_why_and_keeps_its_estimate(full_store):
    trends = fit_trends(final_rows(full_store))
    for trend in trends:
        assert (trend.refused is None) == (trend.believed is not None)
    three_sizes = [t for t in trends if t.where.get("feature_dim") == 3 and t.where.get("temperature") == 0.3]
    assert three_sizes
    assert all("3 values of num_classes, at least 5" in t.refused and t.fit.exponent.low is None for t in three_sizes)


def test_settings_that_follow_from_others_have_no_prefactor_of_their_own(full_store):
    independent = independent_settings(final_rows(full_store))
    assert set(independent) == {"temperature", "normalization"}


def test_no_rows_give_no_believed_trend(make_store):
    assert not any(t.believed for t in fit_trends(final_rows(make_store([]))))
