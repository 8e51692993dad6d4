"""Codes from words: constant weight with signs on the supports, binary words as signs, and mixtures at one cosine.
Random starts never find them; between the sizes of root systems one shape often fits into another's holes."""

import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np

from gnc_models.constructions.binary import on_supports, signs
from gnc_models.shapes import Bool, Float, Int

Rows = Float[np.ndarray, "_ _"]
LARGEST_WORK = 20_000_000  # entries of the table of compatible orbits
LARGEST_CHOICE = 6_000  # supports of signed words that are enumerated
SHAPES = ((2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3), (6, 2), (6, 3), (7, 3), (8, 4))


def signed_words(
    length: int, weight: int, overlap: int, *, tries: int = 20, seed: int = 0
) -> Float[np.ndarray, "rows length"]:
    """Unit rows with `weight` equal entries up to sign, and cosine at most overlap / weight between any two.
    Supports share at most `overlap` places, at least weight - 4; they are unions of orbits under rotating blocks of
    places, found by randomised greedy choice, `tries` times for each block length. On each stand all signs, or the
    even ones where all would be too close. The axes are added where they are far enough from all others."""
    rng = np.random.default_rng(seed)
    supports: list[int] = []
    for block in range(2, length + 1):
        found = _best_union(_orbits(length, weight, overlap, block), length, overlap, tries, rng)
        supports = max(supports, found, key=len)
    words = np.array(supports, dtype=np.int64)[:, None] >> np.arange(length) & 1
    rows = on_supports(words, signs(weight, product=int(weight - 2 > overlap)) / weight**0.5)
    axes = [np.eye(length), -np.eye(length)] if weight**0.5 <= overlap and weight > 1 else []
    return np.concatenate([rows, *axes])


def _orbits(length: int, weight: int, overlap: int, block: int) -> list[Int[np.ndarray, " _"]]:
    """Orbits of supports, as bit masks, under rotating every full block of places; only those that fit together."""
    moved = [[_rotated(place, length, block, shift) for place in range(length)] for shift in range(block)]
    seen: set[int] = set()
    orbits = []
    for support in itertools.combinations(range(length), weight):
        mask = sum(1 << place for place in support)
        if mask in seen:
            continue
        orbit = {sum(1 << move[place] for place in support) for move in moved}
        seen |= orbit
        if all((a & b).bit_count() <= overlap for a, b in itertools.combinations(orbit, 2)):
            orbits.append(np.array(sorted(orbit)))
    return orbits


def _rotated(place: int, length: int, block: int, shift: int) -> int:
    """Places after the last full block stay where they are."""
    return place - place % block + (place % block + shift) % block if place < length - length % block else place


def _best_union(
    orbits: list[Int[np.ndarray, " _"]], length: int, overlap: int, tries: int, rng: np.random.Generator
) -> list[int]:
    """The largest union of compatible orbits that several randomised greedy runs find."""
    if not orbits or len(orbits) * sum(len(orbit) for orbit in orbits) > LARGEST_WORK:
        return []
    fits = _compatible(orbits, length, overlap)
    sizes = np.array([len(orbit) for orbit in orbits])
    best: list[int] = []
    for _ in range(max(1, min(tries, LARGEST_WORK // len(orbits) ** 2))):
        chosen, open_orbits = [], np.arange(len(orbits))
        while len(open_orbits):
            # the orbit that leaves most room, with noise so that runs differ
            room = fits[np.ix_(open_orbits, open_orbits)] @ sizes[open_orbits] + sizes[open_orbits]
            pick = open_orbits[np.argmax(room + 3 * sizes.max() * rng.random(len(room)))]
            chosen.append(pick)
            open_orbits = open_orbits[fits[pick][open_orbits] & (open_orbits != pick)]
        if sizes[chosen].sum() > len(best):
            best = np.concatenate([orbits[i] for i in chosen]).tolist()
    return best


def _compatible(orbits: list[Int[np.ndarray, " _"]], length: int, overlap: int) -> Bool[np.ndarray, "orbits orbits"]:
    """Whether two orbits fit together: by symmetry, one word of the first against all of the second is enough."""
    ones = np.array([mask.bit_count() for mask in range(1 << length)], dtype=np.int8)
    words = np.concatenate(orbits)
    first = np.cumsum([0, *(len(orbit) for orbit in orbits[:-1])])
    return np.maximum.reduceat(ones[words[first][:, None] & words[None, :]], first, axis=1) <= overlap


@functools.cache
def binary_words(length: int, distance: int) -> Rows:
    """The lexicode of this length and least distance as rows of equal entries up to sign; cosine 1 - 2 distance/length.
    Greedy in the order of the numbers 0, 1, 2, ..., which makes a linear code.
    Source: Conway and Sloane, IEEE Trans. Information Theory 32 (1986)."""
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


_words = functools.lru_cache(maxsize=64)(signed_words)


def mixed_codes(feature_dim: int, least: float, most: float, *, seed: int = 0) -> Iterator[Rows]:
    """Codes whose 1 - max cosine lies between `least` and `most`: each shape in turn, with all that fits beside it."""
    shapes = _shapes(feature_dim, seed)
    for margin in sorted({round(margin, 9) for margin, _ in shapes if least <= margin <= most}, reverse=True):
        fitting = [rows for own, rows in shapes if own >= margin - 1e-9]
        for first in sorted(fitting, key=len, reverse=True)[:3]:
            code = first
            for rows in sorted(fitting, key=len, reverse=True):
                code = np.concatenate([code, rows[(rows @ code.T).max(1) <= 1 - margin + 1e-9]])
            yield code


def _shapes(feature_dim: int, seed: int) -> list[tuple[float, Rows]]:
    """Margin and rows of every shape, axes among them."""
    shapes = [(1.0, np.concatenate([np.eye(feature_dim), -np.eye(feature_dim)]))]
    for weight, overlap in SHAPES:
        if math.comb(feature_dim, weight) in range(1, LARGEST_CHOICE):
            shapes.append((1 - overlap / weight, _words(feature_dim, weight, overlap, tries=6, seed=seed)))
    if feature_dim <= 16:
        shapes += [(2 * far / feature_dim, binary_words(feature_dim, far)) for far in range(2, feature_dim // 2 + 1)]
    return [(margin, rows) for margin, rows in shapes if len(rows)]
