"""The optimiser of softmax codes: annealed soft maximum of the cosines from random, mirrored and structured starts; of many
rows each pushed away from its nearest neighbours, without ever holding all cosines. Knows torch and the families of
structured codes; does not read the tables of known margins."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gnc_models.catalog.settings import check_at_least
from gnc_models.codes.code import Code
from gnc_models.codes.linear_program_polish import polish_code
from gnc_models.codes.sphere_lbfgs import Objective, minimise_on_spheres
from gnc_models.constructions.explicit import FAMILIES
from gnc_models.constructions.words import mixed_codes
from gnc_models.progress import counted
from gnc_models.shapes import Float

# Sharpness of the soft maximum, in units of 1 / (margin expected): coarse enough to move points past each other at
# first, sharp enough at the end that its value is the maximum to about log(pairs) / sharpness.
SHARPNESS = (10.0, 40.0, 160.0, 640.0, 2560.0)
FINAL_SHARPNESS = (1e4, 4e4, 1.6e5, 6.4e5)
NEIGHBOURS, TILE_ROWS = 64, 500
REFRESH = 5  # steps between two look-ups of the neighbours
LARGEST_BATCH = 1 << 22  # cosines held at once
LARGEST_POLISH = 1500  # K d up to which linear programs are quick
STRUCTURED_DIMS = range(8, 25)  # where random starts miss codes made of words
MOST_STRUCTURED = 3  # structured codes that are annealed
# From 8 dimensions on a quench freezes early: these levels, with fewer steps each, cost the same and end higher.
SLOW_SHARPNESS = tuple(1.3**i for i in range(31))


def optimise_code(
    num_classes: int, feature_dim: int, *, starts: int = 16, seed: int = 0, iterations: int = 60, polish: bool = True,
    structured: bool = True,
) -> Code:  # fmt: skip
    """The best code found from many starts: annealed soft maximum of the cosines, then exact polishing.
    Args:
        starts: independent random starts; from d = 4 on half of them are mirror images of K/2 rows, which search half
            as many variables. A quarter goes on after the coarse half of the annealing; the best four are sharpened.
        seed: of the starts; same seed, same code on one machine.
        iterations: L-BFGS steps at each sharpness.
        polish: whether to balance the closest pairs exactly where K d <= 1500.
        structured: whether to start from signed words and families of codes too, in 8 to 24 dimensions.
    Returns:
        The code with the largest 1 - max cosine. It is a lower bound of rho*(d, K), not an optimum."""
    check_search(num_classes, feature_dim, starts)
    unit = expected_margin(num_classes, feature_dim)
    mirrors = _mirrors(feature_dim, starts)
    each = counted(enumerate(mirrors), "symmetries", len(mirrors))
    found = torch.cat([_coarse(num_classes, feature_dim, s, count, seed + i, iterations) for i, (s, count) in each])
    best = _sharpened(found, unit, iterations, 4)
    if structured and feature_dim in STRUCTURED_DIMS and num_classes > 2 * feature_dim:
        beginnings = structured_rows(num_classes, feature_dim, best.margin_lower, seed)
        for rows in counted(beginnings, "structured beginnings", len(beginnings)):
            best = max(best, _from_rows(rows, num_classes, seed, iterations), key=lambda code: code.margin_lower)
    return polish_code(best.points) if polish and best.points.numel() <= LARGEST_POLISH else best


def check_search(num_classes: int, feature_dim: int, starts: int) -> None:
    """ValueError unless a search has two classes, two dimensions and a start."""
    check_at_least(2, num_classes=num_classes, feature_dim=feature_dim)
    check_at_least(1, starts=starts)


def random_codes(num_classes: int, feature_dim: int, *, starts: int, seed: int) -> Float[Tensor, "starts classes dim"]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(starts, num_classes, feature_dim, generator=generator, dtype=torch.float64)
    return points / points.norm(dim=-1, keepdim=True)


def _mirrors(feature_dim: int, starts: int) -> list[tuple[Tensor | None, int]]:
    """Sign changes under which starts are symmetric, and how many of each: none, all axes, all but one, or half."""
    if feature_dim < 4 or starts < 4:
        return [(None, starts)]
    flipped = (feature_dim, feature_dim - 1) if feature_dim < 8 else (feature_dim, (feature_dim + 1) // 2)
    signs = torch.ones(2, feature_dim, dtype=torch.float64)
    for row, count in zip(signs, flipped, strict=True):
        row[:count] = -1.0
    return [(None, starts - 2 * (starts // 4)), (signs[0], starts // 4), (signs[1], starts // 4)]


def _coarse(
    num_classes: int, feature_dim: int, signs: Tensor | None, starts: int, seed: int, iterations: int
) -> Float[Tensor, "kept classes dim"]:
    """Annealed codes from random starts of one symmetry, at most four of them."""
    unit = expected_margin(num_classes, feature_dim)
    rows = num_classes if signs is None else (num_classes + 1) // 2
    points = random_codes(rows, feature_dim, starts=starts, seed=seed)
    slow = feature_dim >= 8
    levels = SLOW_SHARPNESS if slow else SHARPNESS
    for level, sharpness in counted(enumerate(levels), "levels", len(levels)):
        points, value = _anneal(points, sharpness / unit, iterations // 2 if slow else iterations, signs)
        if level == len(levels) // 2:
            points = points[value.argsort()[: max(4, math.ceil(starts / 4))]]
    points = points[value.argsort()[:4]]
    if signs is not None:
        points = torch.cat([points, points * signs], dim=1)[:, :num_classes]
    return points


def _sharpened(points: Tensor, unit: float, iterations: int, keep: int) -> Code:
    values, _ = soft_max_cosine(SHARPNESS[-1] / unit)(points, torch.arange(len(points)))
    points = points[values.argsort()[:keep]]
    for sharpness in FINAL_SHARPNESS:
        points, _ = _anneal(points, sharpness / unit, iterations)
    return max((Code.of(p) for p in points), key=lambda code: code.margin_lower)


def structured_rows(num_classes: int, feature_dim: int, margin: float, seed: int) -> list[Float[np.ndarray, "_ dim"]]:
    """Codes of words and explicit codes of about K rows or more, most promising beside the margin of random starts."""
    found = {len(rows): rows for rows in mixed_codes(feature_dim, 0.85 * margin, 1.25 * margin, seed=seed)}
    for dim, size, make in FAMILIES.values():
        if dim <= feature_dim < dim + 2 and num_classes <= size <= 8 * num_classes:
            rows = make()
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            found[size] = np.pad(rows, ((0, 0), (0, feature_dim - dim)))

    def promise(rows: Float[np.ndarray, "_ dim"]) -> float:
        cosines = rows[:: max(1, len(rows) // 64)] @ rows.T  # all rows are equivalent
        margin = float(1.0 - cosines[cosines < 1 - 1e-9].max())
        # rows left out or added move the margin about as far as in a code of equal caps
        return margin * (len(rows) / num_classes) ** (1.0 / (feature_dim - 1))

    fitting = [rows for size, rows in found.items() if 0.8 * num_classes <= size <= 8 * num_classes]
    return sorted(fitting, key=promise, reverse=True)[:MOST_STRUCTURED]


def _from_rows(rows: Float[np.ndarray, "rows dim"], num_classes: int, seed: int, iterations: int) -> Code:
    """K of the rows, chosen by leaving out a cap or at random, or with rows added, as they stand and annealed."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.from_numpy(rows)
    cuts = []
    for i in range(2):
        draw = torch.randn(pool.shape[1], generator=generator, dtype=torch.float64)
        order = (pool @ draw).argsort() if i % 2 == 0 else torch.randperm(len(pool), generator=generator)
        cuts.append(_filled(pool[order[:num_classes]], num_classes, generator))
    points = torch.stack(cuts)
    unit = expected_margin(num_classes, pool.shape[1])
    best = max((Code.of(cut) for cut in cuts), key=lambda code: code.margin_lower)
    noise = 1e-3 * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    for first in (1, 2):
        moved = torch.nn.functional.normalize(points + noise, dim=-1)
        for sharpness in SHARPNESS[first:]:
            moved, _ = _anneal(moved, sharpness / unit, iterations)
        best = max(best, _sharpened(moved, unit, iterations, 1), key=lambda code: code.margin_lower)
    return best


def _filled(points: Tensor, num_classes: int, generator: torch.Generator) -> Float[Tensor, "classes dim"]:
    """The rows and, where they are fewer than K, random ones that are far from all others."""
    tried = torch.randn(20_000, points.shape[1], generator=generator, dtype=torch.float64)
    tried = tried / tried.norm(dim=1, keepdim=True)
    nearest = (tried @ points.T).amax(1)
    while len(points) < num_classes:
        new = tried[nearest.argmin()]
        points = torch.cat([points, new[None]])
        nearest = torch.maximum(nearest, tried @ new)
    return points


def expected_margin(num_classes: int, feature_dim: int) -> float:
    """The scale of a good code's margin, for step sizes and sharpness only: caps of equal area, at most 1."""
    return min(1.0, 2.0 * num_classes ** (-2.0 / (feature_dim - 1)))


def _anneal(points: Tensor, sharpness: float, iterations: int, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One level of the annealing, in batches that fit LARGEST_BATCH."""
    size = max(1, LARGEST_BATCH // points.shape[1] ** 2)
    return minimise_on_spheres(soft_max_cosine(sharpness, signs), points, iterations=iterations, at_once=size)


def soft_max_cosine(sharpness: float, signs: Tensor | None = None) -> Objective:
    """`log(sum over ordered pairs exp(sharpness * cos)) / sharpness`: above the largest cosine, by little when sharp.
    With `signs` the code is the rows and their images `rows * signs`; each row is compared with all of them."""

    def energy(points: Float[Tensor, "starts rows dim"], _starts: Tensor) -> tuple[Tensor, Tensor]:
        everyone = points if signs is None else torch.cat([points, points * signs], dim=1)
        cosines = points @ everyone.mT
        cosines.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        largest = cosines.amax((1, 2))
        weights = cosines.sub_(largest[:, None, None]).mul_(sharpness).exp_()
        total = weights.sum((1, 2))
        value = largest + total.log() / sharpness
        return value, 2.0 * (weights @ everyone) / total[:, None, None]

    return energy


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
