"""GPUs on a machine that has none: Ray's logical ones place trials; a process that keeps memory is replaced."""

import json
import subprocess
import sys

import pytest

from study.store.store import open_store
from study.training.trial import HELD_LIMIT, held_bytes, is_free_again

STUDY = """
name = "logical"
[fixed]
dataset = "synthetic"
encoder = "mlp"
width = 8
depth = 1
num_classes = 6
feature_dim = 3
samples_per_class = 6
batch_size = 18
steps = {steps}
[grid]
seed = {seeds}
[resources]
cpus = 0.5
gpus = {gpus}
attempts = 2
"""

ON_LOGICAL_GPUS = """
import json, os, sys
import ray
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2})
from study.tuning import experiment as tuning
from study.tuning import resources as cluster
from study.design.study_file import read_study
from study.scheduling.sharing import ListedTrials
from study.store.store import open_store
from study.tuning.run_view import View

class Watching(View):
    most = 0
    def started(self, key, name):
        super().started(key, name)
        self.most = max(self.most, len(self._running))

def keeps(gigabytes, noted):
    def measure():
        with open(noted, "a") as file:
            print(os.getpid(), file=file)
        return gigabytes << 30
    return measure

cluster.join_cluster(nodes.address)
facts = {}
folder = sys.argv[1]
for name, measured, concurrent in (
    ("half", None, None),
    ("whole", keeps(0, f"{folder}/whole.processes"), None),
    ("kept", keeps(1, f"{folder}/kept.processes"), 1),
):
    study, store = read_study(f"{folder}/{name}.toml"), open_store(f"{folder}/{name}")
    allotment = cluster.allot(study.resources)
    configs = list(study.configs)
    view = Watching(len(configs))
    finished = tuning.run_trials(study, {1: ListedTrials(configs)}, store, {1: allotment}, view, concurrent=concurrent, held_bytes=measured)
    facts[name] = {"fit": allotment.concurrent, "most": view.most, "finished": finished, "states": view.ended_states}
print(json.dumps(facts))
cluster.leave_cluster()
nodes.shutdown()
"""


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_logical_gpus_are_never_oversubscribed_and_a_process_that_keeps_memory_is_replaced(tmp_path):
    for name, steps, gpus, seeds in (
        ("half", 100, 0.5, list(range(6))),
        ("whole", 100, 1, list(range(3))),
        ("kept", 2, 1, [0, 1]),
    ):
        (tmp_path / f"{name}.toml").write_text(STUDY.format(steps=steps, gpus=gpus, seeds=seeds))
    command = [sys.executable, "-c", ON_LOGICAL_GPUS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert (facts["half"]["fit"], facts["whole"]["fit"]) == (4, 2)
    assert 1 <= facts["half"]["most"] <= 4
    assert 1 <= facts["whole"]["most"] <= 2
    for name in facts:
        trials = open_store(tmp_path / name).read_trials().to_pylist()
        assert len(trials) == len(facts[name]["states"])
        assert {(trial["state"], trial["attempts"], trial["gpu_model"]) for trial in trials} == {("complete", 1, None)}
        assert set(facts[name]["states"].values()) == {"complete"}
    replaced, reused = ((tmp_path / f"{name}.processes").read_text().split() for name in ("kept", "whole"))
    assert len(replaced) == len(set(replaced)) == 2  # each trial was measured once, each in a process of its own
    assert len(reused) == 3
    assert len(set(reused)) <= 2


def test_a_process_is_free_again_up_to_the_workspaces_of_libraries():
    assert is_free_again(0)
    assert is_free_again(HELD_LIMIT)
    assert not is_free_again(HELD_LIMIT + 1)


def test_a_process_that_never_touched_a_gpu_keeps_nothing_on_it():
    assert held_bytes() == 0
