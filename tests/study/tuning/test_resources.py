"""A Ray cluster of two nodes on this machine: what fits, and whether both see the results folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
from study.training.data import data_folder
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
