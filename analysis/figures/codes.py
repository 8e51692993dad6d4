"""Learned codes in two and three dimensions beside the best code known: classifier rows and class means from the heads
that trials kept, rotated onto the optimum."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from analysis.figures.panels import CAPTIONS, FigureBlock, Room, block_of, evenly
from analysis.figures.style import CATEGORIES, INK, MUTED, RULE, name_marks
from analysis.rows.frames import best_trial, groups, usual_normalization, with_normalization
from analysis.rows.wording import number, shown, size_label
from analysis.statistics.procrustes import align, unit_rows
from gnc_models.references.tables import best_code_points

ReadHead = Callable[[str], dict[str, np.ndarray] | None]  # by the trial's key
ReadCode = Callable[[int, int], np.ndarray | None]  # the best code known, by classes and dimensions
MOST_SIZES, MOST_TEMPERATURES = 4, 4
MOST_ALIGNED = 200  # classes; beyond it the points would touch and matching is slow
ROWS, MEANS = CATEGORIES[0], CATEGORIES[1]
ROOM: Room = ((3.95, 4.3), (0.05, 0.05, 0.02, 0.43))
# A turn about two axes by angles of no symmetry, so that few vertices hide behind others.
VIEW = Rotation.from_euler("yx", (0.42, 0.31)).as_matrix()


@dataclass(frozen=True)
class CodePicture:
    """One trial's code, in the orientation of the optimum where there is one.
    rows: unit classifier rows [K, d]. means: class means [K, d], inside the unit ball. optimum: [K, d] or None.
    angle: root mean square angle to the optimum in radians, None without one."""

    trial: str
    num_classes: int
    feature_dim: int
    temperature: float | None
    margin: float | None
    best_known: float | None
    rows: np.ndarray
    means: np.ndarray
    optimum: np.ndarray | None
    angle: float | None

    @property
    def title(self) -> str:
        """Size, temperature and how near the margin is to the best known."""
        cold = "" if self.temperature is None else f", τ = {number(self.temperature)}"
        of = "" if self.best_known is None else f" of {number(self.best_known)}"
        return f"{size_label(self.feature_dim, self.num_classes)}{cold}\nmargin {shown(self.margin)}{of}"


def numbers_codes(final: pa.Table, read_head: ReadHead, read_code: ReadCode = best_code_points) -> list[CodePicture]:
    """For d = 2 and 3: the best trial of up to four class counts, then of up to four temperatures of one of them."""
    read = ((row, read_head(row["trial"])) for row in choose_trials(final))
    return [picture_of(row, head, read_code) for row, head in read if head is not None]


def choose_trials(final: pa.Table) -> list[dict[str, Any]]:
    """The rows to draw, each trial once."""
    chosen: dict[str, dict[str, Any]] = {}
    for where, rows in groups(with_normalization(final, usual_normalization(final)), ["feature_dim"]):
        if where["feature_dim"] in (2, 3):
            sizes = [members for _, members in groups(rows, ["num_classes"])]
            most = max(sizes, key=lambda t: (len(t["temperature"].unique()), -t["num_classes"][0].as_py()))
            temperatures = [members for _, members in groups(most, ["temperature"])][::-1]
            for members in [*evenly(sizes, MOST_SIZES), *evenly(temperatures, MOST_TEMPERATURES)]:
                row = best_trial(members)
                chosen.setdefault(row["trial"], row)
    # warm to cold within a size, so that a row of panels is the code emerging
    return sorted(chosen.values(), key=lambda r: (r["feature_dim"], r["num_classes"], -(r["temperature"] or 0.0)))


def picture_of(row: dict[str, Any], head: dict[str, np.ndarray], read_code: ReadCode) -> CodePicture:
    """Unit rows and class means of a trial's head, rotated onto the optimum where its coordinates are known."""
    rows = unit_rows(np.asarray(head["weights"], dtype=float))
    means = np.asarray(head["class_means"], dtype=float)
    if row["normalization"] not in ("both", "features"):
        means = unit_rows(means)  # raw features have no common length
    optimum, angle = read_code(*rows.shape) if len(rows) <= MOST_ALIGNED else None, None
    if optimum is not None:
        laid = align(rows, optimum)
        rows, means, angle = rows @ laid.rotation, means @ laid.rotation, laid.angle
    size, margins = rows.shape, (row["temperature"], row["margin_min_lower"], row["reference_margin_lower"])
    return CodePicture(row["trial"], size[0], size[1], *margins, rows, means, optimum, angle)


def draw_code(ax: Axes, picture: CodePicture) -> None:
    """The code on the unit circle, or on the sphere seen from far away with the back fainter than the front."""
    is_flat = picture.feature_dim == 2
    ax.set_axis_off()
    ax.set(aspect="equal", xlim=(-1.16, 1.16), ylim=(-1.16, 1.16))
    ax.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor=MUTED if is_flat else RULE, linewidth=1))
    (_draw_circle if is_flat else _draw_sphere)(ax, picture)
    ax.set_title(picture.title)


def _draw_circle(ax: Axes, picture: CodePicture) -> None:
    spokes = [((0, 0), tuple(row)) for row in picture.rows]
    ax.add_collection(LineCollection(spokes, colors=RULE, linewidths=0.9, zorder=1))
    if picture.optimum is not None:
        _rings(ax, picture.optimum, 130, INK)
    for points, what, colour, area in kinds(picture, 56, 15):
        _dots(ax, points, area, colour, 1.0, 3 + (colour == MEANS), what)


def _draw_sphere(ax: Axes, picture: CodePicture) -> None:
    size = float(np.clip(14 / np.sqrt(picture.num_classes), 1.1, 4))
    if picture.optimum is not None:
        points, edges = picture.optimum @ VIEW.T, hull_edges(picture.optimum)
        for front, colour in ((False, RULE), (True, MUTED)):
            shown = [points[[i, j], :2] for i, j in edges if (points[i, 2] + points[j, 2] > 0) == front]
            ax.add_collection(LineCollection(shown, colors=colour, linewidths=0.9, zorder=3 if front else 1))
        _rings(ax, points[points[:, 2] <= 0], 34 * size, RULE)
        _rings(ax, points[points[:, 2] > 0], 34 * size, INK)
    for points, what, colour, area in kinds(picture, 15 * size, 4 * size):
        turned = points @ VIEW.T
        _dots(ax, turned[turned[:, 2] <= 0], area, colour, 0.3, 2, what)
        _dots(ax, turned[turned[:, 2] > 0], area, colour, 1.0, 5, what)


def kinds(picture: CodePicture, *areas: float) -> list[tuple[np.ndarray, str, str, float]]:
    """The two kinds of dots with their title, colour and size."""
    title = f"{picture.trial}: {size_label(picture.feature_dim, picture.num_classes)}"
    names = (f"a class's row in the classifier of {title}", f"a class mean of the features of {title}")
    return list(zip((picture.rows, picture.means), names, (ROWS, MEANS), areas, strict=True))


def _rings(ax: Axes, points: np.ndarray, size: float, colour: str) -> None:
    ax.scatter(points[:, 0], points[:, 1], s=size, facecolors="none", edgecolors=colour, linewidths=1.0, zorder=4)


def _dots(ax: Axes, points: np.ndarray, size: float, colour: str, alpha: float, zorder: int, title: str) -> None:
    look: dict[str, Any] = {"color": colour, "alpha": alpha, "linewidths": 0, "zorder": zorder}
    name_marks(ax.scatter(points[:, 0], points[:, 1], s=size, **look), [title])


def hull_edges(points: np.ndarray) -> list[tuple[int, int]]:
    """Edges of the convex hull of points on a sphere, without the diagonals of flat faces."""
    try:
        hull = ConvexHull(points)
    except QhullError:  # fewer than four points, or all on one circle
        return []
    faces: dict[tuple[int, int], list[int]] = {}
    for face, corners in enumerate(hull.simplices):
        for i in range(3):
            low, high = sorted((int(corners[i]), int(corners[(i + 1) % 3])))
            faces.setdefault((low, high), []).append(face)
    normals = hull.equations[:, :3]
    return [edge for edge, pair in faces.items() if float(normals[pair[0]] @ normals[pair[1]]) < 1 - 1e-6]


def block_codes(
    final: pa.Table, read_head: ReadHead, read_code: ReadCode = best_code_points, folder: str = "RESULTS"
) -> FigureBlock:
    """The figure of learned codes, or why there is none. folder: the results folder, for the command of a missing ring."""
    pictures = numbers_codes(final, read_head, read_code)
    can_be_drawn = bool({2, 3} & set(final["feature_dim"].to_pylist()))
    return block_of(
        "codes", pictures, _alt_of, draw_code, ROOM, trials=[p.trial for p in pictures],
        notes=[missing_rings(pictures, folder), *_not_alone(pictures)],
        missing=CAPTIONS["codes"]["no_heads"] if can_be_drawn else None,
        lead=lambda i: (pictures[i].feature_dim, (pictures[i].margin or 0.0) / (pictures[i].best_known or np.inf)),
        lead_note=lambda i: missing_rings(pictures[i : i + 1], folder),
    )  # fmt: skip


def _not_alone(pictures: Sequence[CodePicture]) -> Iterator[str]:
    """Where the optimum that is drawn can be deformed into others: an orthoplex that lacks a row and is no simplex."""
    for k, d in {(p.num_classes, p.feature_dim): None for p in pictures if p.optimum is not None}:
        if d + 1 < k < 2 * d:
            yield f"At {size_label(d, k)} other codes are as good as the one in rings."


def missing_rings(pictures: Sequence[CodePicture], folder: str) -> str:
    """Why pictures have no rings, with the command that gives the first of them; empty where all have."""
    bare = sorted({(p.num_classes, p.feature_dim) for p in pictures if p.optimum is None})
    if not bare:
        return ""
    sizes, (k, d) = ", ".join(size_label(d, k) for k, d in bare[:5]), bare[0]
    file = f"{folder}/report/{code_file(k, d)}"
    cure = f"gnc code --classes {k} --dim {d} --output {file} finds them for the next report."
    if k > MOST_ALIGNED:
        cure = f"Above {MOST_ALIGNED} classes rings would cover each other."
    return f"No rings at {sizes}: the coordinates of the best code are in no table. {cure}"


def code_file(num_classes: int, feature_dim: int) -> str:
    """Where the report looks for the rows of a code that no table holds, in its own folder."""
    return f"code-{num_classes}-{feature_dim}.npy"


def _alt_of(picture: CodePicture) -> str:
    near = "" if picture.angle is None else f"; {number(np.degrees(picture.angle))} degrees from the best code (RMS)"
    return f"Learned code, {picture.title.replace(chr(10), ', ')}{near}."
