"""The measures that are fitted, as intervals: a margin's bounds, its shortfall, variability above the float floor.

Knows frames; fits nothing.
"""

import re

import numpy as np
import pyarrow as pa

from analysis.rows.frames import values
from analysis.rows.matched_time import VARIABILITY
from study.design.where import ConditionRefused, check_column

MARGIN = "margin_min_lower"
# 1 - margin / reference; both are known as intervals, and so is this
SHORTFALL = "reference_shortfall"
ERROR = "test_error"
# Unit features in float32 scatter by about 1e-7 squared even when they coincide: below this a value is round-off.
FLOAT_FLOOR = 1e-13


def measured_interval(rows: pa.Table, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of a measure in each row; equal where it is a number, NaN where it is absent.

    SHORTFALL lies between 1 - upper / best known and 1 - lower / proven bound; its lower end can be below 0. ERROR is
    one minus test_accuracy; without a single error it lies between 0 and one error. Variability under FLOAT_FLOOR lies
    between 0 and it.
    """
    if measure == MARGIN:
        lower = values(rows, MARGIN)
        return lower, np.fmax(lower, values(rows, "margin_min_upper"))
    if measure == SHORTFALL:
        return _shortfall(rows)
    if measure == ERROR:
        error = 1 - values(rows, "test_accuracy")
        one = 1 / np.maximum(values(rows, "num_classes") * values(rows, "test_samples_per_class"), 1)
        return np.where(error < one / 2, 0.0, error), np.where(error < one / 2, one, error)
    measured = values(rows, measure)
    floored = (measured <= FLOAT_FLOOR) & (measured >= 0) if measure in VARIABILITY else np.zeros(len(measured), bool)
    return np.where(floored, 0.0, measured), np.where(floored, FLOAT_FLOOR, measured)


def _shortfall(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = values(rows, MARGIN), values(rows, "margin_min_upper")
    with np.errstate(divide="ignore", invalid="ignore"):
        low = 1 - upper / values(rows, "reference_margin_lower")
        high = 1 - lower / values(rows, "reference_margin_upper")
    return low, high


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
        return np.array([_entry(row, int(index)) for row in table[name].to_pylist()])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ConditionRefused(f"measure must be a number, got {measure!r}, which holds {kind}.")
    return values(table, name).astype(float)


def _entry(row: list[float | None] | None, index: int) -> float:
    try:
        value = None if row is None else row[index]
    except IndexError:
        value = None
    return float("nan") if value is None else float(value)
