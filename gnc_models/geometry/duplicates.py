"""Rows that are the same, or nearly: what decides a smallest margin before any is searched, and how spread rows are.
Knows torch; does not know classes, margins or files. No matrix of all pairs is ever held."""

from fractions import Fraction

import torch
from torch import Tensor

from gnc_models.geometry.pairwise import unit
from gnc_models.shapes import Float, Int

PROJECTED = 32  # dimensions in which pairs are looked at first
TILE_ENTRIES = 1 << 22


def same_rows(rows: Float[Tensor, "rows dim"], *, directions: bool = True) -> list[list[int]]:
    """Groups of at least two rows that are exactly the same, in the order of their first rows.
    With `directions` rows that differ by a positive factor are the same, in exact arithmetic; zeros are in no group."""
    largest = rows.abs().amax(1, keepdim=True)
    # equal quotients round to the same float, so rows of one direction have equal keys; the converse is checked
    keys = (rows / torch.where(largest == 0, 1.0, largest) if directions else rows) + 0.0  # no zero with a sign
    bits = keys.contiguous().view(torch.int64)
    factors = torch.randint(-(1 << 62), 1 << 62, (rows.shape[1],), generator=torch.Generator().manual_seed(0)) | 1
    hashed = (bits * factors.to(bits.device)).sum(1)  # wraps around
    _, which, counts = hashed.unique(return_inverse=True, return_counts=True)
    candidates = ((counts[which] > 1) & ((largest[:, 0] > 0) | (not directions))).nonzero()[:, 0]
    alike = _grouped(candidates, which[candidates])
    return sorted(group for members in alike for group in _exact_groups(rows, bits, members, directions))


def _exact_groups(rows: Tensor, bits: Tensor, members: list[int], directions: bool) -> list[list[int]]:
    """The members split into groups that are the same beyond doubt."""
    groups = []
    while len(members) > 1:
        first = members[0]
        equal = (bits[members] == bits[first]).all(1).tolist()
        same = [row for row, is_equal in zip(members, equal, strict=True) if is_equal]
        same = [row for row in same if not directions or _is_parallel(rows[first], rows[row])]
        members = [row for row in members if row not in set(same)]
        groups += [same] if len(same) > 1 else []
    return groups


def _is_parallel(one: Tensor, other: Tensor) -> bool:
    """Whether two rows with the same rounded quotients by their largest entries are a positive multiple of each other."""
    if torch.equal(one, other):
        return True
    at = int(one.abs().argmax())
    left, right = one * other[at], other * one[at]
    narrow = all(torch.equal(x.float().double(), x) for x in (one, other))
    if narrow and float(left.abs().max()) < 1e280 and float(left[left != 0].abs().min()) > 1e-280:
        return torch.equal(left, right)  # products of two float32 are exact in float64
    first, second = Fraction(float(one[at])), Fraction(float(other[at]))
    return all(Fraction(x) * second == Fraction(y) * first for x, y in zip(one.tolist(), other.tolist(), strict=True))


def near_rows(unit_rows: Float[Tensor, "rows dim"], *, cosine: float) -> list[list[int]]:
    """Groups of unit rows that chains of pairs with a cosine above `cosine` (to 1e-14) join, largest first."""
    count, most = len(unit_rows), 2.0 - 2.0 * cosine
    seen = _projected(unit_rows)  # a projection shortens every difference, so no pair is overlooked
    half = seen.square().sum(1) / 2
    labels = torch.arange(count, device=unit_rows.device)  # the first row of each row's group
    for first in range(0, count, max(1, TILE_ENTRIES // count)):
        part = slice(first, first + max(1, TILE_ENTRIES // count))
        # |x - y|^2 / 2 in float32, of which 1e-5 may be rounding
        apart = torch.addmm(half[first:], seen[part], seen[first:].T, alpha=-1).add_(half[part].unsqueeze(1))
        close = (apart.fill_diagonal_(torch.inf).amin(1) <= most / 2 + 1e-5).nonzero()[:, 0]
        left, right = (apart[close] <= most / 2 + 1e-5).nonzero().unbind(1)
        left, right = close[left] + first, right + first
        open_pairs = torch.stack([left, right], 1)[(left < right) & (labels[left] != labels[right])]
        for pairs in torch.split(open_pairs, max(1, TILE_ENTRIES // unit_rows.shape[1])):
            labels = _joined(labels, pairs[(unit_rows[pairs[:, 0]] * unit_rows[pairs[:, 1]]).sum(1) > cosine])
    _, labels, counts = labels.unique(return_inverse=True, return_counts=True)
    members = (counts[labels] > 1).nonzero()[:, 0]
    return sorted(_grouped(members, labels[members]), key=lambda group: (-len(group), group))


def _joined(labels: Int[Tensor, " rows"], pairs: Int[Tensor, "pairs 2"]) -> Int[Tensor, " rows"]:
    """The first row of each row's group once these pairs are in one group each, from those of the groups before."""
    before = None
    while before is None or not torch.equal(labels, before):
        before, ends = labels, labels[pairs]  # first rows, which have themselves as labels
        lowest = ends.amin(1, keepdim=True).expand_as(ends)
        labels = labels.scatter_reduce(0, ends.reshape(-1), lowest.reshape(-1), "amin")
        while not torch.equal(labels, onward := labels[labels]):
            labels = onward
    return labels


def _projected(unit_rows: Tensor) -> Float[Tensor, "rows few"]:
    """Float32 coordinates in the few orthonormal directions in which the rows spread most, or all where these are few."""
    rows = unit_rows - unit_rows.mean(0)
    if rows.shape[1] <= 2 * PROJECTED:
        return rows.float()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(rows.shape[1], PROJECTED, generator=generator, dtype=torch.float64).to(rows.device)
    for _ in range(2):
        start = torch.linalg.qr(rows.T @ (rows @ start)).Q
    return (rows @ start).float()


def _grouped(rows: Int[Tensor, " some"], keys: Int[Tensor, " some"]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for row, key in zip(rows.tolist(), keys.tolist(), strict=True):
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def spread(rows: Float[Tensor, "rows dim"]) -> float:
    """`dim` times the mean squared cosine over all pairs of rows; at least `welch_floor`, and 1 for random directions.
    A row of zeros counts as orthogonal to all. Source: Welch, IEEE Trans. Inf. Theory 20 (1974)."""
    directions = unit(rows)
    moments = directions.T @ directions
    count = len(rows)
    own = float(directions.square().sum(1).square().sum())
    return rows.shape[1] * (float(moments.square().sum()) - own) / (count * (count - 1))


def welch_floor(num_rows: int, dim: int) -> float:
    return max(0.0, (num_rows - dim) / (num_rows - 1))
