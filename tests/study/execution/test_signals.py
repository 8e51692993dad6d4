"""SIGTERM or a closed terminal for a process that runs a trial: the trial leaves off with a checkpoint; without a trial it acts as ever."""

import signal
import subprocess
import sys

import pytest

from study.design.study_file import read_study
from study.execution.signals import held_back
from study.store.store import open_store
from tests.conftest import comparable, halted, let_go, run_gnc, start_gnc, wait_for

WAITING = """
import os, signal, sys, time
from study.execution.signals import Requests
requests = Requests()
requests.listen(signal.SIGTERM)
requests.listen(signal.SIGTERM)
{body}
"""


def run_python(body: str) -> subprocess.CompletedProcess[str]:
    code = WAITING.format(body=body)
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)


def test_without_a_trial_the_signal_acts_as_before():
    assert run_python("os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)").returncode == -signal.SIGTERM


def test_with_a_trial_the_first_request_waits_and_the_second_acts():
    done = run_python(
        "with requests.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(requests.reason, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    assert done.stdout == "the process received SIGTERM\n"
    assert done.returncode == -signal.SIGTERM


def test_a_request_that_was_deferred_ends_the_process_in_the_end():
    done = run_python(
        "with requests.deferred():\n    os.kill(os.getpid(), signal.SIGTERM)\nrequests.end_soon()\ntime.sleep(60)\n"
    )
    assert done.returncode == -signal.SIGTERM


def test_a_closed_terminal_does_not_end_what_was_started_to_outlast_it():
    done = run_python(
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does\n"
        "requests.listen(signal.SIGHUP)\n"
        "from study.execution.signals import act_as_ctrl_c\n"
        "act_as_ctrl_c()\n"
        "with requests.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "print(f'goes on{requests.reason}')\n"
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_trial_that_is_asked_to_end_while_it_starts_lets_go_what_it_claimed(number, study_file, tmp_path):
    store = open_store(tmp_path / "results")
    trial = start_gnc("trial", study_file(steps=10**6), "--next", "--results", store.uri)
    wait_for(store.claims, "a claim")  # seconds before PyTorch is loaded
    trial.send_signal(number)
    said = trial.communicate()[1]
    assert trial.returncode == 1
    assert "interrupted" in said
    assert store.runs() == {}
    assert {claim.run for claim in store.claims().values()} == {""}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_trial_process_that_is_asked_to_end_keeps_a_checkpoint_and_the_next_one_continues(
    number, study_file, tmp_path
):
    study = study_file(num_classes="[6]", steps=4000)
    key = read_study(study).configs[0].key
    whole, store = open_store(tmp_path / "whole"), open_store(tmp_path / "results")
    process = start_gnc("trial", study, key, "--results", store.uri)
    let_go(wait_for(lambda: halted(store, line=" epoch 4 "), "a trial to halt"), number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert f"interrupted: the process received {number.name}; checkpoint of epoch" in errors
    assert store.last_log_lines(key, 1)[-1].endswith("kept")
    assert any(store.read_checkpoints(key))
    assert store.failures() == {}
    assert "interrupted" in run_gnc("status", store.uri).stdout

    run_gnc("trial", study, key, "--results", store.uri)
    assert any("continues from epoch" in line for line in store.last_log_lines(key, 2))
    run_gnc("trial", study, key, "--results", whole.uri)
    assert comparable(store.read()) == comparable(whole.read())


def test_a_request_that_is_held_back_comes_at_the_end_and_the_former_handlers_return():
    before, reached = signal.getsignal(signal.SIGINT), []

    def ask() -> None:
        with held_back():
            signal.raise_signal(signal.SIGTERM)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        ask()
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) == before
    with held_back():
        reached.append("no request")
    assert len(reached) == 2
