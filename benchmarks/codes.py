"""What the code optimiser alone reaches in a given time: `python -m benchmarks.codes [--seconds 120] [--set proven|best]`.

The optimiser reads no table; its results are only compared with one. One line per pair: margin found, best known, their
ratio, and the CPU seconds; one thread. `proven`: every proven value in three dimensions and three sharp codes, mark 1e-6. `best`: the
pairs of d = 8 to 16 whose value is the best known, mark 99 % in the median, smallest first. Codes above the table are
listed at the end as rows for found_codes.csv. With `--kept FILE` every pair is appended to it when done, and pairs that
it holds are not run again: a killed run goes on where it was. `make codes` keeps codes.csv beside this file; an optimiser
that finds other codes begins it anew.
"""

import argparse
import csv
import statistics
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch

from gnc_models.codes.search import optimise_code
from gnc_models.references.tables import read_table
from tools.tabulate import floor_text

SHARP = {(5, 16), (6, 27), (7, 56)}


@dataclass(frozen=True)
class Pair:
    """A size and the value the optimiser is judged by."""

    feature_dim: int
    num_classes: int
    known: float


@dataclass(frozen=True)
class Outcome:
    """One pair's best code, as a row of the kept file."""

    feature_dim: int
    num_classes: int
    known: float
    margin: float
    cpu_seconds: float
    starts: int
    seed: int

    @property
    def line(self) -> str:
        ratio = f"{self.margin / self.known:.5f} {self.cpu_seconds:.0f} s"
        return f"{self.feature_dim:3} {self.num_classes:5} {floor_text(self.margin)} {self.known:.6f} {ratio}"

    @property
    def found_row(self) -> str:
        """As a row of found_codes.csv."""
        margin = floor_text(self.margin)
        return f"{self.feature_dim},{self.num_classes},{margin},optimise_code,{self.starts},{self.seed}"


def read_kept(path: Path | None) -> dict[tuple[int, int], Outcome]:
    """Outcomes of an earlier run by (feature_dim, num_classes)."""
    if path is None or not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row != NAMES]
    made = [Outcome(*(kind(x) for kind, x in zip(KINDS, row, strict=True))) for row in rows]
    return {(outcome.feature_dim, outcome.num_classes): outcome for outcome in made}


NAMES = [field.name for field in fields(Outcome)]
KINDS = [field.type for field in fields(Outcome)]


def pairs_of(name: str) -> list[Pair]:
    """The pairs of a set, from the shipped table."""
    pairs = []
    for row in read_table("best_known_codes.csv"):
        pair = Pair(int(row["feature_dim"]), int(row["num_classes"]), float(row["one_minus_max_cos"]))
        proven = row["status"] == "proven" and (pair.feature_dim == 3 or (pair.feature_dim, pair.num_classes) in SHARP)
        best = row["status"] == "best known" and 8 <= pair.feature_dim <= 16
        if proven if name == "proven" else best:
            pairs.append(pair)
    return sorted(pairs, key=lambda pair: pair.num_classes * pair.feature_dim)


def search(pair: Pair, seconds: float) -> Outcome:
    """The best code over several seeds: at least one, and as many as the CPU time probably allows."""
    starts = 16 if pair.num_classes <= 300 else 4
    # beyond these sizes the linear programs take longer than all the rest
    polish = pair.num_classes * pair.feature_dim <= 500
    begin = time.process_time()
    best, best_seed, seed, longest = None, 0, 0, 0.0
    while best is None or time.process_time() - begin + longest < seconds:
        since = time.process_time()
        # signed words depend little on the seed: once is enough
        code = optimise_code(
            pair.num_classes, pair.feature_dim, starts=starts, seed=seed, structured=seed == 0, polish=polish
        )
        if best is None or code.margin_lower > best.margin_lower:
            best, best_seed = code, seed
        if best.margin_lower > pair.known - 1e-9 and seed:
            break
        seed += 16  # the mirrored starts of a call use the next seeds
        longest = max(longest, time.process_time() - since)
    used = time.process_time() - begin
    return Outcome(pair.feature_dim, pair.num_classes, pair.known, best.margin_lower, used, starts, best_seed)


def run_set(name: str, pairs: list[Pair], seconds: float, path: Path | None) -> list[Outcome]:
    """Every pair's outcome, printed and kept as soon as it is known."""
    kept, outcomes = read_kept(path), []
    for pair in pairs:
        size = pair.feature_dim, pair.num_classes
        outcome = kept[size] if size in kept else search(pair, seconds)
        if path is not None and size not in kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows([NAMES] * is_new + [list(astuple(outcome))])
        print(name, outcome.line, flush=True)
        outcomes.append(outcome)
    return outcomes


def print_summary(name: str, outcomes: list[Outcome]) -> None:
    ratios = [outcome.margin / outcome.known for outcome in outcomes]
    close = sum(outcome.margin >= outcome.known - 1e-6 for outcome in outcomes)
    print(
        f"{name}: {len(ratios)} pairs, median ratio {statistics.median(ratios):.5f}, "
        f"{sum(r >= 0.99 for r in ratios)} at 99 %, {close} within 1e-6, least {min(ratios):.5f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Margins the code optimiser finds beside the best known.")
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds per pair")
    parser.add_argument("--set", choices=["proven", "best"], action="append", help="default: both")
    parser.add_argument("--first", type=int, default=0, help="pair to begin with")
    parser.add_argument("--every", type=int, default=1, help="take each n-th pair only")
    parser.add_argument("--kept", type=Path, help="file that outcomes are appended to and read from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    better = []
    for name in given.set or ["proven", "best"]:
        outcomes = run_set(name, pairs_of(name)[given.first :: given.every], given.seconds, given.kept)
        print_summary(name, outcomes)
        better += [outcome.found_row for outcome in outcomes if outcome.margin > outcome.known + 1e-6]
    print(*better, sep="\n")


if __name__ == "__main__":
    main()
