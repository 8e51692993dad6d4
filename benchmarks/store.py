"""The results folder at 10,000 finished trials: deciding what is missing, a cold seal, a seal after 100 more.

    python -m benchmarks.store                       # 10,000 trials of 13 measured epochs
    python -m benchmarks.store --trials 1000

Files are written by the store's own writer; rows are random numbers, never results. Each figure comes from its own
process: wall and CPU seconds, and peak memory. Deciding is what `gnc run` does before it starts Ray or says that nothing
is missing: it reads the study file and looks into the folder.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from study.design.columns import Measurement, TrialRecord
from study.design.config import TrialConfig
from study.design.study_file import parse_study
from study.store.schemas import FRAGMENT_SCHEMA
from study.store.store import open_store

STUDY = """
name = "large"
[grid]
num_classes = [{classes}]
feature_dim = [3, 4, 5, 8, 10]
temperature = [0.05, 0.1, 0.2, 0.3, 1.0]
seed = [0, 1, 2, 3, 4, 5, 6, 7]
"""
A_SIZE = 200  # trials that each number of classes adds
MORE = 100
DECIDE = """
from study.scheduling.remaining import done_keys, spent_keys, trials_left
from study.design.study_file import read_study
from study.store.store import open_store
study, store = read_study(sys.argv[1]), open_store(sys.argv[2])
print(len(trials_left(study, done_keys(study, store, store.states()) | spent_keys(study, store))))
"""
SEAL = """
from study.store.store import open_store
sealed = open_store(sys.argv[2]).seal()
print(sealed.trials, sealed.rows, sealed.fresh)
"""
TIMED = """
import resource, sys, time
started = time.perf_counter()
{body}
wall, spent = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
peak = next((l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")), "nan")
print(wall, spent.ru_utime + spent.ru_stime, int(peak) / 2**20, file=sys.stderr)
"""


def write_study(path: Path, trials: int) -> tuple[TrialConfig, ...]:
    """A study file of at least so many trials, and its trials."""
    path.write_text(STUDY.format(classes=", ".join(str(12 + 6 * i) for i in range(-(-trials // A_SIZE)))))
    return parse_study(path.read_text()).configs


def measurements(epochs: int, chance: np.random.Generator) -> Iterator[Measurement]:
    """Random numbers in every column that a trial of images and a small network fills."""
    absent = dict.fromkeys(f.name for f in dataclasses.fields(Measurement))
    floats = [f.name for f in FRAGMENT_SCHEMA if f.name in absent and pa.types.is_floating(f.type)]
    for epoch in range(epochs):
        numbers = dict(zip(floats, chance.random(len(floats)).tolist(), strict=True))
        yield Measurement(**{**absent, **numbers, "epoch": epoch, "step": 10 * epoch, "terminal": epoch > 5})


def fill(results: Path, configs: tuple[TrialConfig, ...], epochs: int) -> None:
    """Write the trials' files as `gnc run` does."""
    store, chance = open_store(results), np.random.default_rng(0)
    absent = dict.fromkeys(f.name for f in dataclasses.fields(TrialRecord))
    ended = {"state": "complete", "attempts": 1, "resumed": False, "reached_terminal": True, "seconds": 9.0}
    ended |= {"cpu_model": "made-up", "versions": '{"torch": "made-up"}', "dataset_digest": "made-up"}
    record = TrialRecord(**{**absent, **ended})
    for config in configs:
        store.write_fragment(config, list(measurements(epochs, chance)), record)


def measure(name: str, body: str, *arguments: Path) -> None:
    """Run the code in a process of its own and print what it said and took."""
    code = TIMED.format(body=body.strip())
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    wall, cpu, peak = map(float, done.stderr.split()[-3:])
    print(f"{name:<34}{wall:8.2f} s wall {cpu:8.2f} s CPU {peak:6.2f} GiB   {done.stdout.strip()}", flush=True)


def cpu_model() -> str:
    """The CPU as /proc/cpuinfo names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def main() -> None:
    """Fill a folder and time what is done with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=13)
    parser.add_argument("--folder", help="work here instead of in a temporary folder; must be empty or absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        study, results = folder / "large.toml", folder / "results"
        configs = write_study(study, options.trials + MORE)
        first, more = configs[: options.trials], configs[options.trials : options.trials + MORE]
        started = time.perf_counter()
        fill(results, first, options.epochs)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        print(f"{cpu_model()}; {len(first)} trials of {options.epochs} rows written in "
              f"{time.perf_counter() - started:.0f} s, {spent.ru_utime + spent.ru_stime:.0f} s of CPU")  # fmt: skip
        measure("what is missing, nothing sealed", DECIDE, study, results)
        measure("cold seal", SEAL, study, results)
        measure("what is missing, all sealed", DECIDE, study, results)
        fill(results, more, options.epochs)
        measure(f"what is missing, {MORE} more", DECIDE, study, results)
        measure(f"seal after {MORE} more", SEAL, study, results)
        measure("seal with nothing new", SEAL, study, results)


if __name__ == "__main__":
    main()
