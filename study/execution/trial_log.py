"""The log of one attempt at one trial: what it was asked, how it went, what it printed, how, where and with what it ended.
Where the results lie on a disk every line is there at once; in an object store the whole log is put again at heartbeats
and at the end. A log that cannot be written stops no trial. Knows the store; does not know how a trial is trained."""

import contextlib
import datetime
import faulthandler
import functools
import importlib.metadata
import io
import json
import logging
import os
import platform
import re
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch

from study.design.config import TrialConfig
from study.store.attempts import log_name
from study.store.schemas import identity_and_settings
from study.store.store import Store

MOST_BYTES = 1 << 20  # of one attempt's log; later lines are left out, except how it ended
# Packages that decide numbers.
PACKAGES = ("gnc-study", "torch", "torchvision", "numpy", "scipy", "pillow", "matplotlib", "fonttools")


def describe_machine(device: torch.device) -> dict[str, Any]:
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


def failure_record(
    config: TrialConfig, attempt: int, reason: str, traceback: str, *, charged: bool = True, **more: Any
) -> dict[str, Any]:
    """How an attempt failed, as the store keeps it; charged: whether it counts against the trial."""
    record = {"attempt": attempt, "state": "failed", "charged": charged, "reason": reason, "traceback": traceback}
    return {**record, "log": log_name(config.key, attempt), "settings": identity_and_settings(config), **more}


class TrialLog:
    """Lines of one attempt, each with the time in UTC."""

    def __init__(self, store: Store, key: str, attempt: int, *, is_kept: bool = True) -> None:
        """is_kept: whether lines are written; of a trial's several workers only worker 0 writes."""
        self._store, self._key, self._attempt, self._is_kept = store, key, attempt, is_kept
        self._lock = threading.RLock()  # a library's thread may warn while the trial writes, and a signal's handler too
        self._bytes, self._unsent = 0, b""

    def write(self, text: str, *, always: bool = False) -> None:
        """Add lines; left out once the log is full, unless always."""
        if not self._is_kept:
            return
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        content = "".join(f"{now} {line}\n" for line in text.splitlines()).encode(errors="replace")
        with self._lock:
            if self._bytes + len(content) > MOST_BYTES and not always:
                if self._bytes <= MOST_BYTES:
                    notice = f"the log is full at {MOST_BYTES} bytes; of the rest only the end follows"
                    self._add(f"{now} {notice}\n".encode())
                    self._bytes = MOST_BYTES + 1
                return
            self._add(content)

    def _add(self, content: bytes) -> None:
        self._bytes += len(content)
        if self._store.storage.is_local:
            with contextlib.suppress(OSError):
                self._store.append_log(self._key, self._attempt, content)
        else:
            self._unsent += content

    def flush(self) -> None:
        """Write what an object store does not hold yet."""
        with self._lock, contextlib.suppress(OSError):
            if self._unsent:
                self._store.append_log(self._key, self._attempt, self._unsent)
                self._unsent = b""

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Within this context, what the process prints, logs or warns of is written here too."""
        out, err = _Tee(self, sys.stdout), _Tee(self, sys.stderr)
        with contextlib.ExitStack() as inside:
            inside.enter_context(contextlib.redirect_stdout(out))
            inside.enter_context(contextlib.redirect_stderr(err))
            inside.enter_context(warnings.catch_warnings())  # a reused process shows again what it showed before
            if logging.getLogger().handlers:  # without one, logging prints
                handler = logging.StreamHandler(_Tee(self))
                handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
                logging.getLogger().addHandler(handler)
                inside.callback(logging.getLogger().removeHandler, handler)
            inside.enter_context(self._crashes())
            inside.callback(out.end_line)
            inside.callback(err.end_line)
            yield

    @contextlib.contextmanager
    def _crashes(self) -> Iterator[None]:
        """Within this context, a crash of the process, such as a segmentation fault, leaves its stack in a log on a disk."""
        path = self._store.storage.local_path(log_name(self._key, self._attempt)) if self._is_kept else None
        was_enabled = faulthandler.is_enabled()
        with contextlib.ExitStack() as opened:
            try:
                file = opened.enter_context(open(path or os.devnull, "ab"))
            except OSError:  # an unwritable folder is reported where results are written
                file = opened.enter_context(open(os.devnull, "ab"))
            faulthandler.enable(file)
            try:
                yield
            finally:
                faulthandler.disable()
                if was_enabled and sys.__stderr__ is not None:
                    faulthandler.enable(sys.__stderr__)


class _Tee(io.TextIOBase):
    """Passes text on and hands whole lines to the log."""

    def __init__(self, log: TrialLog, onward: TextIO | None = None) -> None:
        self._log, self._onward, self._line = log, onward, ""
        self._lock = threading.RLock()  # of the line so far, to which several threads may add

    def write(self, text: str) -> int:
        if self._onward is not None:
            self._onward.write(text)
        with self._lock:
            *whole, self._line = (self._line + text).split("\n")
            for line in whole:
                self._log.write(f"| {line}")
        return len(text)

    def end_line(self) -> None:
        """Hand over a last line that has no line end."""
        with self._lock:
            if self._line:
                self._log.write(f"| {self._line}")
                self._line = ""

    def flush(self) -> None:
        if self._onward is not None:
            self._onward.flush()

    def isatty(self) -> bool:
        return self._onward is not None and self._onward.isatty()
