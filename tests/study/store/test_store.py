"""The results folder: what counts as done, what is skipped and named, what sealing reads again."""

import json
import os
import re
import shutil

import pytest

from study.execution.attempt import await_run
from study.store.finished_trials import FinishedTrials
from study.store.optima import write_optimum
from study.store.schemas import MARGINS_SCHEMA, UnknownSchema, fragment_table, identity_and_settings, to_parquet
from study.store.storage import FolderError
from study.store.store import Store, open_store
from tests.conftest import comparable
from tests.study.conftest import (
    compact_as_before,
    finish,
    made_up_config,
    made_up_measurement,
    made_up_record,
    remove_rows,
)


def corrupt(store: Store, name: str) -> None:
    content = store.storage.read(name)
    store.storage.write(name, content[: len(content) // 2])


def fail(store: Store, config, attempt: int = 1, reason: str = "ValueError: no") -> None:
    failure = {"attempt": attempt, "state": "failed", "reason": reason, "settings": identity_and_settings(config)}
    store.write_failure(config.key, attempt, failure)


def test_a_trial_stored_before_a_setting_was_added_has_its_old_value_in_every_table(store, monkeypatch):
    config = made_up_config()
    with monkeypatch.context() as before:
        before.setattr("study.store.schemas.identity_and_settings", lambda c: without_workers(identity_and_settings(c)))
        before.setattr(
            "study.store.schemas.fragment_table", lambda c, m: fragment_table(c, m).drop_columns(["workers"])
        )
        finish(store, config)
    assert set(store.read().column("workers").to_pylist()) == {1}
    assert store.read_trials().column("workers").to_pylist() == [1]


def without_workers(settings: dict) -> dict:
    return {name: value for name, value in settings.items() if name != "workers"}


def test_an_empty_folder_has_no_rows_and_no_states(store):
    assert store.read().num_rows == 0
    assert store.read_trials().num_rows == 0
    assert store.states() == {}
    assert store.latest_study() is None


def test_reading_is_the_same_before_and_after_sealing(store):
    for seed in (2, 0, 1):
        finish(store, made_up_config(seed=seed))
    before = store.read(), store.read_trials()
    store.seal()
    assert (store.read(), store.read_trials()) == before
    keys = before[0].column("trial").to_pylist()
    assert keys == sorted(keys)
    assert len(keys) == 9


def test_sealing_again_reads_only_what_is_new(store, monkeypatch):
    for seed in range(4):
        finish(store, made_up_config(seed=seed))
    assert store.seal().fresh == 4
    read = []
    plain = FinishedTrials.read_file
    monkeypatch.setattr(
        FinishedTrials, "read_file", lambda self, file, tell: read.append(file) or plain(self, file, tell)
    )
    new = made_up_config(seed=9)
    finish(store, new)
    assert store.seal().fresh == 1
    assert read == [f"{new.key}.parquet"]
    assert store.read().num_rows == 15


def test_a_rewritten_fragment_replaces_its_sealed_rows(store):
    config = made_up_config()
    finish(store, config, epochs=2, state="stopped")
    store.seal()
    finish(store, config, epochs=5)
    store.seal()
    assert store.read().num_rows == 5
    assert store.states() == {config.key: "complete"}


def test_a_kill_between_the_two_sealed_files_loses_and_repeats_nothing(store):
    finish(store, made_up_config(seed=0))
    store.seal()
    old_trials = store.storage.read("trials.parquet")
    finish(store, made_up_config(seed=1))
    store.seal()
    whole = comparable(store.read())
    store.storage.write("trials.parquet", old_trials)  # rows were written, trials not
    assert comparable(store.read()) == whole
    store.seal()
    assert comparable(store.read()) == whole


def test_a_torn_sealed_table_is_named_and_made_again(store):
    finish(store, made_up_config())
    store.seal()
    for name in ("results.parquet", "trials.parquet"):
        corrupt(store, name)
        told: list[str] = []
        assert store.read(on_unreadable=told.append).num_rows == 3
        assert told == [name]
        assert store.seal().unreadable == (name,)
        assert store.seal().unreadable == ()
        assert store.read().num_rows == 3


def test_a_torn_fragment_is_named_skipped_and_not_done(store):
    whole, torn = made_up_config(seed=0), made_up_config(seed=1)
    finish(store, whole)
    finish(store, torn)
    corrupt(store, f"rows/{torn.key}.parquet")
    told: list[str] = []
    assert store.states(on_unreadable=told.append) == {whole.key: "complete"}
    assert told == [f"rows/{torn.key}.parquet"]
    assert store.read().num_rows == 3
    store.seal()
    corrupt(store, f"rows/{whole.key}.parquet")  # after sealing too: the file is no longer the one that was sealed
    assert store.states() == {}


def test_a_fragment_of_an_unknown_major_version_stops_everything(store):
    config = made_up_config()
    table = fragment_table(config, [made_up_measurement(0)]).replace_schema_metadata({"schema_version": "7.0"})
    store.storage.write(f"rows/{config.key}.parquet", to_parquet(table))
    for read in (store.states, store.read, store.seal):
        with pytest.raises(UnknownSchema, match=r"got '7.0'"):
            read()


def test_compacting_keeps_every_row_and_state_and_removes_the_fragments(store):
    for seed in range(3):
        finish(store, made_up_config(seed=seed))
    before = comparable(store.read())
    store.seal(compact=True)
    assert store.fragments() == {}
    assert comparable(store.read()) == before
    assert set(store.states().values()) == {"complete"}
    finish(store, made_up_config(seed=7))
    store.seal()
    assert store.read().num_rows == 12


def test_deleting_a_fragment_makes_its_trial_missing_again(store):
    config = made_up_config()
    finish(store, config)
    store.seal()
    remove_rows(store, config.key)
    assert store.states() == {}
    assert store.read().num_rows == 0


def test_a_trial_that_diverged_before_its_first_row_is_a_trial_with_its_settings(store):
    config = made_up_config()
    store.write_fragment(config, [], made_up_record(state="diverged", reason="loss was nan"))
    for _ in range(2):
        trial = store.read_trials().to_pylist()[0]
        assert (trial["state"], trial["reason"], trial["num_classes"]) == ("diverged", "loss was nan", 24)
        assert store.read().num_rows == 0
        store.seal()


def test_a_failed_trial_is_a_row_with_its_reason_until_it_succeeds(store):
    config = made_up_config()
    fail(store, config, 1)
    fail(store, config, 2, "ValueError: again")
    store.seal()
    trial = store.read_trials().to_pylist()[0]
    assert (trial["state"], trial["reason"], trial["attempts"]) == ("failed", "ValueError: again", 2)
    assert store.states() == {config.key: "failed"}
    assert store.failed_starts() == {config.key: 2}
    finish(store, config)
    assert store.states() == {config.key: "complete"}
    assert [t["state"] for t in store.read_trials().to_pylist()] == ["complete"]


def test_attempts_are_counted_over_live_files_and_failures(store):
    config = made_up_config()
    assert store.next_attempt(config.key) == 1
    store.write_live(config.key, 1, fragment_table(config, []))
    assert store.next_attempt(config.key) == 2
    fail(store, config, 2)
    assert store.next_attempt(config.key) == 3


def test_live_rows_are_told_with_their_heartbeat_and_never_count(store):
    config = made_up_config()
    store.write_live(config.key, 1, fragment_table(config, [made_up_measurement(0)]))
    store.write_live(config.key, 2, fragment_table(config, [made_up_measurement(0), made_up_measurement(1)]))
    (live,) = store.read_live()
    assert (live.key, live.attempt, live.rows.num_rows, live.interrupted) == (config.key, 2, 2, False)
    assert 0 <= live.seconds_ago < 60
    corrupt(store, f"live/{config.key}.2.parquet")
    assert store.read_live()[0].attempt == 1
    assert store.states() == {}
    assert store.read().num_rows == 0
    store.clear_progress(config.key)
    assert store.read_live() == []


def test_a_heartbeat_that_says_no_json_is_skipped(store):
    config = made_up_config()
    table = fragment_table(config, []).replace_schema_metadata({b"schema_version": b"1.2", b"beat": b"{torn"})
    store.storage.write(f"live/{config.key}.1.parquet", to_parquet(table))
    assert store.read_live() == []


def test_a_torn_checkpoint_falls_back_to_the_generation_before(store):
    for epoch, content in ((1, b"one"), (2, b"two"), (10, b"ten")):
        store.write_checkpoint("k", epoch, content)
    assert len(store.storage.entries("checkpoints/k")) == 2
    assert list(store.read_checkpoints("k")) == [b"ten", b"two"]
    corrupt(store, "checkpoints/k/00000010.checkpoint")
    told: list[str] = []
    assert list(store.read_checkpoints("k", told.append)) == [b"two"]
    assert told == ["checkpoints/k/00000010.checkpoint"]
    store.storage.write("checkpoints/k/00000002.checkpoint", b"")
    assert list(store.read_checkpoints("k")) == []
    assert store.storage.entries("checkpoints/k")
    store.clear_progress("k")
    assert not store.storage.entries("checkpoints/k")


def test_margins_and_heads_that_are_torn_are_absent_and_named(store):
    store.write_margins("k", MARGINS_SCHEMA.empty_table())
    assert store.read_margins("k").schema == MARGINS_SCHEMA
    store.storage.write("margins/k.parquet", b"torn")
    store.storage.write("heads/k.safetensors", b"torn")
    told: list[str] = []
    assert store.read_margins("k", told.append) is None
    assert store.read_head("k", told.append) is None
    assert told == ["margins/k.parquet", "heads/k.safetensors"]
    assert store.read_head("other") is None


def test_the_study_run_last_is_the_latest(store):
    store.write_study("name = 'a'")
    store.write_study("name = 'b'")
    store.write_study("name = 'a'")
    assert store.latest_study() == "name = 'a'"
    assert len(store.storage.entries("studies")) == 2


def test_a_copy_with_other_file_times_says_the_same(store, tmp_path):
    """As git, tar, rsync or a bucket may leave a folder: all of one time, or in another order."""
    for name in ("a", "b", "c", "b"):
        store.write_study(f"name = '{name}'")
        store.write_suggestion(name * 16, {"width": ord(name)})
    for folder in ("studies", "suggestions"):
        for place, entry in enumerate(reversed(store.storage.entries(folder))):
            os.utime(store.storage.local_path(f"{folder}/{entry.name}"), (place, place))
    copy = open_store(shutil.copytree(store.uri, tmp_path / "copy", copy_function=shutil.copyfile))
    for folder in (store, copy):
        assert folder.studies() == ["name = 'a'", "name = 'c'", "name = 'b'"]
        assert list(folder.suggestions()) == ["a" * 16, "c" * 16, "b" * 16]
        assert folder.suggestions()["b" * 16] == {"width": ord("b")}
    copy.write_study("name = 'a'")  # the next run of a copy is later than all before, even by a clock that is behind
    assert copy.latest_study() == "name = 'a'"


def test_what_older_versions_wrote_keeps_the_order_of_its_files(store):
    for place, name in enumerate(("b", "a")):
        store.storage.write(f"studies/{name * 8}.toml", f"name = '{name}'".encode())
        store.storage.write(f"suggestions/{name * 16}.json", b'{"width": 1}')
        for path in (f"studies/{name * 8}.toml", f"suggestions/{name * 16}.json"):
            os.utime(store.storage.local_path(path), (1000 + place, 1000 + place))
    assert store.studies() == ["name = 'b'", "name = 'a'"]
    assert list(store.suggestions()) == ["b" * 16, "a" * 16]
    store.write_study("name = 'b'")
    assert store.latest_study() == "name = 'b'"


def test_stop_requests_are_seen_and_withdrawn(store):
    assert not store.is_stop_requested("run-1")
    open_store(store.uri).request_stop("run-1")
    assert store.is_stop_requested("run-1")
    assert store.read_live() == []
    store.withdraw_stop("run-1")
    assert not store.is_stop_requested("run-1")


def test_a_run_is_seen_by_who_shares_the_folder_until_it_ends(store, tmp_path):
    store.begin_run("run-1")
    await_run(open_store(store.uri), "run-1", "a" * 16, seconds=0)
    assert store.read_live() == []
    assert store.attempts() == {}
    with pytest.raises(FolderError, match=r"cannot see this run in .*elsewhere.*: the folder is not shared"):
        await_run(open_store(tmp_path / "elsewhere"), "run-1", "a" * 16, seconds=0.1)
    store.end_run("run-1")
    assert not store.sees_run("run-1")


def test_reference_columns_are_added_on_reading_and_follow_their_definitions(store):
    store.write_fragment(
        made_up_config(num_classes=12, feature_dim=3),
        [made_up_measurement(0, margin_min_lower=0.5, margin_min_upper=0.51, train_loss=1.0)],
        made_up_record(),
    )
    row = store.read().to_pylist()[0]
    assert row["reference_margin_lower"] == pytest.approx(1 - 5**-0.5)  # the icosahedron
    assert row["margin_ratio_lower"] == pytest.approx(0.5 / row["reference_margin_upper"])
    assert row["margin_ratio_upper"] == pytest.approx(0.51 / row["reference_margin_lower"])
    span = row["reference_margin_lower"] - row["random_margin"]
    assert row["margin_score"] == pytest.approx((0.5 - row["random_margin"]) / span)
    low, high = row["random_margin_lower"], row["random_margin_upper"]
    assert low < row["random_margin"] < high
    best = row["reference_margin_lower"]
    assert row["margin_score_lower"] == pytest.approx((0.5 - high) / (best - high))
    assert row["margin_score_upper"] == pytest.approx((0.51 - low) / (best - low))
    assert row["loss_excess"] == pytest.approx(1.0 - row["ufm_loss"])


def test_rows_sealed_with_other_reference_tables_are_compared_again(store, monkeypatch):
    finish(store, made_up_config())
    store.seal()
    monkeypatch.setattr("gnc_models.references.margin.REFERENCE_VERSION", "next")
    assert store.read().column("reference_version").unique().to_pylist() == ["next"]


def test_failures_that_cannot_be_read_are_named(store):
    config = made_up_config()
    fail(store, config)
    store.storage.write(f"failures/{config.key}.2.json", b"{")
    told: list[str] = []
    assert json.dumps(store.failures(on_unreadable=told.append)[config.key][0]["attempt"]) == "1"
    assert told == [f"failures/{config.key}.2.json"]


def test_torn_tables_of_a_compacted_folder_are_made_again(store):
    finish(store, made_up_config())
    store.seal(compact=True)
    whole = comparable(store.read()), comparable(store.read_trials())
    for name in ("results.parquet", "trials.parquet"):
        corrupt(store, name)
        store.seal()
        assert (comparable(store.read()), comparable(store.read_trials())) == whole


def test_a_compacted_trial_without_rows_stays(store):
    config = made_up_config()
    store.write_fragment(config, [], made_up_record(state="diverged", reason="loss was nan"))
    store.seal(compact=True)
    for _ in range(2):
        assert store.read_trials().column("state").to_pylist() == ["diverged"]
        assert store.states() == {config.key: "diverged"}
        store.seal()


def test_files_that_are_no_trials_are_named_and_count_for_nothing(store):
    config = made_up_config()
    finish(store, config)
    content = store.storage.read(f"rows/{config.key}.parquet")
    for name in (f"{config.key}.bak", "0123456789abcdef"):
        store.storage.write(f"rows/{name}.parquet", content)
    store.storage.write("live/notes.parquet", content)
    told: list[str] = []
    assert store.read(on_unreadable=told.append).num_rows == 3
    assert told == [f"rows/{config.key}.bak.parquet", "rows/0123456789abcdef.parquet"]
    assert store.read_live() == []


def test_a_failure_that_makes_no_row_poisons_nothing(store):
    finish(store, made_up_config(seed=0))
    config = made_up_config(seed=1)
    failure = {"attempt": 1, "state": "failed", "reason": "no", "settings": {"trial": config.key, "seed": 2**70}}
    store.write_failure(config.key, 1, failure)
    sealed = store.seal()
    assert sealed.trials == 1
    assert list(sealed.unreadable) == [f"failures/{config.key}.1.json"]


def test_sealing_clears_what_a_kill_left_of_a_finished_trial(store):
    config = made_up_config()
    finish(store, config)
    store.write_live(config.key, 1, fragment_table(config, []))
    store.write_checkpoint(config.key, 3, b"left")
    fail(store, config)
    store.seal()
    assert store.read_live() == []
    assert not any(store.read_checkpoints(config.key))
    assert store.failures() == {}


def test_a_trial_is_failed_only_while_its_last_attempt_failed_by_its_own_doing(store):
    config = made_up_config()
    circumstances = {"state": "failed", "reason": "no", "settings": identity_and_settings(config)}
    store.write_live(config.key, 1, fragment_table(config, []))
    store.write_failure(config.key, 1, {**circumstances, "attempt": 1, "charged": False})
    assert (store.states(), store.failed_starts()) == ({}, {})  # it was cut off

    store.write_live(config.key, 2, fragment_table(config, []))
    store.write_failure(config.key, 2, {**circumstances, "attempt": 2, "charged": True})
    assert (store.states(), store.failed_starts()) == ({config.key: "failed"}, {config.key: 1})
    assert store.read_trials().column("attempts").to_pylist() == [2]

    store.write_live(config.key, 3, fragment_table(config, []))
    assert (store.states(), store.failed_starts()) == ({}, {config.key: 1})  # it runs again
    store.write_failure(config.key, 3, {**circumstances, "attempt": 3})  # of before there were charges
    assert (store.states(), store.failed_starts()) == ({config.key: "failed"}, {config.key: 2})


def test_logs_are_kept_when_a_trial_is_done(store):
    config = made_up_config()
    store.append_log(config.key, 1, b"one\n")
    store.append_log(config.key, 1, b"two\n")
    finish(store, config)
    store.clear_progress(config.key)
    store.seal()
    assert store.last_log_lines(config.key, 1) == ["one", "two"]
    assert store.last_log_lines(config.key, 1, count=1) == ["two"]
    assert store.last_log_lines(config.key, 2) == []


def test_a_folder_that_an_older_version_compacted_is_archived_by_the_first_seal(store):
    diverged = made_up_config(seed=9)
    for seed in range(2):
        finish(store, made_up_config(seed=seed))
    store.write_fragment(diverged, [], made_up_record(state="diverged", reason="loss was nan"))
    before = comparable(store.read()), comparable(store.read_trials())
    compact_as_before(store)
    assert (comparable(store.read()), comparable(store.read_trials())) == before
    finish(store, made_up_config(seed=5))
    assert store.seal().fresh == 1
    assert store.storage.read("compacted") is None
    for name in ("results.parquet", "trials.parquet"):
        store.storage.remove(name)
    remove_rows(store, made_up_config(seed=5).key)
    assert (comparable(store.read()), comparable(store.read_trials())) == before


def test_an_older_versions_only_copy_that_is_torn_is_not_sealed_over(store):
    finish(store, made_up_config())
    compact_as_before(store)
    for name in ("results.parquet", "trials.parquet"):
        whole = store.storage.read(name)
        corrupt(store, name)
        with pytest.raises(FolderError, match="must be readable in a compacted folder"):
            store.seal()
        store.storage.write(name, whole)
    assert store.seal().rows == 3


def test_a_lost_archive_is_made_again_from_the_sealed_tables(store):
    finish(store, made_up_config())
    store.seal(compact=True)
    before = comparable(store.read())
    store.storage.remove_folder("archive")
    store.seal()
    store.storage.remove("results.parquet")
    assert comparable(store.read()) == before


def test_a_torn_archive_is_told_and_its_trials_run_again(store):
    for seed in range(2):
        finish(store, made_up_config(seed=seed))
        store.seal(compact=True)
    corrupt(store, next(f"archive/{e.name}" for e in store.storage.entries("archive", ".rows.parquet")))
    store.storage.remove("trials.parquet")
    told: list[str] = []
    assert len(store.states(on_unreadable=told.append)) == 1
    assert [name.partition("/")[0] for name in told] == ["archive"]
    assert store.seal().rows == 3


def test_a_stopped_trial_that_went_on_counts_once_wherever_its_copies_lie(store):
    config = made_up_config()
    for epochs, state, compact in ((2, "stopped", True), (4, "stopped", False), (5, "complete", True)):
        finish(store, config, epochs=epochs, state=state)
        assert store.states() == {config.key: state}
        assert store.read().num_rows == epochs
        store.seal(compact=compact)
        assert store.read_fragment(config.key) is None or not compact
        assert (store.states(), store.read().num_rows) == ({config.key: state}, epochs)
    finish(store, config, epochs=2, state="stopped")  # by a process that knew of nothing
    store.seal()
    assert (store.states(), store.read().num_rows) == ({config.key: "complete"}, 5)
    assert store.fragments() == {}


def test_reference_columns_depend_on_the_folder_and_not_on_a_users_cache(store, tmp_path, monkeypatch):
    finish(store, made_up_config(num_classes=9, feature_dim=2, temperature=0.123))
    sealed = []
    for user in ("one", "another"):
        cache = tmp_path / user
        cache.mkdir()
        line = f"9,2,0.123,0.{len(sealed) + 1},0.5,0.5,0.5,2,0\n"
        (cache / "unconstrained_optima.csv").write_text(line)  # where a version before kept them
        monkeypatch.setenv("GNC_CACHE", str(cache))
        store.seal()
        sealed.append(store.storage.read("results.parquet"))
    assert sealed[0] == sealed[1]
    assert store.read().column("ufm_loss").null_count == 3
    write_optimum(store.storage, 9, 2, 0.123, 0.3, 0.5, 0.5, 0.5, 2, 0)
    write_optimum(store.storage, 9, 2, 0.123, 0.2, 0.5, 0.5, 0.5, 2, 1)
    store.seal()
    row = store.read().to_pylist()[0]
    assert row["ufm_loss"] == 0.2
    assert re.fullmatch(r"3\.[0-9a-f]{8}\+[0-9a-f]{8}", row["reference_version"])
    assert store.storage.read("results.parquet") != sealed[0]


def test_tables_of_two_seals_are_not_used_together(store):
    finish(store, made_up_config(seed=0))
    store.seal()
    overtaken = store.storage.read("results.parquet")
    finish(store, made_up_config(seed=1))
    store.seal(compact=True)
    store.storage.write("results.parquet", overtaken)  # by a seal that knew one trial, killed before its second table
    assert store.read().num_rows == 6
    store.seal()
    assert store.read().num_rows == 6
    assert len(store.states()) == 2
