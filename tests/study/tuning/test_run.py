"""`gnc run` on real Ray, with real processes killed: the sealed table is that of an undisturbed run."""

import dataclasses
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.design.study_file import parse_study, read_study
from study.execution.attempt import STOP_POLL_SECONDS
from study.store.store import Store, open_store
from tests.conftest import IMAGES, SMALL_STUDY, comparable, halted, let_go, run_gnc, start_gnc, wait_for

pytestmark = pytest.mark.xdist_group("ray")  # one Ray at a time: two clusters on two cores starve each other

LONG = {"steps": 1200, "checkpoint_seconds": 0.2, "more": IMAGES}  # each trial lasts some seconds: time to be killed in
TRIALS = 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    """The long study, run once without Ray, trial after trial: what every disturbed run must equal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = folder / "small.toml"
    path.write_text(SMALL_STUDY.format(num_classes="[6, 12]", **LONG))
    keys = [config.key for config in parse_study(path.read_text()).configs]
    calls = [["trial", str(path), key, "--results", str(folder / "results")] for key in keys]
    code = f"from gnc.cli.main import main\nfor call in {calls!r}:\n    assert main(call) == 0"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return open_store(folder / "results")


def end(process: subprocess.Popen) -> str:
    """Output of a process that ends by itself."""
    _, errors = process.communicate(timeout=900)
    return errors


def assert_same_tables(store: Store, undisturbed: Store) -> None:
    assert comparable(store.read()) == comparable(undisturbed.read())
    assert comparable(store.read_trials()) == comparable(undisturbed.read_trials())
    assert store.storage.read("results.parquet") is not None
    assert store.read_live() == []


def test_a_run_equals_trials_in_process_and_a_second_run_starts_nothing(study_file, tmp_path, undisturbed):
    study, results = study_file(**LONG), tmp_path / "results"
    first = run_gnc("run", study, results)
    assert first.stdout == ""
    assert first.stderr.count("] complete ") == TRIALS  # a line per finished trial where stderr is no terminal
    assert_same_tables(open_store(results), undisturbed)

    second = run_gnc("run", study, results)
    assert "0 trials to run" in second.stderr
    assert "starting Ray" not in second.stderr

    study_file(**LONG, num_classes="[6, 12, 8]")
    third = run_gnc("run", study, results)
    assert "2 trials to run, 5 stored" in third.stderr
    assert len(re.findall(r"\] complete .* K=8 ", third.stderr)) == 2
    assert open_store(results).read_trials().num_rows == 7

    study_file(**LONG)
    status = run_gnc("status", results)
    assert "7 complete" in status.stdout
    run_gnc("run", study, results)
    assert "2 trials of other studies" in run_gnc("status", results).stdout


@pytest.mark.ray
def test_a_killed_trial_process_is_started_again_and_repeats_no_row(study_file, tmp_path, undisturbed):
    store = open_store(tmp_path / "results")
    run = start_gnc("run", study_file(**LONG), store.uri)
    let_go(wait_for(lambda: halted(store, line=" epoch 3 "), "a trial to halt"), signal.SIGKILL)
    errors = end(run)
    assert run.returncode == 0, errors
    assert "restarting" in errors
    assert_same_tables(store, undisturbed)
    assert max(store.read_trials().column("attempts").to_pylist()) == 2


@pytest.mark.ray
def test_a_killed_sweep_continues_while_its_orphans_still_write(study_file, tmp_path, undisturbed):
    """The driver dies by SIGKILL at a random moment with trials in flight; the next run starts at once."""
    chance = random.SystemRandom().randrange(1000)
    print(f"chance {chance}")  # shown when the test fails
    random_moment = random.Random(chance)
    store, study = open_store(tmp_path / "results"), study_file(**LONG)
    run = start_gnc("run", study, store.uri)
    trial = wait_for(lambda: halted(store, line=" epoch 3 "), "a trial to halt")  # others go on, and the run cannot end
    time.sleep(random_moment.uniform(0, 1.5))
    run.kill()
    run.wait()
    let_go(trial)
    assert not store.storage.read("results.parquet")
    again = start_gnc("run", study, store.uri)  # at once: orphaned workers go on writing for a while
    errors = end(again)
    assert again.returncode == 0, errors
    assert_same_tables(store, undisturbed)


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_interrupting_keeps_checkpoints_seals_and_says_how_to_continue(number, study_file, tmp_path, undisturbed):
    store, study = open_store(tmp_path / "results"), study_file(**LONG)
    run = start_gnc("run", study, store.uri)
    # a trial of a fast machine would end before it looks for the request
    trial = wait_for(lambda: halted(store, line=" epoch 3 "), "a trial to halt")
    # SLURM's warning, which Tune would take for itself; a closed terminal, which tells Ray's daemons too
    os.killpg(run.pid, number)
    wait_for(store.stop_requests, "the request to stop")
    time.sleep(STOP_POLL_SECONDS)
    let_go(trial)
    errors = end(run)
    assert run.returncode == 1
    assert f"this continues it: gnc run {study} {store.uri}" in errors
    assert store.storage.read("results.parquet") is not None
    waiting = [trial for trial in store.read_live() if trial.interrupted]
    assert waiting
    assert all(any(store.read_checkpoints(trial.key)) for trial in waiting)
    told = f"{len(waiting)} interrupted with checkpoints"
    assert told in errors
    assert told in run_gnc("status", store.uri).stdout
    run_gnc("run", study, store.uri)
    assert_same_tables(store, undisturbed)
    assert any(store.read_trials().column("resumed").to_pylist())


def test_interrupting_before_the_first_trial_still_seals_and_says_how_to_continue(study_file, tmp_path):
    study, results = study_file(steps=10**7), tmp_path / "results"  # should one begin, it would not end
    run = start_gnc("run", study, results, "--max-concurrent", "1")
    for line in run.stderr:
        if "starting Ray" in line:
            break
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    errors = end(run)
    assert run.returncode == 1, errors
    assert f"this continues it: gnc run {study} {results} --max-concurrent 1" in errors
    assert "Traceback" not in errors


@pytest.mark.ray
def test_bad_trials_become_rows_and_the_sweep_goes_on(study_file, tmp_path):
    study = study_file(num_classes="[6]", extra="attempts = 2\n")
    text = study.read_text().replace("learning_rate = 0.1\n", "").replace("feature_dim = 3\n", "")
    bad = f'learning_rate = [0.1, 1e30]\nseed = [0]\nnormalization = ["none"]\nfeature_dim = [3, {10**13}]'
    study.write_text(text.replace("seed = [0, 1]", bad))
    store = open_store(tmp_path / "results")
    done = run_gnc("run", study, store.uri, check=False)
    assert done.returncode == 1, done.stderr
    trials = store.read_trials().to_pylist()
    assert sorted(trial["state"] for trial in trials) == ["complete", "diverged", "failed", "failed"]
    assert all(trial["reason"] for trial in trials if trial["state"] != "complete")
    assert "2 failed" in done.stderr
    assert "attempts are used up" in done.stderr

    spent = run_gnc("run", study, store.uri, check=False)
    assert spent.returncode == 1
    assert "starting Ray" not in spent.stderr
    assert "attempts are used up" in spent.stderr
    assert "--retry-failed would start them again" in spent.stderr


def test_a_study_that_fits_no_machine_is_refused_before_anything_runs(study_file, tmp_path):
    study = study_file(extra="cpus = 4000\ngpus = 0.5\n")
    done = run_gnc("run", study, tmp_path / "results", check=False)
    assert done.returncode == 2
    assert "[resources] must fit on one machine, got cpus = 4000 and gpus = 0.5 per trial" in done.stderr
    assert "Ask for less" in done.stderr
    assert open_store(tmp_path / "results").states() == {}


def test_data_that_changed_is_refused_before_anything_runs(study_file, tmp_path):
    study, store = study_file(num_classes="[6]"), open_store(tmp_path / "results")
    config = read_study(study).configs[0]
    run_gnc("trial", study, config.key, "--results", store.uri)
    record = store.read_fragment(config.key).record
    store.write_fragment(config, [], dataclasses.replace(record, dataset_digest="0" * 64))
    done = run_gnc("run", study, store.uri, check=False)
    assert done.returncode == 2
    assert "dataset_digest must be that of the stored trials" in done.stderr
    assert "starting Ray" not in done.stderr


@pytest.mark.ray
def test_a_torn_fragment_is_named_and_its_trial_run_again(study_file, tmp_path):
    study, store = study_file(num_classes="[6]"), open_store(tmp_path / "results")
    for config in read_study(study).configs:
        run_gnc("trial", study, config.key, "--results", store.uri)
    before = comparable(store.read())
    torn = next(Path(store.uri, "rows").glob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:1000])
    done = run_gnc("run", study, store.uri)
    assert f"rows/{torn.name} cannot be read" in done.stderr
    assert "1 trial to run, 1 stored" in done.stderr
    assert comparable(store.read()) == before
