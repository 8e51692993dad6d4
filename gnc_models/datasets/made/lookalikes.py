"""Which characters can be told apart: one look-alike pair would decide the smallest margin of a whole study.
In every face and for shifts s of up to one pixel their pictures have `|a - s(b)|^2 >= 0.06 max(|a|^2, |b|^2)`."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LEAST_DIFFERENCE = 0.06  # share of the larger energy

_SHIFTS = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1))
_ROWS = 256  # pictures compared at once, so that intermediate results stay in the processor's cache


def distinct_characters(num_characters: int, pairs: np.ndarray) -> np.ndarray:
    """Positions of the characters that are in no pair (the lesser position first) with one kept before them."""
    firsts, seconds = pairs[np.argsort(pairs[:, 1], kind="stable")].T
    starts = np.searchsorted(seconds, np.arange(num_characters + 1))
    kept = np.ones(num_characters, dtype=bool)
    for position in np.unique(seconds):
        kept[position] = not kept[firsts[starts[position] : starts[position + 1]]].any()
    return np.flatnonzero(kept)


def similar_pairs(pictures: np.ndarray, resolution: int) -> np.ndarray:
    """Positions `[pairs, 2]`, the lesser first, of characters whose ink `[characters, side, side]` is too alike."""
    padded = _pool_with_margin(pictures, resolution)
    similar = [pairs[_are_similar(padded[pairs[:, 0]], padded[pairs[:, 1]])] for pairs in _close_pairs(padded)]
    return torch.cat([torch.empty(0, 2, dtype=torch.int64), *similar]).sort(dim=1).values.numpy()


def _pool_with_margin(pictures: np.ndarray, resolution: int) -> Tensor:
    """Sums of ink at the resolution with one blank pixel all round: whole numbers, so that their products are exact."""
    count, side, _ = pictures.shape
    padded = torch.zeros(count, resolution + 2, resolution + 2)
    for part, own in zip(padded.split(_ROWS), torch.from_numpy(pictures)[:, None].split(_ROWS), strict=True):
        part[:, 1:-1, 1:-1] = functional.avg_pool2d(own.float(), side // resolution, divisor_override=1)[:, 0]
    return padded


def _are_similar(first: Tensor, second: Tensor) -> Tensor:
    """The verdict on each pair of pictures `[pairs, side, side]`, in float64, where nothing is rounded."""
    first, second = first.double(), second.double()
    energy = torch.maximum(first.square().sum((1, 2)), second.square().sum((1, 2)))
    nearest = torch.full_like(energy, torch.inf)
    for shift in _SHIFTS:
        moved = second.roll(shift, dims=(-2, -1))  # only blank pixels go round the edge
        nearest = torch.minimum(nearest, (first - moved).square().sum((1, 2)))
    return nearest < LEAST_DIFFERENCE * energy


def _close_pairs(padded: Tensor) -> Iterator[Tensor]:
    """All pairs that may be similar, `[pairs, 2]` in parts: two necessary conditions, with room for rounding."""
    norms, order = padded.square().sum((1, 2)).sqrt().sort()
    sizes = torch.cat([_fourier_sizes(padded[part]) for part in order.split(_ROWS)])
    squares = sizes.square().sum(1)
    ends = torch.searchsorted(norms, norms / (1 - LEAST_DIFFERENCE**0.5) * 1.001)
    for start in range(0, len(norms), _ROWS):
        rows, columns = slice(start, start + _ROWS), slice(start, int(ends[start : start + _ROWS].max()))
        distances = torch.addmm(squares[None, columns], sizes[rows], sizes[columns].T, alpha=-2)
        # the larger norm is that of the column, which comes later in the order
        limit = (LEAST_DIFFERENCE * 1.001 * norms[columns].square())[None, :] - squares[rows, None]
        for part in (distances < limit).triu(diagonal=1).nonzero().split(_ROWS):
            yield torch.stack([order[rows][part[:, 0]], order[columns][part[:, 1]]], dim=1)


def _fourier_sizes(padded: Tensor) -> Tensor:
    """Sizes of the lower Fourier coefficients `[characters, coefficients]`, scaled so that all would keep distances."""
    highest = 3 * (padded.shape[1] - 2) // 8  # three quarters of all frequencies: the rest tells few pairs apart
    half = torch.fft.rfft2(padded, norm="ortho").abs()[:, :, : highest + 1]
    half[:, :, 1:] *= 2**0.5  # each stands for its mirror image too
    return torch.cat([half[:, : highest + 1], half[:, -highest:]], dim=1).flatten(1)
