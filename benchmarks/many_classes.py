"""Cost of a trial of many classes: `python -m benchmarks.many_classes [STUDY] [--num-classes 10000] [--share 0.25]`.

One line per step, on one thread: making the data (with an empty `$GNC_CACHE`, drawing and comparing all characters too), a
share of an epoch, a measurement between epochs and the last one's. CPU seconds, and the process's peak memory so far.
"""

import argparse
import functools
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from study.design.config import TrialConfig
from study.design.study_file import read_study
from study.training.data import load_dataset
from study.training.measuring import compute_outputs, measure
from study.training.schedules import Pace
from study.training.training import Training

_Made = TypeVar("_Made")


def timed(what: str, run: Callable[[], _Made], *, times: float = 1.0) -> tuple[_Made, float]:
    """What it gives and its CPU seconds, `times` as many as were taken where it did a part."""
    start = time.process_time()
    made = run()
    seconds = (time.process_time() - start) * times
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<34}{seconds:9.1f} CPU s   peak {peak:6.0f} MiB", flush=True)
    return made, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="studies/large-k.toml")
    parser.add_argument("--num-classes", type=int, default=10_000)
    parser.add_argument("--feature-dim", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.25, help="of an epoch that is trained")
    options = parser.parse_args()
    wanted = options.num_classes, options.feature_dim
    config = next(c for c in read_study(options.study).configs if (c.num_classes, c.feature_dim) == wanted)
    torch.set_num_threads(config.num_threads)
    print(f"{options.study}: {config.encoder}, K = {wanted[0]}, d = {wanted[1]}, n = {config.samples_per_class}")
    dataset, _ = timed("data", lambda: load_dataset(config))
    training, _ = timed("network", lambda: Training(config, dataset, torch.device("cpu")))
    steps = round(training.steps_per_epoch * options.share)
    taken = training.steps_per_epoch / steps
    _, epoch = timed("epoch", lambda: training.train_epoch(1, [_pace(config)] * steps), times=taken)

    def measured(final: bool) -> object:
        return measure(training, dataset, compute_outputs(training, dataset, None), final=final)

    for what, final in (("measurement between epochs", False), ("measurement of the last epoch", True)):
        _, seconds = timed(what, functools.partial(measured, final))
        print(f"{'':<34}{100 * seconds / epoch:9.1f} % of the epoch")


def _pace(config: TrialConfig) -> Pace:
    return Pace(config.learning_rate / 2, config.temperature or 1.0)


if __name__ == "__main__":
    main()
