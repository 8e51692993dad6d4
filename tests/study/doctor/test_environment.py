"""What `gnc doctor` says of an environment that is not clean, and what is granted within a SLURM job."""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gnc.cli.main import main
from study.doctor import ray_cluster, slurm_script, this_machine
from study.doctor.check import guarded
from study.doctor.this_machine import check_environment
from study.execution import granted
from study.store.store import open_store


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in (*this_machine.PROXIES, this_machine.RAY_PROXY, "RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "GNC_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def lines(results="results"):
    return {check.name: check for check in check_environment(open_store(results))}


def test_a_clean_environment_is_ok_in_every_line(tmp_path):
    found = lines(tmp_path)
    assert {name: check.line() for name, check in found.items() if check.state != "ok"} == {}
    assert len(found) == 8


@pytest.mark.parametrize(
    ("name", "value", "line", "words"),
    [
        (
            "TMPDIR",
            "/tmp/" + "x" * 90,
            "temporary",
            "is too long a path for sockets (95 bytes, at most 28); Ray's files",
        ),
        ("TMPDIR", "/absent/x", "temporary", "TMPDIR /absent/x cannot be written to"),
        ("GNC_CACHE", __file__, "home", "cannot be written: codes that take long are computed anew"),
        ("HOME", "/proc/read-only", "home", "cannot be written: codes that take long are computed anew"),
        (
            "https_proxy",
            "http://proxy:1",
            "proxies",
            "https_proxy: object stores and downloads go through it, Ray does not",
        ),
    ],
)
def test_what_a_run_copes_with_is_told(name, value, line, words, monkeypatch, tmp_path):
    monkeypatch.setenv(name, value)
    check = lines(tmp_path)[line]
    assert check.state == "ok"
    assert words in check.told


def test_what_has_to_be_mended_fails_with_its_cure(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 90)
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv(this_machine.RAY_PROXY, "1")
    mask = os.umask(0o277)
    try:
        failed = {name: check for name, check in lines(tmp_path / "temperature=0.7").items() if check.state == "FAIL"}
    finally:
        os.umask(mask)
    assert set(failed) == {"temporary", "proxies", "umask", "path"}
    assert all(check.cure for check in failed.values())
    assert "such as /tmp" in failed["temporary"].cure


def test_few_open_files_or_processes_fail(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # root may start as many as it likes
    check = this_machine.check_limits()
    assert check.state == "FAIL"
    assert "at most 256 open files" in check.told
    assert "at most 256 processes and threads" in check.told


def test_a_ray_of_this_user_is_counted(tmp_path):
    path = tmp_path / "gcs_server"
    path.symlink_to("/bin/sleep")
    before = this_machine.check_other_rays().told
    with subprocess.Popen([path, "60"]) as process:
        # The start returns when the new program is under way; the kernel gives it its name a moment later.
        name = Path(f"/proc/{process.pid}/comm")
        while name.read_text() != "gcs_server\n":
            time.sleep(0.01)
        told = this_machine.check_other_rays().told
        process.kill()
    assert told != before


def test_an_address_that_leads_nowhere_is_a_line(monkeypatch):
    assert ray_cluster.check_named_address().state == "ok"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed.getsockname()[1]}")
        check = ray_cluster.check_named_address()
    assert (check.state, check.cure) == ("FAIL", "Unset RAY_ADDRESS.")
    assert "Connection refused" in check.told


def test_a_path_that_readers_take_for_data_is_warned_of(tmp_path, study_file, monkeypatch, capsys):
    folder = tmp_path / "temperature=0.7/r"
    assert open_store(folder).storage.read_as_columns().startswith("temperature=0.7 in the path")
    assert open_store(tmp_path).storage.read_as_columns() == ""
    assert open_store(f"file://{tmp_path}/a=b/c").storage.read_as_columns().startswith("a=b")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main(["run", str(study_file()), str(folder)]) == 2  # the address leads nowhere: nothing is run
    assert "warning: temperature=0.7 in the path of the results is read as a column" in capsys.readouterr().err


def test_a_run_says_what_it_will_do_and_in_which_order_before_it_loads_ray(study_file, tmp_path):
    environment_ = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    words = [sys.executable, "-X", "importtime", "-m", "gnc.cli.main", "run", str(study_file()), str(tmp_path / "r")]
    done = subprocess.run(words, env=environment_, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:") or line.endswith(" ray")]
    assert said[:2] == [
        "small: 4 trials to run, 0 stored; starting Ray",
        "first K=6 seed=0, K=6 seed=1, ..., last K=12 seed=1",
    ]
    assert said[2].endswith(" ray")


def test_outside_a_job_there_is_no_allocation():
    (check,) = slurm_script.check_allocation(None)
    assert check.state == "FAIL"
    assert "srun gnc doctor --slurm" in check.cure


def test_within_a_job_what_is_granted_stands_beside_what_is_seen(monkeypatch, tmp_path):
    for name, value in {
        "JOB_ID": "7", "ARRAY_TASK_ID": "3", "CPUS_ON_NODE": "64", "MEM_PER_NODE": "1024", "GPUS_ON_NODE": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    checks = {check.name: check for check in slurm_script.check_allocation(open_store(tmp_path))}
    assert checks["allocation"].told.startswith("job 7, task 3")
    assert checks["CPUs"].state == "FAIL"  # 64 granted, and this machine has fewer
    assert "64 granted" in checks["CPUs"].told
    assert "1.0 GiB granted" in checks["memory"].told
    assert "seen, 2 granted, CUDA_VISIBLE_DEVICES is 0,1" in checks["GPUs"].told
    assert checks["folder shared"].state == "skipped"
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    assert slurm_script.check_cpus().state == "ok"
    assert granted.usable_cpus() == 1


@pytest.mark.parametrize(
    ("said", "count"), [("2", 2), ("gpu:1", 1), ("gpu:a100:2(S:0-1),gpu:1", 3), ("many", 4), ("", 4), (None, 4)]
)
def test_granted_gpus_are_read_in_every_form_and_else_counted(said, count, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_GPUS", "0,1,2,3")
    if said is not None:
        monkeypatch.setenv("SLURM_GPUS_ON_NODE", said)
    assert f"seen, {count} granted" in slurm_script.check_gpus().told


def test_what_squeue_says_stands_in_the_line_of_the_time_left(monkeypatch, tmp_path):
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    check = guarded("time left", lambda: slurm_script.check_time_left("7"), "Ask squeue on a login node.")
    assert (check.state, check.told) == ("FAIL", "slurm_load_jobs error: Invalid job id specified")


def test_the_last_task_of_an_array_asks_for_its_own_time_left(monkeypatch, tmp_path):
    """SLURM gives it the number of the array as its job's, under which squeue lists every task."""
    (tmp_path / "squeue").write_text('#!/bin/sh\necho "$3"\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert slurm_script.check_time_left("7").told.startswith("7_3 ")


def test_a_temporary_folder_without_execution_is_told():
    code = "from study.doctor.this_machine import check_temporary; print(check_temporary().told)"
    with tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as base:  # short enough for sockets
        mount = f"mount -t tmpfs -o noexec tmpfs {base}"
        if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
            pytest.skip("a mount namespace needs root, which this machine does not give")
        inside = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, code]
        done = subprocess.run(
            inside, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"RAY_TMPDIR": base}
        )
        assert done.stdout == f"{base}; programs may not start there, and none does\n"
