"""Checks of a cluster file before `ray up`: unfilled values, opened ports, the driver's machine, secrets; and of own machines:
each answers to SSH and has Python, and all see one results folder. Knows ssh and Ray's files; not Ray nor boto3."""

import ipaddress
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from study.design.errors import StudyError, unreadable
from study.doctor.check import Check, failed, ok, skipped, verdict

Config = dict[str, Any]

TOKEN = "~/.ray/auth_token"  # where Ray looks for it, here and on every machine
TOKEN_MODE = "RAY_AUTH_MODE=token"
START_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")
PLACEHOLDER = "REPLACE"
SSH = ("tcp", 22, 22)  # protocol, first and last port
SSH_SECONDS = 10
OPTIONS = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_SECONDS}", "-o", "StrictHostKeyChecking=no",
           "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")  # fmt: skip
PYTHONS = ("3.11", "3.12", "3.13")
VERSION = "import sys; print(*sys.version_info[:2], sep='.')"
WIDEST = 8  # bits of the shortest prefix that still is somebody's address range

# Shapes of secrets: AWS keys, private keys, and settings that hold a key or token rather than say where it lies.
SECRETS = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----|RAY_AUTH_TOKEN=\S"
    r"|(aws_secret_access_key|aws_session_token|api_key|password)['\"]?\s*[:=]\s*\S",
    re.IGNORECASE,
)


def read_cluster_file(path: str | Path) -> tuple[Config, str]:
    """The cluster file as understood, and its text; StudyError where it is no YAML mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable("cluster file must be a readable YAML file", path, error, "*.y*ml") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise StudyError(f"cluster file must be a readable YAML file, got {str(path)!r}: {problem}.") from None
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        cure = "Start from cluster.yaml."
        raise StudyError(f"cluster file must be a mapping with a provider, got {str(path)!r} without one. {cure}")
    return config, text


def check_file(config: Config, text: str) -> list[Check]:
    """Every check that needs the file alone, and the user's token."""
    on_machines = (check_token_on_nodes(config), check_token_here(), check_ingress(config), check_dashboard(config))
    own = (check_placeholders(config), check_no_secret(config, text))
    return [*own, *on_machines, check_head(config), check_driver(config)]


def node_types(config: Config) -> dict[str, Config]:
    types = config.get("available_node_types")
    return types if isinstance(types, dict) else {}


def head_type(config: Config) -> Config:
    return node_types(config).get(str(config.get("head_node_type")), {})


def is_own(config: Config) -> bool:
    return config["provider"].get("type") == "local"


def is_spot(node_type: Config) -> bool:
    market = node_type.get("node_config", {}).get("InstanceMarketOptions", {})
    return isinstance(market, dict) and market.get("MarketType") == "spot"


def ssh_rules(config: Config) -> list[Config]:
    rules = config["provider"].get("security_group", {}).get("IpPermissions", [])
    return rules if isinstance(rules, list) else []


def ssh_ranges(config: Config) -> list[str]:
    return [cidr for rule in ssh_rules(config) for cidr in ranges_of(rule)]


def ranges_of(rule: Config) -> list[str]:
    kinds = (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6"))
    return [entry.get(name, "") for kind, name in kinds for entry in rule.get(kind, [])]


def check_placeholders(config: Config) -> Check:
    left = [f"{where} is {value!r}" for where, value in _strings(config) if PLACEHOLDER in value]
    return verdict("filled in", left, "no placeholder is left", "Write your own value; comments in the file say which.")


def check_no_secret(config: Config, text: str) -> Check:
    """Keys and tokens lie in files that the cluster file names; it does not hold them."""
    lines = text.splitlines()
    found = [f"line {number} holds {match[0][:12]!r}..." for number, line in enumerate(lines, 1)
             if (match := SECRETS.search(line.split("#")[0]))]  # fmt: skip
    token = _read_token()
    if token and token in text:
        found.append("the token itself is in it")
    if "aws_credentials" in config["provider"]:
        found.append("provider.aws_credentials is set")
    cure = f"Remove it, and keep credentials in ~/.aws, the token in {TOKEN}; then take new ones if it was ever shared."
    return verdict("no secret", found, "the file holds neither keys nor a token", cure)


def check_token_on_nodes(config: Config) -> Check:
    commands = [(name, command) for name in START_COMMANDS for command in config.get(name, ["ray start"])]
    bare = (name for name, command in commands if "ray start" in (command or "ray start") and TOKEN_MODE not in command)
    wrong = [f"{name} starts Ray without {TOKEN_MODE}" for name in bare]
    if TOKEN not in config.get("file_mounts", {}):
        wrong.append(f"file_mounts does not bring {TOKEN}")
    cure = f"Put {TOKEN_MODE} before `ray start` in both start commands and `{TOKEN}: {TOKEN}` under file_mounts."
    return verdict("token on nodes", wrong, "every node starts Ray with token authentication", cure)


def check_token_here() -> Check:
    path = Path(TOKEN).expanduser()
    if not _read_token():
        return failed("token here", f"{TOKEN} is not there or empty", "Make one: ray get-auth-token --generate.")
    if path.stat().st_mode & 0o077:
        return failed("token here", f"{TOKEN} can be read by others", f"chmod 600 {TOKEN}.")
    return ok("token here", f"{TOKEN} is there and yours alone")


def check_ingress(config: Config) -> Check:
    """Only SSH, only from the range that the user states; Ray's own default group lets the whole world in."""
    if is_own(config):
        return skipped("ingress", "own machines: their firewall is yours; nobody but the cluster needs its Ray ports")
    wrong = [
        f"node type {name} names no SecurityGroupIds, so Ray would make a group open to the world"
        for name, node_type in node_types(config).items()
        if not node_type.get("node_config", {}).get("SecurityGroupIds")
    ]
    rules = ssh_rules(config)
    if not rules:
        wrong.append("provider.security_group.IpPermissions states no range for SSH")
    for rule in rules:
        ports = (rule.get("IpProtocol"), rule.get("FromPort"), rule.get("ToPort"))
        if ports != SSH:
            wrong.append(f"a rule opens {ports[0]} {ports[1]} to {ports[2]}")
    wrong += _range_problems(config)
    cure = "Let in TCP port 22 from your own address range only, and run gnc prepare, which makes that group."
    return verdict("ingress", wrong, f"only SSH, from {', '.join(ssh_ranges(config))}", cure)


def stated_rules(config: Config) -> list[Config]:
    """The ingress rules that the file states; StudyError where there are none, or their ranges are wrong."""
    wrong = _range_problems(config)
    if wrong or not ssh_ranges(config):
        rule = "provider.security_group.IpPermissions must state the address range that SSH is let in from"
        raise StudyError(f"{rule}, got {wrong[0] if wrong else 'none'}. Write your own, e.g. 203.0.113.7/32.")
    return ssh_rules(config)


def _range_problems(config: Config) -> list[str]:
    problems = []
    for cidr in ssh_ranges(config):
        try:
            if ipaddress.ip_network(cidr).prefixlen < WIDEST:
                problems.append(f"{cidr} is as good as the whole world")
        except ValueError:
            problems.append(f"{cidr!r} is no address range")
    return problems


def check_dashboard(config: Config) -> Check:
    """Whoever reaches the dashboard can run code: it answers on the head's own loopback only."""
    hosts = re.findall(r"--dashboard-host[= ](\S+)", " ".join(config.get("head_start_ray_commands", [])))
    wrong = [f"the head starts it on {host}" for host in hosts if host not in ("127.0.0.1", "localhost", "::1")]
    cure = "Start the head with --dashboard-host=127.0.0.1 and open it through `ray dashboard`, which tunnels by SSH."
    return verdict("dashboard", wrong, "answers on the head's own loopback only", cure)


def check_head(config: Config) -> Check:
    """The head holds the driver and the cluster's state, so it must not be a spot machine."""
    if is_own(config):
        return ok("head", f"own machine {config['provider'].get('head_ip')}")
    if is_spot(head_type(config)):
        cure = "Remove InstanceMarketOptions from the head's node type; keep it on the workers'."
        return failed("head", "the head is a spot machine, which AWS takes back at any time", cure)
    spot = [name for name, node_type in node_types(config).items() if is_spot(node_type)]
    return ok("head", f"on demand; spot: {', '.join(spot) or 'no node type'}")


def check_driver(config: Config) -> Check:
    """No trial starves the driver on its machine; own machines are all started."""
    if is_own(config):
        provider, starts = config["provider"], config.get("head_start_ray_commands", [])
        head, workers = provider.get("head_ip"), provider.get("worker_ips") or []
        wrong = [f"{address} is named twice" for address in {head, *workers} if [head, *workers].count(address) > 1]
        if not any("RAY_enable_autoscaler_v2=0" in command for command in starts):
            wrong.append("Ray's second autoscaler counts the head among the workers and never starts the last of them")
        cure = "Name each machine once, and start the head with RAY_enable_autoscaler_v2=0 as cluster-own.yaml does."
        return verdict("driver", wrong, f"on {head}, with {len(workers)} workers", cure)
    resources = head_type(config).get("resources", {})
    if resources.get("CPU") != 0 or resources.get("GPU"):
        cure = "Give the head's node type resources: {CPU: 0}; the driver needs none of them."
        return failed("driver", f"trials could run beside it on the head: it offers {resources or 'all it has'}", cure)
    return ok("driver", "alone on the head: no trial is placed there")


def _strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{where}[{index}]")
    elif isinstance(value, str):
        yield where, value


def _read_token() -> str:
    try:
        return Path(TOKEN).expanduser().read_text().strip()
    except OSError:
        return ""


def check_machines(config: Config, results: str | None) -> list[Check]:
    """Reach every machine of the file, and check that all see one results folder."""
    provider = config["provider"]
    addresses = [str(address) for address in (provider.get("head_ip"), *(provider.get("worker_ips") or []))]
    if any(PLACEHOLDER in address for address in addresses):
        return [skipped("machines", "their addresses are not filled in")]
    reached = {address: _ssh(config, address, f'python3 -c "{VERSION}"') for address in addresses}
    checks = [_check_reached(address, done) for address, done in reached.items()]
    if any(check.state != "ok" for check in checks):
        return [*checks, skipped("results folder", "not every machine answers")]
    return [*checks, check_results(lambda address, command: _ssh(config, address, command), addresses, results)]


def check_results(
    on: Callable[[str, str], subprocess.CompletedProcess[str]], addresses: list[str], results: str | None
) -> Check:
    """The first machine writes a nonce into the folder and all read it. on: runs a shell command on a machine."""
    if not results or PLACEHOLDER in results:
        return skipped("results folder", "the file's metadata names none, and neither does --results")
    if "://" in results:
        return skipped("results folder", f"{results} is an object store; gnc doctor --address asks every node of it")
    name, folder = f".probe-{secrets.token_hex(8)}", shlex.quote(results.rstrip("/"))
    if on(addresses[0], f"mkdir -p {folder} && touch {folder}/{name}").returncode:
        wrong = [f"{addresses[0]} cannot write there"]
    else:
        wrong = [f"{a} does not see it" for a in addresses[1:] if on(a, f"test -e {folder}/{name}").returncode]
    on(addresses[0], f"rm -f {folder}/{name}")
    cure = "Mount one network folder under this name on every machine, or use an object store."
    return verdict("results folder", wrong, f"{results} is one folder for all {len(addresses)} machines", cure)


def _check_reached(address: str, done: subprocess.CompletedProcess[str]) -> Check:
    name, version = f"ssh {address}", done.stdout.strip()
    if done.returncode == 255:
        problem = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return failed(name, problem, "Check auth.ssh_user and auth.ssh_private_key, and that sshd runs there.")
    if version not in PYTHONS:
        return failed(name, f"python3 there is {version or 'missing'}", "Install Python 3.11 to 3.13 with venv there.")
    return ok(name, f"answers, Python {version}")


def _ssh(config: Config, address: str, command: str) -> subprocess.CompletedProcess[str]:
    auth = config.get("auth", {})
    identity = ["-i", str(Path(key).expanduser())] if (key := auth.get("ssh_private_key")) else []
    words = ["ssh", "-n", *OPTIONS, *identity, f"{auth.get('ssh_user')}@{address}", command]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=3 * SSH_SECONDS)
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        return subprocess.CompletedProcess(words, 255, "", str(error))
