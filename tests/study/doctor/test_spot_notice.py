"""A spot machine's end is read from a metadata service on loopback that speaks IMDSv2, and becomes a drained node."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ray.cluster_utils import Cluster

from study.design.study_file import read_study
from study.doctor.spot_notice import seconds_left
from study.store.store import open_store
from study.tuning.failure_causes import DRAIN_POLL_SECONDS
from tests.conftest import comparable, halted, let_go, run_gnc, start_gnc, wait_for

TOKEN = "a-token"


class Metadata(ThreadingHTTPServer):
    """What AWS tells a machine about itself; `action` is the body of the notice, none before it is given."""

    action: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def announce(self, seconds: float) -> None:
        ends = datetime.now(UTC) + timedelta(seconds=seconds)
        self.action = json.dumps({"action": "terminate", "time": ends.strftime("%Y-%m-%dT%H:%M:%SZ")})


class Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.say(200 if asked else 400, TOKEN)

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            self.say(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.server.action is not None:
            self.say(200, self.server.action)
        else:
            self.say(404, "")

    def say(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *what: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_notice_says_how_long_the_machine_has(metadata):
    assert seconds_left(metadata.url) is None
    metadata.announce(110)
    assert 100 < seconds_left(metadata.url) <= 110
    metadata.announce(-5)
    assert seconds_left(metadata.url) == 0


def test_what_is_no_notice_is_none(metadata):
    for action in ("", "<html>", '{"action": "terminate"}', '{"time": "soon"}'):
        metadata.action = action
        assert seconds_left(metadata.url) is None
    assert seconds_left("http://127.0.0.1:9") is None


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_notice_drains_the_node_and_its_trial_continues_on_another(metadata, study_file, tmp_path):
    study = study_file(num_classes="[6]", steps=4000, checkpoint_seconds=600, extra="attempts = 1\n")
    study.write_text(study.read_text().replace("seed = [0, 1]", "seed = [0]"))
    store, whole = open_store(tmp_path / "results"), open_store(tmp_path / "whole")
    (config,) = read_study(study).configs
    # One node, so that the watcher's own is the one that runs the trial.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    environment = os.environ | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "RAY_ADDRESS": cluster.address}
    watcher = subprocess.Popen(
        [sys.executable, "-m", "study.doctor.spot_notice"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        run = start_gnc("run", study, store.uri, "--address", cluster.address)
        trial = wait_for(lambda: halted(store, line=" epoch 4 "), "a trial to halt", seconds=150)
        assert watcher.poll() is None
        metadata.announce(120)
        told, _ = watcher.communicate(timeout=90)
        assert watcher.returncode == 0, told
        assert "this machine is taken away in 1" in told
        cluster.add_node(num_cpus=1)
        time.sleep(DRAIN_POLL_SECONDS)
        let_go(trial)
        errors = run.communicate(timeout=240)[1]
    finally:
        watcher.kill()
        cluster.shutdown()
    assert run.returncode == 0, errors
    assert "preempted: its machine is being taken away (the node is draining); checkpoint of epoch" in errors
    (ended,) = store.read_trials().to_pylist()
    assert (ended["attempts"], ended["resumed"]) == (2, True)
    run_gnc("trial", study, config.key, "--results", whole.uri)
    assert comparable(store.read()) == comparable(whole.read())
