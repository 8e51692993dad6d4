"""What SLURM granted this job beside what a run in it sees, for `gnc doctor --slurm`.
Asks SLURM's own commands; imports torch when asked, and not Ray."""

import os
import subprocess
from collections.abc import Iterator

from study.doctor.check import Check, failed, guarded, ok, skipped, verdict
from study.execution import granted
from study.execution.array_tasks import VARIABLE, check_tasks_share
from study.store.store import Store

ANSWER_SECONDS = 60.0


def check_allocation(store: Store | None) -> Iterator[Check]:
    """All checks; a single failed one outside a job."""
    job, task = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if job is None:
        yield failed("allocation", "SLURM_JOB_ID is not set", "Run this in a job: srun gnc doctor --slurm.")
        return
    yield ok("allocation", f"job {job}{f', task {task}' if task else ''} on {os.environ.get('SLURMD_NODENAME', '?')}")
    yield check_cpus()
    yield check_memory()
    yield guarded("GPUs", check_gpus, "Install torch again for this machine.")
    yield guarded("folder shared", lambda: check_folder(store), "Name a folder that every node sees.")
    yield guarded("time left", lambda: check_time_left(job), "Ask squeue on a login node.")


def check_cpus() -> Check:
    """Processors that a run sees against those granted."""
    allowed, asked, used = len(os.sched_getaffinity(0)), granted.slurm_cpus(), granted.usable_cpus()
    told = f"{used} are used of {os.cpu_count()} in the machine, {allowed} by affinity, {asked or 'none said'} granted"
    cure = "Bind the step to all CPUs of its task: srun --cpus-per-task=N, or --cpu-bind=none."
    return verdict("CPUs", [told] if asked and used < asked else [], told, cure)


def check_memory() -> Check:
    """Memory that a run reckons with against that granted."""
    asked, limit = granted.slurm_memory(), granted.memory_limit()
    told = f"{asked / 2**30:.1f} GiB granted" if asked else "SLURM names no limit"
    enforced = f"{limit / 2**30:.1f} GiB by control group" if limit < float("inf") else "no control group's limit"
    return ok("memory", f"{granted.usable_memory() / 2**30:.1f} GiB are reckoned with: {told}, {enforced}")


def check_gpus() -> Check:
    """GPUs that torch sees against those granted."""
    import torch

    listed = [gpu for gpu in os.environ.get("SLURM_JOB_GPUS", "").split(",") if gpu]
    asked, seen = int(os.environ.get("SLURM_GPUS_ON_NODE") or len(listed)), torch.cuda.device_count()
    told = f"{seen} seen, {asked} granted, CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}"
    cure = "Ask nvidia-smi on this node whether torch is built for its driver."
    cure = cure if seen < asked else "The node hides no GPU of others: set CUDA_VISIBLE_DEVICES to those granted."
    return verdict("GPUs", [told] if seen != asked else [], told, cure)


def check_folder(store: Store | None) -> Check:
    """Whether the tasks of the array, or the nodes of the job, see one results folder."""
    name = "folder shared"
    if store is None:
        return skipped(name, "name it with --results")
    if not store.storage.is_local:
        return ok(name, f"{store.uri} is the same from everywhere")
    check_tasks_share(store)
    if os.environ.get(VARIABLE):
        return ok(name, f"{store.uri} is that of the tasks that have begun")
    return skipped(name, "this job is no array of gnc slurm; a run over several nodes asks each of them")


def check_time_left(job: str) -> Check:
    words = ["squeue", "--noheader", "--jobs", job, "--format", "%L"]
    asked = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True)
    return ok("time left", f"{asked.stdout.strip()} (days-hours:minutes:seconds)")
