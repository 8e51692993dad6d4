"""Codes that can be written down: polygons, root systems, the Leech lattice and what derives from it, binary families.

Knows numpy; does not know torch or optimisation. Each constructor returns rows of any common length; their cosines
are verified by the tests, not assumed.
"""

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "classes dim"]
GOLDEN = (1 + math.sqrt(5)) / 2

# Primitive polynomials over GF(2) by degree, as bits.
PRIMITIVE = {3: 0b1011, 4: 0b10011, 5: 0b100101, 6: 0b1000011, 7: 0b10001001, 8: 0b100011101, 9: 0b1000010001}


def polygon(num_classes: int) -> Points:
    """Regular polygon in two dimensions."""
    angles = 2 * math.pi * np.arange(num_classes) / num_classes
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def simplex(num_classes: int) -> Points:
    """K equiangular rows in K - 1 dimensions, cosine -1/(K-1)."""
    centred = np.eye(num_classes) - 1.0 / num_classes
    # rows of the centred identity span K - 1 dimensions: drop the last by an orthonormal basis of that span
    basis = np.linalg.svd(centred)[2][: num_classes - 1]
    return centred @ basis.T


def orthoplex(feature_dim: int) -> Points:
    """The 2 d vectors of plus and minus the axes."""
    return np.concatenate([np.eye(feature_dim), -np.eye(feature_dim)])


def icosahedron() -> Points:
    """12 vertices, cosine 1/sqrt(5)."""
    base = [(0.0, a, b * GOLDEN) for a in (1, -1) for b in (1, -1)]
    return np.array([np.roll(v, shift) for v in base for shift in range(3)])


def cell_24() -> Points:
    """24 vertices in four dimensions, the roots of D4, cosine 1/2."""
    return _two_nonzero(4)


def cell_600() -> Points:
    """120 vertices in four dimensions, cosine (1 + sqrt(5)) / 4."""
    even = [p for p in itertools.permutations(range(4)) if _is_even(p)]
    signs = itertools.product((0.5, -0.5), repeat=3)
    mixed = [np.array([a * GOLDEN, b, c / GOLDEN, 0.0])[list(p)] for a, b, c in signs for p in even]
    halves = list(itertools.product((0.5, -0.5), repeat=4))
    return np.concatenate([orthoplex(4), np.array(halves), np.array(mixed)])


def e8_roots() -> Points:
    """240 minimal vectors of E8, cosine 1/2."""
    halves = [v for v in itertools.product((0.5, -0.5), repeat=8) if sum(v) % 2 == 0]
    return np.concatenate([_two_nonzero(8), np.array(halves)])


def leech_vectors() -> Points:
    """196,560 minimal vectors of the Leech lattice, cosine 1/2."""
    words = golay_words()
    octads = words[words.sum(1) == 8]
    signs = np.array([s for s in itertools.product((1, -1), repeat=8) if math.prod(s) == 1])
    eights = np.zeros((len(octads), len(signs), 24))
    for row, octad in zip(eights, octads, strict=True):
        row[:, octad == 1] = 2 * signs
    odd = np.repeat((1.0 - 2.0 * words)[:, None, :], 24, axis=1)
    odd[:, np.arange(24), np.arange(24)] *= -3
    return np.concatenate([4 * _two_nonzero(24), eights.reshape(-1, 24), odd.reshape(-1, 24)])


@functools.cache
def golay_words() -> np.ndarray:
    """The 4,096 words of the extended Golay code, from quadratic residues modulo 23."""
    residues = {(i * i) % 23 for i in range(1, 23)}
    circulant = np.array([[1 if (j - i) % 23 in residues else 0 for j in range(23)] for i in range(23)])
    generators = np.concatenate([circulant, circulant.sum(1, keepdims=True) % 2], axis=1)[:12]
    choices = np.array(list(itertools.product((0, 1), repeat=12)))
    return (choices @ generators) % 2


def derived(points: Points, cosine: float) -> Points:
    """Rows at this cosine from the first one, projected off it and written in one dimension less."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return _flat(unit[np.abs(unit @ unit[0] - cosine) < 1e-9], unit[:1])


def equiangular_276() -> Points:
    """552 rows, 276 lines in 23 dimensions: Leech vectors at inner product 3 with a vector of the next norm, 6."""
    leech = leech_vectors() / math.sqrt(8)
    # the sum of two minimal vectors (norm 4) at inner product -1 has norm 6
    second = leech[np.abs(leech @ leech[0] + 1) < 1e-9][0]
    centre = leech[0] + second
    return _flat(leech[np.abs(leech @ centre - 3) < 1e-9], centre[None])


def higman_sims() -> Points:
    """100 vertices of the Higman-Sims graph in its 22-dimensional eigenspace, cosine 1/11."""
    words = golay_words()
    hexads = words[(words.sum(1) == 8) & (words[:, 0] == 1) & (words[:, 1] == 1)][:, 2:]
    graph = np.zeros((100, 100))
    graph[0, 1:23] = 1
    graph[1:23, 23:] = hexads.T
    graph[23:, 23:] = hexads @ hexads.T == 0
    graph = np.maximum(graph, graph.T)
    values, vectors = np.linalg.eigh(graph)
    return vectors[:, np.abs(values + 8) < 1e-6]


def leech_section(feature_dim: int) -> Points:
    """Leech vectors orthogonal to 24 - d chosen ones: the laminated lattices' kissing arrangements, cosine 1/2."""
    leech = leech_vectors().astype(np.int16)
    normals: list[np.ndarray] = []
    rng = np.random.default_rng(0)
    while len(normals) < 24 - feature_dim:
        # of some candidates, cut by the one that leaves most
        candidates = leech[rng.integers(0, len(leech), 40)] if normals else leech[:1]
        left = [(int((leech @ c == 0).sum()), i) for i, c in enumerate(candidates) if (leech @ c != 0).any()]
        chosen = candidates[max(left)[1]]
        normals.append(chosen)
        leech = leech[leech @ chosen == 0]
    return _flat(leech.astype(float), np.array(normals, dtype=float))


def kerdock(bits: int) -> Points:
    """d = 2^bits (bits even, at least 4), d (d + 2) rows with cosine 1/sqrt(d).

    All signs of the axes and of (-1)^(Q_a + affine), Q_a(x, e) = sum_i Tr((a x)^(2^i + 1)) + e Tr(a x).
    """
    field = bits - 1
    power, trace = _field(field)
    rows = []
    for a in range(1 << field):
        product = _multiples(field, a)
        form = sum(trace[power(product, (1 << i) + 1)] for i in range(1, (field - 1) // 2 + 1)) % 2
        rows.append(np.concatenate([form, (form + trace[product]) % 2]))
    return np.concatenate([orthoplex(1 << bits), _with_affine(np.array(rows), bits) / math.sqrt(1 << bits)])


def gold(bits: int) -> Points:
    """d = 2^bits - 1 (bits odd), 4^bits rows (-1)^Tr(a x + b x^3), cosine (2^((bits+1)/2) - 1) / d."""
    power, trace = _field(bits)
    x = np.arange(1, 1 << bits)
    linear = np.array([trace[_multiples(bits, a)[x]] for a in range(1 << bits)])
    cubic = linear[:, power(x, 3) - 1]
    return 1.0 - 2.0 * ((linear[:, None] + cubic[None]) % 2).reshape(-1, len(x))


def extended_gold(bits: int) -> Points:
    """d = 2^bits, 2 * 4^bits rows (-1)^(Tr(b x^3) + affine), cosine 2^((bits+1)/2) / d for odd bits."""
    power, trace = _field(bits)
    cubes = power(np.arange(1 << bits), 3)
    return _with_affine(np.array([trace[_multiples(bits, b)[cubes]] for b in range(1 << bits)]), bits)


def _with_affine(forms: np.ndarray, bits: int) -> Points:
    """Signs of every form plus every affine function of `bits` bits."""
    x = np.arange(1 << bits)
    parity = np.array([[bin(int(a & b)).count("1") % 2 for b in x] for a in x])
    signs = (1.0 - 2.0 * forms)[:, None] * (1.0 - 2.0 * parity)[None]
    flat = signs.reshape(-1, 1 << bits)
    return np.concatenate([flat, -flat])


def _field(bits: int) -> tuple[Callable[[np.ndarray, int], np.ndarray], np.ndarray]:
    """GF(2^bits): elementwise powers, and the trace of every element."""
    exponents, logs = _logarithms(bits)
    order = (1 << bits) - 1

    def power(elements: np.ndarray, exponent: int) -> np.ndarray:
        return np.where(elements == 0, 0, exponents[(logs[elements] * exponent) % order])

    everything = np.arange(1 << bits)
    trace = np.zeros_like(everything)
    for i in range(bits):
        trace ^= power(everything, 1 << i)
    return power, trace


@functools.cache
def _logarithms(bits: int) -> tuple[np.ndarray, np.ndarray]:
    exponents, logs = np.zeros((1 << bits) - 1, dtype=np.int64), np.zeros(1 << bits, dtype=np.int64)
    value = 1
    for i in range(len(exponents)):
        exponents[i], logs[value] = value, i
        value <<= 1
        if value >> bits:
            value ^= PRIMITIVE[bits]
    return exponents, logs


def _multiples(bits: int, factor: int) -> np.ndarray:
    """factor * x for every x of the field."""
    exponents, logs = _logarithms(bits)
    x = np.arange(1 << bits)
    if factor == 0:
        return np.zeros_like(x)
    return np.where(x == 0, 0, exponents[(logs[x] + logs[factor]) % len(exponents)])


def _two_nonzero(dim: int) -> Points:
    """All vectors with two entries +-1 and zeros: the roots of D_n."""
    rows = np.zeros((2 * dim * (dim - 1), dim))
    places = [(i, j, a, b) for i, j in itertools.combinations(range(dim), 2) for a in (1, -1) for b in (1, -1)]
    for row, (i, j, a, b) in zip(rows, places, strict=True):
        row[i], row[j] = a, b
    return rows


def _is_even(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0


def _flat(points: Points, normals: Points) -> Points:
    """Coordinates of the rows within the orthogonal complement of the normals."""
    basis = np.linalg.svd(normals, full_matrices=True)[2][len(normals) :]
    return points @ basis.T


# name -> (feature_dim, num_classes, constructor); parametric families are listed at the sizes that fit in memory.
FAMILIES: dict[str, tuple[int, int, Callable[[], Points]]] = {
    "icosahedron": (3, 12, icosahedron),
    "24-cell": (4, 24, cell_24),
    "600-cell": (4, 120, cell_600),
    "half 5-cube": (5, 16, lambda: derived(derived(derived(e8_roots(), 0.5), 1 / 3), 1 / 4)),
    "Schlaefli": (6, 27, lambda: derived(derived(e8_roots(), 0.5), 1 / 3)),
    "28 equiangular lines": (7, 56, lambda: derived(e8_roots(), 0.5)),
    "E8 roots": (8, 240, e8_roots),
    "McLaughlin subconstituent": (21, 112, lambda: derived(derived(equiangular_276(), 1 / 5), -1 / 4)),
    "McLaughlin neighbours": (21, 162, lambda: derived(derived(equiangular_276(), 1 / 5), 1 / 6)),
    "Higman-Sims": (22, 100, higman_sims),
    "McLaughlin": (22, 275, lambda: derived(equiangular_276(), 1 / 5)),
    "Leech neighbours twice": (22, 891, lambda: derived(derived(leech_vectors(), 0.5), 1 / 3)),
    "276 equiangular lines": (23, 552, equiangular_276),
    "Leech neighbours": (23, 4600, lambda: derived(leech_vectors(), 0.5)),
    "Leech": (24, 196560, leech_vectors),
    "Kerdock 16": (16, 288, lambda: kerdock(4)),
    "Kerdock 64": (64, 4224, lambda: kerdock(6)),
    "Gold 31": (31, 1024, lambda: gold(5)),
    "Gold 127": (127, 16384, lambda: gold(7)),
    "extended Gold 32": (32, 2048, lambda: extended_gold(5)),
    "extended Gold 128": (128, 32768, lambda: extended_gold(7)),
}
