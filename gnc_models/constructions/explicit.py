"""Codes that can be written down: polygons, root systems, the Leech lattice and what derives from it, by name.
Each constructor returns rows of any common length; the tests verify their cosines. Knows numpy, no optimisation."""

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from gnc_models.catalog.settings import check_choice
from gnc_models.constructions import binary, kissing
from gnc_models.constructions.binary import Points, golay_words, on_supports, signs
from gnc_models.constructions.kissing import two_nonzero

GOLDEN = (1 + math.sqrt(5)) / 2


def polygon(num_classes: int) -> Points:
    angles = 2 * math.pi * np.arange(num_classes) / num_classes
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def simplex(num_classes: int) -> Points:
    """K equiangular rows in K - 1 dimensions, cosine -1/(K-1)."""
    centred = np.eye(num_classes) - 1.0 / num_classes
    # rows of the centred identity span K - 1 dimensions: drop the last by an orthonormal basis of that span
    return centred @ np.linalg.svd(centred)[2][: num_classes - 1].T


def orthoplex(feature_dim: int) -> Points:
    """The 2 d vectors of plus and minus the axes."""
    return np.concatenate([np.eye(feature_dim), -np.eye(feature_dim)])


def optimal_points(num_classes: int, feature_dim: int) -> Points | None:
    """The best code in closed form, in at most d dimensions: simplex, polygon, part of an orthoplex; None elsewhere."""
    if num_classes <= feature_dim + 1:
        return simplex(num_classes)
    if feature_dim == 2:
        return polygon(num_classes)
    return orthoplex(feature_dim)[:num_classes] if num_classes <= 2 * feature_dim else None


def icosahedron() -> Points:
    """12 vertices, cosine 1/sqrt(5)."""
    base = [(0.0, a, b * GOLDEN) for a in (1, -1) for b in (1, -1)]
    return np.array([np.roll(v, shift) for v in base for shift in range(3)])


def cell_600() -> Points:
    """120 vertices in four dimensions, cosine (1 + sqrt(5)) / 4."""
    inversions = {p: sum(a > b for a, b in itertools.combinations(p, 2)) for p in itertools.permutations(range(4))}
    even = [list(p) for p, count in inversions.items() if count % 2 == 0]
    mixed = [np.array([a * GOLDEN, b, c / GOLDEN, 0.0])[p] for a, b, c in signs(3) / 2 for p in even]
    return np.concatenate([orthoplex(4), signs(4) / 2, np.array(mixed)])


def e8_roots() -> Points:
    """240 minimal vectors of E8, cosine 1/2."""
    return np.concatenate([two_nonzero(8), signs(8, product=1) / 2])


def e6_roots() -> Points:
    """72 minimal vectors of E6, cosine 1/2: the roots of E8 orthogonal to two of them at 120 degrees."""
    roots = e8_roots()
    normals = np.array([roots[0], roots[roots @ roots[0] == -1][0]])
    return _flat(roots[(roots @ normals.T == 0).all(1)], normals)


def leech_vectors() -> Points:
    """196,560 minimal vectors of the Leech lattice, cosine 1/2."""
    words = golay_words()
    eights = 2 * on_supports(words[words.sum(1) == 8], signs(8, product=1))
    odd = np.repeat((1.0 - 2.0 * words)[:, None, :], 24, axis=1)
    odd[:, np.arange(24), np.arange(24)] *= -3
    return np.concatenate([4 * two_nonzero(24), eights, odd.reshape(-1, 24)])


def derived(points: Points, cosine: float, row: int = 0) -> Points:
    """Rows at this cosine from one of the rows, projected off it and written in one dimension less."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return _flat(unit[np.abs(unit @ unit[row] - cosine) < 1e-5], unit[row : row + 1])


def layer(feature_dim: int, num_classes: int, *steps: float) -> Points:
    """Rows derived from the family of this size: a row and a cosine for each step, the cosine to six digits."""
    (points,) = (make_points(name) for name, size in FAMILIES.items() if size[:2] == (feature_dim, num_classes))
    for row, cosine in zip(steps[::2], steps[1::2], strict=True):
        points = derived(points, cosine, int(row))
    return points


def equiangular_276() -> Points:
    """552 rows, 276 lines in 23 dimensions: Leech vectors at inner product 3 with a vector of the next norm, 6."""
    leech = leech_vectors() / math.sqrt(8)
    # the sum of two minimal vectors (norm 4) at inner product -1 has norm 6
    centre = leech[0] + leech[np.abs(leech @ leech[0] + 1) < 1e-9][0]
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
    """Leech vectors of a d-dimensional section, 16 <= d <= 23: the laminated lattices' minimal vectors, cosine 1/2.
    The vectors supported on one octad are a copy of E8; the section is orthogonal to 24 - d dimensions of it.
    Source: Conway and Sloane, Sphere Packings, Lattices and Groups, chapter 6."""
    leech, words = leech_vectors(), golay_words()
    octad = words[words.sum(1) == 8][0]
    roots = leech[(leech * (1 - octad) == 0).all(1)]
    normals = _root_section(roots, np.flatnonzero(octad), 24 - feature_dim)
    section = leech[(np.abs(leech @ normals.T) < 1e-9).all(1)]
    return section @ np.linalg.svd(section.T @ section)[2][:feature_dim].T


def _root_section(roots: Points, places: np.ndarray, dim: int) -> Points:
    """Vectors that span A1, A2, A3, D4, D5, E6, E7 or E8 inside a copy of E8 on eight coordinates."""
    if dim in (3, 4, 5, 8):
        return np.eye(24)[places[:dim]]
    first = roots[0]
    angle = roots[(roots @ first) == -(first @ first) / 2][0]
    if dim in (1, 2):
        return np.array([first, angle])[:dim]
    others = np.array([first, angle])[: 8 - dim]
    return roots[(roots @ others.T == 0).all(1)]


def _flat(points: Points, normals: Points) -> Points:
    """Coordinates of the rows within the orthogonal complement of the normals."""
    return points @ np.linalg.svd(normals, full_matrices=True)[2][len(normals) :].T


# Rows of a section of the Leech lattice by its dimension.
LEECH_SECTIONS = dict(zip(range(16, 24), (4320, 5346, 7398, 10668, 17400, 27720, 49896, 93150), strict=True))
# name -> (feature_dim, num_classes, constructor); parametric families are listed at the sizes that fit in memory.
FAMILIES: dict[str, tuple[int, int, Callable[[], Points]]] = {
    "icosahedron": (3, 12, icosahedron),
    "24-cell": (4, 24, lambda: two_nonzero(4)),  # the roots of D4
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
    "Kerdock 16": (16, 288, lambda: binary.kerdock(4)),
    "Kerdock 64": (64, 4224, lambda: binary.kerdock(6)),
    "Gold 31": (31, 1024, lambda: binary.gold(5)),
    "Gold 127": (127, 16384, lambda: binary.gold(7)),
    "quadratic forms 64": (64, 65536, binary.quadratic_64),
    "extended Gold 32": (32, 2048, lambda: binary.extended_gold(5)),
    "extended Gold 128": (128, 32768, lambda: binary.extended_gold(7)),
}
# Kissing configurations of no lattice: name, dimensions, rows and constructor; references.margin reads the sizes.
KISSING: tuple[tuple[str, int, int, Callable[[], Points]], ...] = (
    ("E6 roots", 6, 72, e6_roots),
    ("Zinoviev and Ericson's kissing configuration", 13, 1154, kissing.thirteen),
    ("Cohn and Li's kissing configuration", 17, 5730, kissing.seventeen),
    ("bent hexagon of Cohn and Li's layout", 18, 8358, kissing.eighteen),
    ("odd Golay code of Ho", 19, 11948, lambda: kissing.odd_golay(19)),
    ("odd Golay code of Cohn and Li", 20, 19448, lambda: kissing.odd_golay(20)),
    ("odd Golay code of Cohn and Li", 21, 29768, lambda: kissing.odd_golay(21)),
)
FAMILIES |= {f"{name}, {dim} dimensions": (dim, size, make) for name, dim, size, make in KISSING}
FAMILIES |= {f"Leech section {d}": (d, k, functools.partial(leech_section, d)) for d, k in LEECH_SECTIONS.items()}


def make_points(name: str) -> Points:
    """Unit rows of a named family; ValueError lists the names where this is none of them."""
    check_choice("name", name, FAMILIES)
    points = FAMILIES[name][2]()
    return points / np.linalg.norm(points, axis=1, keepdims=True)
