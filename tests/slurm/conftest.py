"""SLURM's own daemons, started here with a configuration of their own, and ended by their process numbers.

Two nodes of one processor each stand on this machine. The second sees another folder under `local`, as a disk of its own.
No accounting, no cgroup plugin: steps are tracked by process group, and processors are granted but not bound.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_for

NODES = ("n1", "n2")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """
ClusterName=gnc
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=30
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1
PartitionName=short Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is run by `make test-slurm` alone."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.timeout(3000))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Slurm:
    """The daemons and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        folder = self.folder
        folder.chmod(0o711)  # munge's socket is for every user
        for name in ("state", "spool/n1", "spool/n2", "log", "munge", "local", "run"):
            (folder / name).mkdir(parents=True)
        (folder / "munge").chmod(0o755)
        (folder / "munge/key").write_bytes(os.urandom(1024))
        (folder / "munge/key").chmod(0o400)
        controller, first, second = free_ports(3)
        text = CONFIGURATION.format(
            host=socket.gethostname(), folder=folder, controller=controller, first=first, second=second
        )
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text("NodeName=n1 Name=gpu File=/dev/null\n")
        munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "munged", "--foreground", f"--socket={folder}/munge/socket", *munge)
        wait_for((folder / "munge/socket").exists, "munged to listen")
        self._start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self.ask("sinfo", "-h", "-o", "%D %t") == "2 idle", "both nodes to be idle")

    def start_node(self, node: str) -> None:
        own_disk = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {self.folder}/local && exec "$@"', "sh"]
        self._start(node, *(own_disk if node == "n2" else []), "slurmd", "-D", "-N", node)

    def _start(self, name: str, *command: str) -> None:
        log = (self.folder / "log" / f"{name}.out").open("ab")
        command = (shutil.which(command[0], path=PATH) or command[0], *command[1:])
        self._daemons[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True
        )

    def ask(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def gnc(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command in the folder from which jobs are submitted."""
        command = [sys.executable, "-m", "gnc.cli.main", *map(str, words)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def submit(self, script: str) -> str:
        """The number of the job that is submitted with this script."""
        path = self.folder / "script.sbatch"
        path.write_text(script)
        return self.ask("sbatch", "--parsable", str(path))

    def states(self, job: str) -> dict[str, tuple[str, str, str]]:
        """State, node and number of restarts of each task that SLURM still lists, by its index."""
        told = {}
        for line in self.ask("scontrol", "--oneliner", "show", "job", job, check=False).splitlines():
            fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
            told[fields.get("ArrayTaskId", "")] = (fields["JobState"], fields.get("NodeList", ""), fields["Restarts"])
        return told

    def await_end(self, job: str, seconds: float = 1000) -> dict[str, tuple[str, str, str]]:
        """The states once no task waits or runs."""

        def ended() -> dict[str, tuple[str, str, str]] | None:
            states = self.states(job)
            over = all(state not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED") for state, *_ in states.values())
            return states if states and over else None

        return wait_for(ended, f"the end of job {job} ({self.states(job)})", seconds=seconds)

    def log(self, job: str, task: int) -> str:
        found = list(self.folder.glob(f"*-{job}_{task}.log"))
        return found[0].read_text() if found else ""

    def processes(self, **variables: str) -> list[int]:
        """The processes whose environment has these values."""
        wanted = {f"{name}={value}".encode() for name, value in variables.items()}
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted <= set(path.read_bytes().split(b"\0")):
                    found.append(int(path.parent.name))
        return found

    def left_of(self, job: str) -> list[int]:
        """The processes of an array that still run: Ray's own end a moment after the run."""
        return self.processes(SLURM_CONF=self.environment["SLURM_CONF"], SLURM_ARRAY_JOB_ID=job)

    def lose_node(self, node: str) -> None:
        """The node's power is cut: its daemon and all that runs on it are gone at once."""
        steps = self.processes(SLURM_CONF=self.environment["SLURM_CONF"], SLURMD_NODENAME=node)
        daemon = self._daemons.pop(node)
        os.killpg(daemon.pid, signal.SIGKILL)
        for process in {*steps, *self._stepd(node)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        daemon.wait()

    def _stepd(self, node: str) -> list[int]:
        """The daemons that watch over steps of a node: their memory names its spool folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if path.read_text().startswith("slurmstepd"):
                    open_files = [os.readlink(link) for link in (path.parent / "fd").iterdir()]
                    if any(
                        f"{self.folder}/spool/{node}/" in name or f"{self.folder}/log/{node}.log" in name
                        for name in open_files
                    ):
                        found.append(int(path.parent.name))
        return found

    def end(self) -> None:
        """Cancel all jobs, and end each daemon that was started here."""
        if "slurmctld" in self._daemons:
            self.ask("scancel", "--user=root", check=False)
            for node in NODES:
                for process in self.processes(SLURM_CONF=self.environment["SLURM_CONF"], SLURMD_NODENAME=node):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    absent = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    if absent or os.getuid() != 0:
        pytest.skip(f"needs root and SLURM's daemons; absent: {', '.join(absent) or 'none, but this is not root'}")
    folder = Path(tempfile.mkdtemp(prefix="gnc-slurm-", dir="/tmp"))
    cluster = Slurm(folder)
    began = time.monotonic()
    try:
        cluster.start()
        print(f"SLURM is up after {time.monotonic() - began:.0f} s")
        yield cluster
    except BaseException:
        for log in sorted((folder / "log").glob("*")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
