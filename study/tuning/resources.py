"""The machines and what trials ask of them: start or join a Ray cluster, see what fits and who shares the folder.
Knows Ray; of a study only its resources and its results folder. Imports no torch."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from packaging.version import Version
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import study
from gnc_models.datasets.stored.layouts import VARIABLE, data_folder
from gnc_models.processes import kept_from_children
from study.design.errors import StudyError
from study.design.study_file import Resources
from study.execution.granted import OwnFolder, usable_cpus, usable_memory
from study.store.storage import FolderError
from study.store.store import Store, open_store

ANSWER_SECONDS = 120.0  # by then Ray knows that a lost machine is dead
BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # where `ray up` leaves the cluster file on the head, for the autoscaler
TESTED_RAY = ("2.50", "2.60")  # oldest and newest release that the tests were run with
CONNECT_SECONDS = 10.0
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # and no settings; Ray speaks gRPC
HTTP2_SETTINGS = b"\x04"  # the kind of the first frame of any answer
# Ray would take 30 % of the machine's memory for objects; trials hand over little more than their rows.
LEAST_OBJECT_BYTES, MOST_OBJECT_BYTES = 80_000_000, 1 << 30
GPU_SHARE = 0.25  # of one GPU, where there is one and the study does not say: these networks are small
STARTS, TOO_SLOW = 5, "timed out during startup"  # Ray waits half a minute for its daemons, and so says that it has
TOKEN = secrets.token_hex(32)  # of clusters that this process starts
_own: list[OwnFolder] = []  # of the cluster that this process started


@dataclass(frozen=True)
class Allotment:
    """What one worker of a trial gets, and how many such trials fit at once."""

    cpus: float
    gpus: float
    concurrent: int


def ray_problem(version: str = ray.__version__) -> str | None:
    oldest, newest = map(Version, TESTED_RAY)
    if oldest <= Version(".".join(version.split(".")[:2])) <= newest:
        return None
    return f"Ray {version} is not among the tested versions, {oldest} to {newest}"


def join_cluster(address: str | None) -> None:
    """Join the Ray cluster at the address (or RAY_ADDRESS), or start one here; StudyError where neither is possible.
    One that is started here has a folder and ports of its own, and as many processors as this process may use, so that
    any number of them and of users share a machine. Ray's own output is silenced."""
    named, unset = "--address", "leave --address out"
    if not address:  # `ray job submit` sets the variable
        named, unset, address = "RAY_ADDRESS", "unset RAY_ADDRESS", os.environ.get("RAY_ADDRESS") or "local"
    problem = "" if address == "local" else no_answer(address)
    try:
        if not problem:
            _join(address)
    except StudyError:  # there is no place for Ray's files
        raise
    except Exception as error:  # Ray raises what its parts raise, and Exception itself
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if address == "local":
            told = f"Ray must start on this machine, got {problem}. gnc doctor says what is lacking."
            raise StudyError(told) from error
    if problem:
        cure = f"Start one with `ray up cluster.yaml`, or {unset} to use this machine."
        rule = f"{named} must name a running Ray cluster that knows this token"
        raise StudyError(f"{rule}, got {address!r}: {problem}. {cure}")


def _join(address: str, starts: int = STARTS) -> None:
    options = _local_options() if address == "local" else {}
    if not options:  # it answers, so one that refuses this token need not be asked for as long as one that starts
        ray._private.ray_constants.NUM_REDIS_GET_RETRIES = int(CONNECT_SECONDS)  # a second each
    try:
        # Ray lets its workers import from the current directory first: from a folder `study` there in place of ours.
        # A terminal that is closed tells Ray's daemons too, without which no trial could leave off.
        with contextlib.chdir(Path(study.__file__).parents[1]), kept_from_children(signal.SIGHUP, signal.SIGUSR1):
            # with None for an address Ray would first look for a cluster that this machine started
            ray.init(address, log_to_driver=False, configure_logging=True, logging_level=logging.ERROR, **options)
    except Exception as error:
        leave_cluster()
        if starts == 1 or TOO_SLOW not in str(error):
            raise
        print("this machine is busy: Ray did not start in time and is started again", file=sys.stderr)
        _join(address, starts - 1)


def _local_options() -> dict[str, Any]:
    _own.append(OwnFolder())
    if _own[-1].note:
        print(_own[-1].note, file=sys.stderr)
    if not os.path.exists(os.environ.get("RAY_AUTH_TOKEN_PATH", "")):
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)  # it leads nowhere, and was for another cluster
        # else Ray would keep one in HOME, which may be read-only, and which many tasks would make at the same time
        os.environ.setdefault("RAY_AUTH_TOKEN", TOKEN)
    # Workers look for data where this process does, wherever Ray starts them. Without such a folder nothing is said of
    # it: an environment of its own costs every worker process a second at its start.
    data = data_folder()
    return {
        "_temp_dir": str(_own[-1].path / "r"),  # which Ray opens to every user, and the folder around it does not
        "num_cpus": usable_cpus(),
        "object_store_memory": max(LEAST_OBJECT_BYTES, min(MOST_OBJECT_BYTES, usable_memory() // 10)),
        "include_dashboard": False,
        "runtime_env": {"env_vars": {VARIABLE: str(data.resolve())}} if data.exists() else None,
    }


def leave_cluster() -> None:
    """Disconnect. A cluster that this process started ends, and its folder is removed."""
    ray.shutdown()
    while _own:
        # of a Ray that did not start in time: the commands name its folder, which no other has
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended
                if f"{_own[-1].path}/".encode() in command.read_bytes():
                    os.kill(int(command.parent.name), signal.SIGKILL)
        _own.pop().remove()
    if os.environ.get("RAY_AUTH_TOKEN") == TOKEN:
        del os.environ["RAY_AUTH_TOKEN"]


def no_answer(address: str) -> str:
    """Why no Ray can be reached at an address; empty where something answers as Ray does, or that is for Ray to say.
    Ray itself would try for most of a minute, and then speak of something else."""
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address_or_die  # Ray has no public name for it

        try:
            address = canonicalize_bootstrap_address_or_die(address)
        except ConnectionError:
            return "no Ray runs on this machine, or several"
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        return "an address is host:port, auto or local"
    if os.environ.get("RAY_USE_TLS", "0") != "0":  # Ray would not greet
        return ""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            return "" if connection.recv(9)[3:4] == HTTP2_SETTINGS else "what answers there is not Ray"
    except TimeoutError:
        return f"nothing answered within {CONNECT_SECONDS:.0f} s"
    except OSError as error:
        return error.strerror or str(error)


def allot(resources: Resources, *, workers: int = 1) -> Allotment:
    """CPUs and GPUs of each of a trial's workers, and how many such trials the cluster that was joined holds at once.
    Machines that the autoscaler of `ray up` may start count too: the trials' demand starts them. StudyError where the
    cluster can never place such a trial, or workers of a trial would share a GPU."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    to_come = _machines_to_come()
    known = [*machines, *(machine for machine, _ in to_come)]
    gpus = gpu_share(resources, known, workers=workers)
    if workers > 1 and gpus % 1:
        cure = "NCCL refuses two workers on one GPU: give each worker one, or run these trials without GPUs."
        raise StudyError(f"[resources] gpus must be a whole number for trials of several workers, got {gpus:g}. {cure}")
    here = sum(fits(machine, resources.cpus, gpus) for machine in machines)
    fitting = max(here, sum(fits(machine, resources.cpus, gpus) * count for machine, count in to_come))
    if fitting < workers:
        raise StudyError(_too_much(workers, resources.cpus, gpus, fitting, known))
    return Allotment(resources.cpus, gpus, fitting // workers)


def gpu_share(resources: Resources, machines: Sequence[dict[str, Any]], *, workers: int = 1) -> float:
    """GPUs per worker: what the study says; else 0 without GPUs, a share of one with one worker, 1 with several."""
    usual = (GPU_SHARE if workers == 1 else 1.0) if any(machine.get("GPU") for machine in machines) else 0.0
    return usual if resources.gpus is None else resources.gpus


def _machines_to_come() -> list[tuple[dict[str, Any], int]]:
    """What each machine offers that the autoscaler may start, and how many; known on the head of `ray up` only."""
    try:
        config = yaml.safe_load(Path(BOOTSTRAP).expanduser().read_text())
    except OSError:
        return []
    types = config.get("available_node_types", {}).items()
    workers = [node_type for name, node_type in types if name != config.get("head_node_type")]
    most = int(config.get("max_workers", 0))
    return [(node_type.get("resources", {}), min(int(node_type.get("max_workers", 0)), most)) for node_type in workers]


def _too_much(workers: int, cpus: float, gpus: float, fitting: int, machines: list[dict[str, Any]]) -> str:
    there = [f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines]
    there = [*there[:5], *([f"and {len(there) - 5} more"] if len(there) > 5 else [])]
    asked = f"cpus = {cpus:g} and gpus = {gpus:g}"
    several = f"fit on the cluster, got {workers} workers per trial with {asked} each, where {fitting} fit:"
    rule = several if workers > 1 else f"fit on one machine, got {asked} per trial where"
    cure = "Ask for less, or join a larger cluster with --address."
    return f"[resources] must {rule} the machines have {'; '.join(there)}. {cure}"


def check_shared_folder(store: Store) -> None:
    """Every machine writes a nonce into the results folder and this one reads it back; FolderError names who cannot.
    On one machine there is nothing to ask. A folder on each machine's own disk would lose the workers' rows silently. A
    machine that dies while it is asked is no longer part of the cluster, and no reason to refuse."""
    machines = alive_machines()
    if len(machines) < 2:
        return
    nonces = {node: f"probe-{secrets.token_hex(8)}" for node in machines}
    unshared = {}
    for node, error in ask_machines(_write_nonce, {node: (absolute(store), nonce) for node, nonce in nonces.items()}):
        if error:
            unshared[node] = f"{machines[node]} ({str(error).strip().splitlines()[-1]})"
        elif store.storage.read(nonces[node]) is None:
            unshared[node] = machines[node]
        store.storage.remove(nonces[node])
    still = alive_machines()
    others = [machine for node, machine in unshared.items() if node in still]
    if lacking := [machine for machine in others if "No module named 'study'" in machine]:
        cure = "Bring it there: ray up runs the cluster file's set-up commands."
        raise FolderError(f"gnc-study must be installed on all machines, got none on {', '.join(lacking[:5])}. {cure}")
    if others:
        got = f"got {store.uri!r}, which is another on {', '.join(others[:5])}"
        cure = "Name a network folder or an object store: gnc run STUDY s3://bucket/results."
        raise FolderError(f"results folder must be shared by all machines, {got}. {cure}")


def ask_machines(
    function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]]
) -> Iterator[tuple[str, Any | Exception]]:
    """Run a module's function on machines of the joined cluster at once: what it gives on each, or the error."""
    on = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in arguments}
    asked = {node: ray.remote(function).options(num_cpus=0, scheduling_strategy=there) for node, there in on.items()}
    for node, task in {node: task.remote(*arguments[node]) for node, task in asked.items()}.items():
        try:
            yield node, ray.get(task, timeout=ANSWER_SECONDS)
        except (ray.exceptions.RayError, OSError) as error:
            yield node, error


def alive_machines() -> dict[str, str]:
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def absolute(store: Store) -> str:
    """The folder or URI as a worker in another working directory can open it."""
    return store.uri if "://" in store.uri else str(store.storage.local_path(""))


def _write_nonce(results: str, nonce: str) -> None:
    open_store(results).storage.write(nonce, b"here")


def fits(machine: dict[str, Any], cpus: float, gpus: float) -> int:
    """How many trials of these sizes a machine with these resources holds at once."""
    by_cpu = int(machine.get("CPU", 0.0) / cpus + 1e-9)
    return min(by_cpu, int(machine.get("GPU", 0.0) / gpus + 1e-9)) if gpus else by_cpu
