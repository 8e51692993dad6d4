"""Margin against the number of classes for each dimension, with random rows, the best code known and the fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from analysis.figures.panels import USUAL_ROOM, FigureBlock, Room, block_of, evenly
from analysis.figures.style import INK, MUTED, RULE, label_ends, log_axis, name_marks, ramp, soft_grid, spread_ticks
from analysis.rows import frames
from analysis.rows.frames import groups, median, usual_normalization, values
from analysis.rows.measures import MARGIN
from analysis.rows.theory import MarginCurves, margin_curves, sizes_between
from analysis.rows.wording import axis_label, number, trial_titles
from analysis.scaling.form_choice import FormComparison
from gnc_models.progress import amount

MOST_DIMS, MOST_SERIES, BAND_POINTS = 9, 5, 24
MOST_DOTS = 200  # of a series: beyond it dots cover each other; medians use every trial
ROOM: Room = (USUAL_ROOM[0], (0.58, 1.0, 0.52, 0.36))  # for longer labels at the ends of lines


@dataclass(frozen=True)
class FitBand:
    """The form chosen at this feature_dim over one group's sizes: its curve, and where 90 % of new cells are expected."""

    form: str
    num_classes: np.ndarray
    curve: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class MarginSeries:
    """Trials of one temperature at one feature_dim.
    optimum_low, optimum_high: least and largest margin of the minima of unconstrained features near the lowest loss
    known at this temperature; NaN if not tabulated. temperature: None where there is none, or where it was chosen by the
    number of classes. fit: None where no form was chosen, or where the series contains several groups of the fit."""

    temperature: float | None
    trials: tuple[str, ...]
    num_classes: np.ndarray
    margin: np.ndarray
    titles: np.ndarray
    sizes: np.ndarray
    median: np.ndarray
    optimum_low: np.ndarray
    optimum_high: np.ndarray
    fit: FitBand | None = None


@dataclass(frozen=True)
class MarginNumbers:
    """One panel: curves of theory, series of trials, how many more there are, and the settings that vary inside a series."""

    feature_dim: int
    curves: MarginCurves
    series: tuple[MarginSeries, ...]
    hidden: int
    pooled: tuple[str, ...]


def numbers_margin(final: pa.Table, feature_dim: int, comparisons: Sequence[FormComparison] = ()) -> MarginNumbers:
    """Certified lower bounds of the minimum margin of complete trials with the usual normalization."""
    here = final.filter(pc.equal(final["feature_dim"], feature_dim))
    here = frames.with_normalization(here, usual_normalization(here))
    names = [] if frames.temperature_follows_size(here) else ["temperature"]
    fitted = next((c for c in comparisons if c.measure == MARGIN and c.feature_dim == feature_dim), None)
    temperatures = list(groups(here, names))
    series = [_series(rows, where, fitted) for where, rows in evenly(temperatures, MOST_SERIES)]
    curves = margin_curves(sizes_between([k for s in series for k in s.sizes]), feature_dim)
    pooled = tuple(name for name in frames.independent_settings(here) if name != "temperature")
    return MarginNumbers(feature_dim, curves, tuple(series), len(temperatures) - len(series), pooled)


def _series(rows: pa.Table, where: dict[str, Any], fitted: FormComparison | None) -> MarginSeries:
    by_size = [(w["num_classes"], members) for w, members in groups(rows, ["num_classes"])]
    dots = evenly(np.flatnonzero(np.isfinite(values(rows, MARGIN))).tolist(), MOST_DOTS)
    return MarginSeries(
        temperature=where.get("temperature"), trials=tuple(rows["trial"].to_pylist()),
        num_classes=values(rows, "num_classes")[dots], margin=values(rows, MARGIN)[dots],
        titles=np.array(trial_titles(rows.take(pa.array(dots, pa.int64())))),
        sizes=np.array([k for k, _ in by_size], dtype=float),
        median=np.array([median(values(m, MARGIN)) for _, m in by_size]),
        optimum_low=np.array([values(m, "ufm_margin_low")[0] for _, m in by_size]),
        optimum_high=np.array([values(m, "ufm_margin_high")[0] for _, m in by_size]),
        fit=_band(fitted, {**where, "normalization": rows["normalization"][0].as_py()}) if fitted else None,
    )  # fmt: skip


def _band(comparison: FormComparison, where: dict[str, Any]) -> FitBand | None:
    """What is expected of the one group that has these settings, over its sizes; None where none or several have them."""
    matching = [
        (one, label)
        for one in (comparison.series or (comparison,)) for label, settings in one.settings.items()
        if one.chosen and label in one.weighted[0][0].levels and all(where.get(n, v) == v for n, v in settings.items())
    ]  # fmt: skip
    if len(matching) != 1:
        return None
    one, label = matching[0]
    sizes = np.exp(one.cells.log_predictors[np.array(one.cells.group) == label, 0])
    at = np.geomspace(sizes.min(), sizes.max(), BAND_POINTS)
    return FitBand(str(one.chosen), at, *one.expected(at, label))


def draw_margin(ax: Axes, numbers: MarginNumbers) -> None:
    """Trained trials between random rows and the best code known; bars span the minima near the lowest loss."""
    curves, labels = numbers.curves, []
    is_open = np.nanmax(curves.upper_bound / curves.best_known) > 1.01
    for text, curve, colour, width, dashes in (
        ("best known", curves.best_known, INK, 1.3, "solid"),
        ("upper bound" if is_open else "", curves.upper_bound, INK, 0.9, (0, (4, 3))),
        ("random", curves.random, MUTED, 1.3, (0, (1, 2))),
    ):
        _draw_curve(ax, curves.num_classes, curve, color=colour, linewidth=width, linestyle=dashes)
        labels += [_last(curves.num_classes, curve, text, colour)] * bool(text)
    ax.fill_between(curves.num_classes, curves.best_known, curves.upper_bound, color=RULE, alpha=0.6, linewidth=0)
    # cold is dark: the order of the ramp is that of temperature
    for series, colour in zip(numbers.series, ramp(len(numbers.series)), strict=True):
        if series.fit is not None:
            band = series.fit
            ax.fill_between(band.num_classes, band.low, band.high, color=colour, alpha=0.16, linewidth=0, zorder=3)
            ax.plot(band.num_classes, band.curve, color=colour, linewidth=1.0, linestyle=(0, (5, 2)), zorder=3)
        ax.plot(series.sizes, series.median, color=colour, zorder=4)
        (marks,) = ax.plot(series.num_classes, series.margin, "o", color=colour, zorder=5)
        name_marks(marks, series.titles)
        ax.vlines(series.sizes, series.optimum_low, series.optimum_high, color=colour, linewidth=4, alpha=0.5, zorder=4)
        for end in (series.optimum_low, series.optimum_high):
            ax.plot(series.sizes, end, "_", color=colour, markersize=11, zorder=4)
        if series.temperature is not None:
            labels += [_last(series.sizes, series.median, f"τ = {number(series.temperature)}", colour)]
    _frame_margin(ax, numbers)
    label_ends(ax, labels)


def _draw_curve(ax: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    """A line where there are two points or more, else a short bar at the only one."""
    known = np.isfinite(y)
    if known.sum() == 1:
        ax.hlines(y[known], x[known] / 1.15, x[known] * 1.15, zorder=2, **style)
    elif known.any():
        ax.plot(x[known], y[known], zorder=2, **style)


def _last(x: np.ndarray, y: np.ndarray, text: str, colour: str) -> tuple[float, float, str, str]:
    known = np.flatnonzero(np.isfinite(y))
    return (x[known[-1]], y[known[-1]], text, colour) if len(known) else (np.nan, np.nan, text, colour)


def _frame_margin(ax: Axes, numbers: MarginNumbers) -> None:
    curves = numbers.curves
    margins = np.concatenate([s.margin for s in numbers.series])
    tops = np.concatenate([margins, curves.upper_bound, curves.random, *(s.optimum_high for s in numbers.series)])
    sizes = np.concatenate([s.sizes for s in numbers.series])
    log_axis(ax, "x", [sizes.min() / 1.1, sizes.max() * 1.1], at=spread_ticks(list(sizes)))
    positive = curves.best_known[curves.best_known > 0]
    if len(positive) and positive.max() / positive.min() > 12 and (margins > 0).any():
        log_axis(ax, "y", tops[tops > 0])
    else:
        ax.set_ylim(0, float(np.nanmax(tops)) * 1.06)
    ax.set(title=f"d = {numbers.feature_dim}: {axis_label(MARGIN)}", xlabel=axis_label("num_classes"))
    soft_grid(ax)


def block_margin(final: pa.Table, comparisons: Sequence[FormComparison] = (), folder: str = "RESULTS") -> FigureBlock:
    """The figure of margin against the number of classes, or why there is none. folder: for the command of a missing bar."""
    dims = evenly(frames.distinct(final, "feature_dim"), MOST_DIMS)
    found = [numbers_margin(final, dim, comparisons) for dim in dims]
    found = [n for n in found if n.series and np.isfinite(np.concatenate([s.margin for s in n.series])).any()]
    usual = usual_normalization(final)
    left_out = lambda i: _left_out(found[i : i + 1], final.filter(pc.equal(final["feature_dim"], found[i].feature_dim)))
    return block_of(
        "margin", found, _alt_margin, draw_margin, ROOM, trials=[t for n in found for s in n.series for t in s.trials],
        notes=[_left_out(found, final), *_notes(found), missing_bars(found, folder) if usual == "both" else ""],
        lead=lambda i: len(found[i].curves.num_classes), lead_note=left_out, usual=usual,
    )  # fmt: skip


def _left_out(found: Sequence[MarginNumbers], final: pa.Table) -> str:
    """Which of these trials no panel shows, and why; empty where all are drawn."""
    drawn = len({trial for n in found for s in n.series for trial in s.trials})
    if drawn == final.num_rows:
        return ""
    named = [n for n in found if n.hidden]
    why = [f"{len(n.series)} of {len(n.series) + n.hidden} temperatures at d = {n.feature_dim}" for n in named[:3]]
    why += [f"{amount(len(named) - 3, 'more dimension')} alike"] if len(named) > 3 else []
    why += [f"normalization {usual_normalization(final)}"] if len(final["normalization"].unique()) > 1 else []
    dims = len(final["feature_dim"].unique())
    why += [f"{len(found)} of {dims} dimensions"] if dims > len(found) else []
    return f"{drawn} of {amount(final.num_rows, 'complete trial')} drawn: {', '.join(why)}."


def _notes(found: Sequence[MarginNumbers]) -> list[str]:
    """What must be known of the lines and dots of these panels."""
    series, pooled = [s for n in found for s in n.series], sorted({name for n in found for name in n.pooled})
    mixed = f"Trials that differ in {', '.join(pooled)} are pooled; lines join medians."
    notes = [mixed if pooled else "Lines join medians over seeds."]
    forms = {n.feature_dim: dict.fromkeys(s.fit.form for s in n.series if s.fit) for n in found}
    if fitted := ", ".join(f"{' and '.join(names)} at d = {dim}" for dim, names in forms.items() if names):
        weighted = "the mean of the tested forms, each with the weight of its predictions (the best by itself: "
        notes.append(f"The broken line is {weighted}{fitted}), in the band where 90 % of cells are expected.")
    if any(len(s.trials) > MOST_DOTS for s in series):
        notes.append(f"At most {MOST_DOTS} dots of a series are drawn; medians use every trial.")
    if not any(len(s.sizes) > 1 for s in series):
        notes.append("Every series has one class count only, so no trend can be seen.")
    return notes


def missing_bars(found: Sequence[MarginNumbers], folder: str) -> str:
    """Why cells have no bar of free features, with the command that computes the first of them; empty where all have."""
    bare = [
        (round(k), n.feature_dim, s.temperature)
        for n in found for s in n.series for k, optimum in zip(s.sizes, s.optimum_low, strict=True)
        if s.temperature is not None and not np.isfinite(optimum)
    ]  # fmt: skip
    if not bare:
        return ""
    k, d, temperature = bare[0]
    command = f"gnc code --classes {k} --dim {d} --temperature {temperature:g} --results {folder}"
    return f"Without a bar: {amount(len(bare), 'cell')}, whose optimum is in no table; {command} computes the first."


def _alt_margin(numbers: MarginNumbers) -> str:
    parts = [
        f"K = {k:.0f}{'' if s.temperature is None else f' at temperature {number(s.temperature)}'}: {number(m)}"
        for s in numbers.series for k, m in zip(s.sizes, s.median, strict=True)
    ]  # fmt: skip
    dim = numbers.feature_dim
    return f"Minimum margin against number of classes, d = {dim}; median over trials: {', '.join(parts)}."
