"""Checks of this machine for `gnc doctor`: versions, processors and memory, free disk space.
Imports torch when asked; does not import Ray."""

import contextlib
import importlib.metadata
import os
import re
import shutil
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import study
from study.doctor.check import Check, failed, ok, skipped, verdict
from study.execution.granted import temporary_base, usable_cpus, usable_memory
from study.store.store import Store

OLDEST, NEWEST = (3, 11), (3, 13)
ROOM_BYTES = 2 << 30  # a study of a thousand trials with Ray's logs may need as much
RAY_REFUSES = 0.95  # Ray places no task on a machine whose disk is fuller
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
    store.storage.check_writable()
    return ok("results", f"{store.uri} is writable")


def check_disks(store: Store | None) -> Check:
    """Room for results, and for what Ray writes; Ray places nothing on a full disk."""
    folders = [temporary_base()[0]]
    local = store.storage.local_path("") if store is not None else None
    if local is not None:
        folders.append(next(folder for folder in (local, *local.parents) if folder.exists()))
    wrong, told = list[str](), list[str]()
    for folder in folders:
        usage = shutil.disk_usage(folder)
        is_full = usage.free < ROOM_BYTES or usage.used / usage.total > RAY_REFUSES
        (wrong if is_full else told).append(f"{usage.free / 2**30:.1f} GiB free at {folder}")
    return verdict("disk", wrong, ", ".join(told), "Free space there, or point RAY_TMPDIR or the results elsewhere.")


def installed_version(name: str) -> str | None:
    """The version of an installed package, None where it is missing."""
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
