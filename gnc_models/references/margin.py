"""Reference values: the interval that holds the best possible one-vs-rest margin of K classes in d dimensions.
Knows numpy and the tables shipped with the package; does not know torch."""

import bisect
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gnc_models.constructions.explicit import KISSING, LEECH_SECTIONS
from gnc_models.references import closed_forms as forms
from gnc_models.references.closed_forms import asymptotic_exponent, levenshtein_margin_bound
from gnc_models.references.layered_codes import MOST_DIMS, layered_margin
from gnc_models.references.random_rows import random_margin, random_margin_interval
from gnc_models.references.tables import read_table, tables_digest
from gnc_models.shapes import Float

# Of other modules, which are asked for here.
__all__ = ["asymptotic_exponent", "levenshtein_margin_bound", "random_margin", "random_margin_interval"]

# The rules below, then the tables they read: a row's reference columns were made by exactly these.
REFERENCE_VERSION = f"3.{tables_digest()}"

# Table values carry 6 decimals: half a unit either way keeps the interval true.
TABLE_ROUNDING = 5e-7
POLYGON_SIZES = range(3, 65)  # as parts of direct sums; larger ones are poor parts
MOST_CLASSES = 10_000_000  # the bounds take a minute there, and far longer above it


@dataclass(frozen=True)
class Reference:
    """Interval that holds rho*(d, K), in the unit of the margin, and where its lower end comes from."""

    lower: float
    upper: float
    source: str


@dataclass(frozen=True)
class KnownCode:
    """A code that exists: `num_classes` unit rows in `feature_dim` dimensions with 1 - max cosine >= margin."""

    feature_dim: int
    num_classes: int
    margin: float
    source: str
    proven: float | None = None  # upper bound of rho* here, where the code is proven optimal

    @property
    def size(self) -> str:
        return f"(d={self.feature_dim}, K={self.num_classes})"


def _size(row: Mapping[str, str]) -> tuple[int, int]:
    return int(row["feature_dim"]), int(row["num_classes"])


Values = float | Float[np.ndarray, "..."]


def margin_score(lower: Values, null: Values | None, best: Values | None) -> Values:
    """How far a margin has come from random rows (0) to the best code known (1): (lower - null) / (best - null).
    NaN where a value is missing, or the best does not exceed the null."""
    below, above = np.asarray(null, dtype=float), np.asarray(best, dtype=float)
    return (lower - below) / np.where(above > below, above - below, np.nan)


def margin_score_bounds(
    lower: Values, upper: Values, null: tuple[Values | None, Values | None], best: Values | None
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Least and largest `margin_score` of a margin between `lower` and `upper` and a null between the two given.
    The score grows with the margin, and with the null it only falls or only grows: both extremes are at ends."""
    ends = np.stack([margin_score(margin, end, best) for margin in (lower, upper) for end in null])
    return np.asarray(ends.min(axis=0)), np.asarray(ends.max(axis=0))


def reference_margin(num_classes: int, feature_dim: int) -> Reference:
    """Best interval known for the largest one-vs-rest margin that K unit rows in d dimensions can have.
    Lower end: the best of closed forms, sharp codes, Kerdock and Gold families, the tables, drawn random codes and
    codes in layers; rows may be dropped, dimensions added, and codes joined on orthogonal subspaces (direct sums).
    Upper end: the bounds of Rankin and Levenshtein, 1/2 for more rows than a kissing number can be, and proven optima;
    they also bound every larger K and smaller d.
    Args:
        num_classes, feature_dim: K, at least 2, and d, at least 1.
    Returns:
        lower, upper in the unit of the margin; equal where the value is known. For d >= 2 lower is above 0.
    Raises:
        ValueError: fewer than two classes or one dimension."""
    forms.check_sizes(num_classes, feature_dim)
    exact = _exact(num_classes, feature_dim)
    if exact is not None:
        return exact
    if num_classes > MOST_CLASSES:
        raise ValueError(
            f"num_classes must be at most {MOST_CLASSES:,} in {feature_dim} dimensions, got {num_classes}."
        )
    upper = _upper_bound(num_classes, feature_dim)
    found = [_inherited(num_classes, feature_dim), _direct_sum(num_classes, feature_dim)]
    found.append((forms.theorem_bounds(num_classes, feature_dim)[0], "theorem's lower bound (arXiv 2310.05351)"))
    # no layered code exceeds this, since it takes so few dimensions: above it none need be counted
    if max(found)[0] < levenshtein_margin_bound(num_classes, min(feature_dim, MOST_DIMS)):
        found.append((layered_margin(num_classes, feature_dim), "layered code"))
    lower, source = max(found, key=lambda pair: pair[0])
    return Reference(min(lower, upper), upper, source)


def _exact(num_classes: int, feature_dim: int) -> Reference | None:
    rules = (
        (num_classes <= feature_dim + 1, num_classes / (num_classes - 1), "simplex"),
        (feature_dim == 1, 0.0, "on a line more than two unit rows coincide"),
        (feature_dim == 2, forms.polygon_margin(num_classes), "regular polygon"),
        (num_classes <= 2 * feature_dim, 1.0, "orthoplex"),
    )
    return next((Reference(value, value, source) for holds, value, source in rules if holds), None)


SHARP_CODES = tuple(
    (*_size(row), float(row["max_cosine"]), row["name"]) for row in read_table("sharp_codes.csv")
)  # (d, K, max cosine, name)
_KISSING_NUMBERS = read_table("kissing_numbers.csv")
MOST_ROWS = {int(row["feature_dim"]): int(row["most_rows"]) for row in _KISSING_NUMBERS}
_PUBLISHED = [row for row in _KISSING_NUMBERS if row["published_rows"]]
PUBLISHED = tuple((int(row["feature_dim"]), int(row["published_rows"]), row["published_by"]) for row in _PUBLISHED)
# Built and checked row against row in gnc_models.constructions.explicit; good, not proven optimal: (d, K, margin, name).
BUILT_CODES = (
    *((dim, size, 0.5, "Leech lattice section") for dim, size in LEECH_SECTIONS.items()),
    *((dim, size, 0.5, name) for name, dim, size, _ in KISSING),
    (64, 65536, 0.75, "quadratic forms"),
    *((2**m, 2 * 4**m, 1 - 2.0 ** -((m - 1) // 2), "extended Gold") for m in range(5, 18, 2)),
)


@functools.cache
def known_codes() -> tuple[KnownCode, ...]:
    """Every single code the reference rests on, without inheritance and sums; best margin first."""
    codes = [KnownCode(d, k, 1 - cos, name, 1 - cos) for d, k, cos, name in SHARP_CODES]
    codes += [KnownCode(*built) for built in BUILT_CODES]
    codes += [KnownCode(dim, size, 0.5, f"published: {source}") for dim, size, source in PUBLISHED]
    codes += _tabulated()
    # Kerdock codes: d = 4^j, K = d (d + 2), cosine 1/sqrt(d); optimal for j >= 2 (arXiv 2403.16874)
    codes += [KnownCode(d, d * (d + 2), 1 - d**-0.5, "Kerdock", 1 - d**-0.5) for d in (4**j for j in range(2, 9))]
    # Gold sequences with all signs of the dual BCH code: odd m, d = 2^m - 1, K = 2^(2m)
    gold = [(2**m - 1, 4**m, 1 - (2 ** ((m + 1) // 2) - 1) / (2**m - 1)) for m in range(3, 18, 2)]
    codes += [KnownCode(*sizes, "Gold dual-BCH") for sizes in gold]
    codes.append(KnownCode(1, 2, 2.0, "pair"))
    codes += [KnownCode(2, k, forms.polygon_margin(k), "regular polygon") for k in POLYGON_SIZES]
    return tuple(sorted(codes, key=lambda code: -code.margin))


def _tabulated() -> Iterator[KnownCode]:
    for row in read_table("best_known_codes.csv"):
        margin = float(row["one_minus_max_cos"])
        proven = margin + TABLE_ROUNDING if row["status"] == "proven" else None
        yield KnownCode(*_size(row), margin - TABLE_ROUNDING, f"{row['status']}: {row['source']}", proven)
    for row in read_table("found_codes.csv"):
        yield KnownCode(*_size(row), float(row["margin"]), f"found by this project: {row['method']}")
    for row in read_table("random_margins.csv"):
        yield KnownCode(*_size(row), float(row["best_margin"]), f"best of {row['draws']} random codes")


def kissing_margin_bound(num_classes: int, feature_dim: int) -> float:
    """1/2 where so many rows have a cosine above 1/2 by proof, else 1: a bound of the margin from d + 2 rows on."""
    most = min((rows for dim, rows in MOST_ROWS.items() if dim >= feature_dim), default=num_classes)
    return 0.5 if num_classes > most else 1.0


def _upper_bound(num_classes: int, feature_dim: int) -> float:
    """rho* falls in K and rises in d, so a proven optimum also bounds every larger K and smaller d."""
    rules = (forms.simplex_orthoplex_bound, levenshtein_margin_bound, kissing_margin_bound)
    fewer = (c for c in known_codes() if c.feature_dim >= feature_dim and c.num_classes <= num_classes)
    return min([rule(num_classes, feature_dim) for rule in rules] + [c.proven for c in fewer if c.proven is not None])


def _inherited(num_classes: int, feature_dim: int) -> tuple[float, str]:
    """Best single code at least as large in no more dimensions, and its name; margin 0 where there is none."""
    for code in known_codes():
        if code.num_classes >= num_classes and code.feature_dim <= feature_dim:
            same = (code.feature_dim, code.num_classes) == (feature_dim, num_classes)
            return (code.margin, code.source if same else f"inherited from {code.size}: {code.source}")
    return 0.0, ""


def _direct_sum(num_classes: int, feature_dim: int) -> tuple[float, str]:
    """Best code made of several on orthogonal subspaces: the largest margin at which their sizes add up to K."""
    margins = sorted({min(code.margin, 1.0) for code in known_codes()}, reverse=True)
    fits = lambda margin: _most_classes(feature_dim, margin)[0][feature_dim] >= num_classes
    at = bisect.bisect_left(margins, True, key=fits)  # the first margin that is small enough
    return (margins[at], _parts(feature_dim, margins[at])) if at < len(margins) else (0.0, "")


@functools.lru_cache(maxsize=4096)
def _most_classes(feature_dim: int, margin: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """By dimension 0..feature_dim: most rows at this margin, and the width of the first part (its own: no sum)."""
    single = np.zeros(feature_dim + 1, dtype=np.int64)
    for code in known_codes():
        if code.margin < margin:
            break
        if code.feature_dim <= feature_dim:
            single[code.feature_dim] = max(single[code.feature_dim], code.num_classes)
    most = np.maximum.accumulate(single)
    first = np.arange(feature_dim + 1)
    for dim in range(2, feature_dim + 1):
        sums = most[1 : dim // 2 + 1] + most[dim - 1 : (dim - 1) // 2 : -1]
        part = int(np.argmax(sums))
        if sums[part] > most[dim]:
            most[dim], first[dim] = sums[part], part + 1
    return tuple(most.tolist()), tuple(first.tolist())


def _parts(feature_dim: int, margin: float) -> str:
    """The parts of a direct sum as `direct sum of 2 x (d=8, K=240), ...`."""
    most, first = _most_classes(feature_dim, margin)
    sizes: dict[str, int] = {}
    waiting = [feature_dim]
    while waiting:
        dim = waiting.pop()
        if first[dim] != dim:
            waiting += [first[dim], dim - first[dim]]
        elif dim:
            name = f"(d={dim}, K={most[dim]})"
            sizes[name] = sizes.get(name, 0) + 1
    return "direct sum of " + ", ".join(f"{count} x {name}" for name, count in sizes.items())
