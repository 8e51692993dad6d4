"""What the cluster tests share: moto's AWS on loopback, and an environment in which no real account can be reached."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is run by `make test-cluster` alone."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(900))


@dataclass(frozen=True)
class Aws:
    """A made-up AWS at an address of this machine."""

    url: str
    region: str = "us-west-2"

    def environment(self, home: Path, url: str | None = None) -> dict[str, str]:
        """Variables with which a program reaches this AWS and no other, and has a home of its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
        return {
            **kept,
            "HOME": str(home),
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "PYTHONPATH": str(ROOT),
        }


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """moto's server, with its state empty, ended with the module."""
    pytest.importorskip("moto", reason="needs the extra test-cluster: make test-cluster installs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with open(log, "wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=stream, stderr=stream, env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/", server, log)
        yield Aws(f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"moto did not answer: {log.read_text()[-2000:]}")
