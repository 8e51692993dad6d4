"""A Ray cluster of two nodes on this machine: what fits, and whether both see the results folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.design.errors import StudyError
from study.tuning import resources

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.xdist_group("ray")

TWO_NODES = """
import json, sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes.add_node(num_cpus=3)
from study.tuning import resources as cluster
from study.design.study_file import Resources
from study.store.store import open_store
cluster.join_cluster(nodes.address)
store, facts = open_store(sys.argv[1]), {}
cluster.check_shared_folder(store)
facts["left"] = store.storage.entries("")
facts["concurrent"] = [cluster.allot(Resources(cpus=cpus)).concurrent for cpus in (1.0, 1.5, 3.0)]
try:
    cluster.allot(Resources(cpus=3.5))
except ValueError as error:
    facts["too_much"] = str(error)
# what a worker does whose folder of that name is its own disk
cluster._write_nonce = lambda results, nonce: open_store(results + "-elsewhere").storage.write(nonce, b"here")
try:
    cluster.check_shared_folder(store)
except OSError as error:
    facts["apart"] = str(error)
print(json.dumps(facts))
cluster.ray.shutdown()
nodes.shutdown()
"""


@pytest.mark.ray
def test_placement_and_the_shared_folder_are_checked_on_every_node(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO_NODES, str(tmp_path / "results")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert facts["left"] == []
    assert facts["concurrent"] == [4, 2, 1]
    assert "got cpus = 3.5 and gpus = 0 per trial where the machines have" in facts["too_much"]
    assert "results folder must be shared by all machines" in facts["apart"]
    assert "Name a network folder or an object store" in facts["apart"]


AWAY_FROM_HOME = """
import os, ray
from pathlib import Path
from gnc_models.datasets.stored.layouts import data_folder
from study.tuning.resources import join_cluster
join_cluster(None)
print(os.environ.get("GNC_DATA"))
def found():
    import study
    os.chdir("/")
    return study.__file__, str(data_folder())
print(*ray.get(ray.remote(found).remote()), sep="\\n")
ray.shutdown()
"""


def test_workers_find_our_packages_and_the_data_where_this_process_does(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study/__init__.py").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/run.py").write_text(AWAY_FROM_HOME)
    environment = {name: value for name, value in os.environ.items() if name != "GNC_DATA"}
    command = [sys.executable, "scripts/run.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["None", str(ROOT / "study/__init__.py"), str(tmp_path / "data")]


def test_an_address_that_leads_nowhere_is_answered_with_what_named_it(monkeypatch):
    monkeypatch.setattr(resources, "CONNECT_SECONDS", 0.5)
    with socket.socket() as silent, socket.socket() as closed:
        for each in (silent, closed):
            each.bind(("127.0.0.1", 0))
        silent.listen(1)
        dead, other = (f"127.0.0.1:{each.getsockname()[1]}" for each in (closed, silent))
        monkeypatch.setenv("RAY_ADDRESS", dead)
        with pytest.raises(
            StudyError, match=rf"RAY_ADDRESS must .* got '{dead}': Connection refused.*unset RAY_ADDRESS"
        ):
            resources.join_cluster(None)
        with pytest.raises(
            StudyError, match=rf"--address must .* got '{other}': nothing answered within.*leave --address"
        ):
            resources.join_cluster(other)  # something listens there, and is no Ray
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")  # what `ray job submit` is told
    with pytest.raises(StudyError, match="an address is host:port"):
        resources.join_cluster(None)


@pytest.mark.parametrize(("slow_starts", "tried"), [(1, 2), (4, 5), (5, 5)])
def test_a_ray_that_a_busy_machine_does_not_start_in_time_is_started_again(slow_starts, tried, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folders, daemons = [], []

    def start(_: str, **options: object) -> None:
        folders.append(Path(str(options["_temp_dir"])).parent)
        daemon = [sys.executable, "-c", "import sys; sys.stdin.read()", f"--temp-dir={options['_temp_dir']}"]
        daemons.append(subprocess.Popen(daemon, stdin=subprocess.PIPE))
        while not Path(f"/proc/{daemons[-1].pid}/cmdline").read_bytes():
            time.sleep(0.01)  # the kernel shows the words of a program a moment after it has begun
        if len(folders) <= slow_starts:
            raise Exception("The current node timed out during startup. This could happen because ...")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr(resources.ray, "init", start)
    try:
        if slow_starts < tried:
            resources.join_cluster(None)
        else:
            with pytest.raises(
                StudyError, match="Ray must start on this machine, got Exception: The current node timed"
            ):
                resources.join_cluster(None)
        assert len(folders) == tried == len(set(folders))
        assert [folder.exists() for folder in folders] == [False] * slow_starts + [True] * (tried - slow_starts)
        assert capsys.readouterr().err.count("this machine is busy") == tried - 1
    finally:
        resources.leave_cluster()
        ended = [daemon.wait() for daemon in daemons]
    assert ended == [-signal.SIGKILL] * tried
    assert not any(folder.exists() for folder in folders)
