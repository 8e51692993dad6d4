"""`gnc doctor` on cluster files and on this machine: what is wrong is named, with its cure."""

import copy
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gnc.cli.main import main
from study.design.errors import StudyError
from study.doctor import cluster_file, this_machine
from study.doctor.check import failed, guarded
from study.store.store import open_store

ROOT = Path(__file__).parents[3]
FILES = ("cluster.yaml", "cluster-own.yaml")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home with a token that is its owner's alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    token = tmp_path / "home/.ray/auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("0123456789abcdef-made-up")
    token.chmod(0o600)
    return tmp_path / "home"


def filled(name: str = "cluster.yaml") -> dict:
    text = (ROOT / name).read_text()
    for placeholder, value in {
        "REPLACE-your-address-range": "203.0.113.7/32",
        "REPLACE-bucket": "bucket",
        "REPLACE-group": "sg-0123",
        "REPLACE-head-address": "192.0.2.1",
        "REPLACE-worker-address": "192.0.2.2",
        "REPLACE-shared-folder": "s3://bucket/gnc",
    }.items():
        text = text.replace(placeholder, value)
    return yaml.safe_load(text)


def wrong(config: dict, text: str = "") -> dict[str, str]:
    """What fails of the file, and why."""
    return {c.name: c.told for c in cluster_file.check_file(config, text) if c.state == "FAIL"}


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_the_repository_are_well_once_filled_in(name):
    assert wrong(filled(name), (ROOT / name).read_text()) == {}


@pytest.mark.parametrize("name", FILES)
def test_the_files_as_they_come_name_what_is_to_be_filled_in(name, capsys):
    assert main(["doctor", str(ROOT / name), "--study", str(ROOT / "studies/smoke.toml")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if " schema " in line).startswith("ok")
    left = next(line for line in lines if "filled in" in line)
    assert left.startswith("FAIL")
    assert "REPLACE" in left
    assert all(line.split()[0] in ("ok", "FAIL", "skipped") for line in lines)


def change(config: dict, path: str, value: object) -> dict:
    """A copy with one value changed; None removes it."""
    changed = copy.deepcopy(config)
    *parents, last = path.split("/")
    inner = changed
    for parent in parents:
        inner = inner[int(parent)] if parent.isdigit() else inner[parent]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return changed


RULE = "provider/security_group/IpPermissions/0/"


@pytest.mark.parametrize(
    ("path", "value", "check", "told"),
    [
        (RULE + "IpRanges", [{"CidrIp": "0.0.0.0/0"}], "ingress", "as good as the whole world"),
        (RULE + "IpRanges", [{"CidrIp": "0.0.0.0/1"}], "ingress", "as good as the whole world"),
        (RULE + "Ipv6Ranges", [{"CidrIpv6": "::/0"}], "ingress", "as good as the whole world"),
        (RULE + "IpRanges", [{"CidrIp": "my laptop"}], "ingress", "is no address range"),
        (RULE + "ToPort", 8265, "ingress", "a rule opens tcp 22 to 8265"),
        ("provider/security_group", None, "ingress", "states no range"),
        ("available_node_types/gpu-spot/node_config/SecurityGroupIds", None, "ingress", "open to the world"),
        ("available_node_types/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}, "head", "spot"),
        ("available_node_types/head/resources", {}, "driver", "trials could run beside it"),
        ("available_node_types/head/resources", {"CPU": 2}, "driver", "trials could run beside it"),
        ("file_mounts", {}, "token on nodes", "does not bring"),
        ("worker_start_ray_commands", ["ray start --address=$RAY_HEAD_IP:6379"], "token on nodes", "without RAY_AUTH"),
        ("head_start_ray_commands", None, "token on nodes", "head_start_ray_commands starts Ray without"),
        (
            "head_start_ray_commands",
            ["RAY_AUTH_MODE=token ray start --head --dashboard-host=0.0.0.0"],
            "dashboard",
            "the head starts it on 0.0.0.0",
        ),
        ("provider/aws_credentials", {"aws_access_key_id": "x"}, "no secret", "aws_credentials"),
    ],
)
def test_what_would_open_the_cluster_or_lose_the_driver_is_named(path, value, check, told):
    assert told in wrong(change(filled(), path, value))[check]


@pytest.mark.parametrize(
    "line",
    [
        "key: AKIAIOSFODNN7EXAMPLE",
        "env: RAY_AUTH_TOKEN=abc",
        "aws_secret_access_key: wJalrXUtnFEMI",
        "-----BEGIN RSA PRIVATE KEY-----",
        "note: 0123456789abcdef-made-up",
    ],
)
def test_a_secret_in_the_file_is_found_and_not_shown(line):
    check = cluster_file.check_no_secret(filled(), f"a: 1\n{line}\n")
    assert check.state == "FAIL"
    assert line.rpartition(" ")[2] not in check.told or line.startswith("-----")


def test_a_token_that_others_can_read_or_that_is_missing_fails(home):
    token = home / ".ray/auth_token"
    token.chmod(0o644)
    assert "chmod 600" in cluster_file.check_token_here().cure
    token.unlink()
    assert "ray get-auth-token --generate" in cluster_file.check_token_here().cure


def test_own_machines_are_named_once_and_started_by_the_first_autoscaler():
    own = filled("cluster-own.yaml")
    assert "named twice" in wrong(change(own, "provider/worker_ips", ["192.0.2.1"]))["driver"]
    second = change(own, "head_start_ray_commands", ["RAY_AUTH_MODE=token ray start --head"])
    assert "never starts the last of them" in wrong(second)["driver"]


def test_a_file_that_is_no_cluster_file_is_refused_in_words(tmp_path, capsys):
    for text in ("a: [", "- a\n", "cluster_name: x\n"):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(StudyError, match="cluster file must be a"):
            cluster_file.read_cluster_file(tmp_path / "c.yaml")
    assert main(["doctor", str(tmp_path / "c.yaml")]) == 2
    assert main(["prepare", str(ROOT / "cluster-own.yaml")]) == 2
    assert "They need no group and no roles" in capsys.readouterr().err


def test_ray_names_the_key_that_it_does_not_know(tmp_path, capsys):
    config = filled() | {"wokers": 3}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    main(["doctor", str(tmp_path / "c.yaml"), "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["schema"]["state"] == "FAIL"
    assert "wokers" in checks["schema"]["told"]


def test_a_ray_without_its_private_check_of_cluster_files_fails_nothing(monkeypatch):
    """As after an upgrade of Ray: the name is gone from the real module."""
    from study.doctor.ray_cluster import check_schema

    monkeypatch.delattr("ray.autoscaler._private.util.validate_config")
    check = check_schema(filled())
    assert (check.state, "does not offer its check of cluster files" in check.told) == ("skipped", True)


def test_a_study_that_no_machine_of_the_file_holds_is_told(tmp_path, capsys):
    study = tmp_path / "s.toml"
    study.write_text((ROOT / "studies/smoke.toml").read_text() + "\n[resources]\ncpus = 1\ngpus = 2\n")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(filled()))
    main(["doctor", str(tmp_path / "c.yaml"), "--study", str(study)])
    line = next(line for line in capsys.readouterr().out.splitlines() if "study smoke" in line)
    assert line.startswith("FAIL")
    assert "a trial asks 1 CPUs and 2 GPUs" in line


def test_machines_that_see_different_folders_are_told_apart(tmp_path):
    """Each machine is a folder here: the command runs with that folder in place of /results."""

    def on(address: str, command: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / ("b" if address == "c" else "a")
        words = ["sh", "-c", command.replace("/results", str(folder))]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert cluster_file.check_results(on, ["a", "b"], "/results").state == "ok"
    apart = cluster_file.check_results(on, ["a", "b", "c"], "/results")
    assert (apart.state, apart.told) == ("FAIL", "c does not see it")
    assert list((tmp_path / "a").iterdir()) == []


def test_an_unreachable_machine_fails_and_does_not_end_the_list(monkeypatch):
    if not shutil.which("ssh"):
        pytest.skip("needs ssh")
    monkeypatch.setattr(cluster_file, "OPTIONS", (*cluster_file.OPTIONS, "-p", "1"))
    config = filled("cluster-own.yaml")
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": ["127.0.0.2"]}
    checks = cluster_file.check_machines(config, "/results")
    assert [check.state for check in checks] == ["FAIL", "FAIL", "skipped"]
    assert "auth.ssh_private_key" in checks[0].cure


def test_this_machine_is_told_in_lines(tmp_path, monkeypatch):
    store = open_store(tmp_path / "results")
    assert this_machine.check_python().state == "ok"
    assert this_machine.check_packages().state == "ok"
    assert this_machine.check_writable(store).state == "ok"
    assert this_machine.check_writable(open_store(tmp_path / "a/b")).state == "ok"
    assert not [path for path in (tmp_path / "results", tmp_path / "a") if path.exists()]  # it only looks
    assert "CPUs" in this_machine.check_processors().told
    monkeypatch.setattr(this_machine, "ROOM_BYTES", 1 << 60)
    assert this_machine.check_disks(store).state == "FAIL"
    monkeypatch.setattr(this_machine, "NEWEST", (3, 1))
    assert "3.11 to 3.13" in this_machine.check_python().cure


def test_another_version_than_the_tested_one_is_named(tmp_path, monkeypatch):
    pins = tmp_path / "constraints.txt"
    pins.write_text("# tested\nnumpy==0.0.1\n")
    monkeypatch.setattr(this_machine, "CONSTRAINTS", pins)
    assert "tested was 0.0.1" in this_machine.check_tested_versions().told


def test_a_check_that_raises_is_a_failed_check():
    def broken() -> object:
        raise OSError("first\nno such device.")

    assert guarded("disk", broken, "Mend it.") == failed("disk", "no such device", "Mend it.")
