"""What compares every sample with every class: sample margins, agreements, and how many classes compete."""

import math

import torch
from torch import Tensor

from gnc_models.columns import columns
from gnc_models.geometry.pairwise import nearest_rows, one_vs_rest_scores, tiles, unit
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.feature_views import View
from gnc_models.shapes import Float, Int


@columns("samples", "sample_margin_min", "sample_margin_q01")
def sample_margin_columns(view: View, unit_rows: Float[Tensor, "classes dim"]) -> tuple[float, float]:
    """The least sample margin, and the 1 % quantile."""
    least = torch.empty(len(view.features), dtype=torch.float64, device=view.features.device)
    for tile in tiles(len(view.features), max(unit_rows.shape)):
        least[tile] = one_vs_rest_scores(unit(view.features[tile]), view.labels[tile], unit_rows)
    margins = least.sort().values
    # the linear rule of torch.quantile, which refuses more than 16 million values
    at = 0.01 * (len(margins) - 1)
    below, above = float(margins[math.floor(at)]), float(margins[math.ceil(at)])
    return float(margins[0]), below + (above - below) * (at - math.floor(at))


@columns("samples", "ncc_agreement", "active_classes")
def logit_columns(
    view: View, head: ClassStatistics, head_rows: Float[Tensor, "classes dim"],
    bias: Float[Tensor, " classes"] | None, temperature: float | None,
) -> tuple[float, float]:  # fmt: skip
    """What the logits of all samples that count tell, in one pass over tiles of samples x classes."""
    agreed, active = 0, 0.0
    for tile in tiles(len(view.features), max(head_rows.shape)):
        seen = view.as_head_sees(view.features[tile])
        logits = (seen @ head_rows.T).div_(temperature or 1.0)
        if bias is not None:
            logits += bias
        agreed += int((logits.argmax(1) == view.classes[nearest_rows(seen, head.means)]).sum())
        active += float(active_classes(logits, view.labels[tile]).sum())
    return agreed / len(view.features), active / len(view.features)


def active_classes(
    logits: Float[Tensor, "samples classes"], labels: Int[Tensor, " samples"]
) -> Float[Tensor, " samples"]:
    """Exponential of the entropy of the softmax over the wrong classes of each sample; `logits` is overwritten.
    It says on how many wrong classes the gradient of cross-entropy falls: 1 to classes - 1.
    Source: Hill, Ecology 54 (1973): the exponential of the entropy as an effective number."""
    logits.scatter_(1, labels.unsqueeze(1), -torch.inf)
    logits.sub_(logits.amax(1, keepdim=True)).clamp_(min=-1e3)  # -inf times 0 is no number, -1000 times exp(-1000) is 0
    weights = logits.exp()
    total = weights.sum(1)
    # entropy = log sum e^z - sum e^z z / sum e^z
    return (total.log() - logits.mul_(weights).sum(1) / total).exp()


@columns("samples", "ncc_test_accuracy")
def nearest_mean_accuracy(view: View, head: ClassStatistics, test: tuple[Tensor, Tensor] | None) -> float | None:
    """Share of samples whose nearest class mean is that of their class; those of classes without a mean are left out."""
    if test is None:
        return None
    right, (features, labels) = 0, test
    known = torch.isin(labels, view.classes)
    if not bool(known.all()):
        features, labels = features[known], labels[known]
    for tile in tiles(len(features), max(view.num_classes, features.shape[1])):
        nearest = nearest_rows(view.as_head_sees(features[tile]), head.means)
        right += int((view.classes[nearest] == labels[tile]).sum())
    return right / len(labels) if len(labels) else None
