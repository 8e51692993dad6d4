"""Do the machines have what the trials ask? Starts or joins a Ray cluster and compares.

Knows Ray; does not know studies beyond their resources, the store or torch.
"""

import logging
import os
from dataclasses import dataclass

import ray

from study.refusals import StudyError
from study.spec import Resources

GPU_SHARE = 0.25  # of one GPU, where there is one and the study does not say: these networks are small


@dataclass(frozen=True)
class Allotment:
    """What one trial gets, and how many fit at once."""

    cpus: float
    gpus: float
    concurrent: int


def join_cluster(address: str | None) -> None:
    """Join the Ray cluster at the address (or RAY_ADDRESS), or start one on this machine; Ray's own output is silenced."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address=address,
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


def _fits(machine: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = int(machine.get("CPU", 0.0) / cpus + 1e-9)
    return min(by_cpu, int(machine.get("GPU", 0.0) / gpus + 1e-9)) if gpus else by_cpu
