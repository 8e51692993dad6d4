"""CosFace, ArcFace and the supervised contrastive loss, as pytorch-metric-learning has them.
That library is imported when one of them is made: it takes a second."""

import math
from typing import Any

import torch
from torch import nn

from gnc_models.catalog.settings import check_between
from gnc_models.classifiers.classifier import Classifier, Features, Labels
from gnc_models.losses.loss import Loss, Scalar

# ArcFace's angle has infinite slope at cosine 1, where collapse leads: nearer than this the slope counts as 0.
NEAREST_COSINE = 1 - 2**-22


class _OnRows(Loss):
    """A loss of the library on the classifier's rows instead of rows of its own."""

    def __init__(self, kind: str, num_classes: int, feature_dim: int, margin: float) -> None:
        from pytorch_metric_learning import losses

        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        # never filled, which would draw random numbers and take memory
        made = getattr(losses, kind)(num_classes, feature_dim, margin=margin, weight_init_func=lambda _: None)
        made.W = nn.Parameter(torch.empty(feature_dim, num_classes, device="meta"))
        made.cast_types = lambda _dtype, _device: None  # the classifier's rows have the features' type already
        self._member: tuple[Any] = (made,)  # no submodule: the library's rows are no part of ours

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        (member,) = self._member
        member.scale = 1 / temperature
        return torch.func.functional_call(member, {"W": classifier.weight.T}, (features, labels))


class CosFace(_OnRows):
    """Mean cross-entropy of `(cos - margin_penalty [own class]) / temperature` (Wang et al., arXiv 1801.09414)."""

    def __init__(self, *, num_classes: int, feature_dim: int, margin_penalty: float = 0.35) -> None:
        check_between("margin_penalty", margin_penalty, 0.0, 2.0, "For 0 use loss 'cross_entropy'.")
        super().__init__("CosFaceLoss", num_classes, feature_dim, margin_penalty)


class ArcFace(_OnRows):
    """Mean cross-entropy of `cos(angle + margin_penalty [own class]) / temperature`, the penalty in radians.
    Where angle + margin_penalty passes pi, the own cosine less `margin_penalty sin(margin_penalty)` takes its place.
    Source: Deng et al., arXiv 1801.07698; pytorch_metric_learning.losses.ArcFaceLoss."""

    def __init__(self, *, num_classes: int, feature_dim: int, margin_penalty: float = 0.5) -> None:
        check_between("margin_penalty", margin_penalty, 0.0, math.pi, "For 0 use loss 'cross_entropy'.")
        super().__init__("ArcFaceLoss", num_classes, feature_dim, math.degrees(margin_penalty))
        self._member[0].get_angles = lambda cosines: cosines.clamp(-NEAREST_COSINE, NEAREST_COSINE).acos()


class SupervisedContrastive(Loss):
    """Mean over samples of `-mean_p log(exp(cos_p / temperature) / sum_a exp(cos_a / temperature))`.
    p runs over the other samples of the class in the batch, a over all other samples. Samples without another of their
    class do not count; a batch without a pair, or of one class only, gives 0. Classifier rows get no gradient.
    Source: Khosla et al., arXiv 2004.11362, equation 2; pytorch_metric_learning.losses.SupConLoss."""

    def __init__(self, *, num_classes: int, feature_dim: int) -> None:
        from pytorch_metric_learning.losses import SupConLoss

        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        self._member = SupConLoss()

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        self._member.temperature = temperature
        return self._member(features, labels)
