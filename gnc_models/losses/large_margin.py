"""Normalised softmax with a margin: CosFace and ArcFace as pytorch-metric-learning has them, on the classifier's rows.

Knows torch and that library, which is imported when one is made: it takes a second.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gnc_models.catalog.settings import check_between
from gnc_models.classifiers.classifier import Classifier, Features, Labels
from gnc_models.losses.loss import Loss, Scalar

# ArcFace's angle has infinite slope at cosine 1, where collapse leads: nearer than this the slope counts as 0.
NEAREST_COSINE = 1 - 2**-22


class CosFace(Loss):
    """Mean cross-entropy of `(cos - margin_penalty [own class]) / temperature`.

    Source: Wang et al., arXiv 1801.09414; pytorch_metric_learning.losses.CosFaceLoss.
    """

    def __init__(self, *, num_classes: int, feature_dim: int, margin_penalty: float = 0.35) -> None:
        """`margin_penalty` is taken from the cosine of the own class, above 0 and below 2."""
        from pytorch_metric_learning.losses import CosFaceLoss

        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        check_between("margin_penalty", margin_penalty, 0.0, 2.0, "For 0 use loss 'cross_entropy'.")
        self._member = _Borrowed(CosFaceLoss, num_classes, feature_dim, margin_penalty)

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        return self._member(features, labels, classifier, temperature)


class ArcFace(Loss):
    """Mean cross-entropy of `cos(angle + margin_penalty [own class]) / temperature`.

    Where angle + margin_penalty passes pi, the own cosine less `margin_penalty sin(margin_penalty)` takes its place.
    Source: Deng et al., arXiv 1801.07698; pytorch_metric_learning.losses.ArcFaceLoss.
    """

    def __init__(self, *, num_classes: int, feature_dim: int, margin_penalty: float = 0.5) -> None:
        """`margin_penalty` is added to the angle of the own class, in radians, above 0 and below pi."""
        from pytorch_metric_learning.losses import ArcFaceLoss

        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        check_between("margin_penalty", margin_penalty, 0.0, math.pi, "For 0 use loss 'cross_entropy'.")
        self._member = _Borrowed(ArcFaceLoss, num_classes, feature_dim, math.degrees(margin_penalty))
        self._member.loss.get_angles = _angles

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        return self._member(features, labels, classifier, temperature)


class _Borrowed:
    """A loss of the library that works on the classifier's rows instead of rows of its own.

    Not a module, so that the library's rows are no part of ours; they are never filled, which would draw random
    numbers, and take no memory.
    """

    def __init__(self, kind: Any, num_classes: int, feature_dim: int, margin: float) -> None:
        self.loss: Any = kind(
            num_classes=num_classes, embedding_size=feature_dim, margin=margin, weight_init_func=_leave_empty
        )
        self.loss.W = nn.Parameter(torch.empty(feature_dim, num_classes, device="meta"))
        self.loss.cast_types = _keep_types

    def __call__(self, features: Tensor, labels: Tensor, classifier: Classifier, temperature: float) -> Tensor:
        self.loss.scale = 1 / temperature
        rows: Tensor = classifier.weight
        value: Tensor = torch.func.functional_call(self.loss, {"W": rows.T}, (features, labels))
        return value


def _leave_empty(_rows: Tensor) -> None:
    """Instead of random numbers."""


def _keep_types(_dtype: torch.dtype, _device: torch.device) -> None:
    """The library would cast its rows here; the classifier's have the features' type already."""


def _angles(cosines: Tensor) -> Tensor:
    return cosines.clamp(-NEAREST_COSINE, NEAREST_COSINE).acos()
