"""Codes in layers: circles of latitude, each filled with a code of one dimension less, down to polygons.
A lower bound of rho*(d, K) for every K: "apple peeling" of El Gamal et al., IEEE Trans. Inf. Theory 33 (1987)."""

import functools
import math
from collections.abc import Iterator

import numpy as np

from gnc_models.constructions.explicit import polygon
from gnc_models.references.closed_forms import levenshtein_margin_bound
from gnc_models.shapes import Float

MOST_DIMS = 12  # beyond, codes of words are better at nearly every size that fits in memory
OFFSETS = (0.0, 0.5)  # of the layers in units of their distance: one on the equator, or the equator between two
# Angles that are tried: pi / RATIO^i. The same for every size, since then more rows never have a larger margin.
RATIO = 1.0025
AT_ONCE = 12


def layered_margin(num_classes: int, feature_dim: int) -> float:
    """Margin of the layered code of this size, d at least 3, rounded down by 1e-12; that of 12 dimensions in more.
    Falls in K and rises in d. The first call for a dimension takes seconds at 100,000 classes, less with fewer."""
    return max(0.0, 2 * _sine(num_classes, min(feature_dim, MOST_DIMS)) ** 2 - 1e-12)


def layered_points(num_classes: int, feature_dim: int) -> Float[np.ndarray, "classes dim"]:
    """Unit rows of the layered code of this size; see `layered_margin`."""
    dim = min(feature_dim, MOST_DIMS)
    return np.pad(_fill(_sine(num_classes, dim), dim)[:num_classes], ((0, 0), (0, feature_dim - dim)))


def _sine(num_classes: int, feature_dim: int) -> float:
    """Sine of half of the largest angle tried at which so many rows fit, from no code's angle down."""
    largest = math.acos(1 - min(2.0, levenshtein_margin_bound(num_classes, feature_dim)))
    part = int(math.log(math.pi / largest) / math.log(RATIO)) // AT_ONCE
    while (fitting := _fitting(feature_dim, part))[-1] < num_classes:
        part += 1
    return float(_tried(part)[next(i for i, rows in enumerate(fitting) if rows >= num_classes)])


def _tried(part: int) -> Float[np.ndarray, " tried"]:
    """Sines of half of some angles that are tried, falling."""
    return np.sin(math.pi / 2 * RATIO ** -(AT_ONCE * part + np.arange(AT_ONCE, dtype=float)))


@functools.cache
def _fitting(feature_dim: int, part: int) -> tuple[float, ...]:
    """How many rows fit at each of these angles or at a larger one of them."""
    return tuple(np.maximum.accumulate(_count(_tried(part), feature_dim)).tolist())


def _count(sines: Float[np.ndarray, " _"], feature_dim: int) -> Float[np.ndarray, " _"]:
    """How many rows fit at each angle, given by the sine of its half: that of the better offset, at every layer."""
    if feature_dim == 2:
        return np.floor(math.pi / np.arcsin(sines) + 1e-12)
    return np.maximum(*(_count_layers(sines, feature_dim, offset) for offset in OFFSETS))


def _count_layers(sines: Float[np.ndarray, " _"], feature_dim: int, offset: float) -> Float[np.ndarray, " _"]:
    latitudes, inner = _northern_layers(sines, offset)
    rows = np.where(np.isnan(inner), 0.0, 1.0)  # a layer too near to the pole for two rows holds one
    wide = inner <= 1
    if wide.any():
        rows[wide] = _count(inner[wide], feature_dim - 1)
    return (rows * np.where(latitudes > 0, 2.0, 1.0)).sum(1)


def _northern_layers(
    sines: Float[np.ndarray, " _"], offset: float
) -> tuple[Float[np.ndarray, "_ layers"], Float[np.ndarray, "_ layers"]]:
    """Latitudes from the equator to the pole, and the sine of half the angle within each layer; nan beyond the pole."""
    angles = 2 * np.arcsin(sines)
    latitudes = (np.arange(int(math.pi / 2 / angles.min() + 1)) + offset) * angles[:, None]
    inner = sines[:, None] / np.maximum(np.cos(latitudes), 1e-300)
    return latitudes, np.where(latitudes <= math.pi / 2 + 1e-12, inner, np.nan)


def _fill(sine: float, feature_dim: int) -> Float[np.ndarray, "_ dim"]:
    """The rows that `_count` counts."""
    if feature_dim == 2:
        return polygon(int(_count(np.array([sine]), 2)[0]))
    return max((np.concatenate(list(_layers(sine, feature_dim, offset))) for offset in OFFSETS), key=len)


def _layers(sine: float, feature_dim: int, offset: float) -> Iterator[Float[np.ndarray, "_ dim"]]:
    latitudes, inner = _northern_layers(np.array([sine]), offset)
    for latitude, within in zip(latitudes[0].tolist(), inner[0].tolist(), strict=True):
        if math.isnan(within):
            continue
        rows = _fill(within, feature_dim - 1) if within <= 1 else np.eye(1, feature_dim - 1)
        for side in (1, -1) if latitude else (1,):
            height = np.full((len(rows), 1), side * math.sin(latitude))
            yield np.concatenate([math.cos(latitude) * rows, height], axis=1)
