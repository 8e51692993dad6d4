"""Arrays of `gnc slurm` on a real SLURM: trials are shared, and nothing is lost to a time limit, scancel or a lost node."""

import functools
import re
import time

import pytest

from study.store.store import open_store
from tests import conftest

wait_for = functools.partial(
    conftest.wait_for, seconds=600
)  # a busy machine takes minutes to start a Ray for each task

STUDY = (
    """
name = "small"
[fixed]
"""
    + conftest.TINY
    + """\
batch_size = 32
learning_rate = 0.1
feature_dim = 3
measure = "log"
steps = {steps}
[grid]
num_classes = {num_classes}
seed = [0, 1]
[resources]
checkpoint_seconds = 5
"""
)
ENDLESS = 100_000_000


@pytest.fixture
def study(slurm):
    """Writes a study into the folder from which jobs are submitted, and gives it with a store of its own."""

    def write(name, *, steps, num_classes):
        path = slurm.folder / f"{name}.toml"
        path.write_text(STUDY.format(steps=steps, num_classes=num_classes))
        return path, open_store(slurm.folder / name)

    yield write
    slurm.ask("scancel", "--user=root")
    wait_for(lambda: not slurm.ask("squeue", "-h"), "an empty queue")
    for log in sorted(slurm.folder.glob("*.log")):  # shown where the test failed
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
        log.unlink()


def script_of(slurm, path, store, *more, tasks=2):
    return slurm.gnc("slurm", path, store.uri, "--cpus", 1, "--tasks", tasks, "--time", "60", *more).stdout


def training(store):
    """The trials in progress of which there is a checkpoint by now."""
    return [trial for trial in store.read_live() if not trial.interrupted and any(store.read_checkpoints(trial.key))]


def attempts(store):
    """The number of the last attempt at each trial, by the logs that were kept."""
    return {entry.name.split(".")[0]: int(entry.name.split(".")[1]) for entry in store.storage.entries("logs", ".log")}


def test_what_slurm_would_refuse_is_refused_before_the_script_is_printed(slurm, study):
    path, store = study("refused", steps=40, num_classes=[6])
    common = ["slurm", path, store.uri, "--cpus", 1, "--tasks", 2, "--time", "10"]
    assert "Job" not in slurm.gnc(*common).stderr
    for more, words in (
        (["--partition", "nope"], "Invalid partition name"),
        (["--gpus", 7], "node configuration is not available"),
        (["--tasks", 2000], "Invalid job array specification"),
    ):
        refused = slurm.gnc(*common, *more, check=False)
        assert refused.returncode == 2
        assert re.fullmatch(rf"SLURM must accept the options, got: .*{words}.*\n", refused.stderr)
        assert refused.stdout == ""
    assert slurm.ask("squeue", "-h") == ""


def test_the_tasks_of_an_array_train_each_trial_once(slurm, study):
    path, store = study("array", steps=40, num_classes=[4, 6, 8])
    job = slurm.submit(script_of(slurm, path, store))
    states = slurm.await_end(job)
    assert {state for state, *_ in states.values()} == {"COMPLETED"}, slurm.log(job, 0) + slurm.log(job, 1)
    assert sorted(node for _, node, _ in states.values()) == ["n1", "n2"]
    assert set(store.states().values()) == {"complete"}
    assert len(store.states()) == 6
    assert set(attempts(store).values()) == {1}
    assert store.runs() == {}
    wait_for(lambda: not slurm.left_of(job), "the end of all processes of the job")


def test_doctor_compares_what_is_granted_with_what_is_seen(slurm, study):
    path, store = study("doctor", steps=40, num_classes=[4])
    script = script_of(slurm, path, store, "--gpus", 1, tasks=1)
    job = slurm.submit(script.replace(f" run {path}", f" doctor --slurm --study {path} --results"))
    slurm.await_end(job)
    lines = {line[8:26].strip(): line for line in slurm.log(job, 0).splitlines()}
    assert "task 0 on n1" in lines["allocation"]
    assert "1 are used of" in lines["CPUs"]
    assert lines["CPUs"].endswith("1 granted")
    # the made-up GPU is granted and set, and no torch sees it
    assert lines["GPUs"].startswith("FAIL    GPUs              0 seen, 1 granted, CUDA_VISIBLE_DEVICES is 0.")
    assert lines["folder shared"].startswith("ok ")
    assert lines["temporary"].startswith("ok ")
    assert re.search(r"time left +\d+:\d\d", lines["time left"])
    assert lines["ray"].startswith("ok ")


def test_a_time_limit_requeues_and_scancel_keeps_checkpoints(slurm, study):
    path, store = study("limit", steps=ENDLESS, num_classes=[6])
    script = script_of(slurm, path, store, "--warning", 45)
    submitted = time.monotonic()
    job = slurm.submit(script)
    wait_for(lambda: len(training(store)) == 2, "two trials to have checkpoints")
    minutes = int((time.monotonic() - submitted) / 60) + 3  # SLURM warns up to a minute early
    slurm.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    first = {trial.key: trial.attempt for trial in store.read_live()}
    assert set(first.values()) == {1}
    wait_for(lambda: all(restarts == "1" for *_, restarts in slurm.states(job).values()), "a requeue")
    slurm.ask("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    for task in (0, 1):
        assert "stopping: running trials keep their checkpoints" in slurm.log(job, task)
    for key in first:
        assert "interrupted: asked to stop" in store.last_log_lines(key, 1)[-1]

    def goes_on():
        return {trial.key: trial.attempt for trial in training(store)} == dict.fromkeys(first, 2)

    wait_for(goes_on, "both trials to go on after the requeue")
    for key in first:
        assert any("continues from epoch" in line for line in store.last_log_lines(key, 2))
    slurm.ask("scancel", job)
    slurm.await_end(job)
    # this SLURM tracks process groups and so ends Ray with the run; with cgroups only the script is told, which tells the run
    assert all(any(store.read_checkpoints(key)) for key in first)
    assert " complete" not in slurm.gnc("status", store.uri).stdout
    wait_for(lambda: not slurm.left_of(job), "the end of all processes of the job")


def test_a_task_whose_folder_is_not_that_of_the_others_is_refused(slurm, study):
    path, _ = study("apart", steps=ENDLESS, num_classes=[6])
    here = slurm.folder / "local/results"  # another on each node
    job = slurm.submit(script_of(slurm, path, open_store(here)))
    refused = wait_for(
        lambda: [task for task in (0, 1) if "results folder must be shared" in slurm.log(job, task)], "a refusal"
    )
    assert len(refused) == 1
    told = slurm.log(job, refused[0]).splitlines()[-1]
    assert re.search(
        rf"which is another on \S+ \(gnc-small-{job}_{1 - refused[0]}\.log\)\. Name a network folder", told
    )
    slurm.ask("scancel", job)
    slurm.await_end(job)


def test_a_lost_node_gives_its_trials_to_the_others(slurm, study):
    path, store = study("lost", steps=25_000, num_classes=[6])
    job = slurm.submit(script_of(slurm, path, store))
    wait_for(lambda: len(training(store)) == 2, "two trials to have checkpoints")
    before = time.monotonic()
    slurm.lose_node("n2")
    wait_for(lambda: "down" in slurm.ask("sinfo", "-h", "-n", "n2", "-o", "%T"), "n2 to count as down")
    print(f"SLURM noticed after {time.monotonic() - before:.0f} s")
    slurm.start_node("n2")
    states = slurm.await_end(job)
    assert sorted(restarts for *_, restarts in states.values()) == ["0", "1"]
    assert set(store.states().values()) == {"complete"}
    assert sorted(attempts(store).values()) == [1, 2]  # the lost one went on, the other was left alone
