"""Which characters can be told apart: one look-alike pair would decide the smallest margin of a whole study.

Two characters differ enough when in every face, and under every shift s of up to one pixel each way,
`|a - s(b)|^2 >= 0.06 max(|a|^2, |b|^2)` for their pictures a and b at the training resolution: at least 6 % of the
energy of the one with more ink. Shifts act inside a margin of blank pixels, so that none cuts a picture.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LEAST_DIFFERENCE = 0.06  # share of the larger energy

_SHIFTS = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1))
_COARSE = 12  # cells along the side of the pictures that the first, cheap test compares
_ROWS = 256  # pictures compared at once, so that intermediate results stay in the processor's cache


def distinct_characters(pictures: np.ndarray, resolution: int) -> np.ndarray:
    """Positions of the characters to keep: each is kept if it differs enough from all those kept before it.

    Args:
        pictures: ink as uint8 `[characters, faces, side, side]`; side a multiple of `resolution`.
        resolution: side in pixels at which they must differ.
    Returns:
        Ascending positions, int64.
    """
    similar = similar_characters(pictures, resolution)
    kept: list[int] = []
    open_still = np.ones(len(pictures), dtype=bool)
    for position in range(len(pictures)):
        if open_still[position]:
            kept.append(position)
            open_still &= ~similar[position]
    return np.array(kept, dtype=np.int64)


def similar_characters(pictures: np.ndarray, resolution: int) -> np.ndarray:
    """Which pairs differ too little in at least one face: bool `[characters, characters]`, symmetric, true for itself."""
    similar = np.eye(len(pictures), dtype=bool)
    for face in range(pictures.shape[1]):
        padded = _pool_with_margin(pictures[:, face], resolution)
        for first, second in _close_pairs(padded):
            verdict = _are_similar(padded[first], padded[second])
            similar[first[verdict], second[verdict]] = True
    return similar | similar.T


def _pool_with_margin(pictures: np.ndarray, resolution: int) -> Tensor:
    """Sums of ink at the resolution with one blank pixel all round: whole numbers, so that their products are exact."""
    count, side, _ = pictures.shape
    factor = side // resolution
    sums = functional.avg_pool2d(torch.from_numpy(pictures)[:, None].float(), factor, divisor_override=1)
    return functional.pad(sums.view(count, resolution, resolution), (1, 1, 1, 1))


def _shifted(padded: Tensor, shift: tuple[int, int]) -> Tensor:
    return padded.roll(shift, dims=(-2, -1))  # only blank pixels go round the edge


def _are_similar(first: Tensor, second: Tensor) -> Tensor:
    """The verdict on each pair of pictures `[pairs, side, side]`, in float64, where nothing is rounded."""
    first, second = first.double(), second.double()
    energy = torch.maximum(first.square().sum((1, 2)), second.square().sum((1, 2)))
    nearest = torch.full_like(energy, torch.inf)
    for shift in _SHIFTS:
        nearest = torch.minimum(nearest, (first - _shifted(second, shift)).square().sum((1, 2)))
    return nearest < LEAST_DIFFERENCE * energy


def _close_pairs(padded: Tensor) -> list[tuple[Tensor, Tensor]]:
    """All pairs that may be similar, in parts: two necessary conditions, with room for the rounding of float32.

    Norms first: |a - b| >= | |a| - |b| |, so of two similar pictures the lesser has most of the other's norm. Then
    distances of coarse pictures, never above the true ones, since averages over cells are a projection.
    """
    norms, order = padded.square().sum((1, 2)).sqrt().sort()
    coarse = [_coarse(_shifted(padded[order], shift)) for shift in _SHIFTS]
    still = coarse[_SHIFTS.index((0, 0))]
    # |b|^2 - 2 <a, b> as one product, of (-2 a, 1) and (b, |b|^2)
    left = torch.cat([-2 * still, torch.ones(len(still), 1)], dim=1)
    right = [torch.cat([moved, moved.square().sum(1, keepdim=True)], dim=1).T.contiguous() for moved in coarse]
    ends = torch.searchsorted(norms, norms / (1 - LEAST_DIFFERENCE**0.5) * 1.001)
    parts = []
    for start in range(0, len(norms), _ROWS):
        rows, columns = slice(start, start + _ROWS), slice(start, int(ends[start : start + _ROWS].max()))
        nearest = left[rows] @ right[0][:, columns]
        for moved in right[1:]:
            torch.minimum(nearest, left[rows] @ moved[:, columns], out=nearest)
        # the larger norm is that of the column, which comes later in the order
        limit = (LEAST_DIFFERENCE * 1.001 * norms[columns].square())[None, :] - still[rows].square().sum(1)[:, None]
        for part in (nearest < limit).triu(diagonal=1).nonzero().split(_ROWS):
            parts.append((order[rows][part[:, 0]], order[columns][part[:, 1]]))
    return parts


def _coarse(padded: Tensor) -> Tensor:
    """Pictures `[characters, cells]` of the sums over square cells, scaled so that this is a projection."""
    cell = -(-padded.shape[1] // _COARSE)
    room = cell * _COARSE - padded.shape[1]
    sums = functional.avg_pool2d(functional.pad(padded, (0, room, 0, room))[:, None], cell, divisor_override=cell)
    return sums.flatten(1)
