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
    """What one trial gets, and how many fit at once."""

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


def allot(resources: Resources) -> Allotment:
    """CPUs and GPUs of a trial on the cluster that was joined; StudyError if no machine can ever place one."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total_gpus = sum(machine.get("GPU", 0.0) for machine in machines)
    gpus = resources.gpus if resources.gpus is not None else (GPU_SHARE if total_gpus else 0.0)
    fitting = sum(_fits(machine, resources.cpus, gpus) for machine in machines)
    if not fitting:
        largest = [f"{machine.get('CPU', 0):g} CPUs and {machine.get('GPU', 0):g} GPUs" for machine in machines]
        raise StudyError(
            f"[resources] must fit on one machine, got cpus = {resources.cpus:g} and gpus = {gpus:g} a trial "
            f"where the machines have {'; '.join(largest[:5])}. Ask for less, or join a larger cluster with --address."
        )
    return Allotment(resources.cpus, gpus, fitting)


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
