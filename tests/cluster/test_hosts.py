"""Three hosts of one's own, started by `ray up` with cluster-own.yaml: a study survives what happens to them.

Each host has its own address, process ids, mounts, home and sshd (see hosts). The results lie in a folder that all see.
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from study.design.study_file import parse_study
from study.store.attempts import Live
from study.store.store import Store, open_store
from tests.cluster import hosts
from tests.cluster.conftest import ROOT
from tests.conftest import TINY, comparable
from tests.conftest import wait_for as wait_for_seconds

STUDY = f"""
name = "hosts"
[fixed]
{TINY}batch_size = 32
learning_rate = 0.1
steps = 1200
feature_dim = 3
[grid]
num_classes = [6, 8, 10, 12, 14]
seed = [0, 1, 2, 3, 4, 5]
[resources]
checkpoint_seconds = 0.5
attempts = 8
"""
TRIALS = 30
# Of a machine that is shared: one CPU each, and little room for objects, of which a study has none worth the name.
SMALL = " --num-cpus=1 --object-store-memory=100000000"
wait_for = functools.partial(wait_for_seconds, seconds=240)  # machines join slowly
PORT = 18265  # of the dashboard, tunnelled to the user's own machine


@dataclasses.dataclass
class Cluster:
    """The user's own machine on the hosts' network, its cluster file, and the hosts."""

    network: hosts.Network
    folder: Path
    file: Path
    shared: Path  # a folder that every host sees
    partly: Path  # one that the last host has a disk of its own mounted over

    @property
    def head(self) -> hosts.Host:
        return self.network.hosts[0]

    @property
    def workers(self) -> list[hosts.Host]:
        return self.network.hosts[1:]

    def words(self, *command: str) -> list[str]:
        """The words that run a Python module at the user's own machine."""
        return ["ip", "netns", "exec", self.network.prefix, sys.executable, "-m", *command]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        settings = {
            "HOME": str(self.folder / "home"),
            "RAY_TMPDIR": str(self.folder / "tmp"),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
        }
        return {**kept, **settings}

    def run(self, *command: str, seconds: int = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*command), capture_output=True, text=True, check=False, timeout=seconds, cwd=self.folder,
            env=self.environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def ray(self, *words: str, seconds: int = 300) -> subprocess.CompletedProcess[str]:
        return self.run("ray.scripts.scripts", *words, seconds=seconds)

    def on_head(self, command: str, seconds: int = 300) -> subprocess.CompletedProcess[str]:
        """A shell command on the head, as `ray exec` gives it."""
        words = self.network.ssh(self.head, f"source ~/.bashrc; {command}")
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)

    def nodes(self) -> int:
        """How many machines have joined."""
        code = "import ray; ray.init('auto', logging_level=40, log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
        printed = self.on_head(f'python -c "{code}"').stdout.split()
        return int(printed[-1]) if printed and printed[-1].isdigit() else 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """`ray up`, and all three hosts joined."""
    if why := hosts.missing():
        pytest.skip(f"no hosts can be made here: {why}")
    root = tmp_path_factory.mktemp("hosts")
    shared, partly, folder = root / "shared", root / "partly", root / "user"
    for path in (shared, partly, folder / "home", folder / "tmp", folder / "dist"):
        path.mkdir(parents=True)
    network = hosts.Network(root)
    try:
        network.start()
        for number in range(3):
            own_disk = [f"mount -t tmpfs -o size=16m tmpfs {partly}"] if number == 2 else []
            host = network.add_host(mounts=own_disk)
            # The environment that the set-up commands would make is there already.
            (host.private / "home/gnc").mkdir(parents=True)
            (host.private / "home/gnc/venv").symlink_to(sys.prefix)
        made = Cluster(network, folder, write_cluster_file(network, folder, shared), shared, partly)
        assert made.ray("get-auth-token", "--generate").returncode == 0
        (folder / "home/.ray/auth_token").chmod(0o600)
        up = made.ray("up", str(made.file), "--yes", "--no-config-cache")
        assert up.returncode == 0, (up.stdout + up.stderr)[-4000:]
        wait_for(lambda: made.nodes() == 3, "the third machine's joining")
        yield made
    finally:
        network.end()


def write_cluster_file(network: hosts.Network, folder: Path, shared: Path) -> Path:
    """cluster-own.yaml of the repository with these hosts' addresses, and small Rays."""
    text = (ROOT / "cluster-own.yaml").read_text()
    config = yaml.safe_load(text)
    config["cluster_name"] = f"gnc-test-{os.getpid()}"
    config["metadata"]["results"] = str(shared / "results")
    config["provider"] |= {"head_ip": network.hosts[0].address, "worker_ips": [h.address for h in network.hosts[1:]]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(network.root / "user_key")}
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[name] = [command + SMALL if "ray start" in command else command for command in config[name]]
    on_aws = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    config["worker_start_ray_commands"].append(on_aws["worker_start_ray_commands"][-1])
    (folder / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes())
    (folder / "studies").mkdir()
    (folder / "studies/hosts.toml").write_text(STUDY)
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    return folder / "own.yaml"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    """The study on one machine, where nothing happened: what the disturbed run must equal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "hosts.toml").write_text(STUDY)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "gnc.cli.main", "run", str(folder / "hosts.toml"), str(folder / "results")],
        capture_output=True, text=True, check=False, timeout=600, env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return open_store(folder / "results")


def test_the_doctor_reaches_every_machine_and_compares_them(cluster):
    before = cluster.run("gnc.cli.main", "doctor", str(cluster.file), "--study", "studies/hosts.toml")
    assert before.returncode == 0, before.stdout + before.stderr
    assert before.stdout.count("answers, Python 3.") == 3
    assert "is one folder for all 3 machines" in before.stdout
    after = cluster.on_head(f"gnc doctor --address auto --results {cluster.shared}/probed --json")
    assert after.returncode == 0, after.stdout + after.stderr
    told = {check["name"]: check["told"] for check in json.loads(after.stdout)["checks"]}
    assert told["versions"].startswith("3 machines have python 3.")
    assert "every machine writes to" in told["results seen"]


def test_the_watch_for_spot_notices_goes_on_beside_ray(cluster):
    for host in cluster.workers:
        assert host.processes("study.doctor.spot_notice")
        assert host.inside("cat", str(host.private / "home/spot-notice.log")).stdout == ""


def test_one_host_with_a_results_folder_of_its_own_is_refused(cluster):
    refused = cluster.on_head(f"gnc run ~/gnc/studies/hosts.toml {cluster.partly} --address auto")
    assert refused.returncode == 2, refused.stderr
    assert "results folder must be shared by all machines" in refused.stderr
    last = cluster.workers[-1].address
    assert last in refused.stderr
    assert all(host.address not in refused.stderr for host in (cluster.head, *cluster.workers[:-1]))
    found = cluster.run("gnc.cli.main", "doctor", str(cluster.file), "--results", str(cluster.partly))
    assert f"{last} does not see it" in found.stdout


def test_parts_of_one_s_own_run_on_hosts_that_lack_their_file(cluster):
    home, results = cluster.head.private / "home/own", cluster.shared / "own"
    home.mkdir()
    (home / "nets.py").write_text(
        "from torch import nn\n\ndef make(in_shape, feature_dim):\n    return nn.Linear(in_shape[0], feature_dim)\n"
    )
    text = STUDY.replace('encoder = "mlp"\nwidth = 32\ndepth = 1', 'encoder = "nets.py:make"').replace(
        '"hosts"', '"own"'
    )
    (home / "own.toml").write_text(text.replace("steps = 1200", "steps = 20"))
    done = cluster.on_head(f"gnc run ~/own/own.toml {results} --address auto")
    assert done.returncode == 0, done.stderr
    trials = open_store(results).read_trials().to_pylist()
    assert len(trials) == TRIALS
    assert {trial["host"] for trial in trials} > {cluster.head.name}
    assert not any((host.private / "home/own").exists() for host in cluster.workers)


def test_nobody_without_the_token_or_the_tunnel_gets_in(cluster):
    code = f"import ray; ray.init('{cluster.head.address}:6379', logging_level=50); print('in')"
    for mode in ("token", "disabled"):
        outside = f'HOME=/nowhere RAY_AUTH_MODE={mode} timeout 60 {sys.executable} -c "{code}"'
        done = cluster.workers[0].inside("bash", "-c", outside)
        assert "in" not in done.stdout.split(), mode
    door = f"import socket; socket.create_connection(('{cluster.head.address}', 8265), timeout=5)"
    knocked = cluster.workers[0].inside(sys.executable, "-c", door)
    assert "Connection refused" in knocked.stderr


def trials_on(store: Store, host: hosts.Host) -> list[Live]:
    """Trials in flight on a host, a checkpoint kept and the end not near."""
    done = store.fragments()
    there = [trial for trial in store.read_live() if trial.host == host.name and trial.key not in done]
    return [trial for trial in there if any(store.read_checkpoints(trial.key))]


def ended_on(store: Store, host: hosts.Host) -> bool:
    return host.name in store.read_trials().column("host").to_pylist()


def test_a_study_survives_a_cut_cable_a_dead_raylet_and_a_dead_driver(cluster, undisturbed):
    results = cluster.shared / "results"
    store, (cut, bereft) = open_store(results), cluster.workers
    tunnel = subprocess.Popen(
        cluster.words("ray.scripts.scripts", "dashboard", str(cluster.file), "-p", str(PORT), "--remote-port", "8265"),
        env=cluster.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        cwd=cluster.folder, start_new_session=True,
    )  # fmt: skip
    try:
        job = wait_for(lambda: submit(cluster, results), "the job's being taken", seconds=90)
    finally:
        tunnel.terminate()
        tunnel.wait()

    wait_for(lambda: trials_on(store, cut), "a trial in flight on the first worker")
    cut.plug("down")
    enough(store, 6)
    wait_for(lambda: ended_on(store, bereft), "a trial's end on the second worker")
    wait_for(lambda: trials_on(store, bereft), "a trial in flight on the second worker")
    raylets = bereft.processes("raylet/raylet")
    assert raylets
    bereft.inside("kill", "-9", *map(str, raylets))
    enough(store, 12)
    drivers = cluster.head.processes("gnc run")
    assert drivers, f"job {job} has no driver"
    cluster.head.inside("kill", "-9", *map(str, drivers))
    assert store.storage.read("results.parquet") is None
    assert len(store.states()) < TRIALS

    again = cluster.ray(
        "submit", str(cluster.file), str(ROOT / "gnc/cli/main.py"), "run", "gnc/studies/hosts.toml", str(results),
        "--address", "auto", seconds=400,
    )  # fmt: skip
    output = again.stdout + again.stderr
    assert f"{TRIALS} complete" in output, output[-4000:]
    cut.plug("up")

    assert comparable(store.read()) == comparable(undisturbed.read())
    trials = store.read_trials()
    assert comparable(trials) == comparable(undisturbed.read_trials())
    assert store.storage.read("results.parquet") is not None
    tried = dict(zip(trials.column("trial").to_pylist(), trials.column("attempts").to_pylist(), strict=True))
    # Which trial was started how often is a matter of moments: one that a fault struck may still have ended by itself.
    assert max(tried.values()) > 1
    assert len(set(trials.column("host").to_pylist())) > 1
    assert {config.key for config in parse_study(STUDY).configs} == set(tried)


def submit(cluster: Cluster, results: Path) -> str:
    """The id of a job that runs the study, once the tunnel to the dashboard stands; empty before."""
    address = f"http://127.0.0.1:{PORT}"
    entry = ["gnc", "run", "gnc/studies/hosts.toml", str(results)]
    done = cluster.ray("job", "submit", "--address", address, "--no-wait", "--", *entry)
    words = [word.strip("'") for word in done.stdout.split() if word.strip("'").startswith("raysubmit_")]
    return words[0] if done.returncode == 0 and words else ""


def enough(store: Store, count: int) -> None:
    """Wait until so many trials have ended."""
    wait_for(lambda: len(store.fragments()) >= count, f"the end of {count} trials")


def test_ray_down_ends_ray_on_every_machine_that_it_reaches(cluster):
    down = cluster.ray("down", str(cluster.file), "--yes")
    assert down.returncode == 0, (down.stdout + down.stderr)[-3000:]
    wait_for(lambda: not cluster.head.processes("raylet/raylet"), "the end of Ray on the head", seconds=60)
