"""Many starts at many temperatures as one tensor against one after the other: `python -m benchmarks.batched_starts`.

For each (K, d): 16 starts at each of 16 temperatures from 2 to 0.02 descend by the steps of a search of phases (a ladder of
temperatures, then the last one), all at once, and then a sample of the same starts one by one, by the same functions.
Both in one process on one thread, one after the other, CPU seconds of each start; goal: a ratio of 10 up to 48 classes.
The lowest value of the sample must be the same both ways to 1e-6.
"""

import argparse
import math
import time

import torch

from gnc_models.codes import unconstrained_features as free
from gnc_models.codes.search import random_codes

STARTS, LEVELS, SAMPLE = 16, 16, 24


def descend(rows: torch.Tensor, temperatures: torch.Tensor, ladders: torch.Tensor) -> torch.Tensor:
    """Values at the minima."""
    for level in ladders:
        rows, _ = free._descend(rows, level, free.LEVEL_STEPS, 1e-5)
    return free._descend(rows, temperatures, free.ROUGH_STEPS, 1e-8)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=["6,4", "10,6", "12,3", "24,12", "32,8", "48,12"], metavar="K,d")
    options = parser.parse_args()
    torch.set_num_threads(1)
    levels = torch.logspace(math.log10(2.0), math.log10(0.02), LEVELS, dtype=torch.float64)
    at = levels.repeat_interleave(STARTS)
    ladders = torch.cat([free._ladders(float(t), STARTS) for t in levels], dim=1)
    print(f"{'K':>4} {'d':>3} {'batched ms':>11} {'one by one ms':>14} {'ratio':>6} {'same':>6}")
    for size in options.sizes:
        classes, dim = map(int, size.split(","))
        rows = random_codes(classes, dim, starts=len(at), seed=0)
        picked = torch.randperm(len(at), generator=torch.Generator().manual_seed(0))[:SAMPLE].tolist()
        descend(rows[:2], at[:2], ladders[:, :2])  # what is loaded at the first call
        began = time.process_time()
        together = descend(rows, at, ladders)
        batched = (time.process_time() - began) / len(at)
        began = time.process_time()
        alone = torch.cat([descend(rows[i : i + 1], at[i : i + 1], ladders[:, i : i + 1]) for i in picked])
        single = (time.process_time() - began) / SAMPLE
        same = int(((alone - together[picked]).abs() < 1e-6).sum())
        print(
            f"{classes:4} {dim:3} {1e3 * batched:11.2f} {1e3 * single:14.1f} {single / batched:6.1f} {same:3}/{SAMPLE}",
            flush=True,
        )


if __name__ == "__main__":
    main()
