"""Reference tables shipped with the package: read once, looked up by (K, d) or by temperature. Knows numpy."""

import csv
import functools
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import BinaryIO, cast

import numpy as np

from gnc_models.constructions.explicit import optimal_points
from gnc_models.shapes import Float

CODE_FILES = ("best_known_codes.csv", "found_codes.csv", "code_points_3d.csv")  # what best_code's choice rests on
DATA_FILES = (
    *CODE_FILES[:2], "random_margins.csv", "unconstrained_optima.csv", CODE_FILES[2], "phases.csv", "phases.npz",
)  # fmt: skip
SEARCH_VERSION = 3  # rises when the search behind codes.best_code gives other rows
_FOLDER = resources.files("gnc_models").joinpath("data")


def data_file(name: str) -> BinaryIO:
    """A shipped data file, open for reading."""
    return cast(BinaryIO, _FOLDER.joinpath(name).open("rb"))


@functools.cache
def read_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of a data file by column name; lines that begin with # are its comment."""
    text = _FOLDER.joinpath(name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@functools.cache
def _digest(names: tuple[str, ...]) -> str:
    return f"{functools.reduce(lambda crc, name: zlib.crc32(_FOLDER.joinpath(name).read_bytes(), crc), names, 0):08x}"


def best_code_version() -> str:
    """CRC-32 of the tables of codes and the search's version: the same version, the same rows of codes.best_code."""
    return f"{_digest(CODE_FILES)}.{SEARCH_VERSION}"


def tables_digest() -> str:
    """CRC-32 of the data files, 8 hex digits: it changes whenever a reference value may have changed."""
    return _digest(DATA_FILES)


@dataclass(frozen=True)
class UnconstrainedOptimum:
    """Best cross-entropy found for the unconstrained-feature model, and the margin there.
    `margin_low` and `margin_high` span the minima found whose loss is within 1e-4 of the best, relative: loss and
    margin hardly correlate between local optima, so the margin at the best loss is known no better than that."""

    loss: float  # nats
    margin: float  # Euclidean distance, as the next two
    margin_low: float
    margin_high: float
    starts: int
    found: int | None = None  # starts that ended at this loss; None where that was not kept
    source: str = "table"  # "closed form", "table" as shipped, "phases", or "results": computed for a results folder


OptimumKey = tuple[int, int, str]  # classes, dimensions, temperature to six digits
OPTIMUM_COLUMNS = (
    *("num_classes", "feature_dim", "temperature", "loss", "margin", "margin_low", "margin_high", "starts", "seed"),
    "found",  # absent in files of older versions
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
            named = dict(zip(OPTIMUM_COLUMNS, row, strict=False))
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
    whole = len(OPTIMUM_COLUMNS) - len(row) in (0, 1)
    return whole and all(number.is_integer() for number in (*numbers[:2], *numbers[7:]))


@functools.cache
def _unconstrained_table() -> dict[OptimumKey, UnconstrainedOptimum]:
    return {_unconstrained_key(row): _unconstrained_value(row) for row in read_table("unconstrained_optima.csv")}


def _unconstrained_key(row: Mapping[str, str]) -> OptimumKey:
    return int(row["num_classes"]), int(row["feature_dim"]), f"{float(row['temperature']):.6g}"


def _unconstrained_value(row: Mapping[str, str], source: str = "table") -> UnconstrainedOptimum:
    loss, margin, low, high = (float(row[name]) for name in ("loss", "margin", "margin_low", "margin_high"))
    found = int(row["found"]) if row.get("found") else None
    return UnconstrainedOptimum(loss, margin, low, high, int(row["starts"]), found, source)


def tabulated_optimum(
    num_classes: int, feature_dim: int, temperature: float, own: OwnOptima = NO_OPTIMA
) -> UnconstrainedOptimum | None:
    """The optimum of free features in closed form or at a tabulated temperature; `codes.phases` knows those in between.
    The model: free unit rows W and H, one feature per class, cross-entropy with logits `W h / temperature`. Up to d + 1
    classes the simplex is the optimum, and `starts` is 0."""
    if 2 <= num_classes <= feature_dim + 1:
        margin = num_classes / (num_classes - 1)
        loss = math.log1p((num_classes - 1) * math.exp(-margin / temperature))
        return UnconstrainedOptimum(loss, margin, margin, margin, 0, 0, "closed form")
    key = num_classes, feature_dim, f"{temperature:.6g}"
    known = [table[key] for table in (_unconstrained_table(), own.by_key) if key in table]
    return min(known, key=lambda optimum: optimum.loss, default=None)


@functools.cache
def _points_by_size() -> dict[int, Float[np.ndarray, "classes 3"]]:
    rows: dict[int, list[list[float]]] = {}
    for row in read_table("code_points_3d.csv"):
        rows.setdefault(int(row["num_classes"]), []).append([float(row[axis]) for axis in "xyz"])
    return {size: np.array(points) for size, points in rows.items()}


def best_code_points(num_classes: int, feature_dim: int) -> Float[np.ndarray, "classes dim"] | None:
    """Unit rows of the best known code for drawing, a fresh array: in closed form, d = 3 where stored; None elsewhere."""
    points = optimal_points(num_classes, feature_dim)
    if points is None and feature_dim == 3:
        points = _points_by_size().get(num_classes)
    if points is None:
        return None
    padded = np.pad(points, ((0, 0), (0, feature_dim - points.shape[1])))
    return padded / np.linalg.norm(padded, axis=1, keepdims=True)
