"""GNC3: class means against classifier rows and against samples of no class; rows against the inputs' similarity."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gnc_models.columns import columns
from gnc_models.geometry.pairwise import tiles, unit
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.feature_views import View
from gnc_models.shapes import Float, Int


@columns("duality", "gnc3_uncentred", "gnc3_uniform_uncentred")
def uncentred_columns(head: ClassStatistics, own_rows: Float[Tensor, "present dim"]) -> tuple[float, float]:
    """Mean over classes of 1 - cos of mean and row, and how the cosines differ (Jiang et al., Wu and Papyan 2024)."""
    gaps = _cosine_gaps(head.means, own_rows)
    return float(gaps.mean()), float(gaps.var(correction=0))


@columns("duality", "gnc3", "gnc3_uniform", "gnc3_weighted")
def centred_columns(head: ClassStatistics, own_rows: Float[Tensor, "present dim"]) -> tuple[float | None, ...]:
    """The same of means centred by their average, or by that of all samples; None where a mean is that."""
    plain, weighted = head.centred_means, head.sample_centred_means
    gaps = _cosine_gaps(plain, own_rows) if _has_directions(plain) else None
    columns = (None, None) if gaps is None else (float(gaps.mean()), float(gaps.var(correction=0)))
    return *columns, misalignment(weighted, own_rows) if _has_directions(weighted) else None


@columns("duality", "gnc3_cross")
def cross_column(head: ClassStatistics, own_rows: Float[Tensor, "present dim"]) -> float | None:
    """Variance over ordered pairs k != j of the cosine of row k and centred mean j (Wu and Papyan 2024)."""
    if not _has_directions(head.centred_means):
        return None
    moments = _PairMoments()
    for cosines in off_diagonal(unit(own_rows), unit(head.centred_means)):
        moments.update(cosines, cosines)
    return float(moments.products[0, 0]) / moments.count


def _has_directions(means: Tensor) -> bool:
    return bool((means.square().sum(1) > 0).all())


def misalignment(means: Float[Tensor, "classes dim"], rows: Float[Tensor, "classes dim"]) -> float:
    """Mean over classes of 1 - cos of mean and row, with all its digits where they nearly agree."""
    return float(_cosine_gaps(means, rows).mean())


def _cosine_gaps(means: Tensor, rows: Tensor) -> Float[Tensor, " classes"]:
    # |u - v|^2 / 2 = 1 - cos keeps its digits where the cosine is nearly 1
    return (unit(means) - unit(rows)).square().sum(1) / 2


@columns("samples", "ood_deviation")
def ood_deviation(
    view: View, head: ClassStatistics, ood_features: Float[Tensor, "ood_samples dim"] | None
) -> float | None:
    """Mean over classes of abs cos(mean, mean of features of no class), uncentred (Ben Ammar et al. 2024, NC5)."""
    if ood_features is None:
        return None
    total = torch.zeros_like(head.means[0])
    for tile in tiles(len(ood_features), ood_features.shape[1]):
        total += view.as_head_sees(ood_features[tile]).sum(0)
    if not bool(total.any()):
        return None
    return float((unit(head.means) @ unit(total.unsqueeze(0)).T).abs().mean())


@columns("samples", "input_correlation")
def input_correlation_column(
    own_rows: Float[Tensor, "present dim"],
    class_inputs: Float[Tensor, "classes input_dim"] | None,
    classes: Int[Tensor, " present"],
) -> float | None:
    """The correlation of the next function, None without inputs."""
    return None if class_inputs is None else input_correlation(unit(own_rows), class_inputs[classes])


def input_correlation(
    unit_rows: Float[Tensor, "classes dim"], class_inputs: Float[Tensor, "classes input_dim"]
) -> float | None:
    """Pearson correlation over class pairs of the cosine of centred mean inputs and the cosine of rows.
    None where a mean input equals their average, or where either cosine is the same for all pairs
    up to rounding (a simplex has no assignment to speak of).
    Source: Jiang et al., arXiv 2310.05351, on which class gets which point of the code."""
    centred = class_inputs.to(torch.float64)
    centred = centred - centred.mean(0)
    if not _has_directions(centred):
        return None
    moments = _PairMoments()
    inputs = unit(centred)
    for likeness, gram in zip(off_diagonal(inputs, inputs), off_diagonal(unit_rows, unit_rows), strict=True):
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


def off_diagonal(left: Tensor, right: Tensor) -> Iterator[Float[Tensor, " pairs"]]:
    """Inner products of all rows of one with all others' rows of the other, tile by tile."""
    for rows in tiles(len(left), len(right)):
        products = left[rows] @ right.T
        others = torch.ones_like(products, dtype=torch.bool)
        others[torch.arange(len(products)), torch.arange(rows.start, rows.stop)] = False
        yield products[others]
