"""A trial of several workers without Ray: the same rows undisturbed and resumed; errors and deaths end it, not hang it."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from study.design.config import TrialConfig
from study.design.study_file import read_study
from study.execution.attempt import INTERRUPTED, Execution
from study.execution.local_workers import run_here
from study.store.store import Store, open_store
from study.training.trial import Progress
from study.training.worker_group import Group
from tests.conftest import comparable, start_gnc, wait_for
from tests.study.groups import run_group

SETTINGS = {
    "dataset": "glyphs",
    "encoder": "small_resnet",
    "augmentation": "shift",
    "width": 4,
    "num_classes": 4,
    "feature_dim": 3,
    "samples_per_class": 9,
    "test_samples_per_class": 2,
    "batch_size": 13,
    "steps": 24,
    "classifier": "class_mean",
    "workers": 2,
}
TWO = TrialConfig(**SETTINGS)
TERMINAL = {"budget": "terminal", "steps": None, "terminal_epochs": 2, "max_epochs": 4}
PLANTED = TrialConfig(**{**SETTINGS, "seed": 1})


ENDINGS = {
    "complete": {},
    "terminal": {**TERMINAL, "learning_rate": 0.3, "num_classes": 2},
    "stationary": {"budget": "stationary", "steps": None, "stationary_tolerance": 0.9, "max_steps": 96},
    "diverged": {"learning_rate": 1e30, "classifier": "linear"},
    "failed": {"feature_dim": 10**13, "classifier": "linear"},
    "bfloat16": {"precision": "bfloat16", "classifier": "linear"},
}


def config_of(ending: str, workers: int) -> TrialConfig:
    return TrialConfig(**{**SETTINGS, **ENDINGS[ending], "workers": workers})


def run_all(group: Group, results: str) -> dict[str, str]:
    """Every trial in turn by the same workers, the last one with an error planted in worker 1."""
    states = {}
    for ending in ENDINGS:
        execution = Execution(config_of(ending, 2), open_store(results), attempt=1, device="cpu", group=group)
        try:
            states[ending] = execution.run()
        except RuntimeError as error:
            states[ending] = f"raised {type(error).__name__}"

    def fail(progress: Progress) -> None:
        if group.rank == 1 and progress.epoch == 1:
            raise ArithmeticError("planted in worker 1")

    Execution(PLANTED, open_store(results), attempt=1, device="cpu", group=group).run(on_progress=fail)
    return states


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    """The results of trials that one group of workers ran."""
    folder = tmp_path_factory.mktemp("undisturbed")
    found = run_group(run_all, 2, folder, str(folder / "results"))
    assert "ArithmeticError: planted in worker 1" in found[1], f"worker 0: {found[0]}\nworker 1: {found[1]}"
    assert "Traceback" in found[0]  # its connection was closed
    return open_store(folder / "results")


def test_a_worker_that_raises_is_the_failure_that_is_kept(undisturbed):
    (failure,) = undisturbed.failures()[PLANTED.key]
    assert failure["reason"] == "ArithmeticError: planted in worker 1"
    assert "in fail" in failure["traceback"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_workers_end_as_one_does_and_agree_on_it(ending, undisturbed, tmp_path):
    alone, several, store = config_of(ending, 1), config_of(ending, 2), open_store(tmp_path)
    run_here(alone, store)
    assert undisturbed.states()[several.key] == store.states()[alone.key]
    one, two = (s.read_fragment(c.key) for s, c in ((store, alone), (undisturbed, several)))
    if one is not None:
        assert two.record.reached_terminal == one.record.reached_terminal
        assert two.rows.column("epoch").to_pylist() == one.rows.column("epoch").to_pylist()
        first = [fragment.rows.column("train_loss").to_pylist()[0] for fragment in (one, two)]
        assert first[0] == pytest.approx(first[1], rel=1e-2 if ending == "bfloat16" else 1e-5)


STUDY = """
name = "two"
[fixed]
num_classes = 4
feature_dim = 3
samples_per_class = 9
width = 4
batch_size = 13
steps = 100000
[grid]
workers = [2]
[resources]
checkpoint_seconds = 0
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_terminal_keeps_a_checkpoint(number, tmp_path):
    study, store = tmp_path / "two.toml", open_store(tmp_path / "results")
    study.write_text(STUDY)
    (config,) = read_study(study).configs
    command = start_gnc("trial", study, config.key, "--results", store.uri)
    wait_for(lambda: any(store.read_checkpoints(config.key)), "a checkpoint")
    os.killpg(command.pid, number)  # as a terminal does: to the command and its workers
    _, errors = command.communicate(timeout=120)
    assert "interrupted: " in errors
    assert "kept" in errors
    assert command.returncode == 1
    assert [live.interrupted for live in store.read_live()] == [True]


def test_no_worker_outlives_a_killed_command(tmp_path):
    study, store = tmp_path / "two.toml", open_store(tmp_path / "results")
    study.write_text(STUDY)
    command = start_gnc("trial", study, read_study(study).configs[0].key, "--results", store.uri)
    wait_for(lambda: any(not live.interrupted for live in store.read_live()), "a worker at work")
    worker = next(live.process for live in store.read_live() if not live.interrupted)
    assert worker != command.pid
    command.kill()
    command.wait()
    wait_for(lambda: not is_running(worker), "the worker's end")


def is_running(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def workers() -> list[Any]:
    """Those of trials; the readers of streamed data, which an earlier test may have left open, are daemons."""
    return [process for process in multiprocessing.active_children() if not process.daemon]


def test_a_stopped_trial_and_one_whose_worker_was_killed_go_on_to_the_same_rows(tmp_path, undisturbed):
    store = open_store(tmp_path)
    heard: list[Progress] = []
    state, reason = run_here(TWO, store, should_stop=lambda: bool(heard), on_progress=heard.append)
    assert state == INTERRUPTED
    assert reason is not None
    assert reason.startswith("asked to stop; checkpoint of epoch")
    assert [live.interrupted for live in store.read_live()] == [True]
    assert any(store.read_checkpoints(TWO.key))
    assert workers() == []

    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if not killed:
            killed.append(workers()[-1].pid)
            os.kill(killed[0], signal.SIGKILL)

    state, reason = run_here(TWO, store, checkpoint_seconds=0, on_progress=kill_one)
    assert state == "failed"
    assert "died with exit code -9" in reason
    assert workers() == []
    assert store.failures()[TWO.key][0]["reason"] == reason

    assert run_here(TWO, store) == ("complete", None)
    (trial,) = store.read_trials().to_pylist()
    assert (trial["workers"], trial["attempts"], trial["resumed"]) == (2, 3, True)
    assert comparable(store.read()) == [row for row in comparable(undisturbed.read()) if row["trial"] == TWO.key]
    assert store.read_live() == []
