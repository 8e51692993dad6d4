"""The null: the smallest margin that random unit rows have, with the error of its table and of interpolation."""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np

from gnc_models.references.tables import read_table
from gnc_models.shapes import Float

WIDEST_STEP = math.log(2) + 1e-9  # between the logarithms of two dimensions that are interpolated between
# Expected range of so many standard normal draws, in standard deviations: from a range to a spread.
RANGE = {3: 1.693, 5: 2.326, 21: 3.777, 41: 4.341, 201: 5.497}
POOLED = 4  # sizes whose spreads are averaged: a size and those before it, where the spread is no smaller
ERRORS = 2.0  # standard errors either way: about 95 %
Knots = Float[np.ndarray, " sizes"]


@dataclass(frozen=True)
class RandomMargin:
    """Median over draws of the smallest margin of random unit rows, and an interval that holds it in 95 of 100 cases."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class _Line:
    """Along one axis: logarithms of sizes, ascending, of medians, and the medians' errors, also of logarithms."""

    knots: Knots
    values: Knots
    errors: Knots

    def at(self, place: float) -> tuple[float, float] | None:
        """Value and error at a place, None beyond the ends; a monotone cubic's bend adds to the error between knots."""
        if not self.knots[0] - 1e-9 <= place <= self.knots[-1] + 1e-9:
            return None
        nearest = int(np.argmin(abs(self.knots - place)))
        if abs(self.knots[nearest] - place) < 1e-9:
            return float(self.values[nearest]), float(self.errors[nearest])
        after = int(np.searchsorted(self.knots, place))
        value = monotone_cubic(self.knots, self.values, place)
        bend = abs(value - float(np.interp(place, self.knots, self.values)))
        return value, float(self.errors[after - 1 : after + 1].max()) + bend


@functools.cache
def _random_rows() -> dict[int, list[dict[str, str]]]:
    """Rows of the table by dimension, both ascending, along the number of classes."""
    rows = sorted(read_table("random_margins.csv"), key=lambda row: (int(row["feature_dim"]), int(row["num_classes"])))
    return {dim: list(group) for dim, group in itertools.groupby(rows, key=lambda row: int(row["feature_dim"]))}


@functools.cache
def _line(feature_dim: int) -> _Line:
    """One dimension's rows; the spread between draws comes from their range, averaged over a few sizes."""
    names = ("num_classes", "draws", "margin_median", "margin_low", "margin_high")
    rows = [[float(row[name]) for name in names] for row in _random_rows()[feature_dim]]
    size, draws, median, low, high = np.array(rows).T
    spread = np.log(high / low) / np.array([RANGE.get(int(count), math.inf) for count in draws])
    weight = draws - 1  # a single draw has no range
    first = [max(0, i - POOLED + 1) for i in range(len(draws))]
    pooled = [weight[a : i + 1] @ spread[a : i + 1] / weight[a : i + 1].sum() for i, a in enumerate(first)]
    # the median of n normal draws has a standard error of 1.2533 spreads over the root of n
    return _Line(np.log(size), np.log(median), ERRORS * 1.2533 * np.array(pooled) / np.sqrt(draws))


def random_margin(num_classes: int, feature_dim: int) -> float | None:
    """The median of `random_margin_interval`, None outside the table."""
    found = random_margin_interval(num_classes, feature_dim)
    return found.median if found else None


def random_margin_interval(num_classes: int, feature_dim: int) -> RandomMargin | None:
    """Median minimum one-vs-rest margin of K random unit rows: what no training gives; None outside the table.
    Tabulated sizes are returned as measured. Between them the logarithm of the margin is interpolated, in log K at
    the tabulated d and then in log d, both by monotone cubics. Nothing is extrapolated, nor interpolated between
    dimensions more than a factor of two apart. How often the interval holds new draws is in docs/margins.md."""
    dims, place, across = _random_rows(), math.log(max(num_classes, 1)), math.log(max(feature_dim, 1))
    if feature_dim in dims:
        found = _line(feature_dim).at(place)
    else:
        rows = [(math.log(dim), *at) for dim in dims if (at := _line(dim).at(place)) is not None]
        if len(rows) < 2 or not rows[0][0] < across < rows[-1][0]:
            return None
        column = _Line(*np.array(rows).T)
        after = int(np.searchsorted(column.knots, across))
        found = column.at(across) if column.knots[after] - column.knots[after - 1] <= WIDEST_STEP else None
    if found is None:
        return None
    value, error = found
    return RandomMargin(math.exp(value), math.exp(value - error), math.exp(value + error))


def monotone_cubic(knots: Knots, values: Knots, at: float) -> float:
    """Fritsch and Carlson's piecewise cubic through the values, without overshoot; at least two knots."""
    step, rise = np.diff(knots), np.diff(values)
    slope = rise / step
    left, right = slope[:-1], slope[1:]
    weight_left, weight_right = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (weight_left + weight_right) / (weight_left / left + weight_right / right)
    tangent = np.concatenate([slope[:1], np.where(left * right > 0, harmonic, 0.0), slope[-1:]])
    i = int(np.clip(np.searchsorted(knots, at) - 1, 0, len(step) - 1))
    t = (at - knots[i]) / step[i]
    return float(
        values[i] * (1 + 2 * t) * (1 - t) ** 2
        + values[i + 1] * t * t * (3 - 2 * t)
        + step[i] * (tangent[i] * t * (1 - t) ** 2 + tangent[i + 1] * t * t * (t - 1))
    )
