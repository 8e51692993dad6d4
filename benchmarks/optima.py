"""Whether another search beats the known optima of free features: `python -m benchmarks.optima [--seconds 60]`.

The search shares nothing with `optimise_unconstrained` but the definition of the loss: one start at a time in NumPy, rows
of any length that are divided by their length inside the loss, SciPy's L-BFGS-B, W and H free from the start. Half of
the starts come from a temperature three times as high, the others begin where they are to end. One line per row of the
table: its loss, the lowest found here and the relative difference (negative: the table is beaten), starts, and how many
of them came within 1e-6 of the table's loss. By default every row of at least 20 classes is tried and one in fifteen of
the others; `--pairs K,d,tau ...` names rows, or sizes and temperatures between those of the table of phases. CPU seconds,
with OMP_NUM_THREADS=1; the mark is -1e-6.
"""

import argparse
import math
import time

import numpy as np
from scipy.optimize import minimize

from gnc_models.codes.phases import unconstrained_optimum
from gnc_models.references.tables import read_table

SEED = 20_261_130  # of no search whose optima are in the table
MANY_CLASSES, EVERY = 20, 15
MARK = 1e-6
Row = tuple[int, int, float]


def log_loss(rows: np.ndarray, num_classes: int, temperature: float) -> tuple[float, np.ndarray]:
    """temperature * log(mean cross-entropy) of rows [2 K, d] of any length, and its gradient."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / lengths
    weights, features = unit[:num_classes], unit[num_classes:]
    logits = features @ weights.T / temperature
    np.fill_diagonal(gaps := logits - np.diag(logits)[:, None], -np.inf)
    largest = gaps.max(1, keepdims=True)
    ratios = np.exp(gaps - largest)
    sums = ratios.sum(1, keepdims=True)
    odds = (largest + np.log(sums))[:, 0]
    # softplus and its slope; where it underflows they are equal and their ratio is 1
    softplus = np.logaddexp(0.0, odds)
    small = odds < -30
    log_losses = np.where(small, odds, np.log(np.where(small, 1.0, softplus)))
    ratio = np.where(small, 1.0, np.exp(odds - softplus) / np.where(small, 1.0, softplus))
    total = np.logaddexp.reduce(log_losses)
    slopes = (np.exp(log_losses - total) * ratio)[:, None] * ratios / sums
    np.fill_diagonal(slopes, -slopes.sum(1))
    gradient = np.concatenate([slopes.T @ features, slopes @ weights])
    gradient -= (gradient * unit).sum(1, keepdims=True) * unit
    return temperature * (total - math.log(num_classes)), gradient / lengths


def one_start(num_classes: int, feature_dim: int, temperature: float, draw: np.random.Generator, warm: bool) -> float:
    """log(loss) of the minimum near one random start."""
    shape = 2 * num_classes, feature_dim
    x = np.tile(draw.standard_normal((num_classes, feature_dim)), (2, 1)).ravel()
    x += 0.1 * draw.standard_normal(x.shape)
    stages = [(3.0 * temperature, 100)] * warm + [(temperature, 3000)]
    for tau, steps in stages:

        def objective(x: np.ndarray, tau: float = tau) -> tuple[float, np.ndarray]:
            value, gradient = log_loss(x.reshape(shape), num_classes, tau)
            return value, gradient.ravel()

        options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-9}
        found = minimize(objective, x, jac=True, method="L-BFGS-B", options=options)
        x = found.x
    return float(found.fun) / temperature


def search(row: Row, seconds: float) -> list[float]:
    """log(loss) of as many starts as are begun in so many CPU seconds, at least one."""
    draw, end = np.random.default_rng(SEED), time.process_time() + seconds
    found: list[float] = []
    while not found or time.process_time() < end:
        found.append(one_start(*row, draw, warm=len(found) % 2 == 1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Try to beat the table of free-feature optima.")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds for each row of the table")
    parser.add_argument("--pairs", nargs="*", metavar="K,d,tau", help="rows of the table; default: a sample")
    given = parser.parse_args()
    table: dict[Row, float] = {
        (int(row["num_classes"]), int(row["feature_dim"]), float(row["temperature"])): float(row["loss"])
        for row in read_table("unconstrained_optima.csv")
    }
    few = [row for row in table if row[0] < MANY_CLASSES]
    rows = [row for row in table if row[0] >= MANY_CLASSES] + few[::EVERY]
    if given.pairs:
        named = [(int(k), int(d), float(tau)) for k, d, tau in (pair.split(",") for pair in given.pairs)]
        known = {row: unconstrained_optimum(*row) for row in named}
        if missing := [row for row, optimum in known.items() if optimum is None]:
            parser.error(f"--pairs must name known optima, got {missing}")
        rows, table = named, {row: optimum.loss for row, optimum in known.items() if optimum}
    print(
        f"{'K':>4} {'d':>3} {'tau':>8} {'table':>14} {'found here':>14} {'relative':>10} {'starts':>6} {'reach it':>8}"
    )
    beaten = 0
    for row in rows:
        began, found = time.process_time(), np.array(search(row, given.seconds))
        gap = math.expm1(found.min() - math.log(table[row]))
        reached = int((found <= math.log(table[row]) + 1e-6).sum())
        beaten += gap < -MARK
        numbers = f"{table[row]:14.8g} {math.exp(found.min()):14.8g} {gap:+10.1e} {len(found):6} {reached:8}"
        print(f"{row[0]:4} {row[1]:3} {row[2]:8.6g} {numbers}  {time.process_time() - began:.0f} s", flush=True)
    print(f"{beaten} of {len(rows)} rows beaten by more than {MARK:g}, relative")


if __name__ == "__main__":
    main()
