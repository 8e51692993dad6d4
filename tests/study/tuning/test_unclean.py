"""A run in an environment that is not clean: it copes with all of it at once."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from study.store.store import open_store
from tests.conftest import run_gnc

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

SURROUNDINGS = """\
ip link set lo up && sysctl -qw net.ipv6.conf.all.disable_ipv6=1
mount -t tmpfs -o noexec,size=64k tmpfs {folder} && head -c 65536 /dev/zero > {folder}/full
umask 077 && ulimit -n 1024
export TMPDIR={folder} HOME=/proc/nowhere http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 all_proxy=http://127.0.0.1:9
exec taskset -c {processor} "$@"
"""


def test_a_run_without_network_home_and_room_for_temporary_files_trains(study_file, tmp_path):
    """No route, no IPv6, proxies that lead nowhere, a full TMPDIR without programs, no HOME, few files, one processor."""
    if os.getuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "sysctl", "taskset"))):
        pytest.skip("needs root, unshare, ip, sysctl and taskset")
    gnc = [sys.executable, "-m", "gnc.cli.main", "run", study_file(), tmp_path / "results"]
    with tempfile.TemporaryDirectory(prefix="full-", dir="/tmp") as folder:  # short enough for sockets
        text = SURROUNDINGS.format(folder=folder, processor=min(os.sched_getaffinity(0)))
        done = subprocess.run(
            ["unshare", "--net", "--mount", "sh", "-e", "-c", text, "sh", *map(str, gnc)],
            env={name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"},
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cannot be written to (No space left on device); Ray's files lie in /tmp" in done.stderr
    assert set(open_store(tmp_path / "results").states().values()) == {"complete"}
    rows = tmp_path / "results/rows"
    assert {path.stat().st_mode & 0o777 for path in rows.iterdir()} == {0o600}


# Its own processes, network and folder of Ray: the other user's Ray has the port and the folder that Ray takes by default.
BESIDE_ANOTHER = """\
ip link set lo up
mkdir -p /tmp/ray && mount -t tmpfs -o mode=1777 tmpfs /tmp/ray
look() {{ {python} -c "from study.doctor.this_machine import check_other_rays; print(check_other_rays().told)"; }}
may_read="--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
setpriv --reuid=65534 --regid=65534 --clear-groups $may_read env HOME=/tmp/ray \
    {python} -m ray.scripts.scripts start --head --num-cpus=1 --include-dashboard=false >&2
look
"$@"
look
stat -c %U:%n /tmp/ray/ray_current_cluster
"""


def test_a_run_beside_the_ray_of_another_user_starts_its_own_and_leaves_that_alone(study_file, tmp_path):
    if os.getuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "setpriv"))):
        pytest.skip("needs root, unshare, ip and setpriv")
    gnc = [sys.executable, "-m", "gnc.cli.main", "run", study_file(), tmp_path / "results"]
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-e", "-c", BESIDE_ANOTHER.format(python=sys.executable), "sh", *map(str, gnc)],
        env={name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after, owner = done.stdout.splitlines()
    assert before == after
    assert before.startswith("1 of others; gnc run starts one of its own")
    assert owner == "nobody:/tmp/ray/ray_current_cluster"
    assert set(open_store(tmp_path / "results").states().values()) == {"complete"}


def test_doctor_only_looks_and_says_once_where_rays_files_lie(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_TMPDIR", "RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, "-m", "gnc.cli.main", "doctor", "--results", "a/b"],
        cwd=tmp_path, env=environment | {"TMPDIR": "/absent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout + done.stderr).count("TMPDIR /absent cannot be written to") == 1
    assert "ok      ray " in done.stdout
    assert list(tmp_path.iterdir()) == []


FOREIGN = """
from study.tuning import resources
resources.join_cluster("local")
import ray
print(ray.get_runtime_context().gcs_address, flush=True)
input()
resources.leave_cluster()
"""


def test_a_ray_that_knows_another_token_is_asked_ten_times_and_refused(study_file, tmp_path):
    words = [sys.executable, "-c", FOREIGN]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        address = other.stdout.readline().strip()
        done = run_gnc("run", study_file(), tmp_path / "results", "--address", address, check=False)
        other.communicate("\n")
    assert done.returncode == 2
    assert "--address must name a running Ray cluster that knows this token" in done.stderr
    assert done.stderr.count("InvalidAuthToken") == 10
