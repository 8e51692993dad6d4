"""The best code of K rows in d dimensions that this project knows or finds, and the recipes of found codes."""

import functools
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch

from gnc_models.codes.code import Code, explicit_code
from gnc_models.codes.search import optimise_code, random_codes, relax_rows
from gnc_models.codes.unconstrained_features import code_from_optimum
from gnc_models.constructions.explicit import layer
from gnc_models.constructions.words import signed_words
from gnc_models.references.closed_forms import check_sizes
from gnc_models.references.layered_codes import layered_points
from gnc_models.references.margin import reference_margin
from gnc_models.references.tables import best_code_version, read_table
from gnc_models.user_cache import read_or_make

MOST_ANNEALED = 1000  # rows up to which all cosines of a few starts are annealed; beyond, neighbours are pushed apart
MOST_RELAXED = 20_000  # rows up to which that stays within a few minutes
SHORTFALL = 1e-6  # a code this near the reference is not searched for again; tables carry six decimals


@functools.lru_cache(maxsize=8)
def best_code(num_classes: int, feature_dim: int) -> Code:
    """The best code of this size that is known or can be found: explicit, found before, or optimised now.
    The first of them that reaches the reference is returned, else the best of all. Fixed starts and seeds make it
    deterministic on one machine. It depends on the tables of codes, so `tables.best_code_version` is part of the key of
    a trial whose rows are fixed at it; the rows lie in the user's cache under that version.
    Args:
        num_classes, feature_dim: K and d, each at least 2.
    Returns:
        K unit rows in float64 with their certain margin. The first call takes up to a minute of one core for a few
        hundred rows, minutes up to 20,000; beyond, without an explicit code, the rows are random.
    Raises:
        ValueError: fewer than two classes or two dimensions."""
    check_sizes(num_classes, feature_dim, least_dim=2)

    def pick(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if arrays["points"].shape != (num_classes, feature_dim):
            raise ValueError("a code of another size")
        return arrays["points"]

    name = f"best-code-{num_classes}-{feature_dim}-{best_code_version()}"
    make = lambda: {"points": _best_found(num_classes, feature_dim).points.numpy()}
    return Code.of(torch.from_numpy(read_or_make(name, make=make, pick=pick)))


def _best_found(num_classes: int, feature_dim: int) -> Code:
    """The best of the explicit, found, searched and layered codes; each is made only if those before fall short."""
    target = reference_margin(num_classes, feature_dim).lower - SHORTFALL
    best: Code | None = None
    for make in (explicit_code, _found_code, _searched_code, _layered_code):
        code = make(num_classes, feature_dim)
        if code is not None and (best is None or code.margin_lower > best.margin_lower):
            best = code
        if best is not None and best.margin_lower >= target:
            break
    assert best is not None, "the search always gives a code"
    return best


def _found_code(num_classes: int, feature_dim: int) -> Code | None:
    """The best of the codes found before with at least K rows in at most d dimensions, cut and padded."""
    fits = lambda row: int(row["num_classes"]) >= num_classes and int(row["feature_dim"]) <= feature_dim
    if not (fitting := list(filter(fits, read_table("found_codes.csv")))):
        return None
    points = make_found_code(max(fitting, key=lambda row: float(row["margin"]))).points[:num_classes]
    return Code.of(torch.nn.functional.pad(points, (0, feature_dim - points.shape[1])))


def _searched_code(num_classes: int, feature_dim: int) -> Code:
    """A code optimised now, at a cost that is bounded by its size."""
    if num_classes <= MOST_ANNEALED:
        starts = max(1, min(16, 60_000_000 // (num_classes**2 * (feature_dim + 16))))
        return optimise_code(num_classes, feature_dim, starts=starts, polish=num_classes * feature_dim <= 500)
    rows = random_codes(num_classes, feature_dim, starts=1, seed=0)[0]
    return Code.of(relax_rows(rows) if num_classes <= MOST_RELAXED else rows)


def _layered_code(num_classes: int, feature_dim: int) -> Code | None:
    return Code.of(torch.from_numpy(layered_points(num_classes, feature_dim))) if feature_dim > 2 else None


def make_found_code(row: dict[str, str]) -> Code:
    """A code made again from its row of `data/found_codes.csv`; ValueError for a method without a recipe here."""
    size = int(row["num_classes"]), int(row["feature_dim"])
    starts, seed = int(row["starts"]), int(row["seed"])
    name, _, inside = row["method"].partition("(")  # name(1;2)
    arguments = [float(x) for x in re.split("[;)]", inside) if x]
    recipes: dict[str, Callable[[], Code]] = {
        "optimise_code": lambda: optimise_code(*size, starts=starts, seed=seed),
        "from_optimum": lambda: code_from_optimum(*size, arguments[0], starts=starts, seed=seed),
        "layer": lambda: Code.of(torch.from_numpy(layer(*map(int, arguments[:2]), *arguments[2:]))),
        "signed_words": lambda: Code.of(torch.from_numpy(signed_words(*map(int, arguments), tries=starts, seed=seed))),
    }
    if name not in recipes:
        raise ValueError(f"method must be one of {sorted(recipes)}, got {row['method']!r}.")
    return recipes[name]()
