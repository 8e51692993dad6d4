"""Checks of this machine for `gnc doctor`: versions, processors and memory, free disk space, and what surrounds a run:
variables, limits, folders of the user, other Rays. Some cannot fail: they say what a run makes of what it finds. Imports
torch when asked; does not import Ray."""

import contextlib
import importlib.metadata
import os
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import study
from gnc_models.user_cache import cache_folder
from study.doctor.check import Check, failed, guarded, ok, skipped, verdict
from study.execution import granted
from study.execution.granted import temporary_base, usable_cpus, usable_memory
from study.store.store import Store, open_store

OLDEST, NEWEST = (3, 11), (3, 13)
ROOM_BYTES = 2 << 30  # a study of a thousand trials with Ray's logs may need as much
RAY_REFUSES = 0.95  # Ray places no task on a machine whose disk is fuller
OPEN_FILES = 1024  # a run on two processors gets by with as many
PROCESSES = 1000  # and threads: a Ray on two processors has some 400, and more for each further one
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
RAY_PROXY = "RAY_grpc_enable_http_proxy"
CONSTRAINTS = Path(study.__file__).parents[1] / "constraints.txt"
PINNED = re.compile(r"^\s*([A-Za-z0-9_.-]+)==(\S+)\s*$", re.MULTILINE)


def check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return ok("python", version)
    return failed("python", f"this is {version}", "Make the environment with Python 3.11 to 3.13.")


def check_packages() -> Check:
    """Everything that this package requires is there, in a version that it can use."""
    wrong = []
    for requirement in _requirements("gnc-study"):
        installed, asked = installed_version(requirement.name), requirement.specifier
        if installed is None or not asked.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} must be {asked or 'there'}, got {installed or 'none'}")
    return verdict("packages", wrong, "all requirements are met", "pip install -c constraints.txt gnc-study.")


def check_tested_versions() -> Check:
    """Packages as constraints.txt pins them: with others rows may differ in their last digits."""
    if not CONSTRAINTS.exists():
        return skipped("tested versions", "no constraints.txt beside an installed wheel")
    pins, needed = dict(PINNED.findall(CONSTRAINTS.read_text())), _needed("gnc-study")
    present = {name: installed_version(name) for name in pins if canonicalize_name(name) in needed}
    other = {name: here for name, here in present.items() if here is not None and here.split("+")[0] != pins[name]}
    wrong = [f"{name} is {here}, tested was {pins[name]}" for name, here in other.items()]
    cure = "pip install -c constraints.txt gnc-study; a GPU's local build (+cu...) of the same version is the same."
    return verdict("tested versions", wrong, f"{len(present)} packages are those of constraints.txt", cure)


def check_processors() -> Check:
    """CPUs and memory that runs use and `gnc check` prices with, and the GPUs that torch sees."""
    import torch

    cpus = f"{usable_cpus()} of {os.cpu_count()} CPUs, {usable_memory() / 2**30:.1f} GiB"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not gpus and Path("/dev/nvidiactl").exists():
        cure = "Install a torch build for this driver's CUDA, or a newer driver: nvidia-smi shows which it has."
        problem = f"an NVIDIA driver is here but torch {torch.__version__} sees no GPU"
        return failed("processors", f"{cpus}; {problem}", cure)
    return ok("processors", f"{cpus}, {len(gpus)} GPUs{': ' if gpus else ''}{', '.join(sorted(set(gpus)))}")


def check_writable(store: Store) -> Check:
    """A file is written to the results and removed; on an object store with this machine's credentials."""
    (open_store(there) if (there := _nearest(store)) else store).storage.check_writable()  # and no folder is made
    return ok("results", f"{store.uri} is writable")


def check_disks(store: Store | None) -> Check:
    """Room for results, and for what Ray writes; Ray places nothing on a full disk."""
    folders = [temporary_base()[0]]
    if store is not None and (there := _nearest(store)):
        folders.append(there)
    wrong, told = list[str](), list[str]()
    for folder in folders:
        usage = shutil.disk_usage(folder)
        is_full = usage.free < ROOM_BYTES or usage.used / usage.total > RAY_REFUSES
        (wrong if is_full else told).append(f"{usage.free / 2**30:.1f} GiB free at {folder}")
    return verdict("disk", wrong, ", ".join(told), "Free space there, or point RAY_TMPDIR or the results elsewhere.")


def _nearest(store: Store) -> Path | None:
    """The results folder, or the nearest above that is there; None for an object store."""
    path = store.storage.local_path("")
    return path and next(folder for folder in (path, *path.parents) if folder.exists())


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements(name: str) -> list[Requirement]:
    """What an installed package requires on this machine, without its extras."""
    requirements = map(Requirement, importlib.metadata.requires(name) or [])
    return [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def _needed(name: str) -> set[str]:
    """The packages that one needs, and those that these need, without extras of this package."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found = {canonicalize_name(requirement.name) for requirement in _requirements(waiting.pop())} - needed
            needed |= found
            waiting += found
    return needed


def check_environment(store: Store) -> Iterator[Check]:
    yield guarded("temporary", check_temporary, "Set RAY_TMPDIR.")
    yield from check_user()
    yield guarded("limits", check_limits, "Look at ulimit -a.")
    yield from check_network()
    yield guarded("other Rays", check_other_rays, "Look at ps aux.")
    told = store.storage.read_as_columns()
    yield verdict("path", [told] if told else [], f"{store.uri} holds no =", "Name the folder without =.")


def check_temporary() -> Check:
    base, note = granted.temporary_base()
    barred = "; programs may not start there, and none does" if os.statvfs(base).f_flag & os.ST_NOEXEC else ""
    return ok("temporary", (note or f"{base}") + barred)


def check_user() -> Iterator[Check]:
    """What the user's home and umask mean for a run."""
    folder = cache_folder()
    told = f"{folder} cannot be written: codes that take long are computed anew by each run (GNC_CACHE moves it)"
    with (
        contextlib.suppress(OSError),
        tempfile.TemporaryFile(dir=next(p for p in (folder, *folder.parents) if p.exists())),
    ):
        told = f"{folder} is writable"
    yield ok("home", told)
    os.umask(mask := os.umask(0o77))
    wrong = [f"{mask:03o} takes away your own rights to what you write"] if mask & 0o700 else []
    shared = "others can read the results" if not mask & 0o044 else "others cannot read the results (022 lets them)"
    yield verdict("umask", wrong, f"{mask:03o}: {shared}", "Say umask 022.")


def check_limits() -> Check:
    """Open files and processes that this user may have; root may start as many as the machine holds."""
    (_, files), (processes, _) = map(resource.getrlimit, (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    limits = ((files, OPEN_FILES, "open files"), (processes if os.getuid() else -1, PROCESSES, "processes and threads"))
    wrong = [f"at most {held} {what}, of at least {least}" for held, least, what in limits if 0 <= held < least]
    told = f"{files} open files, {processes} processes and threads (-1: any number of them)"
    return verdict("limits", wrong, told, "Raise them with ulimit -n and ulimit -u, or ask who runs the machine.")


def check_network() -> Iterator[Check]:
    """Addresses of this machine, and proxies, which Ray's own connections pass by unless it was told otherwise."""
    told = "no IPv6; Ray uses IPv4"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as tried:
        tried.bind(("::1", 0))
        told = "IPv4 and IPv6"
    yield ok("loopback", told)
    named = ", ".join(name for name in PROXIES if os.environ.get(name))
    to_ray = [f"{named} and {RAY_PROXY}"] if named and os.environ.get(RAY_PROXY, "0") != "0" else []
    told = f"{named}: object stores and downloads go through it, Ray does not" if named else "none"
    yield verdict("proxies", to_ray, told, f"Unset {RAY_PROXY}: Ray's processes would meet at the proxy.")


def check_other_rays() -> Check:
    users: Counter[str] = Counter()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (folder / "comm").read_text() == "gcs_server\n":
                users["yours" if folder.stat().st_uid == os.getuid() else "of others"] += 1
    told = ", ".join(f"{count} {whose}" for whose, count in users.items()) or "none"
    return ok("other Rays", f"{told}; gnc run starts one of its own, with its own folder and ports")
