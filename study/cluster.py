"""Do the machines have what the trials ask? Starts or joins a Ray cluster and compares.

Knows Ray; of the study only its resources and whether all machines see its results folder. No torch.
"""

import logging
import os
import secrets
from dataclasses import dataclass

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.refusals import StudyError
from study.spec import Resources
from study.storage import FolderError
from study.store import Store, open_store

GPU_SHARE = 0.25  # of one GPU, where there is one and the study does not say: these networks are small


@dataclass(frozen=True)
class Allotment:
    """What one worker of a trial gets, and how many such trials fit at once."""

    cpus: float
    gpus: float
    concurrent: int


def join_cluster(address: str | None) -> None:
    """Join the Ray cluster at the address (or RAY_ADDRESS), or start one on this machine; Ray's own output is silenced."""
    try:
        ray.init(
            # "local", not None: Ray would first look for a cluster that this machine once started, and wait for a dead one
            address=address or os.environ.get("RAY_ADDRESS") or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            configure_logging=True,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError) as error:
        raise StudyError(
            f"--address must name a running Ray cluster, got {address!r}: {error}. "
            "Start one with `ray up cluster.yaml`, or leave --address out to use this machine."
        ) from None


def allot(resources: Resources, *, workers: int = 1) -> Allotment:
    """CPUs and GPUs of a trial's workers on the cluster that was joined, spread over its machines as they fit.

    Raises:
        StudyError: the cluster can never place such a trial, or workers of a trial would share a GPU.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = resources.gpus
    if gpus is None:
        gpus = (GPU_SHARE if workers == 1 else 1.0) if any(machine.get("GPU") for machine in machines) else 0.0
    if workers > 1 and gpus % 1:
        raise StudyError(
            f"[resources] gpus must be a whole number for trials of several workers, got {gpus:g}. "
            "NCCL refuses two workers on one GPU: give each worker one, or run these trials without GPUs."
        )
    fitting = sum(_fits(machine, resources.cpus, gpus) for machine in machines)
    if fitting < workers:
        raise StudyError(_too_much(workers, resources.cpus, gpus, fitting, machines))
    return Allotment(resources.cpus, gpus, fitting // workers)


def _too_much(workers: int, cpus: float, gpus: float, fitting: int, machines: list[dict[str, float]]) -> str:
    there = [f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines]
    asked = f"cpus = {cpus:g} and gpus = {gpus:g}"
    if workers == 1:
        rule = f"fit on one machine, got {asked} a trial where the machines have"
    else:
        rule = f"fit on the cluster, got {workers} workers a trial with {asked} each, where {fitting} fit: the machines have"
    more = f"; and {len(there) - 5} more" if len(there) > 5 else ""
    return (
        f"[resources] must {rule} {'; '.join(there[:5])}{more}. Ask for less, or join a larger cluster with --address."
    )


def check_shared_folder(store: Store) -> None:
    """Every machine writes a nonce into the results folder and this one reads it back; FolderError names who cannot.

    On one machine there is nothing to ask. A folder on each machine's own disk would lose the workers' rows silently.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    nonces = {node["NodeID"]: f"probe-{secrets.token_hex(8)}" for node in nodes}
    tasks = {
        node: ray.remote(_write_nonce).options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(absolute(store), nonce)
        for node, nonce in nonces.items()
    }  # fmt: skip
    machines = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
    apart = []
    for node, nonce in nonces.items():
        try:
            ray.get(tasks[node], timeout=60)
        except (ray.exceptions.RayError, OSError) as error:
            apart.append(f"{machines[node]} ({str(error).splitlines()[-1]})")
            continue
        if store.storage.read(nonce) is None:
            apart.append(machines[node])
        store.storage.remove(nonce)
    if apart:
        raise FolderError(
            f"results folder must be shared by all machines, got {store.uri!r}, which is not for {', '.join(apart[:5])}. "
            "Name a network folder or an object store: gnc run STUDY s3://bucket/results."
        )


def absolute(store: Store) -> str:
    """The folder or URI as a worker in another working directory can open it."""
    return store.uri if "://" in store.uri else str(store.storage.local_path(""))


def _write_nonce(results: str, nonce: str) -> None:
    open_store(results).storage.write(nonce, b"here")


def _fits(machine: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = int(machine.get("CPU", 0.0) / cpus + 1e-9)
    return min(by_cpu, int(machine.get("GPU", 0.0) / gpus + 1e-9)) if gpus else by_cpu
