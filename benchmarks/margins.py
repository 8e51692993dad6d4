"""How long certified margins take beside other ways to get them: `python benchmarks/margins.py [--quick] [--kinds ...]`.

One line per case, every method on the same rows in the same process with one thread; times are CPU seconds for all
classes, so a busy machine does not favour one. Solver and floor are the median of `--repeats` runs, taken in turn with
the other methods. Each case runs in a process of its own, whose peak memory is reported. The last case takes minutes.

    nnls      one SciPy NNLS solve per class, on a sample of classes, scaled; `wrong`: its own two bounds do not meet
    subgrad   10,000 projected sub-gradient steps per class (the published method), timed on fewer steps and scaled;
              `gap` is what its lower bound misses after `--subgradient-steps` steps
    solver    gnc_models.geometry.margins, all classes or only the minimum
    floor     one float64 product of the K x d rows with their transpose

Rows are random, an optimised code, words of a Gold code, a trained head (`benchmarks.trained_head`), all rows of the
Kerdock code, and clusters as look-alike classes make them.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from benchmarks.trained_head import trained_rows
from gnc_models.codes.search import relax_rows
from gnc_models.constructions.explicit import make_points, orthoplex
from gnc_models.geometry.margins import Margins, one_vs_rest_margins


@dataclass(frozen=True)
class Case:
    kind: str
    num_classes: int
    feature_dim: int
    tolerance: float = 1e-6
    mode: str = "all"


# size and the margin of every row
EXACT = {
    "orthoplex": (58, 29, 1.0),
    "600-cell": (120, 4, (3 - math.sqrt(5)) / 4),
    "e8": (240, 8, 0.5),
    "kerdock": (4224, 64, 1 - 1 / 8),
}
# no Gold code of 10,000 words fits in 10 dimensions, and of 1,000 words none fits in fewer than 31
CASES = (
    *(Case(kind, 1000, 10) for kind in ("random", "optimised", "trained")),
    Case("gold", 1000, 31),
    *(Case(kind, 10_000, 10) for kind in ("random", "optimised", "trained", "clustered")),
    *(Case(kind, 10_000, 64) for kind in ("random", "optimised", "gold", "trained", "clustered")),
    *(Case(kind, size, dim, tolerance=1e-10) for kind, (size, dim, _) in EXACT.items()),
    Case("random", 10_000, 512, tolerance=1e-4),
    Case("random", 100_000, 64, tolerance=1e-3, mode="min"),
    Case("random", 50_257, 768, tolerance=1e-3, mode="min"),
)
QUICK = (Case("random", 1000, 10), Case("clustered", 1000, 10), Case("gold", 1000, 31), Case("random", 1000, 64))
PASSED = ("sample", "subgradient-steps", "repeats")  # options that each case's own process gets too
ONCE = 100_000 * 64  # coordinates from which one run must do


# --- rows --------------------------------------------------------------------------------------------------------


def unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows.double(), dim=1)


def random_rows(num_classes: int, feature_dim: int) -> Tensor:
    return unit(torch.randn(num_classes, feature_dim, generator=torch.Generator().manual_seed(0)))


def clustered_rows(num_classes: int, feature_dim: int) -> Tensor:
    """Groups of look-alike classes, 20 rows each on average: what makes trained heads harder than random rows."""
    generator = torch.Generator().manual_seed(1)
    centres = random_rows(max(2, num_classes // 20), feature_dim)
    which = torch.randint(len(centres), (num_classes,), generator=generator)
    return unit(centres[which] + 0.02 * torch.randn(num_classes, feature_dim, generator=generator).double())


def optimised_rows(num_classes: int, feature_dim: int) -> Tensor:
    """Random rows pushed away from their neighbours until all are nearly equally far."""
    return relax_rows(random_rows(num_classes, feature_dim))


def known_rows(name: str) -> Callable[[int, int], Tensor]:
    """All rows of a code that can be written down, whose margins are all the same."""
    return lambda num_classes, feature_dim: torch.from_numpy(make_points(name))


def orthoplex_rows(num_classes: int, feature_dim: int) -> Tensor:
    return torch.from_numpy(orthoplex(feature_dim))


def gold_rows(num_classes: int, feature_dim: int) -> Tensor:
    """Words Tr(a x + b x^3 + c x^5) of dual BCH codes in d = 2^m - 1 dimensions, some of them at random."""
    degree = (feature_dim + 1).bit_length() - 1
    order, primitive = (1 << degree) - 1, {5: 0b100101, 6: 0b1000011, 9: 0b1000010001}[degree]
    powers = [1]
    while len(powers) < order:
        doubled = powers[-1] << 1
        powers.append(doubled ^ primitive if doubled >> degree else doubled)
    # the trace is linear, so one non-zero linear form of the powers gives every word as a shift of one sequence
    sequence = np.array([x & 1 for x in powers])
    at = np.arange(order)
    words = [
        np.vstack([np.zeros(order, int), *(sequence[(s + e * at) % order] for s in range(order))]) for e in (1, 3, 5)
    ]
    pick = np.random.default_rng(0).choice(1 << (3 * degree), num_classes, replace=False)
    bits = sum(word[(pick >> (i * degree)) % (order + 1)] for i, word in enumerate(words)) % 2
    rows = torch.zeros(num_classes, feature_dim, dtype=torch.float64)
    rows[:, :order] = torch.from_numpy(1.0 - 2.0 * bits)
    return unit(rows)


ROWS: dict[str, Callable[[int, int], Tensor]] = {
    "random": random_rows,
    "clustered": clustered_rows,
    "optimised": optimised_rows,
    "gold": gold_rows,
    "kerdock": known_rows("Kerdock 64"),
    "e8": known_rows("E8 roots"),
    "600-cell": known_rows("600-cell"),
    "orthoplex": orthoplex_rows,
    "trained": trained_rows,
}


# --- methods -----------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_nnls(weights: Tensor, sample: Tensor) -> dict[str, float]:
    """CPU seconds for all classes, scaled from the sample, and the answers whose own two bounds do not meet."""
    rows, wrong = weights.numpy(), 0
    start = time.process_time()
    for k in sample.tolist():
        rest = np.delete(rows, k, axis=0) - rows[k]
        system = np.vstack([rest.T, np.ones(len(rest))])
        target = np.zeros(len(system))
        target[-1] = 1.0
        try:
            solution = scipy.optimize.nnls(system, target)[0]
        except RuntimeError:  # too many iterations
            wrong += 1
            continue
        point = rest.T @ (solution / solution.sum())
        upper = float(np.linalg.norm(point))
        wrong += not float((rest @ point).min()) >= upper * upper * (1 - 1e-6)
    scale = len(rows) / len(sample)
    return {"nnls_seconds": (time.process_time() - start) * scale, "nnls_wrong": wrong, "nnls_sample": len(sample)}


def measure_subgradient(weights: Tensor, sample: Tensor, upper: Tensor, steps: int) -> dict[str, float]:
    """Projected sub-gradient ascent of min_j <w_k - w_j, h> over |h| <= 1, scaled to all classes and 10,000 steps."""
    own = weights[sample]
    best = torch.full((len(sample),), -torch.inf, dtype=torch.float64)
    direction = own.clone()
    start = time.process_time()
    for step in range(steps):
        scores = direction @ weights.T
        scores.scatter_(1, sample.unsqueeze(1), -torch.inf)
        nearest, which = scores.max(1)
        best = torch.maximum(best, ((own * direction).sum(1) - nearest) / direction.norm(dim=1).clamp_min(1e-300))
        direction = direction + (own - weights[which]) / math.sqrt(step + 1)
        direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1.0)
    spent = (time.process_time() - start) * (len(weights) / len(sample)) * (10_000 / steps)
    gap = float(((upper[sample] - best) / upper[sample]).max())
    return {"subgradient_seconds": spent, "subgradient_gap": gap, "subgradient_steps": steps}


def measure_floor(weights: Tensor) -> float:
    part = weights[: min(len(weights), 2000)]
    _ = part[:100] @ weights.T
    once = [seconds(lambda: [p @ weights.T for p in part.split(250)]) for _ in range(3)]
    return statistics.median(once) * len(weights) / len(part)


def run_case(case: Case, sample_size: int, steps: int, repeats: int) -> dict[str, float | str]:
    """Every method on one case, in this process."""
    torch.set_num_threads(1)
    weights = ROWS[case.kind](case.num_classes, case.feature_dim)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: list[Margins] = []

    def solve() -> None:
        found.append(one_vs_rest_margins(weights, tolerance=case.tolerance, mode=case.mode))  # type: ignore[arg-type]

    repeats = 1 if weights.numel() >= ONCE else repeats
    floors, times = [], []
    for _ in range(repeats):
        floors.append(measure_floor(weights))
        times.append(seconds(solve))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    margins = found[-1]
    lower, upper = margins.minimum
    gaps = (margins.upper - margins.lower) / margins.upper
    result: dict[str, float | str] = {
        **asdict(case),
        "solver_seconds": statistics.median(times),
        "gap": float(gaps.max()) if case.mode == "all" else (upper - lower) / upper,
        "margin_min_lower": lower,
        "margin_min_upper": upper,
        "rounds": margins.rounds,
        "peak_mebibytes": peak / 1024,
        "peak_above_rows_mebibytes": (peak - before) / 1024,
        "floor_seconds": statistics.median(floors),
        "repeats": repeats,
    }
    if case.kind in EXACT:
        exact = EXACT[case.kind][2]
        result["largest_error"] = float(torch.maximum(margins.upper - exact, exact - margins.lower).max()) / exact
        # small codes whole: it is on these that NNLS goes wrong
        sample_size = len(weights) if sample_size and len(weights) < 1000 else sample_size
    if case.mode == "all" and sample_size:
        sample = torch.randperm(len(weights), generator=torch.Generator().manual_seed(2))[:sample_size]
        result |= measure_nnls(weights, sample) | measure_subgradient(weights, sample, margins.upper, steps)
    return result


def line(result: dict) -> str:
    """One case for people: times, ratios to the solver, gaps and memory."""
    own = result["solver_seconds"]
    text = (
        f"{result['kind']:9s} ({result['num_classes']}, {result['feature_dim']}) {result['mode']}: "
        f"solver {own:.2f} s (median of {result['repeats']}), gap {result['gap']:.1e}, minimum {result['margin_min_lower']:.6f}, "
        f"{result['rounds']} rounds, {own / result['floor_seconds']:.1f} x floor, "
        f"peak {result['peak_mebibytes']:.0f} MiB"
    )
    if "largest_error" in result:
        text += f", largest error of any row {result['largest_error']:.1e}"
    if "nnls_seconds" in result:
        text += (
            f" | nnls {result['nnls_seconds']:.0f} s = {result['nnls_seconds'] / own:.0f} x, "
            f"wrong {result['nnls_wrong']} of {result['nnls_sample']}"
            f" | subgrad {result['subgradient_seconds']:.0f} s = {result['subgradient_seconds'] / own:.0f} x, "
            f"gap {result['subgradient_gap']:.1e} after {result['subgradient_steps']} steps"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four small cases, about a minute")
    parser.add_argument("--kinds", nargs="*", choices=sorted(ROWS), help="only these kinds of rows")
    parser.add_argument("--sizes", nargs="*", help="only these sizes, as K,d")
    parser.add_argument("--sample", type=int, default=30, help="classes given to NNLS and the sub-gradient method")
    parser.add_argument("--subgradient-steps", type=int, default=1000, help="steps timed, scaled to 10,000")
    parser.add_argument("--repeats", type=int, default=3, help="runs of solver and floor; the median counts")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case = Case(**json.loads(options.case))
        print(json.dumps(run_case(case, options.sample, options.subgradient_steps, options.repeats)))
        return
    for case in QUICK if options.quick else CASES:
        size = f"{case.num_classes},{case.feature_dim}"
        if (options.kinds and case.kind not in options.kinds) or (options.sizes and size not in options.sizes):
            continue
        passed = [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in PASSED]
        command = [sys.executable, "-m", "benchmarks.margins", "--case", json.dumps(asdict(case)), *passed]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(line(json.loads(finished.stdout)), flush=True)


if __name__ == "__main__":
    main()
