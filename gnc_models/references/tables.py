"""Reference tables shipped with the package: read once, looked up by (K, d), by temperature, or interpolated.

Knows numpy and its own data files; does not know torch, the disk or how the tables are made
(`python -m tools.tabulate`).
"""

import csv
import functools
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
from jaxtyping import Float

from gnc_models.constructions.explicit import polygon

DATA_FILES = (
    "best_known_codes.csv",
    "found_codes.csv",
    "random_margins.csv",
    "unconstrained_optima.csv",
    "code_points_3d.csv",
)


@functools.cache
def read_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of a data file by column name; lines that begin with # are its comment."""
    text = resources.files("gnc_models").joinpath("data", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


SEARCH_VERSION = 2  # rises when the search behind codes.best_code gives other rows
CODE_FILES = ("best_known_codes.csv", "found_codes.csv", "code_points_3d.csv")  # what best_code's choice rests on
WIDEST_STEP = math.log(2) + 1e-9  # between the logarithms of two dimensions that are interpolated between


@functools.cache
def best_code_version() -> str:
    """CRC-32 of the tables of codes and the search's version: the same version, the same rows of codes.best_code."""
    return f"{_crc(CODE_FILES):08x}.{SEARCH_VERSION}"


def _crc(names: tuple[str, ...]) -> int:
    folder = resources.files("gnc_models").joinpath("data")
    crc = 0
    for name in names:
        crc = zlib.crc32(folder.joinpath(name).read_bytes(), crc)
    return crc


@functools.cache
def tables_digest() -> str:
    """CRC-32 of the data files, 8 hex digits: it changes whenever a reference value may have changed."""
    return f"{_crc(DATA_FILES):08x}"


@dataclass(frozen=True)
class UnconstrainedOptimum:
    """Best cross-entropy found for the unconstrained-feature model, and the margin there.

    `margin_low` and `margin_high` span the starts whose tau * log(CE) lies within 1e-3 of the best: loss and margin
    hardly correlate between local optima, so the margin at the best loss is known no better than that.
    """

    loss: float  # nats
    margin: float  # Euclidean distance, as the next two
    margin_low: float
    margin_high: float
    starts: int
    source: str = "table"  # "closed form", "table" as shipped, or "results": computed for a results folder


OptimumKey = tuple[int, int, str]  # classes, dimensions, temperature to six digits
OPTIMUM_COLUMNS = (
    *("num_classes", "feature_dim", "temperature", "loss", "margin", "margin_low", "margin_high", "starts", "seed"),
)


@dataclass(frozen=True)
class OwnOptima:
    """Optima that are not shipped but were computed for a results folder, each the best one of its size."""

    by_key: Mapping[OptimumKey, UnconstrainedOptimum]
    digest: str  # CRC-32 of all of them, 8 hex digits; empty where there are none

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "OwnOptima":
        """From lines of numbers in the order of OPTIMUM_COLUMNS; a line that is torn or foreign counts for nothing."""
        lines = sorted({line for text in texts for line in text.splitlines()})
        rows = [row for row in csv.reader(lines) if _is_whole(row)]
        found: dict[OptimumKey, UnconstrainedOptimum] = {}
        for row in rows:
            named = dict(zip(OPTIMUM_COLUMNS, row, strict=True))
            key, optimum = _unconstrained_key(named), _unconstrained_value(named, "results")
            found[key] = min(found.get(key, optimum), optimum, key=lambda o: o.loss)
        text = "\n".join(",".join(row) for row in rows)
        return cls(found, f"{zlib.crc32(text.encode()):08x}" if rows else "")


NO_OPTIMA = OwnOptima({}, "")


def _is_whole(row: list[str]) -> bool:
    try:
        numbers = [float(text) for text in row]
    except ValueError:
        return False
    return len(row) == len(OPTIMUM_COLUMNS) and all(number.is_integer() for number in (*numbers[:2], *numbers[7:]))


@functools.cache
def _unconstrained_table() -> dict[OptimumKey, UnconstrainedOptimum]:
    return {_unconstrained_key(row): _unconstrained_value(row) for row in read_table("unconstrained_optima.csv")}


def _unconstrained_key(row: Mapping[str, str]) -> OptimumKey:
    return int(row["num_classes"]), int(row["feature_dim"]), f"{float(row['temperature']):.6g}"


def _unconstrained_value(row: Mapping[str, str], source: str = "table") -> UnconstrainedOptimum:
    loss, margin, low, high = (float(row[name]) for name in ("loss", "margin", "margin_low", "margin_high"))
    return UnconstrainedOptimum(loss, margin, low, high, int(row["starts"]), source)


def unconstrained_optimum(
    num_classes: int, feature_dim: int, temperature: float, own: OwnOptima = NO_OPTIMA
) -> UnconstrainedOptimum | None:
    """The finite-temperature optimum of the unconstrained-feature model, or None where it is not tabulated.

    The model: free unit rows W and H, one feature per class, cross-entropy with logits `W h / temperature`.

    Args:
        num_classes: K.
        feature_dim: d.
        temperature: tau, matched to 6 significant digits.
        own: optima of a results folder, looked up after the shipped table.
    Returns:
        The best loss found and the margin of the normalised W there, with its range over near-best starts. Up to
        d + 1 classes the simplex is the optimum, in closed form, and `starts` is 0.
    """
    if 2 <= num_classes <= feature_dim + 1:
        margin = num_classes / (num_classes - 1)
        loss = math.log1p((num_classes - 1) * math.exp(-margin / temperature))
        return UnconstrainedOptimum(loss, margin, margin, margin, 0, "closed form")
    key = num_classes, feature_dim, f"{temperature:.6g}"
    return _unconstrained_table().get(key) or own.by_key.get(key)


@functools.cache
def _points_by_size() -> dict[int, Float[np.ndarray, "classes 3"]]:
    rows: dict[int, list[list[float]]] = {}
    for row in read_table("code_points_3d.csv"):
        rows.setdefault(int(row["num_classes"]), []).append([float(row[axis]) for axis in "xyz"])
    return {size: np.array(points) for size, points in rows.items()}


def best_code_points(num_classes: int, feature_dim: int) -> Float[np.ndarray, "classes dim"] | None:
    """Coordinates of the best known code for drawing: d = 2 exact, d = 3 where stored; None elsewhere.

    Returns:
        Unit rows, one per class; a fresh array.
    """
    if feature_dim == 2 and num_classes >= 2:
        return polygon(num_classes)
    points = _points_by_size().get(num_classes) if feature_dim == 3 else None
    return None if points is None else points / np.linalg.norm(points, axis=1, keepdims=True)


@functools.cache
def _random_grid() -> dict[int, tuple[Float[np.ndarray, " sizes"], Float[np.ndarray, " sizes"]]]:
    """By dimension: log K ascending and log of the median margin there."""
    rows: dict[int, dict[int, float]] = {}
    for row in read_table("random_margins.csv"):
        rows.setdefault(int(row["feature_dim"]), {})[int(row["num_classes"])] = float(row["margin_median"])
    return {
        dim: (np.log(sorted(by_size)), np.log([by_size[size] for size in sorted(by_size)]))
        for dim, by_size in sorted(rows.items())
    }


def random_margin(num_classes: int, feature_dim: int) -> float | None:
    """Median minimum one-vs-rest margin of K random unit rows: what no training at all would give.

    Tabulated sizes are returned as measured. Between them the logarithm of the margin is interpolated, in log K at
    the tabulated d and then in log d, both by monotone cubics; the error is stated in docs/margins.md and held by a
    test. Nothing is extrapolated, nor interpolated between dimensions more than a factor of two apart.

    Args:
        num_classes: K.
        feature_dim: d.
    Returns:
        A Euclidean distance, or None outside the table.
    """
    grid = _random_grid()
    if feature_dim in grid:
        return _along_classes(grid[feature_dim], num_classes)
    line = [
        (math.log(dim), found) for dim, at in grid.items() if (found := _along_classes(at, num_classes)) is not None
    ]
    if len(line) < 2 or not line[0][0] < math.log(max(feature_dim, 1)) < line[-1][0]:
        return None
    dims, margins = np.array(line).T
    after = int(np.searchsorted(dims, math.log(feature_dim)))
    if dims[after] - dims[after - 1] > WIDEST_STEP:
        return None
    return math.exp(monotone_cubic(dims, np.log(margins), math.log(feature_dim)))


def _along_classes(
    line: tuple[Float[np.ndarray, " sizes"], Float[np.ndarray, " sizes"]], num_classes: int
) -> float | None:
    at, (knots, values) = math.log(num_classes) if num_classes > 0 else -1.0, line
    if not knots[0] - 1e-9 <= at <= knots[-1] + 1e-9:
        return None
    nearest = int(np.argmin(abs(knots - at)))
    if abs(knots[nearest] - at) < 1e-9:
        return math.exp(values[nearest])
    return math.exp(monotone_cubic(knots, values, at))


def monotone_cubic(knots: Float[np.ndarray, " sizes"], values: Float[np.ndarray, " sizes"], at: float) -> float:
    """Fritsch and Carlson's piecewise cubic through the values, without overshoot; at least two knots."""
    step, rise = np.diff(knots), np.diff(values)
    slope = rise / step
    left, right = slope[:-1], slope[1:]
    weight_left, weight_right = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (weight_left + weight_right) / (weight_left / left + weight_right / right)
    inner = np.where(left * right > 0, harmonic, 0.0)
    tangent = np.concatenate([slope[:1], inner, slope[-1:]])
    i = int(np.clip(np.searchsorted(knots, at) - 1, 0, len(step) - 1))
    t = (at - knots[i]) / step[i]
    return float(
        values[i] * (1 + 2 * t) * (1 - t) ** 2
        + values[i + 1] * t * t * (3 - 2 * t)
        + step[i] * (tangent[i] * t * (1 - t) ** 2 + tangent[i + 1] * t * t * (t - 1))
    )
