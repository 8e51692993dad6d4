"""The shipped table of phases, and its picture.

    python -m tools.phase_atlas KEPT ...                          phases.csv and phases.npz, from what phase_diagram kept
    python -m tools.phase_atlas --figure docs/findings/phases.svg     the diagram, from the shipped table

Of a cell that several files have, the one counts that is lower at more temperatures; what the other has lower is told.
"""

import argparse
import csv
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnc_models.geometry.margins import one_vs_rest_margins
from gnc_models.references.tables import read_table
from tools.phase_diagram import follow

DATA = Path(__file__).parents[1] / "gnc_models" / "data"
ENDS = ("loss", "margin_lower", "margin_upper", "group_order", "spectrum")
COLUMNS = [
    *("feature_dim", "num_classes", "hot", "cold", "entered", *(f"{end}_{name}" for end in ("hot", "cold") for name in ENDS)),
    *("starts", "found", "settled", "points"),
]  # fmt: skip
SETTLED = 0.05  # share of the starts at its temperatures that must have ended at a phase
ALIKE = 1e-2  # cosines on both sides of a switch that differ by less: the switch is smooth
LOWER = 1e-6  # relative difference of losses that counts
COMMENT = """# Arrangements of lowest cross-entropy of free unit rows and features by temperature, one line a phase, made by tools.phase_atlas.
# hot, cold: its ends. entered: whether it begins with a jump, smoothly, or at the hottest temperature. Margins are certified.
# group_order: permutations of the classes that keep all cosines. spectrum: eigenvalues of the rows' Gram matrix, times how often.
# starts, found: random starts at its temperatures, and those that ended at it. points: arrangements kept in phases.npz, hot to cold.
"""
Cell = dict[str, Any]


def merged(lines: Iterable[Cell]) -> tuple[list[Cell], list[str]]:
    """One line a cell, by dimension and classes; and what other lines of a cell have lower."""
    cells: dict[tuple[int, int], Cell] = {}
    told = []
    for line in lines:
        key = line["dim"], line["classes"]
        other = cells.setdefault(key, line)
        if other is line:
            continue
        mine, theirs = (lower_at(*pair) for pair in ((line, other), (other, line)))
        cells[key] = line if len(mine) > len(theirs) else other
        beaten = min(mine, theirs, key=len)
        told += [f"{key}: also lower in the line that is left out, at {t:.4g}" for t in beaten]
    return [cells[key] for key in sorted(cells)], told


def lower_at(line: Cell, other: Cell) -> list[float]:
    """The temperatures of both lines' searches at which the first one's loss is lower by LOWER, relative."""
    scales = [np.geomspace(2.0, 0.02, len(each["values"])) for each in (line, other)]
    values = [
        dict(zip(np.round(scale, 9), each["values"], strict=True))
        for scale, each in zip(scales, (line, other), strict=True)
    ]
    shared = values[0].keys() & values[1].keys()
    return sorted(float(t) for t in shared if values[0][t] < values[1][t] - LOWER * t)


def rows_of(line: Cell) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The table's rows of a cell, and the points of all of them."""
    rows: list[dict[str, Any]] = []
    points: list[np.ndarray] = []
    moved: list[tuple[dict[str, Any], str, Tensor]] = []
    before = None
    for phase in line["phases"]:
        ends = {end: phase[f"at_{end}"] for end in ("hot", "cold")}
        kept = [ends["hot"], *sorted(phase["way"], key=lambda way: -way["temperature"]), ends["cold"]]
        starts = line["starts"] * phase["levels"]
        row = {
            "feature_dim": line["dim"],
            "num_classes": line["classes"],
            "hot": before["cold"] if before else f"{phase['hot']:.9g}",
            "cold": f"{phase['cold']:.9g}",
            "entered": entered(points[-1], ends["hot"]["points"]) if points else "start",
            "starts": starts,
            "found": phase["found"],
            "settled": "yes" if starts and phase["found"] >= SETTLED * starts else "no",
            "points": len(kept),
        }
        for end, facts in ends.items():
            row |= {f"{end}_{name}": _text(facts[name]) for name in ENDS}
            moved.append((row, end, torch.tensor(facts["points"], dtype=torch.float32).double()))
        rows.append(row)
        points += [np.array(each["points"], np.float32) for each in kept]
        before = row
    _measure_again(moved)
    return rows, np.stack(points)


def _measure_again(moved: list[tuple[dict[str, Any], str, Tensor]]) -> None:
    """Loss and margin of the ends from what is kept, at the temperatures as they are written."""
    temperatures = torch.tensor([float(row[end]) for row, end, _ in moved], dtype=torch.float64)
    starts = torch.nn.functional.normalize(torch.stack([points for *_, points in moved]), dim=-1)
    reached, values = follow(starts, temperatures)
    for (row, end, _), points, value, temperature in zip(moved, reached, values, temperatures, strict=True):
        low, high = one_vs_rest_margins(points.chunk(2)[0], mode="min").minimum
        again = {"loss": float((value / temperature).exp()), "margin_lower": low, "margin_upper": high}
        row |= {f"{end}_{name}": _text(found) for name, found in again.items()}


def entered(before: np.ndarray, after: list[list[float]]) -> str:
    """Whether the rows' cosines jump."""
    cosines = []
    for points in (np.asarray(before, float), np.asarray(after)):
        weights = points[: len(points) // 2]
        cosines.append(np.sort((weights @ weights.T).ravel()))
    return "smooth" if np.abs(cosines[0] - cosines[1]).max() < ALIKE else "jump"


def _text(value: Any) -> Any:
    return f"{value:.12g}" if isinstance(value, float) else value


def write(files: list[Path]) -> None:
    cells, told = merged(json.loads(line) for file in files for line in file.read_text().splitlines())
    print(*told, sep="\n")
    made = {f"{line['classes']},{line['dim']}": rows_of(line) for line in cells}
    with (DATA / "phases.csv").open("w", newline="") as file:
        file.write(COMMENT)
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for rows, _ in made.values():
            table.writerows(rows)
    stored: dict[str, Any] = {key: points for key, (_, points) in made.items()}
    np.savez_compressed(DATA / "phases.npz", **stored)
    print(f"{len(made)} cells, {sum(len(rows) for rows, _ in made.values())} phases")


def colour_of(phase: dict[str, str], index: int) -> tuple[str, str]:
    """What kind of arrangement a phase is, and its colour: two shades of each kind take turns."""
    dim, classes = int(phase["feature_dim"]), int(phase["num_classes"])
    margins = [float(phase[f"{end}_margin_lower"]) for end in ("hot", "cold")]
    if classes > 2 * dim:
        kind = "beyond"
    elif min(margins) > 1 - 1e-4:
        kind = "one"
    else:
        kind = "warm" if float(phase["hot"]) > 0.6 else "cold"
    shades = {"one": ("#4477aa", "#88aacc"), "warm": ("#ee7733", "#f6b18c"), "cold": ("#228833", "#7cc98b"),
              "beyond": ("#777777", "#bbbbbb")}  # fmt: skip
    return kind, shades[kind][index % 2]


def draw(file: Path) -> None:
    """All cells, one bar each; a panel for each dimension."""
    import matplotlib as mpl

    mpl.use("svg" if file.suffix == ".svg" else "agg")
    mpl.rcParams["svg.hashsalt"] = "phases"
    mpl.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    by_dim: dict[int, list[list[dict[str, str]]]] = {}
    for (dim, _), rows in itertools.groupby(
        read_table("phases.csv"), key=lambda r: (int(r["feature_dim"]), int(r["num_classes"]))
    ):
        by_dim.setdefault(dim, []).append(list(rows))
    columns = [[d for d in by_dim if d <= 6], [d for d in by_dim if 7 <= d <= 9], [d for d in by_dim if d >= 10]]
    columns = [column for column in columns if column]
    figure = plt.figure(figsize=(11, 9.5))
    outer = figure.add_gridspec(1, len(columns), left=0.05, right=0.98, top=0.92, bottom=0.06, wspace=0.14)
    for place, column in enumerate(columns):
        inner = outer[place].subgridspec(len(column), 1, height_ratios=[len(by_dim[d]) + 2 for d in column], hspace=0.3)
        for slot, dim in enumerate(column):
            axes = figure.add_subplot(inner[slot])
            for line, phases in enumerate(by_dim[dim]):
                for index, phase in enumerate(phases):
                    hot, cold = float(phase["hot"]), float(phase["cold"])
                    axes.barh(line, hot - cold, left=cold, height=0.8, color=colour_of(phase, index)[1])
                    if index:
                        style = "-" if phase["entered"] == "jump" else ":"
                        axes.plot([hot, hot], [line - 0.4, line + 0.4], style, color="black", linewidth=0.9)
            axes.set_xscale("log")
            axes.set_xlim(2, 0.02)
            axes.set_yticks(range(len(by_dim[dim])), [rows[0]["num_classes"] for rows in by_dim[dim]], fontsize=6.5)
            axes.set_ylim(len(by_dim[dim]) - 0.4, -0.6)
            axes.set_title(f"d = {dim}", fontsize=9, loc="left", pad=3)
            axes.set_xticks(
                [2, 1, 0.5, 0.2, 0.1, 0.05, 0.02], ["2", "1", "0.5", "0.2", "0.1", "0.05", "0.02"], fontsize=7
            )
            axes.minorticks_off()
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        axes.set_xlabel("temperature, warm to cold", fontsize=8)
    names = {"#4477aa": "margin 1: orthogonal simplices", "#ee7733": "warm, margin below 1", "#228833": "cold, margin below 1",
             "#777777": "more than 2d classes"}  # fmt: skip
    handles: list[Artist] = [Patch(color=colour, label=name) for colour, name in names.items()]
    handles += [Line2D([], [], color="black", linestyle="-", label="jump")]
    handles += [Line2D([], [], color="black", linestyle=":", label="smooth switch")]
    figure.legend(handles=handles, loc="upper center", ncols=6, fontsize=8, frameon=False)
    figure.text(0.005, 0.94, "K", fontsize=9)
    figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path, nargs="*", help="files of tools.phase_diagram")
    parser.add_argument("--figure", type=Path, help="write the diagram of the shipped table there")
    options = parser.parse_args()
    if options.kept:
        write(options.kept)
    if options.figure:
        draw(options.figure)


if __name__ == "__main__":
    main()
