"""What sharing one results folder costs many runs: 20 of them at 10,000 tiny trials, on a disk.

    python -m benchmarks.sharing                                   # about 15 minutes on two cores
    python -m benchmarks.sharing --runs 4 --trials 400

Every run is a process of its own that claims, ends and looks for trials by the product's own code. A trial only sleeps
and then writes its rows, which are random numbers and never results: so many processes fit on few cores. Printed are
the share of the runs' time that went into sharing, its CPU seconds per trial, and how often a trial was trained.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.store import fill, write_study
from study.design.study_file import read_study
from study.execution.run_mark import new_run, under_way
from study.scheduling.remaining import done_keys, trials_left
from study.scheduling.sharing import LOOK_SECONDS, ListedTrials, SharedTrials, Sharing
from study.store.store import open_store

ROWS = 3


def run(study_path: Path, results: Path, seconds: float) -> None:
    """One of the runs: print how its time went, and which trials it trained."""
    study, store, name = read_study(study_path), open_store(results), new_run()
    spent, cpu, waited, trained = 0.0, 0.0, 0.0, []
    began = time.perf_counter()
    with under_way(store, name):
        left = trials_left(study, done_keys(study, store, store.states()))
        trials = SharedTrials(
            ListedTrials(left), Sharing(store, name, study.search.scheduler, study.resources.attempts)
        )
        while True:
            at, at_cpu = time.perf_counter(), time.process_time()
            config = trials.next()
            is_over = config is None and not trials.waits
            spent, cpu = spent + time.perf_counter() - at, cpu + time.process_time() - at_cpu
            if is_over:
                break
            if config is None:
                time.sleep(LOOK_SECONDS)
                waited += LOOK_SECONDS
                continue
            time.sleep(seconds)
            fill(results, (config,), ROWS)
            trained.append(config.key)
            at, at_cpu = time.perf_counter(), time.process_time()
            trials.ended(config.key, "complete")
            spent, cpu = spent + time.perf_counter() - at, cpu + time.process_time() - at_cpu
    total = time.perf_counter() - began
    print(json.dumps({"total": total, "spent": spent, "cpu": cpu, "waited": waited, "trained": trained}))


def main() -> None:
    """Start the runs and print what they tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a trial lasts before its rows are written")
    parser.add_argument("--run", nargs=2, metavar=("STUDY", "RESULTS"), help="be one of the runs")
    options = parser.parse_args()
    if options.run:
        run(Path(options.run[0]), Path(options.run[1]), options.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        study, results = Path(folder, "large.toml"), Path(folder, "results")
        planned = len({config.key for config in write_study(study, options.trials)})
        command = [
            sys.executable,
            "-m",
            "benchmarks.sharing",
            "--seconds",
            str(options.seconds),
            "--run",
            study,
            results,
        ]
        started = time.perf_counter()
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(options.runs)]
        told = [json.loads(process.communicate()[0]) for process in runs]
        wall = time.perf_counter() - started
        times = Counter(key for one in told for key in one["trained"])
        finished = len(open_store(results).fragments())
    total, spent, cpu = (sum(one[name] for one in told) for name in ("total", "spent", "cpu"))
    print(
        f"{options.runs} runs, {planned} trials of {options.seconds} s: {wall:.0f} s wall; {spent / total:.1%} of the runs' "
        f"time went into sharing, {1000 * cpu / planned:.1f} ms of CPU a trial; {finished} finished, "
        f"{sum(times.values())} trained, most often {max(times.values())} times"
    )


if __name__ == "__main__":
    main()
