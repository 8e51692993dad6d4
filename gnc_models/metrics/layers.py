"""Collapse at any layer of a network: variability against separation, and the nearest class mean."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gnc_models.columns import Value, Values
from gnc_models.geometry.pairwise import nearest_rows, tiles
from gnc_models.metrics.class_statistics import check_labels
from gnc_models.metrics.feature_views import SeenFeatures
from gnc_models.metrics.variability import distance_columns, quotient_columns
from gnc_models.shapes import Float, Int

NAMES = ("gnc1_quotient", "cdnv", "ncc_accuracy")  # the last: share of samples whose nearest mean is their class's


def layer_columns(layers: Sequence[Values]) -> dict[str, list[Value]]:
    """The columns of all layers measured, each a list in the layers' order, input to output."""
    return {f"layer_{name}": [layer[name] for layer in layers] for name in NAMES}


def measure_layer(features: Float[Tensor, "samples dim"], labels: Int[Tensor, " samples"], num_classes: int) -> Values:
    """Collapse of one layer's outputs, flattened or pooled, as they are: not normalised.
    Beside the features, memory is O(classes x dim) in float64 and a few tiles. Classes without samples are left out.
    Source: Tirer et al. 2023 (quotient), Galanti et al. 2021 (CDNV), Papyan et al. 2020 (nearest mean); at every
        layer: Rangamani et al., Feature learning in deep classifiers through intermediate neural collapse, ICML 2023."""
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
    return {**quotient_columns(head), **distance_columns(head), "ncc_accuracy": right / len(features)}
