"""The place of one fault: a small study, its results folder, the processes that run it, and what must hold afterwards.

Every process is started here and ended here, by its id; every wait has an end.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from study.design.study_file import read_study
from study.store.attempts import Live
from study.store.store import Store, open_store
from tests.conftest import TINY, comparable

ROOT = Path(__file__).parents[2]
LONGEST = 300.0  # seconds that any one thing may take: Ray's start on a busy machine is the longest
STUDY = f"""
name = "chaos"
[fixed]
{TINY}batch_size = 32
learning_rate = 0.1
steps = 700
feature_dim = 3
[grid]
num_classes = [6, 8, 12]
seed = [0, 1]
[resources]
checkpoint_seconds = 0.2
backoff_seconds = 0.2
"""


class Broken(AssertionError):
    """What had to hold after a fault does not."""


class Skipped(RuntimeError):
    """This fault cannot be made here; the message says why."""


class Scene:
    """One study in a folder of its own, and the chance that decides when it is disturbed."""

    def __init__(self, folder: Path, seed: str) -> None:
        folder.mkdir(parents=True)
        self.folder, self.chance, self.notes = folder, random.Random(seed), []
        self.study, self.results = folder / "chaos.toml", folder / "results"
        self.study.write_text(STUDY)
        self.keys = [config.key for config in read_study(self.study).configs]
        self._started: list[subprocess.Popen] = []

    @property
    def store(self) -> Store:
        """The results as they are now."""
        return open_store(self.results)

    # --- processes ---------------------------------------------------------------------------------------------

    def run(self) -> subprocess.Popen:
        """`gnc run` of the study, on Ray."""
        return self._start("gnc.cli.main", "run", self.study, self.results)

    def trials(self, **options: float) -> subprocess.Popen:
        """What the study lacks, in one process without Ray; options: as tests.chaos.trials takes them."""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return self._start("tests.chaos.trials", self.study, self.results, *words)

    def seal(self) -> subprocess.Popen:
        """`gnc seal` of the results."""
        return self._start("gnc.cli.main", "seal", self.results)

    def _start(self, module: str, *arguments: object) -> subprocess.Popen:
        words = [sys.executable, "-m", module, *map(str, arguments)]
        with open(self.folder / f"process-{len(self._started)}.txt", "wb") as output:
            process = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self._started.append(process)
        return process

    def end(self, process: subprocess.Popen, *, expect: tuple[int, ...] | None = (0,)) -> int:
        """Wait until it has ended by itself; its exit status."""
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise Broken(f"{process.args[2:4]} did not end within {LONGEST:.0f} s") from None
        if expect is not None and code not in expect:
            raise Broken(f"{process.args[2:4]} ended with {code}: {self.output_of(process)[-600:]}")
        return code

    def output_of(self, process: subprocess.Popen) -> str:
        """What a process printed."""
        return (self.folder / f"process-{self._started.index(process)}.txt").read_text(errors="replace")

    def close(self) -> None:
        """End what is left of the processes that were started here and of their children."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    # --- waiting -----------------------------------------------------------------------------------------------

    def wait(self, process: subprocess.Popen, condition: Callable[[], Any], what: str) -> Any:
        """The condition's first true answer; None where the process ended before."""
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            if answer := condition():
                return answer
            if process.poll() is not None:
                return None
            time.sleep(0.02)
        raise Broken(f"{what} did not happen within {LONGEST:.0f} s")

    def in_flight(self) -> list[Live]:
        """Trials that have measured something and go on; by their logs, which are ahead of their heartbeats."""
        with contextlib.suppress(OSError):  # the folder may be in the middle of a fault
            store = self.store
            return [trial for trial in store.read_live() if _goes_on(store.last_log_lines(trial.key, trial.attempt))]
        return []

    def some_way_into(self, process: subprocess.Popen, *, most_seconds: float = 1.5) -> list[Live]:
        """A random moment with trials in flight; empty where the process was faster."""
        self.wait(process, self.in_flight, "a trial in flight")
        seconds = self.chance.uniform(0, most_seconds)
        self.note(f"after {seconds:.2f} s")
        time.sleep(seconds)
        return self.wait(process, self.in_flight, "a trial in flight") or []

    def note(self, text: str) -> None:
        """What was done, for the fault's line."""
        self.notes.append(text)

    # --- afterwards --------------------------------------------------------------------------------------------

    def finish(self, *, on_ray: bool) -> None:
        """One undisturbed run more: it must be enough to complete every trial."""
        if on_ray:
            self.end(self.run())
            return
        self.end(self.trials())
        self.end(self.seal())

    def check(self, undisturbed: Store) -> None:
        """The tables are those of a run that nothing disturbed, and nothing is left lying about."""
        store = self.store
        unreadable: list[str] = []
        rows, trials = store.read(on_unreadable=unreadable.append), store.read_trials(unreadable.append)
        if unreadable:
            raise Broken(f"unreadable: {unreadable}")
        _same("rows", comparable(rows), comparable(undisturbed.read()))
        _same("trials", comparable(trials), comparable(undisturbed.read_trials()))
        pairs = list(zip(rows.column("trial").to_pylist(), rows.column("epoch").to_pylist(), strict=True))
        if len(pairs) != len(set(pairs)):
            raise Broken("a row is there twice")
        _same("sealed rows", comparable(pq.read_table(self.results / "results.parquet")), comparable(rows))
        _same("sealed trials", comparable(pq.read_table(self.results / "trials.parquet")), comparable(trials))
        left = [
            *store.read_live(),
            *store.failures(),
            *store.claims(),
            *(key for key in self.keys if any(store.read_checkpoints(key))),
        ]
        if left:
            raise Broken(f"left behind: {left}")


def _goes_on(log: list[str]) -> bool:
    return any(" epoch 2 " in line for line in log) and " end: " not in log[-1]


def _same(what: str, found: list[dict], expected: list[dict]) -> None:
    if found == expected:
        return
    if len(found) != len(expected):
        raise Broken(f"{len(found)} {what} where an undisturbed run has {len(expected)}")
    for one, other in zip(found, expected, strict=True):
        if one != other:
            names = [name for name in one if one[name] != other[name]]
            raise Broken(f"{what} differ in {names[:5]} of {json.dumps(one['trial'])}")


def make_undisturbed(folder: Path) -> Store:
    """The study run once with nothing in its way: what every disturbed run must equal."""
    scene = Scene(folder, "undisturbed")
    try:
        scene.finish(on_ray=False)
    finally:
        scene.close()
    return scene.store


@contextlib.contextmanager
def small_disk(scene: Scene) -> Iterator[Path]:
    """The results folder as a disk of 8 MiB of its own; Skipped where mounting is not permitted."""
    scene.results.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(scene.results)]
    if shutil.which("mount") is None:
        raise Skipped("there is no mount command")
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield scene.results
    finally:
        scene.close()
        subprocess.run(["umount", "--lazy", str(scene.results)], check=False, capture_output=True)
