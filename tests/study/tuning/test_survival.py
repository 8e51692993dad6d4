"""`gnc run` on real Ray with processes ended in every way: what counts against a trial, and what it leaves behind."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from study.design.study_file import read_study
from study.store.attempts import Live
from study.store.store import open_store
from study.tuning.failure_causes import DRAIN_POLL_SECONDS
from tests.conftest import comparable, halted, let_go, run_gnc, start_gnc, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]


def test_a_terminated_worker_leaves_off_and_its_trial_continues_in_the_same_run_uncharged(study_file, tmp_path):
    study = study_file(num_classes="[6]", steps=2500, extra="attempts = 1\n")  # a charged failure would end it
    store, whole = open_store(tmp_path / "results"), open_store(tmp_path / "whole")
    run = start_gnc("run", study, store.uri, "--max-concurrent", "1")
    trial = wait_for(lambda: halted(store, line=" epoch 8 "), "a trial to halt", seconds=150)
    let_go(trial, signal.SIGTERM)
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert errors.count("restarting") == 1
    assert "preempted: the process received SIGTERM; checkpoint of epoch" in errors
    trials = store.read_trials().to_pylist()
    assert sorted(trial["attempts"] for trial in trials) == [1, 2]
    assert [trial["resumed"] for trial in trials if trial["attempts"] == 2] == [True]
    with pytest.raises(ProcessLookupError):
        os.kill(trial.process, 0)  # it was asked to end, and did
    for config in read_study(study).configs:
        run_gnc("trial", study, config.key, "--results", whole.uri)
    assert comparable(store.read()) == comparable(whole.read())


def test_a_trial_that_kills_its_process_is_set_aside_with_its_last_lines_and_the_others_run(study_file, tmp_path):
    study = study_file(num_classes="[6]", steps=1000, extra="attempts = 2\nbackoff_seconds = 0.1\n")
    store = open_store(tmp_path / "results")
    poisoned, other = (config.key for config in read_study(study).configs)
    run = start_gnc("run", study, store.uri, "--max-concurrent", "1")
    seen = {(other, 1)}
    while attempt := wait_for(lambda: run.poll() is not None or halted(store, passed_over=seen), "an attempt", 150):
        if attempt is True:
            break
        seen.add((attempt.key, attempt.attempt))
        let_go(attempt, signal.SIGSEGV)
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == 1, errors
    assert "1 complete, 1 failed" in errors
    assert "their attempts are used up" in errors
    assert store.states() == {poisoned: "failed", other: "complete"}
    assert errors.count("restarting") == len(store.failures()[poisoned]) - 1
    assert store.failed_starts() == {poisoned: 2}
    last = store.failures()[poisoned][-1]
    assert last["reason"].endswith(": Fatal Python error: Segmentation fault")
    # The signal came to another thread than the trial's, which ran on while its stack was written down: one may be torn.
    stacks = [line for failure in store.failures()[poisoned] for line in failure["last_lines"]]
    assert any("in train_on_ray" in line for line in stacks)
    assert Path(store.uri, last["log"]).exists()
    status = run_gnc("status", store.uri).stdout
    assert "1 complete, 1 failed" in status
    assert last["log"] in status

    again = run_gnc("run", study, store.uri, check=False)
    assert "0 trials to run" in again.stderr
    mended = run_gnc("run", study, store.uri, "--retry-failed")
    assert "1 trial to run, 1 stored" in mended.stderr
    assert set(store.states().values()) == {"complete"}
    assert store.failures() == {}


def test_a_trial_that_raises_is_tried_again_within_the_run_while_its_attempts_last(study_file, tmp_path):
    study = study_file(num_classes="[6]", extra="attempts = 3\nbackoff_seconds = 0.2\n")
    bad = f"seed = [0]\ninput_dim = [32, {10**13}]"
    study.write_text(study.read_text().replace("seed = [0, 1]", bad))
    store = open_store(tmp_path / "results")
    done = run_gnc("run", study, store.uri, check=False)
    assert done.returncode == 1
    assert done.stderr.count("restarting") == 2
    assert "1 complete, 1 failed" in done.stderr
    (failures,) = store.failures().values()
    assert [failure["attempt"] for failure in failures] == [1, 2, 3]
    assert all("Traceback" in failure["traceback"] for failure in failures)
    times = [store.storage.read(failure["log"]).decode() for failure in failures]
    assert all("end: failed: " in text and "Traceback" in text for text in times)


def test_a_process_that_sees_another_folder_is_told_and_its_trial_runs_elsewhere_uncharged(study_file, tmp_path):
    """As on a machine that joined late without the shared folder: the sign of the run, which all see, is taken away."""
    study = study_file(num_classes="[6]", steps=1500, extra="attempts = 1\n")
    store = open_store(tmp_path / "results")
    run = start_gnc("run", study, store.uri, "--max-concurrent", "1")
    trial = wait_for(lambda: halted(store), "a trial to halt", seconds=150)
    (sign,) = (entry.name for entry in store.storage.entries("live", ".run"))
    store.storage.remove(f"live/{sign}")
    let_go(trial)
    errors = run.communicate(timeout=240)[1]
    assert run.returncode == 0, errors
    assert errors.count("restarting") == 1
    assert f"cannot see this run in '{store.uri}': the folder is not shared with it." in errors
    assert set(store.states().values()) == {"complete"}
    assert store.storage.entries("live") == []


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Ray on several nodes of one machine: a head that runs no trials, and two nodes of one CPU."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        started.add_node(num_cpus=1)
        started.add_node(num_cpus=1)
        yield started
    finally:
        started.shutdown()


def test_a_draining_node_and_a_lost_one_cost_no_attempt(study_file, tmp_path, cluster):
    study = study_file(num_classes="[6]", steps=4000, checkpoint_seconds=0.5, extra="attempts = 1\n")
    store, whole = open_store(tmp_path / "results"), open_store(tmp_path / "whole")
    keys = [config.key for config in read_study(study).configs]
    run = start_gnc("run", study, store.uri, "--address", cluster.address)
    trials: list[Live] = []
    for _ in keys:
        seen = {(trial.key, trial.attempt) for trial in trials}
        waits = partial(halted, store, line=" epoch 32 ", passed_over=seen)
        trials.append(wait_for(waits, "a trial to halt", seconds=150))
    draining, lost = list(cluster.worker_nodes)
    cluster.remove_node(lost, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    in_two_minutes = int(1000 * (time.time() + 120))
    asked = ray._raylet.GcsClient(address=cluster.address).drain_node(draining.node_id, 2, "spot", in_two_minutes)
    assert asked == (True, "")
    time.sleep(DRAIN_POLL_SECONDS)
    for trial in trials:
        let_go(trial)
    errors = run.communicate(timeout=240)[1]
    assert run.returncode == 0, errors
    assert "preempted: its machine is being taken away (the node is draining); checkpoint of epoch" in errors
    assert "the machine it ran on was lost" in errors
    assert errors.count("restarting") == 2
    assert store.read_trials().column("attempts").to_pylist() == [2, 2]
    for key in keys:
        run_gnc("trial", study, key, "--results", whole.uri)
    assert comparable(store.read()) == comparable(whole.read())
