"""Variability at a moment that all trials share: equal steps after 99 % training accuracy, or equal excess loss.

A fixed number of epochs means more steps for more classes, hence more time to collapse: a trend of final rows mixes
geometry with training time. Knows frames; fits nothing.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from analysis.rows.frames import trial_bounds, values

VARIABILITY = ("gnc1_rank", "trace_within", "cdnv_nearest")


@dataclass(frozen=True)
class MatchedRows:
    """Final rows with VARIABILITY read at a shared moment instead of at the end, null where a trial never reached it.

    moment: the moment in words.
    """

    rows: pa.Table
    moment: str


@dataclass(frozen=True)
class Course:
    """One trial from its first measured epoch in the terminal phase on: steps since then, excess loss, variability.

    onset: the step of that epoch.
    """

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


def at_equal_steps(rows: pa.Table, final: pa.Table) -> MatchedRows | None:
    """Variability at the longest time after 99 % accuracy that every terminal trial trained for; None without any.

    Measures are interpolated in the logarithm between measured epochs. rows: by trial and epoch; final: complete trials.
    """
    courses = terminal_courses(rows, final)
    shared = min((float(c.steps[-1]) for c in courses.values()), default=0.0)
    if shared <= 0:
        return None
    found = {key: {m: _read(c.steps, c.measures[m], shared) for m in VARIABILITY} for key, c in courses.items()}
    return _with(final, found, f"{shared:.0f} steps after 99 %")


def at_equal_loss_excess(rows: pa.Table, final: pa.Table) -> MatchedRows | None:
    """Variability where train_loss first comes as near to its optimum as the worst terminal trial ever does.

    None where no optimum is tabulated. Trials already nearer at their first terminal epoch have no such moment.
    """
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


def _with(final: pa.Table, found: dict[str, dict[str, float]], moment: str) -> MatchedRows:
    trials = final["trial"].to_pylist()
    for name in VARIABILITY:
        numbers = [found.get(trial, {}).get(name, float("nan")) for trial in trials]
        index = final.schema.get_field_index(name)
        column = pa.array([None if np.isnan(x) else x for x in numbers], pa.float64())
        final = final.set_column(index, final.schema.field(index), column)
    return MatchedRows(final, moment)
