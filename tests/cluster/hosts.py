"""Linux hosts on one machine: each with its own address, process ids, mounts, home, Ray folder and sshd.

Everything lies under one folder and in namespaces that end with the hosts' own first processes. The network is a bridge
in a namespace of its own, so the machine's network is not touched. Needs root, iproute2, util-linux and sshd.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SUBNET = "10.213.7"
SSHD = "/usr/sbin/sshd"

FIRST_PROCESS = """
set -e
hostname {name}
mount --make-rprivate /
mkdir -p {private}/below{root} {private}/home {private}/run/sshd
mkdir -p {private}/below/tmp
chmod 1777 {private}/below/tmp
mount --bind {private}/passwd /etc/passwd  # a home of its own, wherever Python lies
mount -t tmpfs -o size=400m tmpfs /dev/shm
mount --bind {private}/run /run
{mounts}
mount --rbind {root} {private}/below{root}  # what the test keeps under /tmp stays visible there
mount --rbind {private}/below/tmp /tmp
exec {sshd} -D -e -f {private}/sshd_config
"""

SSHD_CONFIG = """
ListenAddress {address}:22
HostKey {root}/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile {root}/user_key.pub
MaxStartups 100
"""


def missing() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    tools = [tool for tool in ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync") if not shutil.which(tool)]
    if not Path(SSHD).exists():
        tools.append("sshd")
    if tools:
        return f"needs {', '.join(tools)}"
    if Path(sys.prefix).is_relative_to("/tmp"):
        return f"each host has a /tmp of its own, so none would see the environment, {sys.prefix}"
    trial = subprocess.run(["unshare", "-nmpuf", "--mount-proc", "true"], capture_output=True, text=True, check=False)
    return f"needs root and namespaces: {trial.stderr.strip()}" if trial.returncode else None


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """A command that must succeed; its output is in the error when it does not."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


@dataclass
class Host:
    """One host. `process` is `unshare` in this machine's ids; its only child is the host's first process."""

    name: str
    address: str
    namespace: str
    link: str  # the bridge's end of its cable
    private: Path
    network: "Network"
    process: subprocess.Popen[bytes] | None = None

    def first_process(self) -> int:
        """Its first process in this machine's ids."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def inside(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A command on the host, as its root user logged in."""
        return subprocess.run(self.entering(*command), capture_output=True, text=True, check=False, **options)

    def entering(self, *command: str) -> list[str]:
        """The words that run a command on the host, in a login shell's environment."""
        return ["nsenter", "-t", str(self.first_process()), "-n", "-m", "-p", "-u", "--wd=/", *command]

    def plug(self, state: str) -> None:
        """Pull the cable (down) or put it in again (up)."""
        self.network.command("ip", "link", "set", self.link, state)

    def processes(self, word: str) -> list[int]:
        """Ids on the host of processes whose command line has the word."""
        listed = self.inside("ps", "-ewwo", "pid,args", "--no-headers").stdout.splitlines()
        return [int(line.split()[0]) for line in listed if word in line and " ps " not in line]

    def end(self) -> None:
        """End its first process, and with it every process on it."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.first_process(), signal.SIGKILL)
            self.process.wait(timeout=30)


@dataclass
class Network:
    """A bridge with an address for the user's own machine, and the hosts on it."""

    root: Path
    prefix: str = field(default_factory=lambda: f"gnc{os.getpid()}")
    hosts: list[Host] = field(default_factory=list)

    def start(self) -> None:
        """The bridge, and the keys that open the hosts."""
        run("ip", "netns", "add", self.prefix)
        self.command("ip", "link", "set", "lo", "up")
        self.command("ip", "link", "add", "bridge", "type", "bridge")
        self.command("ip", "addr", "add", f"{SUBNET}.254/24", "dev", "bridge")
        self.command("ip", "link", "set", "bridge", "up")
        for key in ("host_key", "user_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.root / key)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command at the user's own machine."""
        return run("ip", "netns", "exec", self.prefix, *words)

    def add_host(self, *, mounts: Sequence[str] = ()) -> Host:
        """A host with its sshd listening. mounts: shell commands in its mount namespace before anything runs there."""
        number = len(self.hosts) + 1
        namespace, link = f"{self.prefix}-{number}", f"port{number}"
        private = self.root / f"host{number}"
        host = Host(f"gnc-host-{number}", f"{SUBNET}.{number}", namespace, link, private, self)
        self.hosts.append(host)
        run("ip", "netns", "add", namespace)
        self.command("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self.command("ip", "link", "set", link, "master", "bridge", "up")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{host.address}/24", "dev", "eth0"),
                      ("link", "set", "eth0", "up"),
                      ("route", "add", "default", "via", f"{SUBNET}.254")):  # fmt: skip
            run("ip", "-n", namespace, *words)
        private.mkdir()
        users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        homes = [[*user[:5], f"{private}/home", *user[6:]] if user[0] == "root" else user for user in users]
        (private / "passwd").write_text("".join(":".join(user) + "\n" for user in homes))
        (private / "sshd_config").write_text(SSHD_CONFIG.format(address=host.address, root=self.root))
        script = FIRST_PROCESS.format(
            name=host.name, private=private, root=self.root, sshd=SSHD, mounts="\n".join(mounts)
        )
        apart = ["ip", "netns", "exec", namespace, "unshare", "-mpuf", "--kill-child", "--mount-proc"]
        with open(private / "sshd.log", "wb") as log:
            host.process = subprocess.Popen(
                [*apart, "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_for_ssh(host)
        return host

    def _wait_for_ssh(self, host: Host) -> None:
        for _ in range(150):
            if subprocess.run(self.ssh(host, "true"), capture_output=True, check=False).returncode == 0:
                return
            assert host.process.poll() is None, (host.private / "sshd.log").read_text()
            time.sleep(0.2)
        raise AssertionError(f"{host.name} does not answer: {(host.private / 'sshd.log').read_text()[-2000:]}")

    def ssh(self, host: Host, command: str) -> list[str]:
        """The words that run a command on a host as a user would, from the user's own machine."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        login = ["ssh", "-i", str(self.root / "user_key"), *options, f"root@{host.address}", command]
        return ["ip", "netns", "exec", self.prefix, *login]

    def end(self) -> None:
        """End the hosts, remove the namespaces."""
        for host in self.hosts:
            host.end()
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.prefix], capture_output=True, check=False)


if __name__ == "__main__":  # python -m tests.cluster.hosts FOLDER: three hosts to look around in, until Ctrl-C
    network = Network(Path(sys.argv[1]).absolute())
    network.root.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    network.start()
    try:
        for _ in range(3):
            added = network.add_host()
            print(" ".join(added.entering("bash", "--login")), flush=True)
        signal.pause()
    finally:
        network.end()
