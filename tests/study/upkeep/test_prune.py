"""`gnc prune`: what it would delete and why; never a row, never anything of a trial that may be running."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gnc.cli.main import main
from study.design.study_file import read_study
from study.store.schemas import MARGINS_SCHEMA, fragment_table, identity_and_settings, to_parquet
from study.store.store import Store, open_store
from study.upkeep.prune import find_prunable, prune
from tests.study.conftest import finish, made_up_config

HOUR = 3600.0


@pytest.fixture
def study(study_file, store):
    """Four trials that a study file in the folder knows."""
    path = study_file()
    store.write_study(path.read_text())
    return read_study(path)


def beat(
    store: Store,
    config,
    attempt: int = 1,
    *,
    hours_ago: float = 0,
    host: str = "elsewhere",
    process: int = 1,
    interrupted=False,
):
    """A heartbeat as another process left it some time ago."""
    rows = fragment_table(config, [])
    told = {"host": host, "process": process, "interrupted": interrupted, "time": time.time() - HOUR * hours_ago}
    name = f"live/{config.key}.{attempt}.parquet"
    footer = {**rows.schema.metadata, b"beat": json.dumps(told).encode()}
    store.storage.write(name, to_parquet(rows.replace_schema_metadata(footer)))
    age(store, name, hours_ago)
    return name


def age(store: Store, name: str, hours: float) -> None:
    then = time.time() - HOUR * hours
    os.utime(Path(store.uri, name), (then, then))


def found(store: Store, hours: float = 24) -> dict[str, str]:
    return {one.entry.name: one.reason for one in find_prunable(store, silent_seconds=HOUR * hours)}


def test_a_healthy_folder_has_nothing_to_delete(study, store, capsys):
    done, running, waiting, failed = study.configs
    finish(store, done)
    store.write_head(done.key, b"head")
    store.write_margins(done.key, MARGINS_SCHEMA.empty_table())
    beat(store, running)
    store.write_head(running.key, b"head")  # its rows come next
    store.write_checkpoint(running.key, 3, b"state")
    beat(store, waiting, hours_ago=100, interrupted=True)
    store.write_checkpoint(waiting.key, 3, b"state")
    store.write_failure(failed.key, 1, {"attempt": 1, "reason": "no", "settings": identity_and_settings(failed)})
    store.write_checkpoint(failed.key, 3, b"state")
    store.request_stop("run-1")
    store.seal()
    assert found(store) == {}
    assert main(["prune", store.uri]) == 0
    assert capsys.readouterr().out == "nothing to delete\n"


def plant(study, store: Store) -> dict[str, str]:
    """One of everything that may go, and a few things that may not."""
    done, dead, beating, _ = study.configs
    foreign = made_up_config(seed=7)
    finish(store, done)
    names = {
        beat(store, done): "its trial is finished",
        beat(store, dead, 1, hours_ago=50): "a later attempt took its place",
        beat(store, dead, 2, hours_ago=30): "its process is gone",
        beat(store, beating, 1, hours_ago=30): "a later attempt took its place",
    }
    beat(store, beating, 2)
    for config, reason in (
        (done, "its trial is finished"),
        (foreign, "no study file here knows its trial"),
        (beating, ""),
    ):
        store.write_checkpoint(config.key, 3, b"state")
        names |= {f"checkpoints/{config.key}/00000003.checkpoint": reason} if reason else {}
    for config, reason in ((dead, "its trial has no rows"), (done, ""), (beating, "")):
        store.write_head(config.key, b"head")
        store.write_margins(config.key, MARGINS_SCHEMA.empty_table())
        if reason:
            names |= {f"heads/{config.key}.safetensors": reason, f"margins/{config.key}.parquet": reason}
    store.request_stop("run-old")
    age(store, "live/run-old.stop", 30)
    store.begin_run("run-old")
    age(store, "live/run-old.run", 30)
    store.request_stop("run-new")
    store.begin_run("run-new")
    store.request_stop(done.key)
    for name, hours in (
        (f"rows/.{dead.key}.parquet.12.00ff00ff.tmp", 2),
        (f"rows/.{dead.key}.parquet.13.00ff00ff.tmp", 0),
    ):
        store.storage.write(name, b"torn")
        age(store, name, hours)
    return names | {
        "live/run-old.stop": "its run has ended",
        f"live/{done.key}.stop": "its trial is finished",
        f"rows/.{dead.key}.parquet.12.00ff00ff.tmp": "left by a writer that was killed",
    }


def test_what_may_go_is_told_with_its_reason_and_deleted_on_request_only(study, store, capsys):
    planted = plant(study, store)
    assert found(store) == planted
    before = {entry.name for entry in store.storage.tree()}
    assert main(["prune", store.uri]) == 0
    out = capsys.readouterr().out
    for name, reason in planted.items():
        assert any(line.startswith(f"{name}  ") and line.endswith(reason) for line in out.splitlines())
    assert f"{len(planted)} files" in out
    assert "--yes deletes them" in out
    assert {entry.name for entry in store.storage.tree()} == before
    assert main(["prune", store.uri, "--yes", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {file["file"] for file in facts["files"]} == set(planted)
    assert facts["bytes"] == sum(file["bytes"] for file in facts["files"]) > 0
    assert {entry.name for entry in store.storage.tree()} == before - set(planted)
    assert found(store) == {}
    assert store.states() == {study.configs[0].key: "complete"}


def test_the_sign_of_a_run_goes_when_it_is_old_and_nothing_runs(store):
    for run, hours in (("run-old", 30), ("run-new", 2)):
        store.begin_run(run)
        age(store, f"live/{run}.run", hours)
    assert found(store) == {"live/run-old.run": "its run has ended"}


def test_a_process_that_is_alive_here_is_not_dead_however_silent(study, store):
    host, config = os.uname().nodename, study.configs[0]
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        name = beat(store, config, host=host, process=process.pid, hours_ago=100)
        store.write_head(config.key, b"head")
        assert found(store) == {}
    finally:
        process.communicate(b"\n")
    assert found(store) == {name: "its process is gone", f"heads/{config.key}.safetensors": "its trial has no rows"}


def test_with_a_study_that_cannot_be_read_or_suggests_as_it_goes_no_trial_is_unknown(study, store):
    foreign = made_up_config(seed=7)
    store.write_checkpoint(foreign.key, 3, b"state")
    assert len(found(store)) == 1
    store.write_study('name = "old"\n[grid]\nof_the_past = [1]')
    assert found(store) == {}


def test_a_torn_fragment_keeps_its_head(study, store):
    config = study.configs[0]
    store.write_head(config.key, b"head")
    store.storage.write(f"rows/{config.key}.parquet", b"torn")
    assert found(store) == {}


def test_compacted_trials_keep_their_heads_and_a_torn_table_stops_everything(study, store, capsys):
    config = study.configs[0]
    finish(store, config)
    store.write_head(config.key, b"head")
    store.seal(compact=True)
    assert found(store) == {}
    store.storage.write("results.parquet", b"torn")
    assert found(store) == {}  # an archive has the rows
    for entry in store.storage.entries("archive"):
        store.storage.write(f"archive/{entry.name}", b"torn")
    store.storage.write("trials.parquet", b"torn")
    assert main(["prune", store.uri, "--yes"]) == 2
    assert "archives must be readable before anything is deleted" in capsys.readouterr().err
    assert store.storage.read(f"heads/{config.key}.safetensors") == b"head"


def test_a_file_that_changed_since_it_was_found_stays(study, store):
    name = beat(store, study.configs[0], hours_ago=30)
    listed = find_prunable(store, silent_seconds=24 * HOUR)
    beat(store, study.configs[0])
    assert list(prune(store, listed)) == []
    assert store.storage.read(name) is not None


def test_a_negative_silence_is_refused(tmp_path, capsys):
    assert main(["prune", str(tmp_path), "--silent", "-1"]) == 2
    assert "--silent must be" in capsys.readouterr().err
    assert open_store(tmp_path).storage.tree() == []
