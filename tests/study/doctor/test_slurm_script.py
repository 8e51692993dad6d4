"""The script of `gnc slurm` without a SLURM: what is refused first, what the script asks for, and what it does when warned."""

import os
import re
import signal
import stat
import subprocess
import sys

import pytest

from gnc.cli.main import main
from study.design.errors import StudyError
from study.doctor.slurm_script import UNASKED, ask_slurm, check_folder, seconds_of
from study.execution.run_mark import VARIABLE, check_tasks_share
from study.store.storage import FolderError
from study.store.store import open_store
from tests.conftest import wait_for


@pytest.fixture(autouse=True)
def _without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def script(study, *more, capsys):
    assert main(["slurm", str(study), "r", "--cpus", "2", "--tasks", "2", "--time", "4:00:00", *more]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("90:30", 5430), ("4:00:00", 14400), ("1-12", 129600), ("1-12:30", 131400), ("2-0:0:1", 172801)],
)
def test_time_limits_are_read_as_slurm_writes_them(time, seconds):
    assert seconds_of(time) == seconds


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--time", "4h"], "--time must be a limit as SLURM writes it"),
        (
            ["--time", "3"],
            "--time must be more than twice the 120 s of --warning, got '3', which is 180 s. Ask for more time",
        ),
        (["--time", "9999999999"], "for some years at most, got '9999999999'"),
        (
            ["--memory", "99999999999T"],
            "--memory must be a number with K, M, G or T below 1000T, such as 16G, got '999",
        ),
        (["--gpus", "99999"], "--gpus must be a number or TYPE:NUMBER"),
        (["--tasks", "0"], "--tasks must be a whole number from 1 to 65535, got 0"),
        (["--gpus", "gpu:1"], "--gpus must be a number or TYPE:NUMBER"),
        (["--gpus", "a100:0"], "--gpus must be a number or TYPE:NUMBER"),
        (["--time", "\u0664:00:00"], "--time must be a limit as SLURM writes it"),
        (["--gpus", "many"], "--gpus must be a number or TYPE:NUMBER"),
        (["--memory", "16 GB"], "--memory must be a number with K, M, G or T below 1000T, such as 16G, got '16 GB'"),
        (["--partition", "a\n#SBATCH --uid=0"], "--partition must be a name"),
        (["--cpus", "1"], "--cpus must be at least 2, which one trial of small takes, got 1. Give a task more"),
    ],
)
def test_what_slurm_would_refuse_is_refused_in_one_line(more, words, study_file, capsys):
    study = study_file(extra="cpus = 2\n")
    assert main(["slurm", str(study), "--cpus", "2", "--tasks", "2", "--time", "60", *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1


def test_the_script_asks_for_what_was_said_and_is_not_submitted(study_file, tmp_path, capsys):
    told = script(study_file(), "--gpus", "a100:1", "--partition", "gpu", "--where", "num_classes > 6", capsys=capsys)
    assert "there is no sbatch here" in told.err
    asked = [
        word for line in re.findall(r"^#SBATCH (.*)$", told.out, re.MULTILINE) for word in re.findall(r"--(\S+)", line)
    ]
    assert {"array=0-1", "cpus-per-task=2", "gres=gpu:a100:1", "time=4:00:00", "partition=gpu", "requeue"} <= set(asked)
    assert "signal=B:USR1@120" in asked
    assert f"run {tmp_path}/small.toml {tmp_path}/r --where 'num_classes > 6' &" in told.out
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("tasks", "is_told"), [("1001", False), ("1002", True)])
def test_an_array_larger_than_usual_is_told_where_slurm_cannot_be_asked(tasks, is_told, study_file, capsys):
    told = script(study_file(), "--tasks", tasks, capsys=capsys).err
    assert ("an array of more than 1001 tasks needs a larger MaxArraySize than usual" in told) == is_told


def test_a_task_on_a_node_that_has_not_the_folder_of_submission_is_refused(study_file, tmp_path, capsys):
    text = re.sub(
        r"^.* gnc.cli.main run .*&$", "echo runs &", script(study_file(), capsys=capsys).out, flags=re.MULTILINE
    )
    (tmp_path / "other").mkdir()
    task = subprocess.run(["/bin/bash", "-c", text], cwd="other", capture_output=True, text=True, check=False)
    assert (task.returncode, task.stdout) == (2, "")
    assert f"must be shared by all nodes, this one has no {tmp_path}" in task.stderr
    (tmp_path / "link").symlink_to(tmp_path)
    assert subprocess.run(["/bin/bash", "-c", text], cwd="link", capture_output=True, check=False).stdout == b"runs\n"


@pytest.mark.parametrize("name", ["my lab's $HOME dir", "`touch pwned` $(touch pwned)"])
def test_a_folder_whose_name_a_shell_would_read_is_taken_as_it_is(name, study_file, tmp_path, capsys, monkeypatch):
    (tmp_path / name).mkdir()
    study = study_file()
    monkeypatch.chdir(tmp_path / name)
    run = f"{sys.executable} -c 'import time; time.sleep(0.3)' &"
    text = re.sub(r"^.* gnc.cli.main run .*&$", run, script(study, capsys=capsys).out, flags=re.MULTILINE)
    assert f'#SBATCH --chdir="{tmp_path / name}"\n' in text
    for there, outcome in ((tmp_path / name, 0), (tmp_path, 2)):
        task = subprocess.run(
            ["/bin/bash", "-c", text], cwd=there, capture_output=True, text=True, check=False,
            env=os.environ | {"SLURM_ARRAY_JOB_ID": "7", "POSIXLY_CORRECT": "1"},
        )  # fmt: skip
        assert task.returncode == outcome, task.stderr
    assert task.stderr == f"the folder of gnc slurm must be shared by all nodes, this one has no {tmp_path / name}\n"
    assert not (tmp_path / "pwned").exists()


def test_a_folder_whose_name_slurm_would_change_is_refused(study_file, tmp_path, capsys, monkeypatch):
    (tmp_path / "back\\slash").mkdir()
    study = study_file()
    monkeypatch.chdir(tmp_path / "back\\slash")
    assert main(["slurm", str(study), "--cpus", "2", "--tasks", "2", "--time", "60"]) == 2
    assert "the name of the current folder must hold no" in capsys.readouterr().err


def test_minutes_that_may_be_meant_as_hours_are_told(study_file, capsys):
    assert (
        "note: --time 8:00 is minutes:seconds; four hours are 4:00:00\n"
        in script(study_file(), "--time", "8:00", capsys=capsys).err
    )


def test_slurm_itself_is_asked_where_it_is_there(tmp_path):
    program(tmp_path / "bin", "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(StudyError, match=r"SLURM must accept the options, got: invalid partition specified: x\."):
        ask_slurm("")
    program(tmp_path / "bin", "sbatch", "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1")
    assert ask_slurm("") == f"{UNASKED} (Unable to contact slurm controller)"


RUN = """\
import signal, sys, time
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda *_: sys.exit({outcome}))
print("runs", flush=True)
time.sleep({seconds})
"""


@pytest.mark.parametrize(
    ("told", "outcome", "requeued"),
    [
        (signal.SIGUSR1, 1, True),
        (signal.SIGUSR1, 0, False),
        (signal.SIGUSR1, 2, False),
        (signal.SIGTERM, 1, False),
        (None, 0, False),
    ],
)
def test_a_task_that_was_warned_goes_back_into_the_queue_if_trials_are_left(
    told, outcome, requeued, study_file, tmp_path, capsys
):
    (tmp_path / "run.py").write_text(RUN.format(outcome=outcome, seconds=60 if told else 0))
    text = script(study_file(), capsys=capsys).out
    text = re.sub(r"^.* gnc.cli.main run .*&$", f"{sys.executable} run.py &", text, flags=re.MULTILINE)
    program(tmp_path / "bin", "scontrol", 'echo "$@"')
    job = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "RAY_ADDRESS": "elsewhere"}
    with open("log", "w") as log:
        task = subprocess.Popen(["/bin/bash", "-c", text], stdout=log, stderr=log, env=os.environ | job)
    wait_for(lambda: "runs" in open("log").read(), "the run to begin")  # noqa: SIM115
    if told:
        task.send_signal(told)
    assert task.wait(30) == outcome
    assert open("log").read() == "runs\n" + ("requeue 7_3\n" if requeued else "")  # noqa: SIM115


def test_a_task_reads_in_the_logs_of_others_that_its_folder_is_another(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gnc-small-7_"))
    here, there = open_store(tmp_path / "here"), open_store(tmp_path / "there")
    check_tasks_share(there)
    (tmp_path / "gnc-small-7_0.log").write_text(f"small: 4 trials\n{capfd.readouterr().err}")
    (tmp_path / "gnc-small-8_0.log").write_text("results folder /x of other is 0123456789abcdef\n")  # another array's
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert "gnc-small-7_1.log is not seen here, so nobody can tell" in check_tasks_share(open_store(there.uri))
    check = check_folder(open_store(there.uri))
    assert (check.state, "gnc-small-7_1.log is not seen here" in check.told) == ("skipped", True)
    (tmp_path / "gnc-small-7_1.log").write_text("")
    assert check_tasks_share(open_store(there.uri)) == ""
    assert check_folder(open_store(there.uri)).state == "ok"
    with pytest.raises(
        FolderError, match=r"shared by all tasks .* another on \S+ \(gnc-small-7_0\.log\)\. Name a network"
    ):
        check_tasks_share(here)
    monkeypatch.delenv(VARIABLE)
    check_tasks_share(here)
