"""Codes of many rows: each row pushed away from its nearest neighbours, without ever holding all cosines.
Knows torch; does not know margins or tables. Memory is O(classes x dim) and a few tiles."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gnc_models.shapes import Float

NEIGHBOURS = 64
TILE_ROWS = 500
REFRESH = 5  # steps between two look-ups of the neighbours


def relax_rows(rows: Float[Tensor, "classes dim"], *, steps: int = 60) -> Float[Tensor, "classes dim"]:
    """Unit rows moved apart until all nearest neighbours are nearly equally far, by gradient steps of falling length.
    They go down a soft maximum over each row's 64 nearest rows, in float32. The nearest rows are looked up again every
    few steps, which takes most of the time. Float64 comes out, the same for equal rows on one machine."""
    rows = rows.float()
    velocity = torch.zeros_like(rows)
    for step in range(steps):
        if step % REFRESH == 0:
            near = _neighbours(rows)
            sample = slice(0, TILE_ROWS)
            spread = 1 - float((rows[sample] * rows[near[sample, 0]]).sum(1).mean())
        for part in torch.arange(len(rows)).split(TILE_ROWS):
            cosines = torch.bmm(rows[near[part]], rows[part].unsqueeze(2)).squeeze(2)
            pull = torch.bmm(torch.softmax(20 / spread * cosines, 1).unsqueeze(1), rows[near[part]]).squeeze(1)
            velocity[part] = 0.8 * velocity[part] + pull - (pull * rows[part]).sum(1, keepdim=True) * rows[part]
        rows = normalize(rows - 0.1 * math.sqrt(spread) * (1 - step / steps) * velocity, dim=1)
    return normalize(rows.double(), dim=1)


def _neighbours(rows: Float[Tensor, "classes dim"]) -> Tensor:
    """The nearest other rows of each row, nearest first."""
    count = min(NEIGHBOURS, len(rows) - 1) + 1  # the row itself comes first
    nearest = torch.empty(len(rows), count, dtype=torch.int64, device=rows.device)
    for part, tile in zip(nearest.split(TILE_ROWS), rows.split(TILE_ROWS), strict=True):
        part.copy_((tile @ rows.T).topk(count, dim=1).indices)
    return nearest[:, 1:]
