"""What a process may use: control groups and SLURM's grant from made-up files, folders that are really short of room."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from study.design.errors import StudyError
from study.execution import granted


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes control groups: the membership line, and the content of files below the mount."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def write(membership: str, **files: str) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "groups" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(granted, "MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(granted, "GROUPS", tmp_path / "groups")

    return write


def test_quotas_of_version_2_hold_in_the_own_group_and_above(groups):
    groups("0::/job/step\n", job__cpu_dot_max="150000 100000", job__step__cpu_dot_max="max 100000")
    assert granted.cpu_quota() == 1.5
    assert granted.usable_cpus() == 1
    groups("0::/job/step\n", job__memory_dot_max="max", job__step__memory_dot_max="1048576\n")
    assert granted.memory_limit() == granted.usable_memory() == 1 << 20


def test_quotas_of_version_1_are_read_by_controller(groups):
    groups("4:memory:/user\n1:cpu,cpuacct:/\n", cpu__cpu_dot_cfs_quota_us="-1", cpu__cpu_dot_cfs_period_us="100000")
    assert granted.cpu_quota() == float("inf")
    groups("4:memory:/user\n1:cpu,cpuacct:/\n", cpu__cpu_dot_cfs_quota_us="300000", cpu__cpu_dot_cfs_period_us="100000")
    assert granted.cpu_quota() == 3
    groups("4:memory:/user\n", memory__user__memory_dot_limit_in_bytes="4096")
    assert granted.memory_limit() == 4096
    groups("4:memory:/user\n", memory__user__memory_dot_limit_in_bytes="9223372036854771712")  # where none is set
    assert granted.memory_limit() == float("inf")


def test_a_group_that_a_container_does_not_see_is_looked_for_at_the_mount(groups):
    groups("0::/outside/of/the/container\n", cpu_dot_max="200000 100000")
    assert granted.cpu_quota() == 2


def test_affinity_limits_processors():
    allowed = sorted(os.sched_getaffinity(0))[:1]
    code = f"import os; os.sched_setaffinity(0, {allowed}); from study.execution import granted; print(granted.usable_cpus())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_slurm_grants_within_a_job_alone(groups, monkeypatch):
    groups("")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "2")
    assert granted.slurm_cpus() == 0
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert (granted.usable_cpus(), granted.usable_memory()) == (1, 2 << 20)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "3")
    assert granted.usable_memory() == 3 << 20


@pytest.mark.parametrize("kind", ["long", "absent", "a file"])
def test_a_tmpdir_that_cannot_be_used_is_passed_over_and_told(kind, tmp_path, monkeypatch):
    folder = {"long": tmp_path / ("a" * 80), "absent": Path("/nowhere/x"), "a file": Path("/etc/passwd")}[kind]
    if kind == "long":
        folder.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    base, note = granted.temporary_base()
    assert str(base) == "/tmp"
    assert note.startswith(f"TMPDIR {folder} ")
    assert note.endswith("; Ray's files lie in /tmp")


def test_a_full_folder_cannot_be_used():
    if Path("/dev/full").exists():  # what a full disk answers, whatever is written
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(granted.tempfile, "NamedTemporaryFile", lambda **_: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
            assert granted.unusable(Path("/tmp")) == "cannot be written to (No space left on device)"


def test_a_ray_tmpdir_that_cannot_be_used_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("b" * 60)))
    with pytest.raises(
        StudyError, match=r"got RAY_TMPDIR /.* is too long a path for sockets .*Set RAY_TMPDIR to a short folder"
    ):
        granted.temporary_base()


def test_an_own_folder_goes_with_its_process_and_not_before(monkeypatch):
    with granted.tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as base:
        monkeypatch.setenv("RAY_TMPDIR", base)
        code = "import os; from study.execution.granted import OwnFolder; print(OwnFolder().path); os._exit(9)"
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        left = Path(killed.stdout.strip())
        assert left.is_dir()
        mine = granted.OwnFolder()
        assert not left.exists()
        other = granted.OwnFolder()
        assert mine.path.is_dir()
        with open(mine.path / granted.LOCK) as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for folder in (mine, other):
            folder.remove()
            assert not folder.path.exists()


def test_what_a_ray_that_ended_late_left_goes_after_an_hour_and_nothing_else(monkeypatch):
    with granted.tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as base:
        monkeypatch.setenv("RAY_TMPDIR", base)
        rays, young, ours = (Path(base) / f"gnc-{name}" for name in ("12345678", "87654321", "results1"))
        for folder, inside in ((rays, "r"), (young, "r"), (ours, "rows")):
            (folder / inside).mkdir(parents=True)
        for folder in (rays, ours):
            os.utime(folder, (0, 0))
        granted.OwnFolder().remove()
        assert [folder.exists() for folder in (rays, young, ours)] == [False, True, True]


def test_the_longest_socket_of_ray_fits_where_a_folder_counts_as_short_enough():
    base = "/" + "x" * (granted.BASE_BYTES - 1)
    assert "too long" not in granted.unusable(Path(base))
    assert "too long" in granted.unusable(Path(base + "x"))
