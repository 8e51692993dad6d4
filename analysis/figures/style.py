"""The common style of all figures: colours, sizes, axes, labels at the ends of lines. Colours appear only as these hex
values: the page replaces them by CSS variables, so that dark mode and print draw nothing again."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from scipy.optimize import isotonic_regression

from analysis.rows.wording import number, power_of_ten

INK, MUTED, RULE = "#1b1e24", "#6b7280", "#d9dce1"
# Viridis in six steps: ordered for every kind of colour vision, its light end cut so that it stands on white.
RAMP = ("#46085c", "#414487", "#2d708e", "#20928c", "#45bf70", "#95c23d")
# Okabe and Ito (2008), without yellow and black.
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
POINTS = 72  # of an inch
GAP = 12.5  # points between labels at the ends of lines
LED = 20  # points from the end of a line to the edge of the axes, from which on a thin line leads to its label
TITLES, BETWEEN = "titles:", "\N{SYMBOL FOR RECORD SEPARATOR}"  # in the id of an artist whose marks have titles
DIVISIONS = (
    (1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
)  # fmt: skip

with as_file(files("analysis.figures") / "report.mplstyle") as _path:
    STYLE: dict[str, Any] = {
        **mpl.rc_params_from_file(_path, use_default_template=False),  # type: ignore[dict-item]
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
        **dict.fromkeys(
            ("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), INK
        ),
        "grid.color": RULE,
    }


def use_style(**more: Any) -> AbstractContextManager[None]:
    """The project's matplotlib settings (and more) inside a `with`, the caller's own afterwards."""
    return mpl.rc_context(STYLE | more)  # type: ignore[arg-type]


def ramp(count: int) -> list[str]:
    """Colours of ordered values, dark to light, spread over the ramp; beyond its six steps neighbours share one."""
    return [RAMP[2]] if count == 1 else [RAMP[round(i * (len(RAMP) - 1) / (count - 1))] for i in range(count)]


def log_axis(ax: Axes, which: str, data: Sequence[float] | np.ndarray, *, at: Sequence[float] | None = None) -> None:
    """Make one axis logarithmic over the data, with few plain ticks; `at` puts the ticks on given values."""
    positive = np.asarray(data, dtype=float)
    positive = positive[np.isfinite(positive) & (positive > 0)]
    if positive.size == 0:
        return
    low, high = float(positive.min()), float(positive.max())
    pad = max((high / low) ** 0.06, 1.06)
    ax.set(**{f"{which}scale": "log", f"{which}lim": (low / pad, high * pad)})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(FixedLocator(list(at) if at is not None else _log_ticks(low / pad, high * pad)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def spread_ticks(candidates: Sequence[float]) -> list[float]:
    """Of positive values those far enough apart that labels on a log axis of a panel of three do not touch."""
    kept: list[float] = []
    for value in (ordered := sorted(set(candidates))):
        share = 0.04 * len(_tick_text(value))  # of the panel's width, by the label's length
        if not kept or value / kept[-1] >= max(1.35, (ordered[-1] / ordered[0]) ** share):
            kept.append(value)
    return kept


def _log_ticks(low: float, high: float) -> list[float]:
    """Ticks at the coarsest of a few divisions of the decade that gives three; at most six."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in DIVISIONS:
        ticks = [m * 10.0**e for e in decades for m in steps if low <= m * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 6)] if len(ticks) > 6 else ticks


def _tick_text(value: float) -> str:
    exponent = math.log10(value) if value > 0 else 0.0
    if (exponent < -3 or exponent > 4) and abs(exponent - round(exponent)) < 1e-9:
        return power_of_ten(round(exponent))
    return number(value)


def label_ends(ax: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write (x, y, text, colour) right of the axes at the height of each point, pushed apart; to be called once limits are set.
    A line that ends early is led to its label."""
    to_points = POINTS / ax.figure.dpi
    shown = [label for label in labels if math.isfinite(label[0]) and math.isfinite(label[1])]
    ends = [ax.transData.transform(label[:2]) for label in shown]
    heights = [end[1] * to_points for end in ends]
    order = sorted(range(len(shown)), key=heights.__getitem__)
    (_, bottom), (right, _) = ax.transAxes.transform([(0, 0), (1, 1)])
    placed = label_positions([heights[i] for i in order], GAP, bottom * to_points + GAP / 3)  # below are tick labels
    for index, height in zip(order, placed, strict=True):
        x, y, text, colour = shown[index]
        if right - ends[index][0] > LED * to_points:
            ax.plot([x, ax.get_xlim()[1]], [y, y], ":", color=colour, linewidth=0.7, alpha=0.7, zorder=0)
        place: dict[str, Any] = {"xytext": (7, height - heights[index]), "textcoords": "offset points", "va": "center"}
        look: dict[str, Any] = {"color": colour, "fontsize": 9.5, "annotation_clip": False}
        ax.annotate(text, (1.0, y), xycoords=("axes fraction", "data"), **place, **look)


def label_positions(heights: Sequence[float], gap: float, floor: float = -math.inf) -> list[float]:
    """Heights (ascending) moved as little as they must be to stand `gap` apart and not below the floor."""
    if not heights:
        return []
    steps = gap * np.arange(len(heights))
    return list(np.maximum(isotonic_regression(np.asarray(heights) - steps).x, floor) + steps)


def name_marks(artist: Artist, titles: Sequence[str] | np.ndarray) -> None:
    """What the page shows when the pointer is on a mark: a title for each mark in turn, or one for all of them."""
    if len(titles):
        artist.set_gid(TITLES + BETWEEN.join(titles))


def end_at_one(ax: Axes, which: str, unit: str, data: np.ndarray) -> None:
    """End the axis of a share at 1, which none exceeds; other units keep matplotlib's limits. The axis is linear."""
    if unit != "share" or not np.isfinite(data).any():
        return
    room = 0.06 * max(1.0 - float(np.nanmin(data)), 0.05)
    ax.set(**{f"{which}lim": (max(float(np.nanmin(data)) - room, 0.0), 1.0)})
    for line in ax.lines:  # a mark at 1 stays whole
        line.set_clip_on(False)


def soft_grid(ax: Axes, which: str = "y") -> None:
    """Quiet lines behind the data."""
    ax.grid(True, axis=which)  # type: ignore[arg-type]
    ax.tick_params(length=3)
