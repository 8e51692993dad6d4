"""Learned codes in two and three dimensions, drawn beside the best code known.

Classifier rows and class means come from the heads that trials kept, and are rotated onto the optimum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from scipy.spatial import ConvexHull, QhullError

from analysis.figures.panels import FigureBlock, evenly, panels_of
from analysis.figures.style import CATEGORIES, INK, MUTED, RULE, SQUARE_ROOM, name_marks
from analysis.rows.frames import best_trial, groups, usual_normalization, with_normalization
from analysis.rows.wording import number, size_label
from analysis.statistics.procrustes import align, unit_rows
from gnc_models.references.tables import best_code_points

ReadHead = Callable[[str], dict[str, np.ndarray] | None]  # by the trial's key
ReadCode = Callable[[int, int], np.ndarray | None]  # the best code known, by classes and dimensions
MOST_SIZES = 4
MOST_TEMPERATURES = 4
MOST_ALIGNED = 200  # classes; beyond it the points would touch and matching is slow
ROWS, MEANS = CATEGORIES[0], CATEGORIES[1]


@dataclass(frozen=True)
class CodePicture:
    """One trial's code, in the orientation of the optimum where there is one.

    rows: unit classifier rows [K, d]. means: class means [K, d], inside the unit ball. optimum: [K, d] or None.
    angle: root mean square angle to the optimum in radians, None without one.
    """

    trial: str
    num_classes: int
    feature_dim: int
    temperature: float | None
    margin: float
    best_known: float | None
    rows: np.ndarray
    means: np.ndarray
    optimum: np.ndarray | None
    angle: float | None


def numbers_codes(final: pa.Table, read_head: ReadHead, read_code: ReadCode = best_code_points) -> list[CodePicture]:
    """For d = 2 and 3: the best trial of up to four class counts, then of up to four temperatures of one of them."""
    read = ((row, read_head(row["trial"])) for row in choose_trials(final))
    return [picture_of(row, head, read_code) for row, head in read if head is not None]


def choose_trials(final: pa.Table) -> list[dict[str, Any]]:
    """The rows to draw, each trial once."""
    if final.num_rows == 0:
        return []
    usual = with_normalization(final, usual_normalization(final))
    chosen: dict[str, dict[str, Any]] = {}
    for where, rows in groups(usual, ["feature_dim"]):
        if where["feature_dim"] not in (2, 3):
            continue
        sizes = [best_trial(members) for _, members in groups(rows, ["num_classes"])]
        spread = [members for _, members in groups(rows, ["num_classes"])]
        most = max(spread, key=lambda t: (len(t["temperature"].unique()), -t["num_classes"][0].as_py()))
        temperatures = [best_trial(members) for _, members in groups(most, ["temperature"])][::-1]
        for row in [*evenly(sizes, MOST_SIZES), *evenly(temperatures, MOST_TEMPERATURES)]:
            chosen.setdefault(row["trial"], row)
    # warm to cold within a size, so that a row of panels is the code emerging
    return sorted(chosen.values(), key=lambda r: (r["feature_dim"], r["num_classes"], -(r["temperature"] or 0.0)))


def picture_of(row: dict[str, Any], head: dict[str, np.ndarray], read_code: ReadCode) -> CodePicture:
    """Unit rows and class means of a trial's head, rotated onto the optimum where its coordinates are known."""
    rows = unit_rows(np.asarray(head["weights"], dtype=float))
    means = np.asarray(head["class_means"], dtype=float)
    if row["normalization"] not in ("both", "features"):
        means = unit_rows(means)  # raw features have no common length
    num_classes, dim = rows.shape
    optimum = read_code(num_classes, dim) if num_classes <= MOST_ALIGNED else None
    angle = None
    if optimum is not None:
        laid = align(rows, optimum)
        rows, means, angle = rows @ laid.rotation, means @ laid.rotation, laid.angle
    return CodePicture(
        trial=row["trial"],
        num_classes=num_classes,
        feature_dim=dim,
        temperature=row["temperature"],
        margin=row["margin_min_lower"],
        best_known=row["reference_margin_lower"],
        rows=rows,
        means=means,
        optimum=optimum,
        angle=angle,
    )


def draw_code(ax: Axes, picture: CodePicture) -> None:
    """The code on the unit circle, or on the sphere seen from far away with the back fainter than the front."""
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_xlim(-1.16, 1.16)
    ax.set_ylim(-1.16, 1.16)
    ax.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor=MUTED if picture.feature_dim == 2 else RULE, linewidth=1))
    (_draw_circle if picture.feature_dim == 2 else _draw_sphere)(ax, picture)
    ax.set_title(title_of(picture))


def title_of(picture: CodePicture) -> str:
    """Size, temperature and how near the margin is to the best known."""
    cold = "" if picture.temperature is None else f", τ = {number(picture.temperature)}"
    of = "" if picture.best_known is None else f" of {number(picture.best_known)}"
    return f"{size_label(picture.feature_dim, picture.num_classes)}{cold}\nmargin {number(picture.margin)}{of}"


def _draw_circle(ax: Axes, picture: CodePicture) -> None:
    spokes = [((0, 0), tuple(row)) for row in picture.rows]
    ax.add_collection(LineCollection(spokes, colors=RULE, linewidths=0.9, zorder=1))
    if picture.optimum is not None:
        _rings(ax, picture.optimum, 130, INK)
    for points, what, colour, area in kinds(picture, 56, 15):
        _dots(ax, points, area, colour, 1.0, 3 + (colour == MEANS), what)


def _draw_sphere(ax: Axes, picture: CodePicture) -> None:
    view = _view()
    size = float(np.clip(14 / np.sqrt(picture.num_classes), 1.1, 4))
    if picture.optimum is not None:
        points, edges = picture.optimum @ view.T, hull_edges(picture.optimum)
        for front, colour in ((False, RULE), (True, MUTED)):
            shown = [points[[i, j], :2] for i, j in edges if (points[i, 2] + points[j, 2] > 0) == front]
            ax.add_collection(LineCollection(shown, colors=colour, linewidths=0.9, zorder=3 if front else 1))
        _rings(ax, points[points[:, 2] <= 0], 34 * size, RULE)
        _rings(ax, points[points[:, 2] > 0], 34 * size, INK)
    for points, what, colour, area in kinds(picture, 15 * size, 4 * size):
        turned = points @ view.T
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


def _view() -> np.ndarray:
    """A turn about two axes by angles of no symmetry, so that few vertices hide behind others."""
    a, b = 0.42, 0.31
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return np.asarray(about_x @ about_y)


def hull_edges(points: np.ndarray) -> list[tuple[int, int]]:
    """Edges of the convex hull of points on a sphere, without the diagonals of flat faces."""
    try:
        hull = ConvexHull(points)
    except QhullError:  # fewer than four points, or all on one circle
        return []
    faces: dict[tuple[int, int], list[int]] = {}
    for face, corners in enumerate(hull.simplices):
        for i in range(3):
            edge = tuple(sorted((int(corners[i]), int(corners[(i + 1) % 3]))))
            faces.setdefault(edge, []).append(face)  # type: ignore[arg-type]
    normals = hull.equations[:, :3]
    return [edge for edge, pair in faces.items() if float(normals[pair[0]] @ normals[pair[1]]) < 1 - 1e-6]


def block_codes(
    final: pa.Table, read_head: ReadHead, read_code: ReadCode = best_code_points, folder: str = "RESULTS"
) -> FigureBlock:
    """The figure of learned codes, or why there is none. folder: the results folder, for the command of a missing ring."""
    pictures = numbers_codes(final, read_head, read_code)
    missing = "No complete trial has feature_dim 2 or 3, the dimensions whose codes can be drawn."
    if {2, 3} & set(final["feature_dim"].to_pylist()):
        missing = "The trials with d = 2 or 3 kept no head, so their codes cannot be drawn."
    return FigureBlock(
        name="codes",
        heading="The codes that were learned",
        caption="Blue dots are classifier rows. Small orange dots are class means of the training features. Open rings "
        "are the best code known, rotated and matched to the rows. On the sphere the back is faint, and thin lines are "
        "the edges of the best code's hull. A learned code is optimal where every blue dot lies in a ring. An orange dot "
        "at the centre of its blue dot shows self-duality; one inside the circle is a class whose features still spread."
        + missing_rings(pictures, folder),
        rows="for each d the complete trial with the largest minimum margin at each K, then at each temperature of "
        "one K",
        trials=tuple(p.trial for p in pictures),
        panels=panels_of(pictures, alt_of, draw_code, *SQUARE_ROOM),
        missing=None if pictures else missing,
        lead=max(range(len(pictures)), key=lambda i: (pictures[i].feature_dim, nearness(pictures[i])), default=0),
    )


def nearness(picture: CodePicture) -> float:
    """The margin over the best known; 0 where none is known."""
    return picture.margin / picture.best_known if picture.best_known else 0.0


def missing_rings(pictures: Sequence[CodePicture], folder: str) -> str:
    """Why pictures have no rings, with the command that gives the first of them; empty where all have."""
    bare = sorted({(p.num_classes, p.feature_dim) for p in pictures if p.optimum is None})
    if not bare:
        return ""
    sizes = ", ".join(size_label(d, k) for k, d in bare[:5])
    k, d = bare[0]
    cure = (
        f"gnc code --classes {k} --dim {d} --output {folder}/report/{code_file(k, d)} finds them for the next report."
    )
    if k > MOST_ALIGNED:
        cure = f"Above {MOST_ALIGNED} classes rings would cover each other."
    return f" No rings at {sizes}: the coordinates of the best code are in no table. {cure}"


def code_file(num_classes: int, feature_dim: int) -> str:
    """Where the report looks for the rows of a code that no table holds, in its own folder."""
    return f"code-{num_classes}-{feature_dim}.npy"


def alt_of(picture: CodePicture) -> str:
    """The picture in a sentence."""
    near = "" if picture.angle is None else f"; {number(np.degrees(picture.angle))} degrees from the best code (RMS)"
    return f"Learned code, {title_of(picture).replace(chr(10), ', ')}{near}."
