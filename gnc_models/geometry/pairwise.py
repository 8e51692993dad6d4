"""Quantities over all pairs of points, streamed in tiles: distances, energies, largest cosine, one-vs-rest scores.
Knows torch; does not know classes, features or classifiers. No matrix of all pairs is ever held."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gnc_models.shapes import Float, Int

EPS = torch.finfo(torch.float64).eps
TILE_ENTRIES = 1 << 18  # of one tile of scores or distances: 2 MiB in float64, which caches hold


def scaled(rows: Float[Tensor, "*shape"], exponents: Int[Tensor, "..."]) -> Float[Tensor, "*shape"]:
    """Float64 rows times 2^exponents: exact, but where the result is below the smallest normal number or overflows."""
    exponents = exponents.to(torch.int64)
    half = exponents // 2  # 2^exponents itself may overflow
    # powers from their bits: torch.ldexp makes them by `pow`, which need not be exact, and in float32 in some versions
    powers = [((part + 1023) << 52).view(torch.float64) for part in (half, exponents - half)]
    return rows * powers[0] * powers[1]


def row_norms(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
    """The length of each row in float64, at any scale."""
    exponents, near_one = _near_one(rows)
    return scaled(near_one.norm(dim=1), exponents[:, 0])


def unit(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Each row divided by its norm, in float64 and at any scale; a row of zeros stays zero.
    The result is within `(dim / 2 + 3)` half units in the last place of 1 from the exact direction."""
    _, rows = _near_one(rows)
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms == 0, 0.0, rows / norms)


def _near_one(rows: Tensor) -> tuple[Int[Tensor, "rows 1"], Float[Tensor, "rows dim"]]:
    """An exponent for each row, and the rows times 2^-exponent: squares of long or short rows overflow or vanish."""
    rows = rows.to(torch.float64)
    exponents = torch.frexp(rows.abs().amax(1, keepdim=True))[1]
    return exponents, scaled(rows, -exponents)


def tiles(num_rows: int, num_columns: int, entries: int | None = None) -> Iterator[slice]:
    """Slices of rows such that each tile of `num_columns` columns stays small: within so many entries."""
    height = max(1, (entries or TILE_ENTRIES) // num_columns)
    return (slice(start, min(start + height, num_rows)) for start in range(0, num_rows, height))


def squared_distances(points: Float[Tensor, "points dim"]) -> Iterator[tuple[slice, Float[Tensor, "rows points"]]]:
    """Squared distances of all pairs, tile by tile; infinite on the diagonal.
    Rows with a pair so close that `|x|^2 + |y|^2 - 2 <x, y>` cancels are computed from differences."""
    squares = points.square().sum(1)
    for rows in tiles(len(points), len(points)):
        scale = squares[rows].unsqueeze(1) + squares
        found = (scale - 2.0 * (points[rows] @ points.T)).scatter_(1, _own(rows, points), torch.inf)
        close = (found < 1e-6 * scale).any(1)
        if bool(close.any()):
            exact = torch.cdist(points[rows][close], points, compute_mode="donot_use_mm_for_euclid_dist").square()
            found[close] = exact.scatter_(1, _own(rows, points)[close], torch.inf)
        yield rows, found


def measure_energy(points: Float[Tensor, "points dim"], *, exponent: float = 0.0) -> tuple[float, float]:
    """Mean and variance over pairs of the Riesz kernel of their distance; not finite where two coincide and s >= 0.
    The kernel of exponent s is `r^-s` for s > 0, `log(1/r)` for s = 0 and `-r^-s` for s < 0.
    Source: Liu et al., arXiv 2303.06484 (hyperspherical energy)."""
    count, mean, deviation = 0, 0.0, 0.0
    for rows, squares in squared_distances(points):
        kernel = -squares.log() / 2 if exponent == 0 else squares.pow(-exponent / 2) * math.copysign(1.0, exponent)
        values = kernel[~torch.zeros_like(kernel, dtype=torch.bool).scatter_(1, _own(rows, points), True)]
        shift = float(values.mean()) - mean
        joined = count + len(values)
        deviation += float((values - values.mean()).square().sum()) + shift**2 * count * len(values) / joined
        mean, count = mean + shift * len(values) / joined, joined
    return mean, deviation / count


def max_cosine(unit_rows: Float[Tensor, "rows dim"]) -> float:
    """The largest cosine between two different rows of unit length, at most 1."""
    largest = -1.0
    for rows in tiles(len(unit_rows), len(unit_rows)):
        cosines = unit_rows[rows] @ unit_rows.T
        largest = max(largest, float(cosines.scatter_(1, _own(rows, unit_rows), -torch.inf).max()))
    return min(largest, 1.0)


def one_vs_rest_scores(
    directions: Float[Tensor, "directions dim"], classes: Int[Tensor, " directions"], rows: Float[Tensor, "classes dim"]
) -> Float[Tensor, " directions"]:
    """`min_j <w_y - w_j, h>` over the other classes j, for each direction h of class y."""
    least = torch.empty(len(directions), dtype=rows.dtype, device=rows.device)
    for tile in tiles(len(directions), len(rows)):
        scores = directions[tile] @ rows.T
        own = classes[tile].unsqueeze(1)
        score = scores.gather(1, own).squeeze(1)
        least[tile] = score - scores.scatter_(1, own, -torch.inf).amax(1)
    return least


def nearest_rows(points: Float[Tensor, "points dim"], rows: Float[Tensor, "rows dim"]) -> Int[Tensor, " points"]:
    centre = rows.mean(0)  # a common offset would cost digits
    rows = rows - centre
    half = rows.square().sum(1) / 2
    nearest = torch.empty(len(points), dtype=torch.int64, device=points.device)
    for tile in tiles(len(points), len(rows)):
        nearest[tile] = torch.addmm(-half, points[tile] - centre, rows.T).argmax(1)
    return nearest


def _own(rows: slice, points: Tensor) -> Int[Tensor, "rows 1"]:
    return torch.arange(rows.start, rows.stop, device=points.device).unsqueeze(1)
