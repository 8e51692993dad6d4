"""What running many trials costs beside the trials: the real `gnc run` on Ray, from outside.

    python -m benchmarks.overhead                            # 2,000 trivial trials, then 200 of at least 3 s each
    python -m benchmarks.overhead --trivial 200 --real 0

Trivial trials measure an untrained network; printed are the seconds per trial and the driver's memory as the store
fills. Real trials train a network on rendered characters; printed is which share of the time from the first to the last
training step of the sweep, on all its places, was training or measuring. The rest is what a trial needs before its first
step (data, network) and the time between trials; the start of Ray is printed separately. A trial's end is the time of
its file; its rows say how long it trained.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from study.store.store import Store, open_store

TRIVIAL = """
name = "trivial"
keep = "nothing"
[fixed]
dataset = "synthetic"
encoder = "mlp"
width = 8
depth = 1
num_classes = 4
feature_dim = 2
samples_per_class = 4
test_samples_per_class = 1
batch_size = 4
steps = 0
[grid]
seed = {seeds}
"""
REAL = """
name = "real"
[fixed]
dataset = "glyphs"
encoder = "small_resnet"
num_classes = 24
samples_per_class = 16
temperature = 0.1
steps = {steps}
[grid]
feature_dim = [3, 10]
seed = {seeds}
"""
LEAST_SECONDS = 3.0
PROBE_STEPS = 100


@dataclass
class Run:
    """A `gnc run` as seen from outside."""

    seconds: float
    started: float  # wall clock
    cpu_seconds: float
    memory: list[tuple[int, int]] = field(default_factory=list)  # finished trials, bytes the driver holds


def run_study(text: str, folder: Path, trials: int) -> tuple[Run, Store]:
    """Run the study and watch its driver's memory."""
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(text)
    store, started = open_store(folder / "results"), time.time()
    before = os.times()
    command = [sys.executable, "-m", "gnc.cli.main", "run", str(folder / "study.toml"), store.uri]
    with (folder / "run.log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
        memory = []
        while process.poll() is None:
            held = resident_bytes(process.pid)
            if held:
                memory.append((len(store.storage.entries("rows", ".parquet")), held))
            time.sleep(0.5)
    after = os.times()
    assert process.returncode == 0, (folder / "run.log").read_text()[-2000:]
    assert len(store.states()) == trials
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(time.time() - started, started, cpu, memory), store


def resident_bytes(process: int) -> int:
    """Memory of a process; 0 where it cannot be told."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def say_trivial(trials: int, folder: Path) -> None:
    """Seconds per trial and the driver's memory."""
    run, store = run_study(TRIVIAL.format(seeds=list(range(trials))), folder, trials)
    ends = sorted(entry.modified_ns / 1e9 for (entry,) in store.fragments().values())
    each = (ends[-1] - ends[0]) / (len(ends) - 1)
    print(f"{trials} trivial trials: {1000 * each:.0f} ms per trial from the first's end to the last's; first after "
          f"{ends[0] - run.started:.1f} s, {run.seconds:.0f} s in all, driver {run.cpu_seconds:.0f} s of CPU")  # fmt: skip
    for share in (0.25, 0.5, 0.75, 1.0):
        held = [bytes_ for done, bytes_ in run.memory if done >= 0.98 * share * trials]
        if held:
            print(f"  driver's memory at {share * trials:.0f} finished: {held[0] / 2**20:.0f} MiB")
    print(f"  most: {max(bytes_ for _, bytes_ in run.memory) / 2**20:.0f} MiB", flush=True)


def steps_for(seconds: float, folder: Path) -> int:
    """Steps of a trial that last about so long on this machine."""
    folder.mkdir(parents=True)
    (folder / "probe.toml").write_text(REAL.format(steps=PROBE_STEPS, seeds=[0]))
    command = [sys.executable, "-m", "gnc.cli.main", "check", str(folder / "probe.toml"), str(folder / "r"), "--trials"]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    trial = ["trial", str(folder / "probe.toml"), key, "--results", str(folder / "r")]
    subprocess.run([sys.executable, "-m", "gnc.cli.main", *trial], check=True, capture_output=True)
    fragment = open_store(folder / "r").read_fragment(key)
    assert fragment is not None
    trained = training_seconds(fragment.rows.column("wall_seconds").to_pylist(), fragment.record.seconds)
    return math.ceil(PROBE_STEPS * seconds / trained)


def training_seconds(wall_seconds: list[float], seconds: float | None) -> float:
    """From a trial's first measurement, before its first step, to its end."""
    assert seconds is not None
    return seconds - wall_seconds[0]


def say_real(trials: int, folder: Path, places: int) -> None:
    """The share of training in the time from the first to the last training step."""
    steps = steps_for(2.5 * LEAST_SECONDS, folder / "probe")
    run, store = run_study(REAL.format(steps=steps, seeds=list(range(trials // 2))), folder / "run", 2 * (trials // 2))
    spans = []
    for key, (entry,) in store.fragments().items():
        fragment = store.read_fragment(key)
        assert fragment is not None
        trained = training_seconds(fragment.rows.column("wall_seconds").to_pylist(), fragment.record.seconds)
        spans.append((entry.modified_ns / 1e9 - trained, entry.modified_ns / 1e9, trained, fragment.record.seconds))
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    share = sum(span[2] for span in spans) / (places * (last - first))
    own = sum(span[3] or 0 for span in spans) / (places * (last - first))
    print(f"{len(spans)} real trials of {steps} steps, {min(s[2] for s in spans):.1f} to {max(s[2] for s in spans):.1f} s "
          f"of training, {places} at once: {100 * share:.1f} % of {last - first:.0f} s from the first to the last step is "
          f"training, {100 * own:.1f} % with each trial's data and network; first step after {first - run.started:.1f} s, "
          f"{run.seconds:.0f} s in all")  # fmt: skip


def main() -> None:
    """Run both kinds and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trivial", type=int, default=2000)
    parser.add_argument("--real", type=int, default=200)
    parser.add_argument("--folder", help="work here instead of in a temporary folder; must be empty or absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        if options.trivial:
            say_trivial(options.trivial, folder / "trivial")
        if options.real:
            say_real(options.real, folder / "real", os.cpu_count() or 1)


if __name__ == "__main__":
    main()
