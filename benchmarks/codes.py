"""What the code optimiser alone reaches in a given time: `python -m benchmarks.codes [--seconds 60] [--set proven|best]`.

The optimiser reads no table; the table only judges it. One line a pair: margin found, best known, their ratio, and the
CPU seconds; one thread. `proven`: every proven value in three dimensions and three sharp codes, mark 1e-6. `best`: the
pairs of d = 8 to 16 whose value is the best known, mark 99 % in the median. Codes above the table are listed at the end as
rows for found_codes.csv.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import torch

from gnc_models.code_search import optimise_code
from gnc_models.point_sets import Code
from gnc_models.tables import read_table
from gnc_models.tabulate import floor_text

SHARP = {(5, 16), (6, 27), (7, 56)}


@dataclass(frozen=True)
class Pair:
    """A size and the value the optimiser is judged by."""

    feature_dim: int
    num_classes: int
    known: float


def pairs_of(name: str) -> list[Pair]:
    """The pairs of a set, from the shipped table."""
    pairs = []
    for row in read_table("best_known_codes.csv"):
        pair = Pair(int(row["feature_dim"]), int(row["num_classes"]), float(row["one_minus_max_cos"]))
        proven = row["status"] == "proven" and (pair.feature_dim == 3 or (pair.feature_dim, pair.num_classes) in SHARP)
        best = row["status"] == "best known" and 8 <= pair.feature_dim <= 16
        if proven if name == "proven" else best:
            pairs.append(pair)
    return pairs


def search(pair: Pair, seconds: float) -> tuple[Code, int, int, float]:
    """The best code over seeds until the CPU time is up: code, its starts and seed, time used."""
    starts = 16 if pair.num_classes <= 300 else 4
    # beyond these sizes the linear programs take longer than all the rest
    polish = pair.num_classes * pair.feature_dim <= 500
    begin = time.process_time()
    best, best_seed, seed = None, 0, 0
    while best is None or time.process_time() - begin < seconds:
        # signed words depend little on the seed: once is enough
        code = optimise_code(
            pair.num_classes, pair.feature_dim, starts=starts, seed=seed, structured=seed == 0, polish=polish
        )
        if best is None or code.margin_lower > best.margin_lower:
            best, best_seed = code, seed
        if best.margin_lower > pair.known - 1e-9 and seed:
            break
        seed += 16  # the mirrored starts of a call use the next seeds
    return best, starts, best_seed, time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="Margins the code optimiser finds beside the best known.")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds a pair")
    parser.add_argument("--set", choices=["proven", "best"], action="append", help="default: both")
    parser.add_argument("--first", type=int, default=0, help="pair to begin with")
    parser.add_argument("--every", type=int, default=1, help="take each n-th pair only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    better = []
    for name in given.set or ["proven", "best"]:
        ratios, misses = [], []
        for pair in pairs_of(name)[given.first :: given.every]:
            code, starts, seed, used = search(pair, given.seconds)
            ratios.append(code.margin_lower / pair.known)
            misses.append(pair.known - code.margin_lower)
            found = floor_text(code.margin_lower)
            print(
                f"{name} {pair.feature_dim:3} {pair.num_classes:5} {found} {pair.known:.6f} {ratios[-1]:.5f} {used:.0f} s",
                flush=True,
            )
            if misses[-1] < -1e-6:
                better.append(f"{pair.feature_dim},{pair.num_classes},{found},optimise_code,{starts},{seed}")
        print(
            f"{name}: {len(ratios)} pairs, median ratio {statistics.median(ratios):.5f}, "
            f"{sum(r >= 0.99 for r in ratios)} at 99 %, {sum(m <= 1e-6 for m in misses)} within 1e-6, "
            f"least {min(ratios):.5f}"
        )
    print(*better, sep="\n")


if __name__ == "__main__":
    main()
