"""Makes the reference tables of gnc_models/data: rows that a table already has stay, missing ones are computed.

A row with an empty field is of an older search: it is computed again and replaced.

Knows the optimisers and the tables' columns; only the code benchmark imports it. It runs on one thread, so that a row
does not depend on the number of cores.

    python -m tools.tabulate unconstrained --minutes 30      unconstrained_optima.csv, the quickstart's cells first
    python -m tools.tabulate unconstrained --again 1         rows that few starts reached, from seed 1; the lower loss stays
    python -m tools.tabulate random --minutes 30             random_margins.csv
    python -m tools.tabulate codes --minutes 30              found_codes.csv, from the optimiser
    python -m tools.tabulate words --minutes 30              found_codes.csv, signed words
    python -m tools.tabulate layers --minutes 30             found_codes.csv, rows at one cosine from a row of a family
    python -m tools.tabulate points --minutes 30             code_points_3d.csv
"""

import argparse
import csv
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gnc_models.codes.code import Code
from gnc_models.codes.search import optimise_code, random_codes
from gnc_models.codes.unconstrained_features import optimise_unconstrained
from gnc_models.constructions.explicit import FAMILIES, derived, make_points
from gnc_models.constructions.words import signed_words
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.references.margin import reference_margin
from gnc_models.references.tables import read_table

DATA = Path(__file__).parents[1] / "gnc_models" / "data"

# (K, d, tau) of studies/quickstart.toml
QUICKSTART_OPTIMA = [
    *[(k, 2, 0.1) for k in (8, 12)],
    *[(k, 3, tau) for k in (12, 24, 48) for tau in (1.0, 0.3, 0.1, 0.05)],
    *[(k, 10, 0.1) for k in (50, 100, 200)],
    *[(100, 10, tau) for tau in (1.0, 0.2)],
]
# (K, d, tau) of the GNC paper's CIFAR100 runs, and of the small cells where all starts agree
PAPER_OPTIMA = [(100, 10, 1 / x) for x in (6, 7, 10, 20)] + [(k, d, 1 / 3.3) for k, d in ((12, 3), (24, 3), (8, 2))]
QUICKSTART_SIZES = [(d, k) for d, sizes in {2: (8, 12), 3: (12, 24, 48), 10: (50, 100, 200)}.items() for k in sizes]
OPTIMA_DIMS = (2, 3, 4, 5, 8, 10, 16, 32, 64)
OPTIMA_CLASSES = (8, 10, 12, 16, 20, 24, 32, 48, 50, 64, 100, 128, 200, 256, 512)
TEMPERATURES = (0.1, 0.2, 0.05, 1.0, 0.3, 0.5, 0.02)

# Starts and rounds of hops, by the most classes they are for.
OPTIMUM_BUDGETS = ((16, (192, 0)), (64, (2048, 60)), (128, (192, 60)), (256, (64, 60)), (512, (12, 20)))
# starts that end at a row's loss, and classes, from which on --again leaves it, takes it up
SETTLED, MANY_CLASSES = 8, 20
SAME = 1e-9  # relative: the same loss

# up to d + 1 classes the simplex is the optimum, in closed form
OPTIMA_CELLS = [(k, d, tau) for tau in TEMPERATURES for k in OPTIMA_CLASSES for d in OPTIMA_DIMS if k > d + 1]

RANDOM_DIMS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 100, 128, 256, 512)
RANDOM_CLASSES = (4, 6, 8, 12, 16, 24, 32, 50, 64, 100, 128, 200, 256, 500, 512, 1000, 1500)
# Face recognition and language models; 50,400 is just above the vocabulary of GPT-2.
RANDOM_LARGE = [
    *[(d, k) for k in (100, 500, 1500, 5000, 15_000, 50_400, 100_800) for d in (512, 256, 1024, 64, 128, 768)],
    *[(d, k) for k in (5000, 15_000, 50_400) for d in (4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 100)],
]

POINT_SIZES = (8, 10, 12, 16, 20, 24, 32, 40, 48, 50, 60, 64, 72, 80, 96, 100)

# Codes worth optimising: sizes that studies use, between the sizes of the published tables.
CODE_SIZES = [
    (d, k)
    for k in (20, 24, 32, 48, 50, 64, 100, 128, 200, 256, 400, 500, 512, 1000)
    for d in (4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
    if k > 2 * d
]

# Rows that crowd few dimensions, where the published tables end.
CROWDED_SIZES = [(d, k) for k in (80, 128, 160, 200, 256, 320, 400, 512, 1000) for d in range(3, 10)]

MOST_IN_LAYER = 50_000

WORD_SHAPES_BY_DIM = [
    (d, weight, overlap)
    for d in range(4, 21)
    for weight in range(2, 9)
    for overlap in range(max(1, weight - 4), weight)
    if weight <= d and math.comb(d, weight) <= 13_000 and (weight <= 4 or overlap <= weight - 2)
]


@dataclass(frozen=True)
class Recipe:
    """How one table is made: its file, how many leading columns name a row, which rows, and what computes one."""

    file: str
    num_keys: int
    cells: Iterable[tuple[float, ...] | tuple[int, ...] | tuple[str]]
    rows: Callable[..., list[list[object]]]


def optimum_rows(num_classes: int, feature_dim: int, temperature: float, seed: int = 0) -> list[list[object]]:
    """The unconstrained-feature model's best loss and its margin. Where the table has as low a loss its numbers stay, and
    the search that found it again is told; where it has a lower one, its row."""
    starts, hops = _budget(num_classes)
    found = optimise_unconstrained(num_classes, feature_dim, temperature, starts=starts, hops=hops, seed=seed)
    numbers = (found.loss, found.margin, found.margin_low, found.margin_high)
    new: list[object] = [
        num_classes,
        feature_dim,
        temperature,
        *(f"{x:.10g}" for x in numbers),
        starts,
        hops,
        found.found,
        seed,
    ]
    for row in read_table("unconstrained_optima.csv"):
        if _optimum_key(row) == (num_classes, feature_dim, temperature):
            old: list[object] = list(row.values())
            beside = found.loss / float(row["loss"]) - 1
            print(f"{beside:+.1e} beside the table", file=sys.stderr)
            return [new if beside < -SAME else [*old[:7], *new[7:]] if beside < SAME else old]
    return [new]


def _optimum_key(row: Mapping[str, str]) -> tuple[int, int, float]:
    return int(row["num_classes"]), int(row["feature_dim"]), float(row["temperature"])


def unsettled_optima() -> list[tuple[int, int, float]]:
    """The table's rows of fewer starts than they would have today, and those of many classes whose loss few starts reached."""
    rows = [(_optimum_key(row), row) for row in read_table("unconstrained_optima.csv")]
    return [
        key for key, row in rows
        if int(row["starts"] or 0) < _budget(key[0])[0]
        or (key[0] >= MANY_CLASSES and int(row["found"] or 0) < SETTLED)
    ]  # fmt: skip


def _budget(num_classes: int) -> tuple[int, int]:
    return next(budget for most, budget in OPTIMUM_BUDGETS if num_classes <= most)


def random_rows(feature_dim: int, num_classes: int) -> list[list[object]]:
    """Median and range over draws of the minimum margin of random unit rows, and the best draw as a code."""
    # the smallest margin of few rows varies most and costs least
    cost = num_classes * feature_dim
    steps = ((600, 201), (8000, 41), (40_000, 21), (2_000_000, 5), (8_000_000, 3))
    draws = next((count for most, count in steps if cost <= most), 1)
    codes = random_codes(num_classes, feature_dim, starts=draws, seed=1_000_000 * feature_dim + num_classes)
    bounds = [one_vs_rest_margins(code, mode="min", tolerance=1e-5).minimum for code in codes]
    margins = sorted((low + high) / 2 for low, high in bounds)
    best = max(Code.of(code).margin_lower for code in codes)
    shown = (margins[draws // 2], margins[0], margins[-1])
    return [[feature_dim, num_classes, draws, *(f"{x:.8g}" for x in shown), floor_text(best)]]


def code_rows(feature_dim: int, num_classes: int) -> list[list[object]]:
    """A code from random starts, if it beats the reference as it stands; it is found again by the same call."""
    starts = 32 if num_classes * feature_dim <= 512 else 16 if num_classes <= 256 else 4
    code = optimise_code(num_classes, feature_dim, starts=starts, seed=0)
    known = reference_margin(num_classes, feature_dim).lower
    print(f"{code.margin_lower:.9f} beside {known:.9f}", file=sys.stderr)
    if code.margin_lower <= known + 1e-9:
        return []
    return [[feature_dim, num_classes, floor_text(code.margin_lower), "optimise_code", starts, 0]]


def word_rows(feature_dim: int, weight: int, overlap: int) -> list[list[object]]:
    """Signed words, where they beat the reference at their own size."""
    rows = signed_words(feature_dim, weight, overlap, seed=0)
    if not 2 * feature_dim < len(rows) <= 30_000:
        return []
    margin = Code.of(torch.from_numpy(rows)).margin_lower
    known = reference_margin(len(rows), feature_dim).lower
    print(f"{len(rows)} rows, {margin:.9f} beside {known:.9f}", file=sys.stderr)
    if margin <= known + 1e-6:
        return []
    return [[feature_dim, len(rows), floor_text(margin), f"signed_words({feature_dim};{weight};{overlap})", 20, 0]]


def layer_rows(name: str) -> list[list[object]]:
    """Layers of one family, where they beat the reference and one another at their own sizes."""
    dim, size, _ = FAMILIES[name]
    points = make_points(name)
    found: list[tuple[int, int, float, str]] = []
    for row, cosine in _levels(points):
        inner = derived(points, cosine, row)
        margin = _margin_above_reference(inner)
        if margin is not None:
            found.append((inner.shape[1], len(inner), margin, f"layer({dim};{size};{row};{cosine:.6f})"))
    return [[*code[:2], floor_text(code[2]), code[3], 0, 0] for code in _undominated(found)]


def _levels(points: np.ndarray) -> list[tuple[int, float]]:
    """Rows and cosines from them with unlike numbers of rows, of a sample of the rows."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    sample = np.random.default_rng(0).choice(len(unit), min(len(unit), 40), replace=False).tolist()
    levels: dict[tuple[float, int], tuple[int, float]] = {}
    for row in [0, *sample, len(unit) - 1]:
        values, counts = np.unique(np.round(unit @ unit[row], 6), return_counts=True)
        for cosine, count in zip(values.tolist(), counts.tolist(), strict=True):
            if abs(cosine) < 0.95 and count > 2 * points.shape[1]:
                levels.setdefault((abs(cosine), count), (row, cosine))
    return list(levels.values())


def _margin_above_reference(points: np.ndarray) -> float | None:
    """The rows' margin if it beats the reference; a few rows against all decide first."""
    known = reference_margin(len(points), points.shape[1]).lower + 1e-6
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    first = unit[:100] @ unit.T - 3 * np.eye(min(100, len(unit)), len(unit))
    if len(points) > MOST_IN_LAYER or 1 - first.max() <= known:
        return None
    margin = Code.of(torch.from_numpy(points)).margin_lower
    return margin if margin > known else None


def _undominated(found: list[tuple[int, int, float, str]]) -> list[tuple[int, int, float, str]]:
    """Codes to which no other has as many rows in no more dimensions at the same margin; the first of equal ones."""
    best: list[tuple[int, int, float, str]] = []
    for code in sorted(found, key=lambda code: (code[0], -code[1], -code[2], len(code[3]))):
        if not any(d <= code[0] and k >= code[1] and m >= code[2] - 1e-9 for d, k, m, _ in best):
            best.append(code)
    return best


def point_rows(num_classes: int) -> list[list[object]]:
    """Coordinates of the best code found in three dimensions."""
    code = optimise_code(num_classes, 3, starts=256 if num_classes <= 50 else 1024, seed=0)
    print(f"{code.margin_lower:.9f} beside {reference_margin(num_classes, 3).lower:.9f}", file=sys.stderr)
    return [[num_classes, i, *(f"{x:.12f}" for x in row)] for i, row in enumerate(code.points.tolist())]


def floor_text(margin: float) -> str:
    """Twelve decimals, rounded down so that the text stays a lower bound."""
    return f"{math.floor(margin * 1e12) / 1e12:.12f}"


def _by_size(cells: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(cells, key=lambda cell: cell[0] * cell[1])


def _coordinates(family: str) -> int:
    dim, size, _ = FAMILIES[family]
    return dim * size


RECIPES = {
    "unconstrained": Recipe(
        "unconstrained_optima.csv", 3, QUICKSTART_OPTIMA + PAPER_OPTIMA + OPTIMA_CELLS, optimum_rows
    ),
    "random": Recipe(
        "random_margins.csv",
        2,
        [*QUICKSTART_SIZES, *_by_size(itertools.product(RANDOM_DIMS, RANDOM_CLASSES)), *RANDOM_LARGE],
        random_rows,
    ),
    "codes": Recipe("found_codes.csv", 2, [(10, 50), (10, 100), (10, 200), *CODE_SIZES, *CROWDED_SIZES], code_rows),
    "words": Recipe("found_codes.csv", 2, WORD_SHAPES_BY_DIM, word_rows),
    # a family has no row of its own in the table: every call looks at all again, from the smallest
    "layers": Recipe("found_codes.csv", 2, [(n,) for n in sorted(FAMILIES, key=_coordinates)], layer_rows),
    "points": Recipe("code_points_3d.csv", 1, [(k,) for k in POINT_SIZES], point_rows),
}


def make_table(recipe: Recipe, folder: Path, seconds: float, *, again: bool = False) -> int:
    """Append missing rows, each as soon as it is known, until the time is up; returns how many cells were computed.

    again: cells whose rows are there are computed too, and replaced.
    """
    path, end, done = folder / recipe.file, time.monotonic() + seconds, 0
    have: set[tuple[float | str, ...]] = set() if again else {*_keys(path, recipe.num_keys)}
    for cell in dict.fromkeys(recipe.cells):
        if cell in have:
            continue
        if time.monotonic() > end:
            break
        began = time.monotonic()
        rows = recipe.rows(*cell)
        _drop(path, recipe.num_keys, cell, again)
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        done += 1
        print(f"{recipe.file} {cell} {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return done


def _keys(path: Path, num_keys: int) -> set[tuple[float, ...]]:
    """Of all rows without an empty field."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {_key(line, num_keys) for line in lines[1:] if "" not in line.split(",")}


def _key(line: str, num_keys: int) -> tuple[float, ...]:
    return tuple(float(x) for x in line.split(",")[:num_keys])


def _drop(path: Path, num_keys: int, cell: tuple[float | str, ...], whole: bool) -> None:
    """Take out the row of this key that has an empty field, or a whole one too."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    body = next(i for i, line in enumerate(lines) if not line.startswith("#")) + 1
    stale = [
        i >= body
        and not line.startswith("#")
        and (whole or "" in line.strip().split(","))
        and _key(line, num_keys) == cell
        for i, line in enumerate(lines)
    ]
    kept = [line for line, is_stale in zip(lines, stale, strict=True) if not is_stale]
    if len(kept) < len(lines):
        path.write_text("".join(kept), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute missing rows of a reference table.")
    parser.add_argument("table", choices=sorted(RECIPES))
    parser.add_argument("--minutes", type=float, default=30.0, help="start no new row after so many minutes")
    parser.add_argument("--folder", type=Path, default=DATA, help="folder of the table")
    parser.add_argument("--again", type=int, metavar="SEED", help="optima that few starts reached, from this seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES[given.table]
    if given.again is not None:
        if given.table != "unconstrained":
            parser.error(f"--again must go with unconstrained, got {given.table}. Other rows do not depend on a seed.")
        recipe = replace(recipe, cells=unsettled_optima(), rows=partial(optimum_rows, seed=given.again))
    print(make_table(recipe, given.folder, 60 * given.minutes, again=given.again is not None))


if __name__ == "__main__":
    main()
