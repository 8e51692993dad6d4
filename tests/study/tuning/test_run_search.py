"""A search on real Ray: killed and continued, enlarged, and its stopped trials carried on by another study."""

import os
import signal

import pytest

from study.design.config import TrialConfig
from study.design.study_file import read_study
from study.scheduling.suggestions import stored_suggestions
from study.store.store import open_store
from tests.conftest import TINY, comparable, run_gnc, start_gnc, wait_for
from tests.study.tuning.test_run import end

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

STUDY = (
    """
name = "search"
[fixed]
"""
    + TINY
    + """\
steps = 300
feature_dim = 3
batch_size = 32
[grid]
num_classes = [6, 12]
seed = [0, 1]
[search]
learning_rate = { log_uniform = [0.02, 0.5] }
[tune]
method = "optuna"
num_samples = 6
startup = 3
metric = ["train_loss", "margin_min_lower"]
mode = ["min", "max"]
"""
)
ASHA = 'scheduler = "asha"\nreduction_factor = 2\ngrace_epochs = 4\n'


def cells(study, store) -> list[set[str]]:
    """Suggestions of each grid cell whose trials ended."""
    return [set(found) for found in stored_suggestions(read_study(study), store).values()]


def test_a_killed_search_goes_on_with_what_it_knew_and_repeats_nothing(tmp_path):
    study, store = tmp_path / "search.toml", open_store(tmp_path / "results")
    study.write_text(STUDY)
    run = start_gnc("run", study, store.uri)
    wait_for(lambda: len(store.fragments()) >= 4, "four finished trials")
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    finished, suggested = set(store.fragments()), set(store.suggestions())
    before = {key: comparable(store.read_fragment(key).rows) for key in finished}

    again = start_gnc("run", study, store.uri)
    errors = end(again)
    assert again.returncode == 0, errors
    found = cells(study, store)
    assert [len(names) for names in found] == [6, 6]
    assert suggested <= set.union(*found)  # what was begun was carried to its end
    trials = store.read_trials().to_pylist()
    assert len(trials) == len({trial["trial"] for trial in trials}) == 24
    assert {key: comparable(store.read_fragment(key).rows) for key in finished} == before
    assert "24 complete" in run_gnc("status", store.uri).stdout
    assert "0 trials to run: 24 of 24" in run_gnc("run", study, store.uri).stderr


def test_stopped_trials_keep_their_rows_and_go_on_under_another_rule(tmp_path):
    study, store = tmp_path / "search.toml", open_store(tmp_path / "results")
    study.write_text(STUDY.replace('"optuna"', '"random"').replace("startup = 3\n", "") + ASHA)
    done = run_gnc("run", study, store.uri)
    stopped = {t["trial"]: t for t in store.read_trials().to_pylist() if t["state"] == "stopped"}
    assert 0 < len(stopped) < 24
    assert f"{len(stopped)} stopped" in done.stderr
    rule = read_study(study).search.scheduler.digest
    assert {trial["stopped_by"] for trial in stopped.values()} == {rule}
    assert all(any(store.read_checkpoints(key)) for key in stopped)
    rows = {key: comparable(store.read_fragment(key).rows) for key in stopped}
    assert all(row["epoch"] >= 4 for found in rows.values() for row in found[-1:])
    assert "0 trials to run" in run_gnc("run", study, store.uri).stderr

    study.write_text(study.read_text().replace(ASHA, ""))
    assert f"{len(stopped)} trials to run" in run_gnc("run", study, store.uri).stderr
    for key, trial in {t["trial"]: t for t in store.read_trials().to_pylist() if t["trial"] in stopped}.items():
        assert (trial["state"], trial["stopped_by"], trial["resumed"]) == ("complete", None, True)
        continued = comparable(store.read_fragment(key).rows)
        assert continued[: len(rows[key])] == rows[key]
        assert len(continued) > len(rows[key])
        assert not any(store.read_checkpoints(key))
    one = next(iter(stopped))
    settings = {name: stopped[one][name] for name in TrialConfig.model_fields}
    fresh = open_store(tmp_path / "fresh")
    run_gnc("trial", study, TrialConfig(**settings).key, "--results", fresh.uri)
    assert comparable(fresh.read_fragment(one).rows) == comparable(store.read_fragment(one).rows)
