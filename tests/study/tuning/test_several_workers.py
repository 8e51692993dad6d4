"""Trials of several workers on real Ray: placed, ended and restarted like others, and everything given back."""

import json
import os
import signal
import subprocess
import sys

import pytest

from study.design.study_file import parse_study
from study.store.store import open_store
from tests.conftest import comparable, run_gnc, start_gnc, wait_for
from tests.study.tuning.test_run import end

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

STUDY = """
name = "workers"
[fixed]
dataset = "synthetic"
encoder = "mlp"
width = 32
depth = 1
num_classes = 12
feature_dim = 3
samples_per_class = 16
test_samples_per_class = 4
batch_size = 31
steps = {steps}
[grid]
workers = {workers}
[resources]
checkpoint_seconds = 0.2
"""


def keys_of(path) -> dict[int, str]:
    return {config.workers: config.key for config in parse_study(path.read_text()).configs}


@pytest.mark.timeout(600)  # two starts of a worker group, on a busy machine a minute each
def test_a_trial_of_two_workers_is_started_again_and_equals_the_one_without_ray(tmp_path):
    study = tmp_path / "workers.toml"
    study.write_text(STUDY.format(steps=600, workers="[1, 2]"))
    keys, store = keys_of(study), open_store(tmp_path / "results")
    run = start_gnc("run", study, store.uri)
    # trials of one worker come first, so this is worker 0 of the other one
    wait_for(lambda: any(store.read_checkpoints(keys[2])), "a checkpoint of the trial of two workers")
    victim = next(trial for trial in store.read_live() if trial.key == keys[2])
    os.kill(victim.process, signal.SIGKILL)
    errors = end(run)
    assert run.returncode == 0, errors
    assert "restarting" in errors
    trials = {trial["workers"]: trial for trial in store.read_trials().to_pylist()}
    assert [trials[workers]["state"] for workers in (1, 2)] == ["complete", "complete"]
    assert trials[2]["attempts"] == 2
    assert store.read_live() == []
    alone = open_store(tmp_path / "alone")
    run_gnc("trial", study, keys[2], "--results", alone.uri)
    assert comparable(alone.read()) == [row for row in comparable(store.read()) if row["trial"] == keys[2]]


ON_TWO_NODES = """
import json, subprocess, sys, time
import ray
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2})
nodes.add_node(num_cpus=1)
from study.tuning import resources as cluster
from study.design.study_file import Resources
cluster.join_cluster(nodes.address)
facts = {"whole": ray.cluster_resources()}
facts["concurrent"] = [cluster.allot(Resources(gpus=0.0), workers=n).concurrent for n in (1, 2, 3)]
facts["gpus"] = [cluster.allot(Resources(), workers=n).gpus for n in (1, 2)]
for name, resources, workers in (("many", Resources(gpus=0.0), 4), ("shared", Resources(gpus=0.5), 2)):
    try:
        cluster.allot(resources, workers=workers)
    except ValueError as error:
        facts[name] = str(error)
started = time.monotonic()
gnc = [sys.executable, "-m", "gnc.cli.main", "run", sys.argv[1], sys.argv[2], "--address", nodes.address]
done = subprocess.run(gnc, capture_output=True, text=True)
facts["run"] = [done.returncode, done.stderr]
deadline = time.monotonic() + 60
while ray.available_resources().get("CPU") != 3 and time.monotonic() < deadline:
    time.sleep(0.5)
facts["left"] = {name: ray.available_resources().get(name) for name in ("CPU", "GPU")}
facts["groups"] = [group["state"] for group in ray.util.placement_group_table().values()]
print(json.dumps(facts))
ray.shutdown()
nodes.shutdown()
"""


@pytest.mark.timeout(600)
def test_workers_spread_over_machines_and_all_is_given_back(tmp_path):
    study = tmp_path / "workers.toml"
    # three workers fit on no one machine; 10^13 dimensions fit into no memory
    text = STUDY.format(steps=40, workers="[3]").replace("feature_dim = 3\n", "")
    study.write_text(text.replace("[resources]", f"feature_dim = [3, {10**13}]\n[resources]\ngpus = 0"))
    command = [sys.executable, "-c", ON_TWO_NODES, str(study), str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert facts["concurrent"] == [3, 1, 1]
    assert facts["gpus"] == [0.25, 1.0]
    assert (
        "[resources] must fit on the cluster, got 4 workers per trial with cpus = 1 and gpus = 0 each" in facts["many"]
    )
    assert "where 3 fit: the machines have" in facts["many"]
    assert "gpus must be a whole number for trials of several workers, got 0.5" in facts["shared"]
    code, errors = facts["run"]
    assert code == 1, errors
    assert (facts["left"], set(facts["groups"])) == ({"CPU": 3, "GPU": 2}, {"REMOVED"})
    store = open_store(tmp_path / "results")
    trials = sorted(store.read_trials().to_pylist(), key=lambda trial: trial["state"])
    assert [trial["state"] for trial in trials] == ["complete", "failed"]
    failures = store.failures()[trials[1]["trial"]]
    assert [failure["attempt"] for failure in failures] == [1, 2, 3]  # as often as its attempts last
    for failure in failures:
        assert "Traceback" in failure["traceback"]
        assert "in make_classifier" in failure["traceback"] or "in make_encoder" in failure["traceback"]
