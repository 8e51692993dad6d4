"""The kinds of faults. Each starts the study, disturbs it at a random moment, and lets the rest of it happen."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from study.store.schemas import read_parquet, to_parquet
from tests.chaos.scene import Scene, small_disk

ON_RAY = frozenset(
    {"worker-killed", "worker-terminated", "driver-killed", "driver-terminated", "two-runs", "run-on-full-disk"}
)
INTERRUPTED = (0, 1)  # exit status of a command that was asked to stop, or had just finished


def worker_killed(scene: Scene) -> None:
    """SIGKILL to the process of a trial in flight: the same run starts it again."""
    _signal_worker(scene, signal.SIGKILL)


def worker_terminated(scene: Scene) -> None:
    """SIGTERM to the process of a trial in flight: it keeps a checkpoint and the same run continues it."""
    _signal_worker(scene, signal.SIGTERM)


def _signal_worker(scene: Scene, number: int) -> None:
    run = scene.run()
    victims = scene.some_way_into(run)
    if victims:
        victim = scene.chance.choice(sorted(victims, key=lambda trial: trial.key))
        with contextlib.suppress(ProcessLookupError):  # it was a little faster
            os.kill(victim.process, number)
        scene.note(f"{victim.key} attempt {victim.attempt}")
    scene.end(run)


def driver_killed(scene: Scene) -> None:
    """SIGKILL to `gnc run`: its workers are orphans that write for a while, and the next run starts at once."""
    run = scene.run()
    scene.some_way_into(run, most_seconds=3)
    run.kill()
    run.wait()


def driver_terminated(scene: Scene) -> None:
    """SIGTERM to `gnc run`: it ends by itself, with the trials' checkpoints kept."""
    run = scene.run()
    scene.some_way_into(run, most_seconds=3)
    run.terminate()
    scene.end(run, expect=INTERRUPTED)


def two_runs(scene: Scene) -> None:
    """Two `gnc run` on one folder, a moment apart: each trial's rows are there once."""
    first = scene.run()
    apart = scene.chance.uniform(0, 12)
    scene.note(f"{apart:.1f} s apart")
    time.sleep(apart)
    second = scene.run()
    scene.end(first)
    scene.end(second)


def trial_killed(scene: Scene) -> None:
    """SIGKILL to a process that runs trials without Ray."""
    process = scene.trials()
    scene.some_way_into(process, most_seconds=5)
    process.kill()
    process.wait()


def trial_terminated(scene: Scene) -> None:
    """SIGTERM to a process that runs trials without Ray: it ends by itself with a checkpoint kept."""
    process = scene.trials()
    scene.some_way_into(process, most_seconds=5)
    process.terminate()
    scene.end(process, expect=INTERRUPTED)


def two_at_once(scene: Scene) -> None:
    """Two processes run the same trials of one folder at the same time."""
    first = scene.trials()
    time.sleep(scene.chance.uniform(0, 3))
    second = scene.trials()
    if scene.chance.random() < 0.5:
        scene.some_way_into(second, most_seconds=4)
        first.kill()
        first.wait()
        scene.note("the first killed")
    else:
        scene.end(first)
    scene.end(second)


def others_go_on(scene: Scene) -> None:
    """One of three processes that share the trials is killed; the others go on, and one takes over what it had."""
    processes = [scene.trials() for _ in range(3)]
    scene.some_way_into(processes[2], most_seconds=6)
    victim = scene.chance.choice(processes)
    victim.kill()
    victim.wait()
    for process in processes:
        if process is not victim:
            scene.end(process)


def woken_too_late(scene: Scene) -> None:
    """A process is paused, its trials are taken over, and it wakes up and goes on."""
    paused = scene.trials()
    scene.some_way_into(paused, most_seconds=5)
    os.kill(paused.pid, signal.SIGSTOP)
    try:
        for mark in (scene.results / "live").glob("*.run"):  # as a machine far away that cannot be asked
            told = json.loads(mark.read_bytes() or b"{}")
            mark.write_text(json.dumps({**told, "host": "far", "boot": "another"}))
        other = scene.trials(silent_seconds=scene.chance.uniform(0.5, 3))
        time.sleep(scene.chance.uniform(1, 8))
    finally:
        os.kill(paused.pid, signal.SIGCONT)
    scene.end(paused)
    scene.end(other)


def clocks_differ(scene: Scene) -> None:
    """Two processes whose clocks are minutes apart share the trials."""
    minutes = scene.chance.choice([-1, 1]) * scene.chance.uniform(2, 30)
    scene.note(f"{minutes:.0f} min apart")
    first = scene.trials()
    second = scene.trials(clock_seconds=60 * minutes)
    scene.end(first)
    scene.end(second)


def disk_full(scene: Scene) -> None:
    """The disk is full for some seconds; what failed meanwhile is no trial's fault."""
    process = scene.trials()
    scene.some_way_into(process, most_seconds=5)
    with _full(scene):
        time.sleep(scene.chance.uniform(0.5, 6))
    scene.end(process, expect=None)


def disk_full_to_the_end(scene: Scene) -> None:
    """The disk is full until the run gives up."""
    process = scene.trials()
    scene.some_way_into(process, most_seconds=5)
    with _full(scene):
        scene.end(process, expect=(0, 1, 2))


def run_on_full_disk(scene: Scene) -> None:
    """The disk is full for some seconds of a `gnc run`."""
    run = scene.run()
    scene.some_way_into(run)
    with _full(scene):
        if scene.chance.random() < 0.5:
            time.sleep(scene.chance.uniform(0.5, 6))
        else:
            scene.end(run, expect=(0, 1))
            scene.note("to the end")
    scene.end(run, expect=(0, 1))


@contextlib.contextmanager
def _full(scene: Scene) -> Iterator[None]:
    filler, left = scene.results / "filler", scene.chance.choice([0, 1 << 12, 1 << 14, 1 << 16, 1 << 18])
    with open(filler, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1 << 12))
        except OSError as full:
            if full.errno != errno.ENOSPC:
                raise
        stream.truncate(max(0, stream.tell() - left))
    scene.note(f"{left} bytes left")
    try:
        yield
    finally:
        filler.unlink()


def folder_read_only(scene: Scene) -> None:
    """The results folder turns read-only for some seconds."""
    process = scene.trials()
    scene.some_way_into(process, most_seconds=5)
    _remount(scene, "ro")
    time.sleep(scene.chance.uniform(0.5, 6))
    _remount(scene, "rw")
    scene.end(process, expect=None)


def _remount(scene: Scene, how: str) -> None:
    """Tried again while a file is open for writing: the kernel refuses until then."""
    for _ in range(500):
        words = ["mount", "-o", f"remount,{how}", str(scene.results)]
        if subprocess.run(words, check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.01)
    scene.note("never free of open files: not made read-only")


def torn_live(scene: Scene) -> None:
    """A kill leaves half a live file."""
    _kill_while_there(scene, "live", "*.parquet")
    _tear(scene, "live", "*.parquet")


def torn_checkpoint(scene: Scene) -> None:
    """A kill leaves half a checkpoint, sometimes both generations."""
    _kill_while_there(scene, "checkpoints", "*/*.checkpoint")
    _tear(scene, "checkpoints", "*/*.checkpoint", most=scene.chance.choice([1, 1, 2]))


def _kill_while_there(scene: Scene, folder: str, pattern: str) -> None:
    """SIGKILL at a random moment, but with such a file there: a stopped process is looked at before it is killed."""
    process = scene.trials()
    scene.some_way_into(process, most_seconds=5)
    while process.poll() is None:
        os.kill(process.pid, signal.SIGSTOP)
        if _whole(scene, folder, pattern):
            break
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(scene.chance.uniform(0, 0.1))
    process.kill()
    process.wait()


def _whole(scene: Scene, folder: str, pattern: str) -> list[Path]:
    """Files with content, temporary ones aside."""
    found = (scene.results / folder).glob(pattern)
    return [path for path in found if path.name[0] != "." and path.stat().st_size]


def torn_fragment(scene: Scene) -> None:
    """The rows of a finished trial are cut short, before they were sealed or after."""
    process = scene.trials()
    done = scene.chance.randint(1, 4)
    scene.wait(process, lambda: len(list((scene.results / "rows").glob("[!.]*.parquet"))) >= done, "finished trials")
    process.kill()
    process.wait()
    if scene.chance.random() < 0.5:
        scene.end(scene.seal())
        scene.note("sealed")
    _tear(scene, "rows", "*.parquet")


def torn_table(scene: Scene) -> None:
    """A sealed table is cut short; the fragments still tell everything."""
    trial_killed(scene)
    scene.end(scene.seal())
    for name in scene.chance.choice([["results"], ["trials"], ["results", "trials"]]):
        _tear(scene, ".", f"{name}.parquet")


def _tear(scene: Scene, folder: str, pattern: str, *, most: int = 1) -> None:
    """Cut the newest whole files short, each at a random place."""
    files = sorted(_whole(scene, folder, pattern), key=lambda path: path.stat().st_mtime_ns)[-most:]
    if not files:
        scene.note("nothing to tear")
    for path in files:
        size = scene.chance.randrange(path.stat().st_size)
        os.truncate(path, size)
        scene.note(f"{path.parent.name}/{path.name} at {size}")


def clock_jumped(scene: Scene) -> None:
    """The machine's clock was set by days, to and fro: times of files and heartbeats lie ahead or far behind."""
    trial_killed(scene)
    if scene.chance.random() < 0.5:
        scene.end(scene.seal())
    for path in sorted(scene.results.rglob("*")):
        if path.is_file():
            _shift(path, scene.chance.choice([-1, 1]) * scene.chance.uniform(0, 40) * 86400)


def _shift(path: Path, seconds: float) -> None:
    when = time.time() + seconds
    if path.parent.name == "live" and path.suffix == ".parquet":
        rows = read_parquet(path.read_bytes())
        beat = {**json.loads(rows.schema.metadata[b"beat"]), "time": when}
        footer = {**rows.schema.metadata, b"beat": json.dumps(beat).encode()}
        path.write_bytes(to_parquet(rows.replace_schema_metadata(footer)))
    os.utime(path, (when, when))


def on_small_disk(fault: Callable[[Scene], None]) -> Callable[[Scene], contextlib.AbstractContextManager]:
    """The fault on a disk of its own, which stays until what follows is done."""

    @contextlib.contextmanager
    def place(scene: Scene) -> Iterator[None]:
        with small_disk(scene):
            fault(scene)
            yield

    return place


def anywhere(fault: Callable[[Scene], None]) -> Callable[[Scene], contextlib.AbstractContextManager]:
    """The fault in a plain folder."""

    @contextlib.contextmanager
    def place(scene: Scene) -> Iterator[None]:
        fault(scene)
        yield

    return place


KINDS: dict[str, Callable[[Scene], contextlib.AbstractContextManager]] = {
    "worker-killed": anywhere(worker_killed),
    "trial-killed": anywhere(trial_killed),
    "driver-killed": anywhere(driver_killed),
    "disk-full": on_small_disk(disk_full),
    "torn-checkpoint": anywhere(torn_checkpoint),
    "driver-terminated": anywhere(driver_terminated),
    "torn-live": anywhere(torn_live),
    "read-only": on_small_disk(folder_read_only),
    "worker-terminated": anywhere(worker_terminated),
    "two-at-once": anywhere(two_at_once),
    "others-go-on": anywhere(others_go_on),
    "torn-fragment": anywhere(torn_fragment),
    "two-runs": anywhere(two_runs),
    "clocks-differ": anywhere(clocks_differ),
    "woken-too-late": anywhere(woken_too_late),
    "clock-jumped": anywhere(clock_jumped),
    "trial-terminated": anywhere(trial_terminated),
    "torn-table": anywhere(torn_table),
    "run-on-full-disk": on_small_disk(run_on_full_disk),
    "disk-full-to-the-end": on_small_disk(disk_full_to_the_end),
}
