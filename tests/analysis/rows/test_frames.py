"""Loading a study: which trials, their final rows, groups and usual settings."""

import numpy as np
import pyarrow as pa

from analysis.rows.frames import final_rows, groups, is_usual, load_study, usual_temperature, values, varied_settings


def test_final_rows_hold_the_last_epoch_of_every_complete_trial_once(full_store):
    final = final_rows(full_store)
    assert final.num_rows == full_store.trials.filter(pa.compute.equal(full_store.trials["state"], "complete")).num_rows
    assert len(set(final["trial"].to_pylist())) == final.num_rows
    last = {}
    for row in full_store.read().select(["trial", "epoch"]).to_pylist():
        last[row["trial"]] = max(row["epoch"], last.get(row["trial"], -1))
    assert dict(zip(final["trial"].to_pylist(), final["epoch"].to_pylist(), strict=True)) == last
    assert set(final["state"].to_pylist()) == {"complete"}


def test_rows_of_a_trial_that_is_not_complete_are_no_final_rows(make_store):
    store = make_store([(3, 12, 0.1, "both", 0), (3, 24, 0.1, "both", 0)])
    states = pa.array(["complete", "stopped"], pa.string())
    index = store.trials.schema.get_field_index("state")
    store.trials = store.trials.set_column(index, store.trials.schema.field(index), states)
    assert final_rows(store)["num_classes"].to_pylist() == [12]


def test_keys_select_the_trials_of_a_study_and_count_the_others(make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 24, 48)])
    keys = store.trials["trial"].to_pylist()
    frame = load_study(store, keys=[keys[0], "0000000000000000"])
    assert frame.final["trial"].to_pylist() == [keys[0]]
    assert set(frame.rows["trial"].to_pylist()) == {keys[0]}
    assert (frame.outside, frame.missing) == (2, 1)


def test_rows_come_sorted_by_trial_and_epoch_whatever_the_stored_order(make_store):
    store = make_store([(3, k, 0.1, "both", 0) for k in (12, 24)])
    order = np.random.default_rng(0).permutation(store.results.num_rows)
    store.results = store.results.take(order)
    rows = load_study(store).rows.select(["trial", "epoch"]).to_pylist()
    assert rows == sorted(rows, key=lambda r: (r["trial"], r["epoch"]))


def test_an_empty_store_gives_an_empty_frame(make_store):
    frame = load_study(make_store([]))
    assert frame.rows.num_rows == frame.trials.num_rows == frame.final.num_rows == 0
    assert list(groups(frame.final, ["num_classes"])) == []
    assert len(is_usual(frame.final)) == 0


def test_values_turn_null_into_nan_and_keep_text():
    table = pa.table(
        {"x": pa.array([1.5, None]), "n": pa.array([3, None], pa.int64()), "s": ["a", None], "b": [True, None]}
    )
    assert np.array_equal(values(table, "x"), [1.5, np.nan], equal_nan=True)
    assert np.array_equal(values(table, "n"), [3.0, np.nan], equal_nan=True)
    assert values(table, "s").tolist() == ["a", None]
    assert values(table, "b").tolist() == [True, False]


def test_groups_are_sorted_with_null_last_and_hold_every_row_once():
    table = pa.table({"t": pa.array([0.3, None, 0.1, 0.3]), "v": [1, 2, 3, 4]})
    found = [(where["t"], rows["v"].to_pylist()) for where, rows in groups(table, ["t"])]
    assert found == [(0.1, [3]), (0.3, [1, 4]), (None, [2])]


def test_the_usual_temperature_is_the_one_most_class_counts_share(full_store):
    final = final_rows(full_store)
    planar = final.filter(pa.compute.equal(final["feature_dim"], 10))
    assert usual_temperature(planar) == 0.1
    usual = final.take(np.flatnonzero(is_usual(final)))
    assert set(usual["normalization"].to_pylist()) == {"both"}
    assert set(usual["temperature"].to_pylist()) == {0.1}


def test_varied_settings_are_those_with_more_than_one_value(full_store):
    varied = varied_settings(final_rows(full_store))
    assert {"num_classes", "feature_dim", "temperature", "normalization", "seed"} <= set(varied)
    assert "encoder" not in varied
