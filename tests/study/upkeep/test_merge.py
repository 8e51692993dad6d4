"""`gnc merge`: a union that loses nothing, repeats nothing, changes no source, and says where numbers differ."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from gnc.cli.main import main
from study.store.schemas import MARGINS_SCHEMA, fragment_table, identity_and_settings
from study.store.storage import FolderError
from study.store.store import Store, open_store
from study.upkeep.merge import merge_stores
from tests.conftest import comparable
from tests.study.conftest import (
    compact_as_before,
    finish,
    made_up_config,
    made_up_measurement,
    made_up_record,
    remove_rows,
)

CONFIGS = [made_up_config(seed=seed) for seed in range(6)]
HEAD = save({"weights": np.ones((2, 2)), "class_means": np.ones((2, 2))})


@pytest.fixture
def folders(tmp_path) -> tuple[Store, Store, Store]:
    """Two sources with a trial in common, and a destination that does not exist."""
    a, b, into = (open_store(tmp_path / name) for name in ("a", "b", "into"))
    for store, seeds in ((a, (0, 1, 2)), (b, (2, 3))):
        for seed in seeds:
            keep(store, CONFIGS[seed])
    return a, b, into


def keep(store: Store, config, **record) -> None:
    store.write_margins(config.key, MARGINS_SCHEMA.empty_table())
    store.write_head(config.key, HEAD)
    finish(store, config, **record)


def fail(store: Store, config, attempt: int, reason: str) -> None:
    failure = {"attempt": attempt, "state": "failed", "reason": reason, "settings": identity_and_settings(config)}
    store.write_failure(config.key, attempt, failure)


def rewrite(store: Store, config, value: float, rows: int = 3, **record) -> None:
    remove_rows(store, config.key)
    store.write_fragment(
        config, [made_up_measurement(e, gnc1_rank=value) for e in range(rows)], made_up_record(**record)
    )


def digest(store: Store) -> dict[str, str]:
    root = Path(store.uri)
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(root.rglob("*")) if p.is_file()}  # fmt: skip


def test_a_merge_is_the_union_and_doing_it_again_changes_nothing(folders, capsys):
    a, b, into = folders
    before = digest(a), digest(b)
    assert main(["merge", a.uri, b.uri, into.uri]) == 0
    out = capsys.readouterr().out
    assert f"{a.uri}: 3 taken" in out
    assert f"{b.uri}: 1 taken, 1 the same" in out
    assert set(into.states()) == {config.key for config in CONFIGS[:4]}
    assert into.read().num_rows == 12
    assert sorted(into.head_keys()) == sorted(into.states())
    assert all(into.read_margins(key) is not None for key in into.states())
    merged = digest(into)
    assert main(["merge", a.uri, b.uri, into.uri]) == 0
    assert "3 the same" in capsys.readouterr().out
    assert digest(into) == merged
    assert (digest(a), digest(b)) == before


def test_a_merge_equals_a_folder_that_saw_every_trial(folders, tmp_path):
    a, b, into = folders
    one = open_store(tmp_path / "one")
    for config in CONFIGS[:4]:
        keep(one, config)
    merge_stores([a, b], into)
    assert comparable(into.read()) == comparable(one.read())
    assert comparable(into.read_trials()) == comparable(one.read_trials())


@pytest.mark.parametrize("compacted", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_folders_that_hold_sealed_tables_alone_are_merged_too(folders, compacted):
    a, b, into = folders
    keep(into, CONFIGS[0])
    diverged = made_up_config(seed=9)
    a.write_fragment(diverged, [], made_up_record(state="diverged", reason="loss was nan"))
    for index in compacted:
        folders[index].seal(compact=True)
    done = merge_stores([a, b], into)
    assert [len(merge.taken) for merge in done] == [3, 1]
    assert [merge.same for merge in done] == [1, 1]
    assert into.read().num_rows == 12
    assert into.states()[diverged.key] == "diverged"
    assert [merge.same for merge in merge_stores([a, b], into)] == [4, 2]
    assert into.read().num_rows == 12


def test_other_numbers_are_told_and_the_first_are_kept(folders, capsys):
    a, b, into = folders
    rewrite(a, CONFIGS[2], 0.25, cpu_model="one", versions='{"torch": "2.7"}')
    rewrite(b, CONFIGS[2], 0.2, cpu_model="another", versions='{"torch": "2.8"}')
    assert main(["merge", a.uri, b.uri, into.uri]) == 1
    out = capsys.readouterr().out
    assert "1 taken, 1 with other numbers, left" in out
    assert f"gnc1_rank                3 rows of 1 trial, largest 0.2 of the value: 0.25 | 0.2 ({CONFIGS[2].key}" in out
    assert "cpu_model: one | another" in out
    assert "torch: 2.7 | 2.8" in out
    assert into.read_fragment(CONFIGS[2].key).record.cpu_model == "one"
    assert main(["merge", b.uri, a.uri, into.uri, "--json"]) == 1  # the destination comes before every source
    facts = json.loads(capsys.readouterr().out)
    assert [len(merge["differences"]) for merge in facts["merges"]] == [1, 0]
    assert into.read_fragment(CONFIGS[2].key).record.cpu_model == "one"


def test_an_end_gives_way_only_to_one_further_on(folders):
    a, _, into = folders
    states = ("stopped", "diverged", "complete")
    for config, (held, met) in zip(CONFIGS, ((h, m) for h in states for m in states if h != m), strict=True):
        rewrite(into, config, 0.1, state=held)
        rewrite(a, config, 0.2, state=met)
    merge = merge_stores([a], into)[0]
    assert (len(merge.advanced), merge.lesser, merge.differing) == (3, 3, [])
    order = {state: rank for rank, state in enumerate(states)}
    for config in CONFIGS:
        ours, theirs = into.read_fragment(config.key), a.read_fragment(config.key)
        assert order[ours.record.state] >= order[theirs.record.state]


def test_of_two_stopped_runs_of_a_trial_the_longer_is_kept_with_its_checkpoint(folders):
    a, b, into = folders
    for store, rows in ((a, 2), (b, 4)):
        rewrite(store, CONFIGS[2], 0.1, rows=rows, state="stopped")
        store.write_checkpoint(CONFIGS[2].key, rows, b"at" * rows)
    done = merge_stores([a, b], into)
    assert done[1].advanced == [CONFIGS[2].key]
    assert into.read_fragment(CONFIGS[2].key).rows.num_rows == 4
    assert next(into.read_checkpoints(CONFIGS[2].key)) == b"at" * 4
    assert merge_stores([a, b], into)[0].lesser == 1


def test_torn_files_are_named_and_left(folders, capsys):
    a, b, into = folders
    for name in (
        f"rows/{CONFIGS[0].key}.parquet",
        f"heads/{CONFIGS[1].key}.safetensors",
        f"margins/{CONFIGS[1].key}.parquet",
    ):
        content = a.storage.read(name)
        a.storage.write(name, content[: len(content) // 2])
    assert main(["merge", a.uri, b.uri, into.uri]) == 0
    err = capsys.readouterr().err
    for name in (f"rows/{CONFIGS[0].key}.parquet", f"heads/{CONFIGS[1].key}.safetensors"):
        assert f"{name} of {a.uri} cannot be read" in err
    assert set(into.states()) == {config.key for config in CONFIGS[1:4]}
    assert CONFIGS[1].key not in into.head_keys()


def test_a_torn_table_that_is_the_only_copy_is_refused_before_anything_is_written(folders, capsys):
    a, b, into = folders
    compact_as_before(b)
    b.storage.write("results.parquet", b"torn")
    assert main(["merge", a.uri, b.uri, into.uri]) == 2
    assert "must be readable in a compacted folder" in capsys.readouterr().err
    assert not Path(into.uri).exists()
    with pytest.raises(FolderError):
        merge_stores([b], into)


def test_failures_come_under_free_numbers_and_only_for_trials_that_did_not_end_well(folders):
    a, b, into = folders
    failed = CONFIGS[5]
    fail(into, failed, 1, "here")
    fail(a, failed, 1, "there")
    fail(a, failed, 2, "again")
    fail(a, CONFIGS[3], 1, "overcome in b")
    for _ in range(2):
        merge_stores([b, a], into)
        assert sorted(f["reason"] for f in into.failures()[failed.key]) == ["again", "here", "there"]
        assert len({f["attempt"] for f in into.failures()[failed.key]}) == 3
        assert CONFIGS[3].key not in into.failures()


def test_the_latest_study_stays_the_latest(folders):
    a, b, into = folders
    a.write_study("name = 'a'")
    b.write_study("name = 'b'")
    merge_stores([b, a], into)
    assert into.latest_study() == "name = 'b'"
    into.write_study("name = 'here'")
    a.write_study("name = 'new'")
    merge_stores([a], into)
    assert into.latest_study() == "name = 'here'"
    assert len(into.storage.entries("studies")) == 4


def test_trials_in_progress_and_their_checkpoints_stay_where_they_run(folders):
    a, _, into = folders
    a.write_live(CONFIGS[4].key, 1, fragment_table(CONFIGS[4], []))
    a.write_checkpoint(CONFIGS[4].key, 1, b"half")
    merge_stores([a], into)
    assert into.read_live() == []
    assert not any(into.read_checkpoints(CONFIGS[4].key))


def test_a_folder_named_twice_or_absent_is_refused(folders, capsys, tmp_path):
    a, _, into = folders
    assert main(["merge", a.uri, f"{a.uri}/../a", into.uri]) == 2
    assert "must be different ones" in capsys.readouterr().err
    assert main(["merge", a.uri, a.uri]) == 2
    assert main(["merge", str(tmp_path / "absent"), into.uri]) == 2
    assert not Path(into.uri).exists()
