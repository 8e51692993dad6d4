"""cluster.yaml against a made-up EC2: what `gnc prepare` and `ray up` make of it, and what they open to the world.

An `ssh` that only writes down what it was asked stands first on PATH, so nothing is ever sent to the machines' made-up
public addresses.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import ROOT, Aws

RANGE, BUCKET = "203.0.113.0/28", "gnc-test-results"

START_A_WORKER = """
import sys, yaml
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler import tags as names
config = _bootstrap_config(prepare_config(yaml.safe_load(open(sys.argv[1]))), no_config_cache=True)
provider = _get_node_provider(config["provider"], config["cluster_name"])
worker = config["available_node_types"]["gpu-spot"]["node_config"]
tags = {
    names.TAG_RAY_NODE_KIND: "worker",
    names.TAG_RAY_LAUNCH_CONFIG: "made-up",
    names.TAG_RAY_USER_NODE_TYPE: "gpu-spot",
    names.TAG_RAY_NODE_NAME: "worker",
}
provider.create_node(worker, tags, 1)
"""


class Desk:
    """A user's own machine: a home, a checkout with the wheel built, the cluster file filled in."""

    def __init__(self, folder: Path, aws: Aws) -> None:
        self.folder, self.aws, self.file = folder, aws, folder / "cluster.yaml"
        for name in ("home/.ray", "home/.ssh", "bin", "dist"):
            (folder / name).mkdir(parents=True)
        token = folder / "home/.ray/auth_token"
        token.write_text("made-up-token-of-a-test")
        token.chmod(0o600)
        (folder / "dist/gnc_study-0.1.0-py3-none-any.whl").touch()
        shutil.copy(ROOT / "constraints.txt", folder)
        shutil.copytree(ROOT / "studies", folder / "studies")
        (folder / "bin/ssh").write_text(f'#!/bin/sh\necho "$@" >> {folder}/ssh.log\nexit 255\n')
        (folder / "bin/ssh").chmod(0o755)
        text = (ROOT / "cluster.yaml").read_text()
        self.file.write_text(text.replace("REPLACE-your-address-range", RANGE).replace("REPLACE-bucket", BUCKET))

    def run(self, *command: str, seconds: int = 240) -> subprocess.CompletedProcess[str]:
        """A command at the desk, output captured."""
        environment = self.aws.environment(self.folder / "home")
        environment |= {
            "PATH": f"{self.folder / 'bin'}:{environment['PATH']}",
            "AUTOSCALER_NODE_START_WAIT_S": "12",
            "RAY_TMPDIR": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        return subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, check=False, timeout=seconds,
            env=environment, cwd=self.folder,
        )  # fmt: skip

    def gnc(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("gnc.cli.main", *words)

    def doctor(self, *words: str) -> dict[str, dict]:
        """What the doctor says of each check, by name."""
        done = self.gnc("doctor", str(self.file), "--json", *words)
        assert done.returncode in (0, 1), done.stderr
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture(scope="module")
def client(aws):
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "made-up", "aws_secret_access_key": "made-up"}
    return lambda service: boto3.client(service, region_name=aws.region, endpoint_url=aws.url, **keys)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, aws, client) -> Desk:
    client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.region})
    return Desk(tmp_path_factory.mktemp("desk"), aws)


@pytest.fixture(scope="module")
def started(desk, client) -> list[dict]:
    """The machines of the file: the head that `ray up` starts, and a worker as the autoscaler would start it."""
    unprepared = desk.run("ray.scripts.scripts", "up", str(desk.file), "--yes", "--no-config-cache")
    assert unprepared.returncode != 0  # the group's id is not there: Ray makes no group of its own, and nothing starts
    assert machines(client) == []
    assert [g["GroupName"] for g in client("ec2").describe_security_groups()["SecurityGroups"]] == ["default"]

    prepared = desk.gnc("prepare", str(desk.file))
    assert prepared.returncode == 0, prepared.stderr
    up = desk.run("ray.scripts.scripts", "up", str(desk.file), "--yes", "--no-config-cache")
    assert "SSH still not available" in up.stdout + up.stderr, (up.stdout + up.stderr)[-3000:]
    (desk.folder / "start_a_worker.py").write_text(START_A_WORKER)
    worker = desk.run("start_a_worker", str(desk.file))
    assert worker.returncode == 0, worker.stderr[-3000:]
    return machines(client)


def machines(client) -> list[dict]:
    found = client("ec2").describe_instances()["Reservations"]
    return [machine for reservation in found for machine in reservation["Instances"]]


def kind(machine: dict) -> str:
    return {tag["Key"]: tag["Value"] for tag in machine["Tags"]}["ray-node-type"]


def test_ray_up_starts_the_head_and_waits_for_ssh(desk, started):
    heads = [machine for machine in started if kind(machine) == "head"]
    assert len(heads) == 1
    asked = (desk.folder / "ssh.log").read_text()
    assert f"ubuntu@{heads[0]['PublicIpAddress']}" in asked


def test_types_images_and_markets_are_those_of_the_file(started):
    told = {(kind(m), m["InstanceType"], m.get("InstanceLifecycle")) for m in started}
    assert told == {("head", "m7i.large", None), ("worker", "g6.xlarge", "spot")}
    assert len(started) == 2
    assert all("base-oss-nvidia-driver-gpu-ubuntu-24.04" in machine["ImageId"] for machine in started)


def test_only_ssh_is_open_and_only_to_the_stated_range(client, started):
    groups = {group["GroupId"] for machine in started for group in machine["SecurityGroups"]}
    assert len(groups) == 1
    doors = []
    for group in client("ec2").describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]:
        for rule in group["IpPermissions"]:
            assert {pair["GroupId"] for pair in rule["UserIdGroupPairs"]} <= groups
            ranges = [r["CidrIp"] for r in rule["IpRanges"]] + [r["CidrIpv6"] for r in rule.get("Ipv6Ranges", [])]
            doors += [(rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"), cidr) for cidr in ranges]
    assert doors == [("tcp", 22, 22, RANGE)]  # no Ray or dashboard port, and not 0.0.0.0/0


def test_workers_may_write_to_the_bucket_and_nothing_else(client, started):
    profiles = {kind(machine): machine["IamInstanceProfile"]["Arn"].rpartition("/")[2] for machine in started}
    assert profiles == {"head": "gnc-head", "worker": "gnc-worker"}
    iam = client("iam")

    def statements(role: str) -> list[dict]:
        return iam.get_role_policy(RoleName=role, PolicyName="gnc")["PolicyDocument"]["Statement"]

    for statement in statements("gnc-worker"):
        assert all(action.startswith("s3:") for action in statement["Action"])
        assert statement["Resource"] == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    passed = [s["Resource"] for s in statements("gnc-head") if s["Action"] == "iam:PassRole"]
    assert passed == [[iam.get_role(RoleName="gnc-worker")["Role"]["Arn"]]]


def test_the_doctor_finds_a_prepared_account_well(desk, started):
    checks = desk.doctor("--study", str(desk.folder / "studies/quickstart.toml"))
    assert {name: check["told"] for name, check in checks.items() if check["state"] != "ok"} == {}
    assert {"schema", "ingress", "aws group", "aws roles", "head", "driver", "study quickstart"} <= set(checks)


def test_a_door_opened_later_is_found_and_closed_again(desk, client, started):
    group = started[0]["SecurityGroups"][0]["GroupId"]
    world = {"IpProtocol": "tcp", "FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[world])
    found = desk.doctor()["aws group"]
    assert found["state"] == "FAIL"
    assert "opens tcp 8265 to 8265 to 0.0.0.0/0" in found["told"]
    assert "closed" in desk.gnc("prepare", str(desk.file)).stdout
    assert desk.doctor()["aws group"]["state"] == "ok"
    assert "everything is there already" in desk.gnc("prepare", str(desk.file)).stdout
