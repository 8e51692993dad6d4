"""When, where and with what a trial ended: columns of trials.parquet that explain differences between numbers.
Knows the machine and package versions; does not know the trial."""

import contextlib
import datetime
import functools
import importlib.metadata
import json
import platform
import re
import socket
from pathlib import Path
from typing import Any

import torch

# Packages that decide numbers.
PACKAGES = ("gnc-study", "torch", "torchvision", "numpy", "scipy", "pillow", "matplotlib", "fonttools")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """When, where and with what a trial ended."""
    return {
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "cpu_model": cpu_model(),
        "gpu_model": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "versions": versions(),
    }


@functools.cache
def versions() -> str:
    """Versions as JSON of Python and of the packages that decide numbers and data."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return json.dumps({"python": platform.python_version(), **packages})


@functools.cache
def cpu_model() -> str:
    """The CPU as /proc/cpuinfo names it, else as Python does."""
    with contextlib.suppress(OSError):
        if named := re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return named[1].strip()
    return platform.processor() or platform.machine()
