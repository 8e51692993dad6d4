"""Structured codes of several shapes at one cosine: signed words, binary words as signs, and axes, as far as they fit.

Knows numpy; does not know torch or optimisation. No single shape has enough rows between the sizes of root systems; the
rows of another shape often fit into the holes of the first.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from gnc_models.constructions.words import signed_words

Rows = Float[np.ndarray, "_ _"]
LARGEST_CHOICE = 6_000  # supports of signed words that are enumerated
SHAPES = ((2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3), (6, 2), (6, 3), (7, 3), (8, 4))


@functools.cache
def binary_words(length: int, distance: int) -> Rows:
    """The lexicode of this length and least distance as rows of equal entries up to sign; cosine 1 - 2 distance/length.

    Greedy in the order of the numbers 0, 1, 2, ..., which makes a linear code: shortened extended Hamming codes at
    distance 4, first-order Reed and Muller codes at half the length.
    Source: Conway and Sloane, IEEE Trans. Information Theory 32 (1986).
    """
    ones = np.array([i.bit_count() for i in range(1 << length)], dtype=np.int8)
    code = np.zeros(1, dtype=np.int64)
    far = ones >= distance  # words far enough from all words so far
    while far.any():
        new = int(np.argmax(far))
        for word in code ^ new:
            far &= ones[np.arange(1 << length) ^ word] >= distance
        code = np.concatenate([code, code ^ new])
    bits = code[:, None] >> np.arange(length) & 1
    return (1.0 - 2.0 * bits) / math.sqrt(length)


def mixed_codes(feature_dim: int, least: float, most: float, *, seed: int = 0) -> Iterator[Rows]:
    """Codes whose 1 - max cosine lies between `least` and `most`: each shape in turn, with all that fits beside it."""
    shapes = _shapes(feature_dim, seed)
    margins = sorted({round(margin, 9) for margin, _ in shapes if least <= margin <= most}, reverse=True)
    for margin in margins:
        fitting = [rows for own, rows in shapes if own >= margin - 1e-9]
        for first in sorted(fitting, key=len, reverse=True)[:3]:
            code = first
            for rows in sorted(fitting, key=len, reverse=True):
                beside = (rows @ code.T).max(1) <= 1 - margin + 1e-9
                code = np.concatenate([code, rows[beside]])
            yield code


def _shapes(feature_dim: int, seed: int) -> list[tuple[float, Rows]]:
    """Margin and rows of every shape, axes among them."""
    shapes = [(1.0, np.concatenate([np.eye(feature_dim), -np.eye(feature_dim)]))]
    for weight, overlap in SHAPES:
        if math.comb(feature_dim, weight) in range(1, LARGEST_CHOICE):
            shapes.append((1 - overlap / weight, _words(feature_dim, weight, overlap, seed)))
    if feature_dim <= 16:
        shapes += [(2 * far / feature_dim, binary_words(feature_dim, far)) for far in range(2, feature_dim // 2 + 1)]
    return [(margin, rows) for margin, rows in shapes if len(rows)]


@functools.lru_cache(maxsize=64)
def _words(length: int, weight: int, overlap: int, seed: int) -> Rows:
    return signed_words(length, weight, overlap, tries=6, seed=seed)
