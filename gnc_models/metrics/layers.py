"""Collapse at any layer of a network: variability against separation, and the nearest class mean.

Knows sums over pairs; does not know networks or heads. A layer can be wide, so nothing here is dim x dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnc_models.geometry.pairwise import nearest_rows, tiles
from gnc_models.metrics.class_statistics import check_labels
from gnc_models.metrics.feature_views import finite
from gnc_models.metrics.variability import distance_variances


@dataclass(frozen=True)
class LayerCollapse:
    """What was found at one layer; None where it does not exist (one sample per class, coinciding means)."""

    quotient: float | None  # tr Sigma_W / tr Sigma_B
    cdnv: float | None
    ncc_accuracy: float  # share of the samples whose nearest class mean is that of their class


def layer_columns(layers: Sequence[LayerCollapse]) -> dict[str, list[float | None]]:
    """The columns of all layers measured, each a list in the layers' order, input to output."""
    return {
        "layer_gnc1_quotient": [layer.quotient for layer in layers],
        "layer_cdnv": [layer.cdnv for layer in layers],
        "layer_ncc_accuracy": [layer.ncc_accuracy for layer in layers],
    }


def measure_layer(
    features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"], num_classes: int
) -> LayerCollapse:
    """Collapse of one layer's outputs, flattened or pooled, as they are: not normalised.

    Beside the features, memory is O(classes x dim) in float64 and a few tiles. Two passes: means, then deviations
    from them. Classes without samples are left out.

    Raises:
        ValueError: not a matrix, values that are not finite, labels out of range, fewer than 2 classes with samples.
    Source: Tirer et al. 2023 (quotient), Galanti et al. 2021 (CDNV), Papyan et al. 2020 (nearest mean); at every
        layer: Rangamani et al., Feature learning in deep classifiers through intermediate neural collapse, ICML 2023.
    """
    if features.ndim != 2 or not bool(features.isfinite().all()):
        raise ValueError(f"features must be a finite matrix, got shape {tuple(features.shape)}. Flatten or pool them.")
    check_labels(labels, len(features), num_classes)
    classes, places, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels must name at least 2 classes, got {len(classes)}.")
    means = _class_means(features, places, counts)
    squares = torch.zeros(len(counts), dtype=torch.float64, device=features.device)
    right = 0
    for tile in tiles(len(features), max(features.shape[1], len(counts))):
        batch, own = features[tile].to(torch.float64), places[tile]
        squares.index_add_(0, own, (batch - means[own]).square().sum(1))
        right += int((nearest_rows(batch, means) == own).sum())
    centred = means - means.mean(0)
    quotient = cdnv = None
    if int(counts.max()) > 1:
        between = float(centred.square().sum(1).mean())
        quotient = float(squares.sum()) / len(features) / between if between else None
        cdnv = finite(distance_variances(centred, squares / counts)[0])
    return LayerCollapse(quotient, cdnv, right / len(features))


def _class_means(features: Tensor, places: Tensor, counts: Tensor) -> Float[Tensor, "classes dim"]:
    # about the first sample, so that a large common offset costs no digits
    origin = features[0].to(torch.float64)
    sums = torch.zeros(len(counts), features.shape[1], dtype=torch.float64, device=features.device)
    for tile in tiles(len(features), features.shape[1]):
        sums.index_add_(0, places[tile], features[tile].to(torch.float64) - origin)
    return sums / counts.unsqueeze(1) + origin
