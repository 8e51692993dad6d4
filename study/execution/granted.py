"""What this process may use of its machine: processors, memory, and a folder for what is temporary.
A machine's size is not what a process gets: CPU affinity, control groups (containers, schedulers) and SLURM each grant a
part. Knows neither torch nor Ray."""

import contextlib
import fcntl
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gnc_models.datasets.samples.room import Room, in_words
from study.design.errors import StudyError

GROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
PREFIX, RANDOM = "gnc-", "?" * 8  # of a folder for one run; the random part is mkdtemp's
# A Unix socket's path has at most 107 bytes, and below its own folder Ray adds this much.
RAY_ADDS = len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
BASE_BYTES = 107 - RAY_ADDS - len(f"/{PREFIX}{RANDOM}")
STALE_SECONDS = 3600.0
LOCK = "lock"  # in that folder: held for as long as its process lives
PROBE_BYTES = 1 << 20
DATA_SHARE, USUAL_SHARE = "GNC_DATA_SHARE", "0.5"
NO_LIMIT = 1 << 60  # bytes; a group of version 1 without a limit says that it may have more
MOST_READERS = 4  # processes that read streamed data, beside each worker of a trial


def usable_cpus() -> int:
    """Processors that this process may use, at least 1: the least of affinity, control groups and SLURM's grant."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min(affinity or 1, cpu_quota(), slurm_cpus() or math.inf)))


def usable_memory() -> int:
    """Bytes of memory that this process and those beside it may use: the least of machine, control groups and SLURM."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(machine, memory_limit(), slurm_memory() or math.inf))


def data_room() -> Room:
    """What the inputs of one worker of a trial may take here: half of its processor's part of the memory.
    Each processor may have a trial of its own. The environment variable GNC_DATA_SHARE gives another share."""
    written, share = os.environ.get(DATA_SHARE) or USUAL_SHARE, math.nan
    with contextlib.suppress(ValueError):
        share = float(written)
    if not 0 <= share <= 1:
        rule = f"{DATA_SHARE} must be from 0 to 1, a share of the memory"
        raise StudyError(f"{rule}, got {written!r}. Usual is {USUAL_SHARE}.")
    memory, cpus = float(usable_memory()), usable_cpus()
    granted = os.environ.get("OMP_NUM_THREADS", "")  # Ray sets it to the processors of the trial's worker
    readers = min(int(granted), cpus) if granted.isdecimal() else cpus
    reason = f"{share:g} of {in_words(float(memory))}, over {cpus} processor{'s' if cpus > 1 else ''}"
    return Room(share * memory / cpus, min(max(readers, 1), MOST_READERS), reason)


def cpu_quota() -> float:
    """Processors' worth of time that control groups grant; infinity where they set no limit."""
    limits = [(*setting.split(), "100000")[:2] for setting in _settings("", "cpu.max")]  # version 2
    limits += zip(_settings("cpu", "cpu.cfs_quota_us"), _settings("cpu", "cpu.cfs_period_us"), strict=False)
    return min((int(limit[0]) / int(limit[1]) for limit in limits if limit[0].isdecimal()), default=math.inf)


def memory_limit() -> float:
    """Bytes that control groups grant; infinity where they set no limit."""
    limits = [*_settings("", "memory.max"), *_settings("memory", "memory.limit_in_bytes")]
    return min((float(limit) for limit in limits if limit.isdecimal() and int(limit) < NO_LIMIT), default=math.inf)


def _settings(controller: str, name: str) -> Iterator[str]:
    """What the file says in the group of this process and in those above; of version 2 where no controller is named."""
    lines = MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controller in controllers.split(","):
            # a container may not see its own group's path: what is mounted at the root then is its group
            for folder in (group := GROUPS / controller / path.lstrip("/"), *group.parents):
                if folder.is_relative_to(GROUPS) and (folder / name).exists():
                    yield (folder / name).read_text().strip()


def slurm_cpus() -> int:
    """Processors of this job on this node, as SLURM says; 0 where it does not."""
    return _number("SLURM_CPUS_ON_NODE")


def slurm_memory() -> int:
    """Bytes of memory of this job on this node, as SLURM says; 0 where it does not."""
    return (_number("SLURM_MEM_PER_NODE") or _number("SLURM_MEM_PER_CPU") * slurm_cpus()) << 20


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() and "SLURM_JOB_ID" in os.environ else 0


def temporary_base() -> tuple[Path, str]:
    """A folder in which Ray's sockets and files may lie, and why it is not TMPDIR; StudyError where there is none.
    RAY_TMPDIR is taken at its word: where it cannot be used, nothing else is tried."""
    given = os.environ.get("RAY_TMPDIR")
    named = f"RAY_TMPDIR {given}" if given else f"TMPDIR {os.environ.get('TMPDIR') or '/tmp'}"
    places = [given] if given else [os.environ.get("TMPDIR") or "/tmp", "/tmp", "/var/tmp", "/dev/shm"]
    problems = {place: unusable(Path(place)) for place in places}
    usable = next((place for place, problem in problems.items() if not problem), None)
    if usable is None:
        cure = "Set RAY_TMPDIR to a short folder on a disk of this machine that has room, such as /tmp."
        got = f"got {named}, which {problems[places[0]]}"
        raise StudyError(f"Ray's files and sockets must have a folder, {got}. {cure}")
    return Path(usable), f"{named} {problems[places[0]]}; Ray's files lie in {usable}" if usable != places[0] else ""


def unusable(folder: Path) -> str:
    """Why Ray could not keep its files and sockets in this folder, in words that follow its name; empty if it could."""
    if (length := len(os.fsencode(folder.absolute()))) > BASE_BYTES:
        return f"is too long a path for sockets ({length} bytes, at most {BASE_BYTES})"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=PREFIX) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as error:
        return f"cannot be written to ({error.strerror})"
    return ""


class OwnFolder:
    """A folder for one run's temporary files, so that runs and users on a machine share none. It goes with its process.
    Where a process was killed the folder stays, and the next one removes it: nobody holds its lock."""

    def __init__(self) -> None:
        base, self.note = temporary_base()
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base.absolute()))
        self._lock = open(self.path / f"{LOCK}-", "w")  # noqa: SIM115 - open, and so locked, until this process ends
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(self._lock.name, self.path / LOCK)  # another process sees it only once it is locked

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _sweep(base: Path) -> None:
    for lock in base.glob(f"{PREFIX}{RANDOM}/{LOCK}"):
        # another user's, or one whose process lives
        with contextlib.suppress(OSError), open(lock) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    for folder in base.glob(f"{PREFIX}{RANDOM}"):
        with contextlib.suppress(OSError):  # what a Ray that ended late wrote into a folder that was gone
            if os.listdir(folder) == ["r"] and time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
