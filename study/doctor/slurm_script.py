"""What SLURM is asked for and what it granted: the sbatch script of a study, an array of tasks, each a `gnc run` of its own,
which share the results folder; what a job got beside what a run in it sees. The script is refused where SLURM would
refuse it, and not submitted. Asks SLURM's own commands; imports torch when asked, and not Ray."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.design.errors import StudyError, require
from study.design.study_file import Study
from study.doctor.check import Check, failed, guarded, ok, skipped, verdict
from study.execution import granted
from study.execution.run_mark import VARIABLE, check_tasks_share
from study.store.store import Store

TIME = re.compile(r"([0-9]{1,5}-)?[0-9]{1,7}(:[0-9]{1,7}){0,2}")  # SLURM counts minutes in 32 bits
NAME = re.compile(r"[A-Za-z0-9_.,:+-]+")
MEMORY = re.compile(r"[0-9]{1,12}K|[0-9]{1,9}M?|[0-9]{1,6}G|[0-9]{1,3}T")
GPUS = re.compile(r"((?!gpu:)[A-Za-z0-9_.-]+:(?=.*[1-9]))?[0-9]{1,4}")
ANSWER_SECONDS, QUEUE_SECONDS = 30.0, 60.0  # of sbatch and squeue
UNASKED = "SLURM does not answer here, so it checks the options only when the script is submitted"
AWAY = re.compile("Unable to contact|Connection refused|configuration source")  # no refusal: SLURM could not be asked

SCRIPT = Path(__file__).with_name("slurm_array.sh").read_text(encoding="utf-8")  # with names in braces to be filled in


@dataclass(frozen=True)
class Request:
    tasks: int
    cpus: int
    gpus: str  # a number, or TYPE:NUMBER
    time: str  # in one of SLURM's forms
    warning: int  # seconds before the time limit in which a run leaves off
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None

    @property
    def num_gpus(self) -> int:
        return int(self.gpus.rpartition(":")[2])

    def check(self, study: Study) -> None:
        """StudyError where SLURM would refuse an option, or where no trial of the study would fit into a task."""
        for name, value in (("tasks", self.tasks), ("cpus", self.cpus), ("warning", self.warning)):
            require(1 <= value <= 65535, f"--{name} must be a whole number from 1 to 65535, got {value}.")
        for name, form, rule in (
            ("gpus", GPUS, "a number or TYPE:NUMBER such as a100:1"),
            ("memory", MEMORY, "a number with K, M, G or T below 1000T, such as 16G"),
            *((name, NAME, "a name of letters, digits and _.,:+-") for name in ("partition", "account", "qos")),
        ):
            value = getattr(self, name)
            require(value is None or bool(form.fullmatch(value)), f"--{name} must be {rule}, got {value!r}.")
        rule = f"--time must be more than twice the {self.warning} s of --warning, got {self.time!r}"
        seconds = seconds_of(self.time)
        require(seconds > 2 * self.warning, f"{rule}, which is {seconds} s. Ask for more time, or warn later.")
        workers = max((config.workers for config in study.configs or study.extremes), default=1)
        wanted = {"cpus": (study.resources.cpus, self.cpus), "gpus": (study.resources.gpus or 0, self.num_gpus)}
        for name, (each, given) in wanted.items():
            rule = f"--{name} must be at least {workers * each:g}, which one trial of {study.name} takes, got {given}"
            require(workers * each <= given, f"{rule}. Give a task more, or the trial less under [resources].")


def seconds_of(time: str) -> int:
    """A time limit in SLURM's forms: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S. StudyError where it is none of them."""
    forms = "4:00:00 (hours), 90 (minutes) or 1-12 (days and hours), for some years at most"
    require(bool(TIME.fullmatch(time)), f"--time must be a limit as SLURM writes it, such as {forms}, got {time!r}.")
    days, dash, rest = time.rpartition("-")
    values = [int(value) for value in rest.split(":")]
    if not dash and len(values) < 3:
        values = [0, *values]  # minutes come first
    hours, minutes, seconds = [*values, 0, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def make_script(study: Study, store: Store, request: Request, *, study_path: str, more: list[str]) -> str:
    """The script, to be submitted from anywhere; its tasks write their logs into the current folder. more: options of `gnc run`."""
    folder = str(Path.cwd())
    rule = 'the name of the current folder must hold no ", no \\ and no line break'
    require(not re.search(r'["\\\n]', folder), f"{rule}, got {folder!r}. Call gnc slurm in another folder.")
    job = re.sub(r"[^A-Za-z0-9_.-]", "-", study.name)
    results = str(store.storage.local_path("") or store.uri)
    words = [sys.executable, "-P", "-m", "gnc.cli.main", "run", str(Path(study_path).absolute()), results]
    asked = {"gres": f"gpu:{request.gpus}" if request.num_gpus else None, "mem": request.memory}
    asked |= {name: getattr(request, name) for name in ("partition", "account", "qos")}
    return SCRIPT.format(
        **vars(request), job=job, folder=folder, here=shlex.quote(folder), last=request.tasks - 1,
        more=" ".join(f"--{name}={value}" for name, value in asked.items() if value), variable=VARIABLE,
        command=shlex.join([*words, *more]),
    )  # fmt: skip


def ask_slurm(script: str) -> str | None:
    """Let SLURM check the script; StudyError where it refuses. None, or why it could not be asked. Nothing is submitted."""
    if shutil.which("sbatch") is None:
        return "there is no sbatch here, so SLURM checks the options only when the script is submitted"
    given: dict[str, Any] = {"input": script, "capture_output": True, "text": True, "timeout": ANSWER_SECONDS}
    try:
        asked = subprocess.run(["sbatch", "--test-only"], check=False, **given)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{UNASKED} ({error})"
    told = "; ".join(re.findall(r"^(?:sbatch: )?(?:error: )?(.*)$", asked.stderr.strip(), re.MULTILINE))
    if asked.returncode and not AWAY.search(told):
        raise StudyError(f"SLURM must accept the options, got: {told}. sinfo shows what there is.")
    return f"{UNASKED} ({told.partition('; ')[0]})" if asked.returncode else None


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
    allowed, asked, used = len(os.sched_getaffinity(0)), granted.slurm_cpus(), granted.usable_cpus()
    told = f"{used} are used of {os.cpu_count()} in the machine, {allowed} by affinity, {asked or 'none said'} granted"
    cure = "Bind the step to all CPUs of its task: srun --cpus-per-task=N, or --cpu-bind=none."
    return verdict("CPUs", [told] if asked and used < asked else [], told, cure)


def check_memory() -> Check:
    asked, limit = granted.slurm_memory(), granted.memory_limit()
    told = f"{asked / 2**30:.1f} GiB granted" if asked else "SLURM names no limit"
    enforced = f"{limit / 2**30:.1f} GiB by control group" if limit < float("inf") else "no control group's limit"
    return ok("memory", f"{granted.usable_memory() / 2**30:.1f} GiB are reckoned with: {told}, {enforced}")


def check_gpus() -> Check:
    import torch

    listed = [gpu for gpu in os.environ.get("SLURM_JOB_GPUS", "").split(",") if gpu]
    # 2, gpu:1 or gpu:a100:2(S:0-1),gpu:1
    named = re.findall(r"(?:^|[:,])(\d+)(?=$|[,(])", os.environ.get("SLURM_GPUS_ON_NODE", ""))
    asked, seen = sum(map(int, named)) or len(listed), torch.cuda.device_count()
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
    problem = check_tasks_share(store)
    if os.environ.get(VARIABLE) and not problem:
        return ok(name, f"{store.uri} is that of the tasks that have begun")
    return skipped(name, problem or "this job is no array of gnc slurm; a run over several nodes asks each of them")


def check_time_left(job: str) -> Check:
    if task := os.environ.get("SLURM_ARRAY_TASK_ID"):  # by its own number the last task would mean the whole array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}"
    words = ["squeue", "--noheader", "--jobs", job, "--format", "%L"]
    asked = subprocess.run(words, capture_output=True, text=True, timeout=QUEUE_SECONDS, check=True)
    return ok("time left", f"{asked.stdout.strip()} (days-hours:minutes:seconds)")
