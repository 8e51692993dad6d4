"""Checks of own machines before `ray up`: each answers to SSH and has Python, and all see one results folder.
Knows ssh and the cluster file; does not know Ray."""

import secrets
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from study.doctor.check import Check, failed, ok, skipped, verdict
from study.doctor.cluster_file import PLACEHOLDER, Config

SSH_SECONDS = 10
OPTIONS = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_SECONDS}", "-o", "StrictHostKeyChecking=no",
           "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")  # fmt: skip
PYTHONS = ("3.11", "3.12", "3.13")
VERSION = "import sys; print(*sys.version_info[:2], sep='.')"


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
