"""The machines and what trials ask of them: start or join a Ray cluster, see what fits and who shares the folder.

Knows Ray; of a study only its resources and its results folder. Imports no torch.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import study
from study.design.errors import StudyError
from study.design.study_file import Resources
from study.store.storage import FolderError
from study.store.store import Store, open_store
from study.training.data import VARIABLE, data_folder

ANSWER_SECONDS = 120.0  # by then Ray knows that a lost machine is dead
BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # where `ray up` leaves the cluster file on the head, for the autoscaler
TESTED_RAY = ("2.50", "2.60")  # oldest and newest release that the tests were run with
GPU_SHARE = 0.25  # of one GPU, where there is one and the study does not say: these networks are small


@dataclass(frozen=True)
class Allotment:
    """What one worker of a trial gets, and how many such trials fit at once."""

    cpus: float
    gpus: float
    concurrent: int


def ray_problem(version: str = ray.__version__) -> str | None:
    """A sentence where this release of Ray is not among the tested ones, else None."""
    release = [int(part) for part in version.split(".")[:2]]
    oldest, newest = ([int(part) for part in tested.split(".")] for tested in TESTED_RAY)
    if oldest <= release <= newest:
        return None
    return f"Ray {version} is not among the tested versions, {TESTED_RAY[0]} to {TESTED_RAY[1]}"


def join_cluster(address: str | None) -> None:
    """Join the Ray cluster at the address (or RAY_ADDRESS), or start one here; Ray's own output is silenced."""
    address = address or os.environ.get("RAY_ADDRESS")  # which `ray job submit` sets
    # Workers of a cluster that is started here look for data where this process does, wherever Ray starts them. Without
    # such a folder nothing is said of it: an environment of its own costs every worker process a second at its start.
    data = data_folder()
    runtime_env = {"env_vars": {VARIABLE: str(data.resolve())}} if not address and data.exists() else None
    try:
        # Ray lets its workers import from the current directory first: from a folder `study` there in place of ours.
        with contextlib.chdir(Path(study.__file__).parents[1]):
            ray.init(
                # with None Ray would first look for a cluster that this machine started, and wait for a dead one
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                configure_logging=True,
                logging_level=logging.ERROR,
                runtime_env=runtime_env,
            )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        if address is None:
            raise
        problem = " ".join(str(error).split())
        rule = f"--address must name a running Ray cluster that knows this token, got {address!r}"
        cure = "Start one with `ray up cluster.yaml`, or leave --address out to use this machine."
        raise StudyError(f"{rule}: {problem}. {cure}") from None


def allot(resources: Resources, *, workers: int = 1) -> Allotment:
    """CPUs and GPUs of each of a trial's workers, and how many such trials the cluster that was joined holds at once.

    Machines that the autoscaler of `ray up` may start count too: the trials' demand starts them.

    Raises:
        StudyError: the cluster can never place such a trial, or workers of a trial would share a GPU.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    to_come = _machines_to_come()
    known = [*machines, *(machine for machine, _ in to_come)]
    gpus = gpu_share(resources, known, workers=workers)
    if workers > 1 and gpus % 1:
        cure = "NCCL refuses two workers on one GPU: give each worker one, or run these trials without GPUs."
        raise StudyError(f"[resources] gpus must be a whole number for trials of several workers, got {gpus:g}. {cure}")
    here = sum(fits(machine, resources.cpus, gpus) for machine in machines)
    later = sum(fits(machine, resources.cpus, gpus) * count for machine, count in to_come)
    fitting = max(here, later)
    if fitting < workers:
        raise StudyError(_too_much(workers, resources.cpus, gpus, fitting, known))
    return Allotment(resources.cpus, gpus, fitting // workers)


def gpu_share(resources: Resources, machines: Sequence[dict[str, Any]], *, workers: int = 1) -> float:
    """GPUs per worker: what the study says; else 0 without GPUs, a share of one with one worker, 1 with several."""
    if resources.gpus is not None:
        return resources.gpus
    share = GPU_SHARE if workers == 1 else 1.0
    return share if any(machine.get("GPU") for machine in machines) else 0.0


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
    asked = f"cpus = {cpus:g} and gpus = {gpus:g}"
    rule = f"fit on one machine, got {asked} per trial where"
    if workers > 1:
        rule = f"fit on the cluster, got {workers} workers per trial with {asked} each, where {fitting} fit:"
    there = [*there[:5], *([f"and {len(there) - 5} more"] if len(there) > 5 else [])]
    cure = "Ask for less, or join a larger cluster with --address."
    return f"[resources] must {rule} the machines have {'; '.join(there)}. {cure}"


def check_shared_folder(store: Store) -> None:
    """Every machine writes a nonce into the results folder and this one reads it back; FolderError names who cannot.

    On one machine there is nothing to ask. A folder on each machine's own disk would lose the workers' rows silently.
    A machine that dies while it is asked is no longer part of the cluster, and no reason to refuse.
    """
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
    _refuse_unshared(store, [machine for node, machine in unshared.items() if node in still])


def _refuse_unshared(store: Store, unshared: list[str]) -> None:
    lacking = [machine for machine in unshared if "No module named 'study'" in machine]
    if lacking:
        cure = "Bring it there: ray up runs the cluster file's set-up commands."
        raise FolderError(f"gnc-study must be installed on all machines, got none on {', '.join(lacking[:5])}. {cure}")
    if unshared:
        got = f"got {store.uri!r}, which is another on {', '.join(unshared[:5])}"
        cure = "Name a network folder or an object store: gnc run STUDY s3://bucket/results."
        raise FolderError(f"results folder must be shared by all machines, {got}. {cure}")


def ask_machines(
    function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]]
) -> Iterator[tuple[str, Any | Exception]]:
    """Run a module's function on machines of the joined cluster at once: what it gives on each, or the error."""
    tasks = {
        node: ray.remote(function)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(*own)
        for node, own in arguments.items()
    }
    for node, task in tasks.items():
        try:
            yield node, ray.get(task, timeout=ANSWER_SECONDS)
        except (ray.exceptions.RayError, OSError) as error:
            yield node, error


def alive_machines() -> dict[str, str]:
    """Addresses of the machines of the joined cluster, by Ray's id of each."""
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
