"""Which arrangement of free unit rows and features has the lowest cross-entropy, as the temperature falls from 2 to 0.02.

    python -m tools.phase_diagram --dims 2 12 --most-classes 2 --kept FILE    goes on where it was

A cell is a pair (d, K). Its search holds many starts at all temperatures as one tensor. What is lowest at a temperature
is then followed to the next ones, up and down, until nothing lower comes of it. Up to 2 d classes the best splits into
orthogonal simplices are tried too: some are lowest only between two temperatures of the search. Neighbouring temperatures
whose lowest arrangements are not the same one, followed both ways, have a switch between them: it is bisected, following
either side, and all arrangements found nearby are tried where the two meet, so that a third one in between is seen. What is
seen so is given back to the search, until nothing new comes. Where one goes over into the other without a jump the loss
of both differs by the square of the distance from the switch, and it is known to some 2e-4 of its temperature.

Knows the optimiser of free features, the margin solver and the closed forms. Symmetry groups are counted by igraph (BLISS).
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnc_models.codes import unconstrained_features as free
from gnc_models.codes.search import random_codes
from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.shapes import Float
from tools.orthogonal_simplices import simplices, splits

HOTTEST, COLDEST, LEVELS = 2.0, 0.02, 65
TEMPERATURES = torch.logspace(math.log10(HOTTEST), math.log10(COLDEST), LEVELS, dtype=torch.float64)
SAME_VALUE = 1e-9  # of temperature * log(loss): two arrangements that differ by less at a temperature are the same one
SAME_LOSS = 1e-6  # starts whose losses differ by less, relative, count as having found the same arrangement
SWITCH = 1e-7  # width of the bracket of a switch, relative to its temperature
KEPT_EACH = 5  # arrangements of a temperature that are followed to its neighbours
NEARBY = 8  # temperatures on either side of a switch whose arrangements are tried where its two sides meet
NARROW = 1e-6  # a phase that is not wider than this, relative to its temperature, is where its neighbours meet
BESIDE = 1.0001  # how far from a switch its two sides are compared, as a factor
ALIKE = 1e-2  # cosines on both sides of a switch that differ by less: it goes over into the other without a jump
ROUNDS = 3  # most times that what bisecting found is given back to the search
SAME_COSINE = 1e-4  # cosines that differ by less are equal for the symmetry group


@dataclass
class Phase:
    """One arrangement from its hottest to its coldest temperature; points are W above H at both ends.

    way: temperatures between the ends and their points, where no end leads to what is lowest."""

    hot: float
    cold: float
    at_hot: Tensor
    at_cold: Tensor
    way: list[tuple[float, Tensor]] = field(default_factory=list)


@dataclass
class Cell:
    """What the search of one (d, K) holds: at each temperature the lowest distinct arrangements, and how often they were found."""

    classes: int
    dim: int
    points: list[Tensor] = field(default_factory=list)  # per temperature (kept, 2 K, d), lowest first
    values: list[Tensor] = field(default_factory=list)  # temperature * log(loss)
    found: list[int] = field(default_factory=list)  # starts that ended at the lowest
    starts: int = 0
    seed: int = 0


def follow(points: Tensor, temperatures: Tensor) -> tuple[Tensor, Tensor]:
    """The minima that the arrangements (W above H) lead to at these temperatures, W and H both free."""
    return free._descend(points, temperatures, free.LAST_STEPS, 1e-10, tied=False)


def search(classes: int, dim: int, *, starts: int, hops: int, seed: int = 0) -> Cell:
    """Starts at every temperature, hops of the lowest, and sweeps until no neighbour leads to anything lower."""
    cell = Cell(classes, dim, starts=starts, seed=seed)
    at = TEMPERATURES.repeat_interleave(starts)
    rows = random_codes(classes, dim, starts=len(at), seed=seed)
    ladders = torch.cat([free._ladders(float(t), starts) for t in TEMPERATURES], dim=1)
    for level in ladders:
        rows, _ = free._descend(rows, level, free.LEVEL_STEPS, 1e-5)
    rows, value = free._descend(rows, at, free.ROUGH_STEPS, 1e-8)
    if hops:
        rows, value = _hop(rows, value, at, starts, hops, seed)
    for level in range(LEVELS):
        part = slice(level * starts, (level + 1) * starts)
        order = _distinct(value[part])
        kept = rows[part][order].repeat(1, 2, 1)
        points, values = follow(kept, TEMPERATURES[level].repeat(len(kept)))
        cell.points.append(points)
        cell.values.append(values)
        # counted before W and H are let go of each other: the start that led to the lowest, and those that ended with it
        led = value[part][order[int(values.argmin())]]
        cell.found.append(int(((value[part] - led).abs() < SAME_LOSS * float(TEMPERATURES[level])).sum()))
        _sort(cell, level)
    _sweep(cell, set(range(LEVELS)))
    if classes <= 2 * dim:
        for sizes in splits(classes, dim):
            give(cell, range(LEVELS), torch.from_numpy(simplices(sizes)).repeat(2, 1))
    return cell


def give(cell: Cell, levels: Iterable[int], points: Tensor) -> None:
    """Try an arrangement at these temperatures of the search, and from there at others."""
    levels = list(levels)
    reached, values = follow(points.expand(len(levels), -1, -1), TEMPERATURES[levels])
    lower = {level for i, level in enumerate(levels) if _add(cell, level, reached[i : i + 1], values[i : i + 1])}
    _sweep(cell, lower)


def _add(cell: Cell, level: int, points: Tensor, values: Tensor) -> bool:
    """Whether these are lower than what the temperature had."""
    lowest = float(cell.values[level][0])
    cell.points[level] = torch.cat([cell.points[level], points])
    cell.values[level] = torch.cat([cell.values[level], values])
    _sort(cell, level)
    if float(cell.values[level][0]) < lowest - SAME_LOSS * float(TEMPERATURES[level]):
        cell.found[level] = 0  # by no start of this temperature
    return float(cell.values[level][0]) < lowest - SAME_VALUE


def _hop(rows: Tensor, value: Tensor, at: Tensor, starts: int, hops: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rounds in which the two lowest starts of every temperature move a few classes and keep what is lower."""
    generator = torch.Generator().manual_seed(seed)
    order = value.view(LEVELS, starts).argsort(1)[:, :2] + starts * torch.arange(LEVELS)[:, None]
    hopping = order.flatten()
    for hop in range(hops):
        moved = free._hopped(rows[hopping], free.MOVES[hop % len(free.MOVES)], generator)
        tried, reached = free._descend(moved, at[hopping], free.HOP_STEPS, 1e-8)
        lower = reached < value[hopping]
        rows[hopping[lower]], value[hopping[lower]] = tried[lower], reached[lower]
    return rows, value


def _distinct(value: Tensor) -> list[int]:
    """The lowest KEPT_EACH starts that differ, by their values to 1e-6."""
    kept: list[int] = []
    for index in value.argsort().tolist():
        if all(abs(float(value[index] - value[other])) > 1e-6 for other in kept):
            kept.append(index)
        if len(kept) == KEPT_EACH:
            break
    return kept


def _sort(cell: Cell, level: int) -> None:
    """Lowest first, each arrangement once."""
    points, values = cell.points[level], cell.values[level]
    order = values.argsort().tolist()
    kept: list[int] = []
    for index in order:
        if all(abs(float(values[index] - values[other])) > SAME_VALUE for other in kept):
            kept.append(index)
    kept = kept[:KEPT_EACH]
    cell.points[level], cell.values[level] = points[kept], values[kept]


def _sweep(cell: Cell, fresh: set[int]) -> None:
    """Follow what these temperatures keep to their neighbours until no temperature's lowest changes."""
    while fresh:
        sources = [(level, level + way) for level in sorted(fresh) for way in (-1, 1) if 0 <= level + way < LEVELS]
        points = torch.cat([cell.points[source] for source, _ in sources])
        goals = torch.cat([torch.full((len(cell.points[source]),), goal) for source, goal in sources])
        reached, values = follow(points, TEMPERATURES[goals])
        fresh = {
            level for level in set(goals.tolist()) if _add(cell, level, reached[goals == level], values[goals == level])
        }


def phases_of(cell: Cell) -> list[Phase]:
    """The phases from hot to cold, each switch bracketed to SWITCH."""
    for _ in range(ROUNDS):
        thirds: list[tuple[float, Tensor]] = []
        phases = _bisected(cell, thirds)
        if not thirds:
            break
        before = [values[0].clone() for values in cell.values]
        for temperature, points in thirds:
            level = int((TEMPERATURES.log() - math.log(temperature)).abs().argmin())
            give(cell, [near for near in (level - 1, level, level + 1) if 0 <= near < LEVELS], points)
        if all(float(old - new[0]) < SAME_VALUE for old, new in zip(before, cell.values, strict=True)):
            break  # they are lowest between two temperatures of the search alone
    phases = _joined(phases)
    for phase in phases:
        _mark_way(cell, phase)
    return phases


def _bisected(cell: Cell, thirds: list[tuple[float, Tensor]]) -> list[Phase]:
    phases: list[Phase] = []
    begin, start = HOTTEST, cell.points[0][0]
    current = start
    for level in range(LEVELS - 1):
        hot, cold = float(TEMPERATURES[level]), float(TEMPERATURES[level + 1])
        following = cell.points[level + 1][0]
        pool = torch.cat(cell.points[max(0, level - NEARBY) : level + 2 + NEARBY])
        for switch, before, after in switches(hot, current, cold, following, pool, thirds):
            phases.append(Phase(begin, switch, start, before))
            begin, start = switch, after
        current = following
    phases.append(Phase(begin, COLDEST, start, current))
    return phases


def _joined(phases: list[Phase]) -> list[Phase]:
    """Without phases that are too narrow to tell from a switch; what is the same on both sides of one is one phase."""
    joined: list[Phase] = []
    narrow = False
    for phase in phases:
        if phase.hot - phase.cold < NARROW * phase.hot:
            narrow = True
            continue
        if joined:
            last = joined[-1]
            phase.hot = last.cold
            # where they meet their values are equal: compared a little away from it
            if narrow and _is_same(phase.hot * BESIDE, last.at_cold, phase.hot / BESIDE, phase.at_hot):
                last.cold, last.at_cold = phase.cold, phase.at_cold
                continue
        narrow = False
        joined.append(phase)
    return joined


def inside(phase: Phase) -> list[int]:
    """The temperatures of the search that lie in a phase."""
    return [level for level in range(LEVELS) if phase.cold <= float(TEMPERATURES[level]) <= phase.hot]


def _mark_way(cell: Cell, phase: Phase) -> None:
    """Keep points of the search in the phase until those kept lead to what is lowest at all its temperatures."""
    levels = inside(phase)
    while levels:
        kept = [phase.at_hot, phase.at_cold, *(points for _, points in phase.way)]
        goals = torch.tensor(levels).repeat(len(kept))
        _, values = follow(torch.stack(kept).repeat_interleave(len(levels), dim=0), TEMPERATURES[goals])
        lowest = torch.stack([cell.values[level][0] for level in levels])
        excess = values.view(len(kept), -1).amin(0) - lowest
        worst = int(excess.argmax())
        if float(excess[worst]) < SAME_VALUE:
            break
        level = levels[worst]
        phase.way.append((float(TEMPERATURES[level]), cell.points[level][0]))
        levels.remove(level)


def switches(
    hot: float, a: Tensor, cold: float, b: Tensor, pool: Tensor, thirds: list[tuple[float, Tensor]], depth: int = 0
) -> list[tuple[float, Tensor, Tensor]]:
    """The switches between two temperatures' lowest arrangements: where, the arrangement before and the one after."""
    if _is_same(hot, a, cold, b):
        return []
    high, low, before, after = hot, cold, a, b
    orders = group_order(a), group_order(b)
    differ = orders[0] != orders[1]
    while high - low > SWITCH * high:
        middle = 0.5 * (high + low)
        at = torch.tensor([middle, middle], dtype=torch.float64)
        points, values = follow(torch.stack([before, after]), at)
        if is_alike(*points):  # one has led into the other
            lower = points[int(values.argmin())]
            from_hot = group_order(lower) != orders[1] if differ else _is_same(high, before, middle, lower)
        else:
            from_hot = bool(values[0] < values[1])
        if from_hot:
            high, before = middle, points[0]
        else:
            low, after = middle, points[1]
    # a third arrangement that is lower where the two meet
    others, values = follow(pool, torch.full((len(pool),), high, dtype=torch.float64))
    mine = free.cold_loss(torch.tensor([high], dtype=torch.float64))(before[None], torch.tensor([0]))[0]
    best = int(values.argmin())
    if depth < 6 and float(values[best]) < float(mine) - SAME_VALUE:
        third = others[best]
        thirds.append((high, third))
        return [
            *switches(hot, a, high, third, pool, thirds, depth + 1),
            *switches(high, third, cold, b, pool, thirds, depth + 1),
        ]
    return [(0.5 * (high + low), before, after)]


def is_alike(a: Tensor, b: Tensor) -> bool:
    """Whether the rows' cosines are the same ones, to ALIKE."""
    cosines = [(points.chunk(2)[0] @ points.chunk(2)[0].T).flatten().sort().values for points in (a, b)]
    return float((cosines[0] - cosines[1]).abs().max()) < ALIKE


def _is_same(hot: float, a: Tensor, cold: float, b: Tensor) -> bool:
    """Whether either arrangement, followed to the other's temperature, is the other one."""
    at = torch.tensor([cold, hot, cold, hot], dtype=torch.float64)
    _, values = follow(torch.stack([a, b, b, a]), at)
    return bool((values[:2] - values[2:]).abs().max() < SAME_VALUE)


def group_order(points: Tensor) -> int:
    """Permutations of the classes that keep every cosine of the rows W, of W above H, to SAME_COSINE."""
    import igraph

    weights = points.chunk(2)[0]
    gram = (weights @ weights.T).numpy()
    upper = np.triu_indices(len(gram), 1)
    order = np.argsort(gram[upper])
    steps = np.diff(gram[upper][order]) > SAME_COSINE
    colours = np.empty(len(order), int)
    colours[order] = np.concatenate([[0], np.cumsum(steps)])
    layers = max(1, int(colours.max() + 1).bit_length())
    count = len(gram)
    edges = [(layer * count + i, (layer + 1) * count + i) for layer in range(layers - 1) for i in range(count)]
    for layer in range(layers):
        present = (colours + 1) >> layer & 1 == 1
        edges += [
            (layer * count + i, layer * count + j) for i, j in zip(*(axis[present] for axis in upper), strict=True)
        ]
    graph = igraph.Graph(n=layers * count, edges=edges)
    return int(graph.count_automorphisms(color=[layer for layer in range(layers) for _ in range(count)]))


def spectrum(weights: Float[Tensor, "classes dim"]) -> str:
    """Eigenvalues of the rows' Gram matrix that are not zero, largest first, with how often each comes."""
    values = torch.linalg.svdvals(weights).square().tolist()
    groups: list[list[float]] = []
    for value in values:
        if groups and abs(groups[-1][0] - value) < 1e-4:
            groups[-1].append(value)
        else:
            groups.append([value])
    return " ".join(f"{sum(group) / len(group):.4f}x{len(group)}" for group in groups)


def facts_of(temperature: float, points: Tensor) -> dict[str, Any]:
    """What the table says of an arrangement at a temperature."""
    weights = points.chunk(2)[0]
    value = free.cold_loss(torch.tensor([temperature], dtype=torch.float64))(points[None], torch.tensor([0]))[0]
    low, high = one_vs_rest_margins(weights, mode="min").minimum
    return {
        "temperature": temperature,
        "loss": math.exp(float(value) / temperature),
        "margin_lower": low,
        "margin_upper": high,
        "group_order": group_order(points),
        "spectrum": spectrum(weights),
        "points": _rounded(points),
    }


def _rounded(points: Tensor) -> list[list[float]]:
    return [[round(x, 9) for x in row] for row in points.tolist()]


def record(cell: Cell, seconds: float, hops: int) -> dict[str, Any]:
    """The line that is kept of a cell."""
    phases = phases_of(cell)
    return {
        "classes": cell.classes,
        "dim": cell.dim,
        "starts": cell.starts,
        "hops": hops,
        "seed": cell.seed,
        "seconds": round(seconds, 1),
        "found": cell.found,
        "values": [float(values[0]) for values in cell.values],
        "orders": [group_order(points[0]) for points in cell.points],
        "phases": [
            {
                "hot": p.hot,
                "cold": p.cold,
                "levels": len(inside(p)),
                "found": sum(cell.found[level] for level in inside(p)),
                "at_hot": facts_of(p.hot, p.at_hot),
                "at_cold": facts_of(p.cold, p.at_cold),
                "way": [{"temperature": t, "points": _rounded(points)} for t, points in p.way],
            }
            for p in phases
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--dims", type=int, nargs=2, default=(2, 12))
    parser.add_argument("--most-classes", type=float, default=2.0, help="K up to this many times d")
    parser.add_argument("--cells", nargs="*", metavar="D,K", help="these pairs in place of the dimensions' ones")
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--hops", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if options.kept.exists():
        done = {(line["dim"], line["classes"]) for line in map(json.loads, options.kept.read_text().splitlines())}
    dims = range(options.dims[0], options.dims[1] + 1)
    cells = [(dim, classes) for dim in dims for classes in range(dim + 2, int(options.most_classes * dim) + 1)]
    if options.cells is not None:
        cells = [(int(dim), int(classes)) for dim, classes in (cell.split(",") for cell in options.cells)]
    for dim, classes in sorted(cells, key=lambda cell: cell[0] * cell[1] ** 2):
        if (dim, classes) in done:
            continue
        began = time.process_time()
        cell = search(classes, dim, starts=options.starts, hops=options.hops, seed=options.seed)
        searched = time.process_time() - began
        line = record(cell, searched, options.hops)
        with options.kept.open("a") as out:
            out.write(json.dumps(line) + "\n")
        shown = " | ".join(
            f"{p['hot']:.6f} m={p['at_hot']['margin_lower']:.5f} g={p['at_hot']['group_order']}" for p in line["phases"]
        )
        print(f"({dim}, {classes}) {searched:.1f}+{time.process_time() - began - searched:.1f} s: {shown}", flush=True)
        print("   found", min(cell.found), sorted(set(line["orders"])), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
