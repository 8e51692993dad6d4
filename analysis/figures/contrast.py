"""The values of a setting beside each other: seeds, their mean and interval, cells, and reference margins."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.effects.contrast import REFERENCE_LINES, Contrast
from analysis.figures import style
from analysis.figures.panels import FigureBlock, Room, block_of, evenly
from analysis.figures.style import CATEGORIES, INK, MUTED, log_axis
from analysis.rows.wording import LETTERS, axis_label, shown_value, unit_of
from gnc_models.progress import amount

LINE_LOOKS = {
    "random_margin": ("random rows", MUTED, (0, (1, 2))),
    "ufm_margin_low": ("", CATEGORIES[1], (0, (4, 3))),
    "ufm_margin_high": ("optima at this τ", CATEGORIES[1], (0, (4, 3))),
    "reference_margin_lower": ("best code known", INK, "solid"),
}
WIDE = 8.0  # a numeric setting that spans more than this factor is drawn on a logarithmic axis
MOST_CELLS, MOST_LABELS = 24, 8
ROOM: Room = ((4.6, 3.3), (0.72, 1.3, 0.52, 0.5))
Labels = list[tuple[float, float, str, str]]  # x, y, text and colour


def draw_contrast(ax: Axes, contrast: Contrast) -> None:
    """Dots are seeds, the bar is the mean with its 95 % interval; lines where the measure is a minimum margin."""
    place = places(contrast)
    at = [place[level.value] for level in contrast.levels]
    back = np.exp if contrast.is_log else np.asarray
    heights: list[float] = []
    labels = _draw_cells(ax, contrast, place, heights)
    for x, level in zip(at, contrast.levels, strict=True):
        dots = back(np.array(list(level.by_seed.values())))
        side_by_side = _beside(x, len(dots), contrast, at)
        (marks,) = ax.plot(side_by_side, dots, "o", color=CATEGORIES[0], alpha=0.45, markersize=4.5)
        cells = f": mean of {len(level.by_cell)} cells" if len(level.by_cell) > 1 else ""
        where = f"{contrast.setting} = {shown_value(level.value)}"
        style.name_marks(marks, [f"{where}, seed {seed}{cells}" for seed in level.by_seed])
        mean = float(back(level.mean))
        low, high = (mean if end is None else float(back(end)) for end in (level.low, level.high))
        ax.errorbar([x], [mean], yerr=[[mean - low], [high - mean]], fmt="D", color=INK, markersize=5, capsize=4)
        heights += [*dots, low, high]
    labels += _draw_lines(ax, contrast, at, heights)
    _frame(ax, contrast, place, np.array(heights))
    style.label_ends(ax, labels)


def _draw_cells(ax: Axes, contrast: Contrast, place: dict[object, float], heights: list[float]) -> Labels:
    """A thin line per cell where there are several, labelled with its sizes where they are few."""
    cells = list(dict.fromkeys(cell for level in contrast.levels for cell in level.by_cell))
    labels = []
    for cell in evenly(cells, MOST_CELLS) if len(cells) > 1 else []:
        mine = [level for level in contrast.levels if cell in level.by_cell]
        x = [place[level.value] for level in mine]
        y = np.array([level.by_cell[cell] for level in mine])
        y = np.exp(y) if contrast.is_log else y
        ax.plot(x, y, "-", color=MUTED, alpha=0.45, linewidth=0.9, zorder=0)
        heights += list(y)
        held = dict(zip(contrast.held, cell, strict=True))
        sizes = [f"{LETTERS[name]} = {held[name]}" for name in ("feature_dim", "num_classes") if name in held]
        if sizes and len(cells) <= MOST_LABELS:
            labels.append((x[-1], float(y[-1]), ", ".join(sizes), MUTED))
    return labels


def places(contrast: Contrast) -> dict[object, float]:
    """Where each value stands: to scale if all are numbers, else in order."""
    to_scale = is_numeric(contrast)
    return {level.value: float(level.value if to_scale else i) for i, level in enumerate(contrast.levels)}


def is_numeric(contrast: Contrast) -> bool:
    """Whether every value is a number (not a flag), so that the axis is to scale."""
    levels = [level.value for level in contrast.levels]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in levels)


def _is_wide(contrast: Contrast) -> bool:
    numbers = [level.value for level in contrast.levels]
    return is_numeric(contrast) and min(numbers) > 0 and max(numbers) > WIDE * min(numbers)


def _beside(x: float, count: int, contrast: Contrast, at: Sequence[float]) -> np.ndarray:
    """Places for the dots of one value, side by side on the axis, or on its logarithm."""
    offsets = np.linspace(-1, 1, count) if count > 1 else np.zeros(count)
    if _is_wide(contrast):
        return np.asarray(x * np.exp(0.012 * np.log(max(at) / min(at)) * offsets))
    return x + offsets * (0.015 * max(max(at) - min(at), 1e-12) if is_numeric(contrast) else 0.14)


def _draw_lines(ax: Axes, contrast: Contrast, at: Sequence[float], heights: list[float]) -> Labels:
    labels = []
    for name in REFERENCE_LINES:
        line = np.array([level.references[name] for level in contrast.levels])
        known = np.isfinite(line)
        if not known.any():
            continue
        text, colour, dashes = LINE_LOOKS[name]
        look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.2, "zorder": 1}
        places, height = np.array(at)[known], line[known]
        if is_numeric(contrast):
            ax.plot(places, height, **look)
        elif np.ptp(height) == 0:
            ax.hlines(height[0], -0.5, len(at) - 0.5, **look)
        else:
            ax.hlines(height, places - 0.35, places + 0.35, **look)
        heights += list(height)
        end = float(places[-1]) if is_numeric(contrast) else len(at) - 0.5
        labels += [(end, float(height[-1]), text, colour)] * bool(text)
    return labels


def _frame(ax: Axes, contrast: Contrast, place: dict[object, float], heights: np.ndarray) -> None:
    at, tilt = list(place.values()), 0
    if not is_numeric(contrast):
        names = [shown_value(value) for value in place]
        tilt = 20 if max(map(len, names)) * len(names) > 34 else 0
        ax.set_xticks(at, labels=names, rotation=tilt, ha="right" if tilt else "center")
        ax.set_xlim(-0.5, len(at) - 0.5)
    elif _is_wide(contrast):
        log_axis(ax, "x", [min(at) / 1.1, max(at) * 1.1], at=style.spread_ticks(at))
    finite = heights[np.isfinite(heights)]
    if contrast.is_log:
        log_axis(ax, "y", finite)
    else:
        ax.margins(y=0.08)
        style.end_at_one(ax, "y", unit_of(contrast.measure), finite)
    # tilted names leave no room below them for the setting's
    title = axis_label(contrast.measure) + (f" by {contrast.setting}" if tilt else "")
    if not tilt:
        ax.set_xlabel(axis_label(contrast.setting))
    ax.set_title(title + (f"\n{contrast.where}" if contrast.where else ""))
    style.soft_grid(ax)


def block_contrast(contrasts: Sequence[Contrast]) -> FigureBlock:
    """The values of one setting beside each other."""
    setting, trials = contrasts[0].setting, sorted({key for contrast in contrasts for key in contrast.keys})
    found = (f"effect-{setting}", contrasts, _alt_contrast, draw_contrast, ROOM)
    return block_of(*found, trials=trials, kind="effect", setting=setting)


def _alt_contrast(contrast: Contrast) -> str:
    back = np.exp if contrast.is_log else np.asarray
    means = ((v, f"{float(back(v.mean)):.3g}") for v in contrast.levels)
    parts = [f"{shown_value(v.value)}: {mean} over {amount(len(v.by_seed), 'seed')}" for v, mean in means]
    return f"{contrast.measure} by {contrast.setting}; {'; '.join(parts)}."
