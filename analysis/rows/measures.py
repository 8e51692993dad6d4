"""The measures that are fitted: as intervals (a margin's bounds, its shortfall, variability above the float floor), and
variability at a moment that all trials share, since equal epochs are more steps for more classes. Fits nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.rows.frames import SIZES, values
from study.design.where import ConditionRefused, check_column

VARIABILITY = ("gnc1_rank", "trace_within", "cdnv_nearest")
MARGIN = "margin_min_lower"
# 1 - margin / reference; both are known as intervals, and so is this
SHORTFALL = "reference_shortfall"
# Unit features in float32 scatter by about 1e-7 squared even when they coincide: below this a value is round-off.
FLOAT_FLOOR = 1e-13


def for_fits(final: pa.Table, within: Sequence[str]) -> pa.Table:
    """The columns of a table that trends read: rows are taken again and again, and a table has a hundred columns."""
    ends = (MARGIN, "margin_min_upper", "reference_margin_lower", "reference_margin_upper")
    wanted = ("trial", "cell", "terminal", *SIZES, "temperature", *within, *ends, *VARIABILITY)
    return final.select([name for name in dict.fromkeys(wanted) if name in final.column_names])


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


def without_positive(rows: pa.Table, measure: str, positive: np.ndarray, predictor: str = SIZES[0]) -> str:
    """That at some sizes all values of terminal trials are zero, negative or NaN, and which; empty where there is none.
    A size whose trials have not measured it is not meant."""
    column = MARGIN if measure == SHORTFALL else measure
    known = values(rows, "terminal") & rows[column].is_valid().to_numpy(zero_copy_only=False)
    sizes = values(rows, predictor)
    lost = sorted(set(sizes[known]) - set(sizes[known & positive]))
    named = ", ".join(f"{size:g}" for size in lost)
    return (
        f"at {predictor} = {named} no trial has a positive value, and the trend of the others is not that of all"
        if lost
        else ""
    )


def usable(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which intervals can enter a fit of the logarithm: known, and not wholly at or below zero."""
    return np.isfinite(low) & np.isfinite(high) & (high > 0)


def measure_values(table: pa.Table, measure: str) -> np.ndarray:
    """A measurement as floats; `name[i]` reads the i-th entry of a list column, -1 the last; NaN where absent.
    ConditionRefused: an unknown column, text, or a list without an entry."""
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
class Courses:
    """The terminal epochs of every complete trial that has any, those of one trial after those of another.
    trials: keys [trials]; bounds: [trials + 1], where the rows of each begin; onset: the step of its first terminal epoch.
    steps since then, excess loss and variability: [rows]."""

    trials: pa.Array
    bounds: np.ndarray
    onset: np.ndarray
    steps: np.ndarray
    excess: np.ndarray
    measures: dict[str, np.ndarray]


def terminal_courses(rows: pa.Table, final: pa.Table) -> Courses:
    """The courses of the complete trials that reached the terminal phase; rows: by trial and epoch."""
    complete = pc.is_in(rows["trial"], value_set=final["trial"].combine_chunks())
    kept = rows.select(["trial", "step", "loss_excess", *VARIABILITY]).filter(pc.and_(complete, rows["terminal"]))
    coded = kept["trial"].combine_chunks().dictionary_encode()
    # rows of a trial are together
    bounds = np.searchsorted(coded.indices.to_numpy(), np.arange(len(coded.dictionary) + 1))
    step = values(kept, "step")
    onset = step[bounds[:-1]]
    measured = {name: values(kept, name) for name in VARIABILITY}
    since = step - np.repeat(onset, np.diff(bounds))
    return Courses(coded.dictionary, bounds, onset, since, values(kept, "loss_excess"), measured)


def at_equal_steps(rows: pa.Table, final: pa.Table) -> Matched | None:
    """Variability at the longest time after 99 % accuracy that every terminal trial trained for; None without any.
    Measures are interpolated in the logarithm between measured epochs. rows: by trial and epoch; final: complete trials."""
    courses = terminal_courses(rows, final)
    shared = float(courses.steps[courses.bounds[1:] - 1].min(initial=np.inf))
    if not 0 < shared < np.inf:
        return None
    above = _first(courses.steps >= shared, courses.bounds)
    return _read(final, courses, courses.steps, shared, (above - 1, above), f"{shared:.0f} steps after 99 %")


def at_equal_loss_excess(rows: pa.Table, final: pa.Table) -> Matched | None:
    """Variability where train_loss first comes as near to its optimum as the worst terminal trial ever does.
    None where no optimum is tabulated. Trials already nearer at their first terminal epoch have no such moment."""
    courses = terminal_courses(rows, final)
    excess, bounds, starts = courses.excess, courses.bounds, courses.bounds[:-1]
    known = np.logical_and.reduceat(np.isfinite(excess) & (excess > 0), starts) if len(starts) else np.zeros(0, bool)
    if not known.any():
        return None
    shared = float(np.minimum.reduceat(excess, starts)[known].max())
    above = np.where(known, _first(excess <= shared, bounds), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = -np.log(excess)
    # the nearest epoch before it, which need not be the last one
    before = np.where(np.arange(len(depth)) < np.repeat(above, np.diff(bounds)), depth, -np.inf)
    nearest = np.flatnonzero(before == np.repeat(np.maximum.reduceat(before, starts), np.diff(bounds)))
    below = nearest[np.searchsorted(nearest, bounds[1:]) - 1]
    readable = known & ((above > starts) | (excess[above] == shared))
    if not readable.any():
        return None
    rows_read = below, np.where(readable, above, -1)
    return _read(final, courses, depth, -np.log(shared), rows_read, f"loss_excess {shared:.3g}")


def _first(holds: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The first row of each trial where it holds, or one beyond its rows."""
    places = np.append(np.flatnonzero(holds), len(holds))
    return places[np.searchsorted(places, bounds[:-1])]


def _read(
    final: pa.Table, courses: Courses, at: np.ndarray, where: float, rows: tuple[np.ndarray, np.ndarray], moment: str
) -> Matched:
    """Final rows with the measures at one place, interpolated in the logarithm between two rows of each trial.
    Null for a second row of -1, and unless a measure is positive around there."""
    below, above = rows
    place = pc.index_in(final["trial"], value_set=courses.trials).to_numpy(zero_copy_only=False)
    for name in VARIABILITY:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            logs = np.log(courses.measures[name])
            slope = (logs[above] - logs[below]) / (at[above] - at[below])
            found = np.exp(np.where(at[above] == where, logs[above], slope * (where - at[below]) + logs[below]))
        found[(above < 0) | ~np.isfinite(found) | (found <= 0)] = np.nan
        numbers = np.append(found, np.nan)[np.nan_to_num(place, nan=-1).astype(int)]
        index = final.schema.get_field_index(name)
        column = pa.array(numbers, pa.float64(), mask=np.isnan(numbers))
        final = final.set_column(index, final.schema.field(index), column)
    return final, moment
