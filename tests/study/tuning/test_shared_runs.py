"""Real runs on one folder at a time: each trial is trained once, by whichever of them, and the table is that of one run."""

import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from study.design.study_file import read_study
from study.store.schemas import FINAL
from study.store.store import Store, open_store
from tests import conftest
from tests.conftest import comparable, halted, let_go, run_gnc, start_gnc
from tests.study.tuning.test_run import LONG, end
from tests.study.tuning.test_run_search import STUDY as SEARCH
from tests.study.tuning.test_run_search import cells

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.timeout(3000)]

wait_for = functools.partial(conftest.wait_for, seconds=900)  # a busy machine takes minutes to start several Rays


def attempts(store: Store) -> Counter[str]:
    """How often each trial was begun, by the logs that every attempt leaves."""
    return Counter(entry.name.partition(".")[0] for entry in store.storage.entries("logs", ".log"))


def alone(study, folder) -> Store:
    """The study by one run that nothing disturbs."""
    store = open_store(folder)
    run_gnc("run", study, store.uri)
    return store


def test_four_runs_train_each_trial_once_and_give_the_table_of_one_run(study_file, tmp_path):
    """Four runs of one trial at a time beside one run of four at a time, which share the processors that there are."""
    study = study_file(num_classes="[6, 8, 12, 16]", steps=400, extra="cpus = 0.25\n")
    keys = {config.key for config in read_study(study).configs}
    began = time.monotonic()
    one = open_store(tmp_path / "one")
    run_gnc("run", study, one.uri, "--max-concurrent", "4")
    between = time.monotonic()
    four = open_store(tmp_path / "four")
    runs = [start_gnc("run", study, four.uri, "--max-concurrent", "1") for _ in range(4)]
    said = [end(run) for run in runs]
    print(f"one run of four: {between - began:.0f} s; four runs of one: {time.monotonic() - between:.0f} s")
    assert [run.returncode for run in runs] == [0] * 4, said
    assert attempts(four) == attempts(one) == Counter(keys)
    assert "8 trials in both, of which 0 differ" in run_gnc("compare", one.uri, four.uri).stdout
    assert comparable(four.read()) == comparable(one.read())
    assert (four.claims(), four.runs()) == ({}, {})


def test_a_run_that_is_stopped_and_continued_ends_as_if_nothing_had_been(study_file, tmp_path):
    """Ctrl-Z and fg: the command and Ray's daemons are stopped, and the trials wait for them."""
    study, store = study_file(**LONG), open_store(tmp_path / "results")
    run = start_gnc("run", study, store.uri)
    wait_for(store.read_live, "a trial in flight")
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(5)
    os.killpg(run.pid, signal.SIGCONT)
    errors = end(run)
    assert run.returncode == 0, errors
    assert set(attempts(store).values()) == {1}
    assert comparable(store.read()) == comparable(alone(study, tmp_path / "alone").read())


def test_a_process_that_wakes_up_after_its_trial_was_taken_over_leaves_it_alone(study_file, tmp_path):
    study, store = study_file(num_classes="[6]", **LONG | {"more": ""}), open_store(tmp_path / "results")

    def share(*more: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "tests.chaos.trials", str(study), store.uri, *more]
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)

    paused = share()
    trial = wait_for(lambda: halted(store, line=" epoch 3 "), "a trial to halt")
    assert trial.process == paused.pid
    (mark,) = (tmp_path / "results/live").glob("*.run")
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"boot": "another"}))  # of a machine that cannot be asked
    other = share("--silent-seconds", "1")
    assert "complete" in end(other)
    assert set(store.states().values()) == {"complete"}
    let_go(trial)
    assert f"{trial.key}" in end(paused)
    assert "end: interrupted: another run finished the trial" in store.last_log_lines(trial.key, 1)[-1]
    assert attempts(store)[trial.key] == 2
    assert (store.failures(), store.claims()) == ({}, {})
    assert comparable(store.read()) == comparable(alone(study, tmp_path / "alone").read())


@pytest.mark.parametrize("clock", [-600.0, 600.0])
def test_a_run_leaves_a_trial_to_a_live_run_whose_clock_differs(clock, study_file, tmp_path):
    study, store = study_file(num_classes="[6]", more=""), open_store(tmp_path / "results")
    theirs = read_study(study).configs[0]
    over, beats = threading.Event(), itertools.count()

    def beat() -> None:
        mark = {"host": "far", "boot": "another", "beat": next(beats), "time": time.time() + clock}
        store.storage.write("live/run-far.run", json.dumps(mark).encode())

    beat()
    assert store.take(theirs.key, "run-far", after=0)
    beating = threading.Thread(target=lambda: [beat() for _ in iter(lambda: over.wait(1), True)])
    beating.start()
    try:
        done = run_gnc("run", study, store.uri, check=False)
        told = run_gnc("status", store.uri).stdout
    finally:
        over.set()
        beating.join()
    assert "1 complete, 1 not started\n1 trial left to other runs on this folder: run-far\n" in done.stderr
    assert done.returncode == 0
    assert "run-far" in told
    assert "silent" not in told


def test_a_study_changed_while_a_run_is_under_way_is_that_of_later_runs_alone(study_file, tmp_path):
    study, store = (
        study_file(num_classes="[6, 12]", steps=1200, checkpoint_seconds=0.2),
        open_store(tmp_path / "results"),
    )
    before = {config.key for config in read_study(study).configs}
    old = start_gnc("run", study, store.uri)
    trial = wait_for(lambda: halted(store, line=" epoch 3 "), "a trial to halt")  # the old run cannot end
    study_file(num_classes="[12, 8]", steps=1200, checkpoint_seconds=0.2)
    after = {config.key for config in read_study(study).configs}
    new = start_gnc("run", study, store.uri)
    wait_for(lambda: len(store.studies()) == 2 and len(store.runs()) == 2, "both runs to be under way")
    told = run_gnc("status", store.uri).stdout
    assert len(set(re.findall(r"run-\w+ on .* of (studies/\w+\.toml)", told))) == 2
    assert "small in" in told
    wait_for(lambda: (after - before) <= {k for k, s in store.states().items() if s in FINAL}, "what the change added")
    let_go(trial)
    assert [(end(run), run.returncode)[1] for run in (old, new)] == [0, 0]
    assert attempts(store) == Counter(before | after)
    assert set(store.states()) == before | after
    assert "4 complete" in run_gnc("status", store.uri).stdout  # of the new study
    assert "2 trials of other studies" in run_gnc("status", store.uri).stdout


def test_two_runs_share_a_search_and_make_each_suggestion_once(tmp_path):
    study, store = tmp_path / "search.toml", open_store(tmp_path / "results")
    study.write_text(SEARCH)
    runs = [start_gnc("run", study, store.uri, "--max-concurrent", "1") for _ in range(2)]
    said = [end(run) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert [len(names) for names in cells(study, store)] == [6, 6]
    assert len(store.suggestions()) == 12
    assert len(attempts(store)) == 24
    assert set(attempts(store).values()) == {1}
    assert all("] complete" in errors for errors in said)  # both had a part in it
    assert store.claims() == {}
