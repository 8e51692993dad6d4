"""What compares every sample with every class: sample margins, agreements, and how many classes compete.

Knows the view and sums over pairs; does not know margins of rows.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnc_models.geometry.pairwise import nearest_rows, one_vs_rest_scores, tiles, unit
from gnc_models.metrics.feature_views import Values, View


def sample_columns(view: View, rows: Tensor, unit_rows: Tensor, temperature: float | None) -> Values:
    """Columns of all training samples that count, in one pass over tiles of samples x classes."""
    head_rows = unit_rows if view.unit_weights else rows
    least = torch.empty(len(view.features), dtype=torch.float64, device=view.features.device)
    agreed, active = 0, 0.0
    for tile in tiles(len(view.features), max(rows.shape)):
        features, labels = view.features[tile], view.labels[tile]
        least[tile] = one_vs_rest_scores(unit(features), labels, unit_rows)
        seen = view.as_head_sees(features)
        logits = seen @ head_rows.T
        agreed += int((logits.argmax(1) == view.classes[nearest_rows(seen, view.head.means)]).sum())
        active += float(active_classes(logits.div_(temperature or 1.0), labels).sum())
    margins = least.sort().values
    # the linear rule of torch.quantile, which refuses more than 16 million values
    at = 0.01 * (len(margins) - 1)
    below, above = float(margins[math.floor(at)]), float(margins[math.ceil(at)])
    return {
        "sample_margin_min": float(margins[0]),
        "sample_margin_q01": below + (above - below) * (at - math.floor(at)),
        "ncc_agreement": agreed / len(margins),
        "active_classes": active / len(margins),
    }


def active_classes(
    logits: Float[Tensor, "samples classes"], labels: Int[Tensor, " samples"]
) -> Float[Tensor, " samples"]:
    """Exponential of the entropy of the softmax over the wrong classes of each sample: 1 to classes - 1.

    Of the gradient of cross-entropy, the share of wrong class j is its share of this softmax; the number says on how
    many classes it falls. `logits` is overwritten.
    Source: Hill, Ecology 54 (1973): the exponential of the entropy as an effective number.
    """
    own = labels.unsqueeze(1)
    logits.scatter_(1, own, -torch.inf)
    logits.sub_(logits.amax(1, keepdim=True)).clamp_(min=-1e3)  # -inf times 0 is no number, -1000 times exp(-1000) is 0
    weights = logits.exp()
    total = weights.sum(1)
    # entropy = log sum e^z - sum e^z z / sum e^z
    return (total.log() - logits.mul_(weights).sum(1) / total).exp()


def nearest_mean_accuracy(view: View, features: Tensor, labels: Tensor) -> float:
    """Share of samples whose nearest class mean is that of their class; a class without a mean is never right."""
    right = 0
    for tile in tiles(len(features), max(view.num_classes, features.shape[1])):
        nearest = nearest_rows(view.as_head_sees(features[tile]), view.head.means)
        right += int((view.classes[nearest] == labels[tile]).sum())
    return right / len(labels)
