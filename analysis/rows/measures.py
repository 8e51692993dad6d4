"""The measures that are fitted: as intervals (a margin's bounds, its shortfall, variability above the float floor), and
variability at a moment that all trials share, since equal epochs are more steps for more classes. Fits nothing."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from analysis.rows.frames import trial_bounds, values
from study.design.where import ConditionRefused, check_column

VARIABILITY = ("gnc1_rank", "trace_within", "cdnv_nearest")
MARGIN = "margin_min_lower"
# 1 - margin / reference; both are known as intervals, and so is this
SHORTFALL = "reference_shortfall"
# Unit features in float32 scatter by about 1e-7 squared even when they coincide: below this a value is round-off.
FLOAT_FLOOR = 1e-13


def measured_interval(rows: pa.Table, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of a measure in each row; equal where it is a number, NaN where it is absent.
    SHORTFALL lies between 1 - upper / best known and 1 - lower / proven bound; its lower end can be below 0. Variability
    under FLOAT_FLOOR lies between 0 and it."""
    if measure in (MARGIN, SHORTFALL):
        lower, upper = values(rows, MARGIN), values(rows, "margin_min_upper")
        if measure == MARGIN:
            return lower, np.fmax(lower, upper)
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = upper / values(rows, "reference_margin_lower"), lower / values(rows, "reference_margin_upper")
        return 1 - low, 1 - high
    measured = values(rows, measure)
    floored = (measured <= FLOAT_FLOOR) & (measured >= 0) if measure in VARIABILITY else np.zeros(len(measured), bool)
    return np.where(floored, 0.0, measured), np.where(floored, FLOAT_FLOOR, measured)


def usable(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which intervals can enter a fit of the logarithm: known, and not wholly at or below zero."""
    return np.isfinite(low) & np.isfinite(high) & (high > 0)


def measure_values(table: pa.Table, measure: str) -> np.ndarray:
    """A measurement as floats; `name[i]` reads the i-th entry of a list column, -1 the last; NaN where absent.

    Raises:
        ConditionRefused: an unknown column, text, or a list without an entry.
    """
    found = re.fullmatch(r"(\w+)(?:\[(-?\d+)\])?", measure)
    if found is None:
        raise ConditionRefused(f"measure must be a column, or COLUMN[INDEX] of a list, got {measure!r}.")
    name, index = check_column(table, found[1]), found[2]
    kind = table[name].type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list != (index is not None):
        cure = f"Write {name}[-1] for its last entry." if is_list else "It is no list: leave the index out."
        raise ConditionRefused(f"measure must name one number per row, got {measure!r}. {cure}")
    if is_list:
        at, lists = int(index), (row or [] for row in table[name].to_pylist())
        return np.array([row[at] if -len(row) <= at < len(row) else None for row in lists], dtype=float)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ConditionRefused(f"measure must be a number, got {measure!r}, which holds {kind}.")
    return values(table, name).astype(float)


Matched = tuple[pa.Table, str]  # final rows with VARIABILITY read at a shared moment, and the moment in words


@dataclass(frozen=True)
class Course:
    """One trial from its first measured epoch in the terminal phase on: steps since then, excess loss, variability.
    onset: the step of that epoch."""

    onset: float
    steps: np.ndarray
    excess: np.ndarray
    measures: dict[str, np.ndarray]


def terminal_courses(rows: pa.Table, final: pa.Table) -> dict[str, Course]:
    """The course of every complete trial that reached the terminal phase, by key."""
    names = ("step", "loss_excess", *VARIABILITY)
    columns = {name: values(rows, name) for name in (*names, "trial", "terminal")}
    trial = columns["trial"]
    complete = set(final["trial"].to_pylist())
    found = {}
    for start, end in zip(*trial_bounds(trial), strict=True):
        kept = np.arange(start, end)[columns["terminal"][start:end]]
        if len(kept) and trial[start] in complete:
            onset = columns["step"][kept[0]]
            steps, excess = columns["step"][kept] - onset, columns["loss_excess"][kept]
            measures = {name: columns[name][kept] for name in VARIABILITY}
            found[str(trial[start])] = Course(onset, steps, excess, measures)
    return found


def at_equal_steps(rows: pa.Table, final: pa.Table) -> Matched | None:
    """Variability at the longest time after 99 % accuracy that every terminal trial trained for; None without any.
    Measures are interpolated in the logarithm between measured epochs. rows: by trial and epoch; final: complete trials."""
    courses = terminal_courses(rows, final)
    shared = min((float(c.steps[-1]) for c in courses.values()), default=0.0)
    if shared <= 0:
        return None
    found = {key: {m: _read(c.steps, c.measures[m], shared) for m in VARIABILITY} for key, c in courses.items()}
    return _with(final, found, f"{shared:.0f} steps after 99 %")


def at_equal_loss_excess(rows: pa.Table, final: pa.Table) -> Matched | None:
    """Variability where train_loss first comes as near to its optimum as the worst terminal trial ever does.
    None where no optimum is tabulated. Trials already nearer at their first terminal epoch have no such moment."""
    every = terminal_courses(rows, final)
    courses = {key: c for key, c in every.items() if np.isfinite(c.excess).all() and (c.excess > 0).all()}
    if not courses:
        return None
    shared = max(float(c.excess.min()) for c in courses.values())
    found = {}
    for key, course in courses.items():
        below = np.flatnonzero(course.excess <= shared)
        if len(below) and (below[0] > 0 or course.excess[0] == shared):
            first = slice(0, int(below[0]) + 1)
            depth = -np.log(course.excess[first])
            found[key] = {m: _read(depth, course.measures[m][first], -np.log(shared)) for m in VARIABILITY}
    return _with(final, found, f"loss_excess {shared:.3g}") if found else None


def _read(at: np.ndarray, measured: np.ndarray, where: float) -> float:
    """The measure at one place, interpolated in its logarithm; NaN unless it is positive around there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(measured)
    order = np.argsort(at, kind="stable")
    value = float(np.exp(np.interp(where, at[order], logs[order])))
    return value if np.isfinite(value) and value > 0 else float("nan")


def _with(final: pa.Table, found: dict[str, dict[str, float]], moment: str) -> Matched:
    trials = final["trial"].to_pylist()
    for name in VARIABILITY:
        numbers = [found.get(trial, {}).get(name, float("nan")) for trial in trials]
        index = final.schema.get_field_index(name)
        column = pa.array([None if np.isnan(x) else x for x in numbers], pa.float64())
        final = final.set_column(index, final.schema.field(index), column)
    return final, moment
