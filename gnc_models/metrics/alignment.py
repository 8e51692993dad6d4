"""GNC3: class means against classifier rows and against samples of no class; rows against the inputs' similarity.

Knows class statistics and rows; does not know margins.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from gnc_models.geometry.pairwise import tiles, unit
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.feature_views import Values, View


def alignment_columns(statistics: ClassStatistics, rows: Float[Tensor, "classes dim"]) -> Values:
    """1 - cos of mean and row, averaged over classes, and how much cosines of means and rows differ.

    Source: Jiang et al. 2024 (GNC3); Wu and Papyan 2024 (uniform duality).
    """
    centred = statistics.centred_means
    exists = bool((centred.square().sum(1) > 0).all())
    return {
        "gnc3": misalignment(centred, rows) if exists else None,
        "gnc3_uncentred": misalignment(statistics.means, rows),
        "gnc3_uniform": float(_cosine_gaps(centred, rows).var(correction=0)) if exists else None,
        "gnc3_uniform_uncentred": float(_cosine_gaps(statistics.means, rows).var(correction=0)),
        "gnc3_cross": _cross_variance(centred, rows) if exists else None,
    }


def misalignment(means: Float[Tensor, "classes dim"], rows: Float[Tensor, "classes dim"]) -> float:
    """Mean over classes of 1 - cos of mean and row, with all its digits where they nearly agree."""
    return float(_cosine_gaps(means, rows).mean())


def _cosine_gaps(means: Tensor, rows: Tensor) -> Float[Tensor, " classes"]:
    # |u - v|^2 / 2 = 1 - cos keeps its digits where the cosine is nearly 1
    return (unit(means) - unit(rows)).square().sum(1) / 2


def _cross_variance(means: Tensor, rows: Tensor) -> float:
    """Variance over ordered pairs k != j of the cosine of row k and mean j."""
    moments = _PairMoments()
    for cosines in _off_diagonal(unit(rows), unit(means)):
        moments.update(cosines, cosines)
    return float(moments.products[0, 0]) / moments.count


def ood_deviation(view: View, features: Float[Tensor, "ood_samples dim"] | None) -> float | None:
    """Mean over classes of abs cos(mean, mean of features of no class), neither centred; None without such features.

    Source: Ben Ammar et al., NECO, ICLR 2024, arXiv 2310.06823 (NC5).
    """
    if features is None:
        return None
    total = torch.zeros_like(view.head.means[0])
    for tile in tiles(len(features), features.shape[1]):
        total += view.as_head_sees(features[tile]).sum(0)
    if not bool(total.any()):
        return None
    return float((unit(view.head.means) @ unit(total.unsqueeze(0)).T).abs().mean())


def input_correlation(
    unit_rows: Float[Tensor, "classes dim"], class_inputs: Float[Tensor, "classes input_dim"]
) -> float | None:
    """Pearson correlation over class pairs of the cosine of centred mean inputs and the cosine of rows.

    None where a mean input equals their average, or where either cosine is the same for all pairs
    up to rounding (a simplex has no assignment to speak of).
    Source: Jiang et al., arXiv 2310.05351, on which class gets which point of the code.
    """
    centred = class_inputs.to(torch.float64)
    centred = centred - centred.mean(0)
    if not bool(centred.any(1).all()):
        return None
    moments = _PairMoments()
    inputs = unit(centred)
    for likeness, gram in zip(_off_diagonal(inputs, inputs), _off_diagonal(unit_rows, unit_rows), strict=True):
        moments.update(likeness, gram)
    spreads = moments.products.diagonal().clamp_min(0.0)
    if float(spreads.min() / moments.count) < 1e-24:  # standard deviations below 1e-12
        return None
    return float(moments.products[0, 1] / spreads.prod().sqrt())


class _PairMoments:
    """Count, means and summed products of deviations of two numbers, joined tile by tile (Chan's update)."""

    def __init__(self) -> None:
        self.count = 0
        self.means = torch.zeros(2, dtype=torch.float64)
        self.products = torch.zeros(2, 2, dtype=torch.float64)

    def update(self, first: Tensor, second: Tensor) -> None:
        batch = torch.stack([first, second])
        means, size = batch.mean(1), batch.shape[1]
        deviations = batch - means.unsqueeze(1)
        shift = means.cpu() - self.means
        joined = self.count + size
        self.products += (deviations @ deviations.T).cpu() + torch.outer(shift, shift) * (self.count * size / joined)
        self.means, self.count = self.means + shift * (size / joined), joined


def _off_diagonal(left: Tensor, right: Tensor) -> Iterator[Float[Tensor, " pairs"]]:
    """Inner products of all rows of one with all others' rows of the other, tile by tile."""
    for rows in tiles(len(left), len(right)):
        products = left[rows] @ right.T
        others = torch.ones_like(products, dtype=torch.bool)
        others[torch.arange(len(products)), torch.arange(rows.start, rows.stop)] = False
        yield products[others]
