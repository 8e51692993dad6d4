"""Collapse at any layer of a network: variability against separation, and the nearest class mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnc_models.geometry.pairwise import nearest_rows, tiles
from gnc_models.metrics.class_statistics import check_labels
from gnc_models.metrics.feature_views import SeenFeatures
from gnc_models.metrics.variability import distance_columns, quotient_columns
from gnc_models.shapes import Float, Int


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
    Beside the features, memory is O(classes x dim) in float64 and a few tiles. Classes without samples are left out.
    Source: Tirer et al. 2023 (quotient), Galanti et al. 2021 (CDNV), Papyan et al. 2020 (nearest mean); at every
        layer: Rangamani et al., Feature learning in deep classifiers through intermediate neural collapse, ICML 2023.
    """
    if features.ndim != 2 or not bool(features.isfinite().all()):
        raise ValueError(f"features must be a finite matrix, got shape {tuple(features.shape)}. Flatten or pool them.")
    check_labels(labels, len(features), num_classes)
    size = num_classes, features.shape[1]
    seen = SeenFeatures(*size, unit_features=False, holds_sphere=False, holds_scatter=False, device=features.device)
    classes = seen.update(features, labels).present(absent_classes=True)
    head = seen.head.of_classes(classes)
    right = 0
    for tile in tiles(len(features), max(features.shape[1], len(classes))):
        right += int((classes[nearest_rows(features[tile].to(torch.float64), head.means)] == labels[tile]).sum())
    found = {**quotient_columns(head), **distance_columns(head)}
    return LayerCollapse(found["gnc1_quotient"], found["cdnv"], right / len(features))
