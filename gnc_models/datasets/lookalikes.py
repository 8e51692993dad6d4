"""Which characters can be told apart: one look-alike pair would decide the smallest margin of a whole study.

Two characters differ enough when in every face, and under every shift s of up to one pixel each way,
`|a - s(b)|^2 >= 0.06 max(|a|^2, |b|^2)` for their pictures a and b at the training resolution: at least 6 % of the
energy of the one with more ink.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LEAST_DIFFERENCE = 0.06  # share of the larger energy

# With a shift s and its inverse s': |a - s'(b)| = |s(a) - b|, as shifting inside a margin of blank pixels keeps
# distances. So these five, applied to both orders of a pair, cover all nine shifts of up to one pixel each way.
_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))
_COARSE = 9  # cells along the side of the coarse pictures that reject most pairs cheaply


def distinct_characters(pictures: np.ndarray, resolution: int) -> np.ndarray:
    """Positions of the characters to keep: each is kept if it differs enough from all those kept before it.

    Args:
        pictures: ink as uint8 `[characters, faces, side, side]`; side a multiple of `resolution`.
        resolution: side in pixels at which they must differ.
    Returns:
        Ascending positions, int64.
    """
    similar = np.zeros((len(pictures), len(pictures)), dtype=bool)
    for face in range(pictures.shape[1]):
        padded = _pool_with_margin(pictures[:, face], resolution)
        first, second = _close_pairs(padded)
        similar[first, second] |= _are_similar(padded[first], padded[second])
    similar |= similar.T
    kept: list[int] = []
    open_still = np.ones(len(pictures), dtype=bool)
    for position in range(len(pictures)):
        if open_still[position]:
            kept.append(position)
            open_still &= ~similar[position]
    return np.array(kept)


def _pool_with_margin(pictures: np.ndarray, resolution: int) -> Tensor:
    """Sums of ink at the resolution with one blank pixel all round; whole numbers, so products of them are exact."""
    factor = pictures.shape[-1] // resolution
    blocks = torch.from_numpy(pictures).unflatten(2, (resolution, factor)).unflatten(1, (resolution, factor))
    return functional.pad(blocks.sum(dim=(2, 4), dtype=torch.float64), (1, 1, 1, 1))


def _shifted(padded: Tensor, shift: tuple[int, int]) -> Tensor:
    return padded.roll(shift, dims=(-2, -1))  # only blank pixels go round the edge


def _are_similar(first: Tensor, second: Tensor) -> np.ndarray:
    """Whether each pair of pictures `[pairs, side, side]` differs too little, exactly."""
    energy = torch.maximum(first.square().sum((1, 2)), second.square().sum((1, 2)))
    nearest = torch.full_like(energy, torch.inf)
    for shift in _SHIFTS:
        for one, other in ((first, second), (second, first)):
            nearest = torch.minimum(nearest, (one - _shifted(other, shift)).square().sum((1, 2)))
    return (nearest < LEAST_DIFFERENCE * energy).numpy()


def _close_pairs(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs that may be similar, seen coarsely: sums over cells never increase a distance, once scaled to be a projection."""
    count, side, _ = padded.shape
    cell = -(-side // _COARSE)
    room = cell * _COARSE - side
    energy = padded.square().sum((1, 2)).float()

    def coarse(shift: tuple[int, int]) -> Tensor:
        moved = functional.pad(_shifted(padded, shift), (0, room, 0, room))
        blocks = moved.unflatten(2, (_COARSE, cell)).unflatten(1, (_COARSE, cell))
        return (blocks.sum(dim=(2, 4)) / cell).flatten(1).float()

    still = coarse((0, 0))
    limit = torch.maximum(energy[:, None], energy[None, :]) * LEAST_DIFFERENCE * 1.001  # room for float32 rounding
    close = torch.zeros((count, count), dtype=torch.bool)
    for shift in _SHIFTS:
        moved = still if shift == (0, 0) else coarse(shift)
        distance = torch.addmm(moved.square().sum(1)[None, :].expand(count, -1), still, moved.T, alpha=-2)
        close |= distance < limit - still.square().sum(1)[:, None]
    pairs = (close | close.T).triu(diagonal=1).nonzero()
    return pairs[:, 0], pairs[:, 1]
