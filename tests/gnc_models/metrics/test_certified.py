"""The intervals of a measurement hold the exact values of the floats it was given, computed to 80 digits.

`python -m tests.gnc_models.metrics.test_certified 3000` tries so many draws of each kind; the tests here try a few.
"""

import random
import sys
from decimal import Decimal, localcontext

import pytest
import torch

from gnc.meter import CollapseMeter
from gnc_models.metrics.collapse import measure_collapse

DIGITS = 80
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
Vector = list[Decimal]


# --- exact margins -----------------------------------------------------------------------------------------------


def inner(a: Vector, b: Vector) -> Decimal:
    return sum((x * y for x, y in zip(a, b, strict=True)), Decimal(0))


def minus(a: Vector, b: Vector) -> Vector:
    return [x - y for x, y in zip(a, b, strict=True)]


def mean_of(rows: list[Vector]) -> Vector:
    return [sum(column, Decimal(0)) / len(rows) for column in zip(*rows, strict=True)]


def direction(row: Vector) -> Vector:
    length = inner(row, row).sqrt()
    return [x / length for x in row] if length else row


def solve(matrix: list[Vector], right: Vector) -> Vector:
    """Gauss elimination with pivots."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for k in range(len(rows)):
        pivot = max(range(k, len(rows)), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, len(rows)):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    found = [Decimal(0)] * len(rows)
    for k in reversed(range(len(rows))):
        found[k] = (rows[k][-1] - sum(rows[k][j] * found[j] for j in range(k + 1, len(rows)))) / rows[k][k]
    return found


def distance_to_hull(points: list[Vector]) -> Decimal:
    """From the origin to the hull of the points: Wolfe's algorithm, to nearly all digits."""
    small = Decimal(10) ** -(DIGITS - 25)
    gram = [[inner(a, b) for b in points] for a in points]
    chosen, shares = [min(range(len(points)), key=lambda i: gram[i][i])], [Decimal(1)]
    while True:
        slack = [sum(s * gram[i][j] for s, j in zip(shares, chosen, strict=True)) for i in range(len(points))]
        square = sum(s * slack[j] for s, j in zip(shares, chosen, strict=True))
        best = min(range(len(points)), key=slack.__getitem__)
        if best in chosen or slack[best] >= square - small * gram[best][best]:
            return max(square, Decimal(0)).sqrt()
        chosen, shares = [*chosen, best], [*shares, Decimal(0)]
        while True:
            size = len(chosen)
            matrix = [[Decimal(0), *[Decimal(1)] * size]]
            matrix += [[Decimal(1), *(gram[i][j] for j in chosen)] for i in chosen]
            flat = solve(matrix, [Decimal(1), *[Decimal(0)] * size])[1:]
            if all(value > small for value in flat):
                shares = flat
                break
            step = min(s / (s - f) for s, f in zip(shares, flat, strict=True) if f <= small)
            shares = [s + step * (f - s) for s, f in zip(shares, flat, strict=True)]
            kept = [i for i, share in enumerate(shares) if share > small]
            chosen, shares = [chosen[i] for i in kept], [shares[i] for i in kept]


def exact_margins(rows: list[Vector]) -> Vector:
    return [
        distance_to_hull([minus(row, other) for j, other in enumerate(rows) if j != k]) for k, row in enumerate(rows)
    ]


# --- draws -------------------------------------------------------------------------------------------------------


def draw(kind: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]:
    """Features, labels, rows and a normalization."""
    chance = random.Random(f"{kind} {seed}")
    generator = torch.Generator().manual_seed(seed)
    dim = chance.choice([2, 3, 5, 10] if kind != "wide" else [32, 64])
    num_classes = chance.choice([3, 5, 8])
    rows = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)
    if kind == "look-alike":  # one pair, or all
        size = 10.0 ** chance.uniform(-16, -2)
        moved = size * torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)
        rows = rows[[0, 0, *range(2, num_classes)]] + moved if chance.random() < 0.7 else rows[:1] + moved
    rows = rows * 10.0 ** chance.uniform(-4, 4)
    counts = torch.tensor([chance.choice([1, 2, 7]) for _ in range(num_classes)])
    labels = torch.arange(num_classes).repeat_interleave(counts)
    noise = 10.0 ** chance.uniform(-8, 0) * rows.norm(dim=1).mean()
    features = rows[labels] + noise * torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    dtype = DTYPES[chance.choice(list(DTYPES))]
    features, rows = features.to(dtype), rows.to(dtype)
    return features, labels, rows, chance.choice(["both", "features", "weights", "none"])


def exact_intervals(features: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, mode: str) -> dict[str, Decimal]:
    """The value that each interval must hold."""
    w = [[Decimal(x) for x in row] for row in rows.double().tolist()]
    h = [[Decimal(x) for x in row] for row in features.double().tolist()]
    seen = [direction(x) for x in h] if mode in ("both", "features") else h
    means = [mean_of([x for x, y in zip(seen, labels.tolist(), strict=True) if y == k]) for k in range(len(w))]
    found = {"mean_margin_min": min(exact_margins([direction(mean) for mean in means]))}
    own = exact_margins([direction(row) for row in w])
    found |= {"margin_min": min(own)} | {f"class {k}": margin for k, margin in enumerate(own)}
    if mode in ("features", "none"):
        centred = [minus(row, mean_of(w)) for row in w]
        scale = (sum(inner(c, c) for c in centred) / len(w)).sqrt()
        found["hull_margin_min"] = min(exact_margins(w)) / scale if scale else Decimal(0)
        found["centred_margin_min"] = min(exact_margins([direction(c) for c in centred]))
    return found


def misses(kind: str, seed: int) -> tuple[list[str], int, float]:
    """Names of the intervals that miss, how many there are, and the widest that is not of a degenerate row."""
    features, labels, rows, mode = draw(kind, seed)
    if not bool(rows.any(1).all()) or not bool(features.any()):
        return [], 0, 0.0
    temperature = None if mode == "none" else 0.1
    found = measure_collapse(features, labels, rows, normalization=mode, temperature=temperature)
    missed, widest, number = [], 0.0, 0
    with localcontext(prec=DIGITS):
        for name, exact in exact_intervals(features, labels, rows, mode).items():
            if name.startswith("class "):
                k = int(name.split()[1])
                low, high = float(found.margins.lower[k]), float(found.margins.upper[k])
            else:
                low, high = found.values[f"{name}_lower"], found.values[f"{name}_upper"]
            if low is None or high is None:
                continue
            number += 1
            widest = max(widest, high - low if high < 2 else 0.0)
            if not Decimal(low) <= exact <= Decimal(high):
                missed.append(f"{name} of {kind} {seed} ({mode}, {rows.dtype}): {exact} not in [{low}, {high}]")
    return missed, number, widest


KINDS = ("look-alike", "random", "wide")


@pytest.mark.parametrize("kind", KINDS)
def test_every_interval_holds_the_exact_value_of_the_floats_given(kind):
    for seed in range(3 if kind == "wide" else 12):
        assert misses(kind, seed)[0] == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_means_that_were_only_streamed_and_merged_hold_the_exact_margin_too(dtype):
    for kind in ("look-alike", "random"):
        for seed in range(8):
            features, labels, rows, mode = draw(kind, seed)
            if not bool(features.any(1).all()):
                continue
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
            settings = {"normalization": mode, "temperature": None if mode == "none" else 0.1, "columns": ["means"]}
            meters = [CollapseMeter(*rows.shape, dtype=dtype, **settings) for _ in range(2)]
            for step, part in enumerate(order.split(3)):
                meters[step % 2].update(features[part], labels[part])
            found = meters[0].merge(meters[1]).compute()
            with localcontext(prec=DIGITS):
                exact = exact_intervals(features, labels, rows, mode)["mean_margin_min"]
                assert Decimal(found["mean_margin_min_lower"]) <= exact <= Decimal(found["mean_margin_min_upper"])
            assert dtype == torch.float32 or found["mean_margin_min_upper"] - found["mean_margin_min_lower"] < 1e-5


def test_the_exact_distance_is_that_of_known_hulls():
    with localcontext(prec=DIGITS):
        rows = [[Decimal(x), Decimal(y)] for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        assert all(abs(margin - 1) < Decimal(10) ** -60 for margin in exact_margins(rows))
        edge = [[Decimal(1), Decimal(1)], [Decimal(1), Decimal(-2)], [Decimal(4), Decimal(0)]]
        assert abs(distance_to_hull(edge) - 1) < Decimal(10) ** -60


if __name__ == "__main__":
    for kind in KINDS:
        found = [misses(kind, seed) for seed in range(int(sys.argv[1]) // (10 if kind == "wide" else 1))]
        lines = [line for missed, _, _ in found for line in missed]
        print(kind, f"{len(found)} draws, {sum(n for _, n, _ in found)} intervals, {len(lines)} missed", flush=True)
        print("\n".join(lines[:10]), flush=True)
