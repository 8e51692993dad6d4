"""The baselines of the neural-collapse literature: label smoothing, focal loss and squared error. Knows torch."""

import math

from torch.nn import functional

from gnc_models.catalog.settings import check_between
from gnc_models.classifiers.classifier import Classifier, Features, Labels
from gnc_models.losses.cross_entropy import score_gaps
from gnc_models.losses.loss import Loss, Scalar


class LabelSmoothing(Loss):
    """Mean cross-entropy against (1 - s) of the label and s / K of every class (Szegedy et al., arXiv 1512.00567)."""

    def __init__(self, *, num_classes: int, feature_dim: int, label_smoothing: float = 0.1) -> None:
        """`label_smoothing` is s, above 0 and below 1."""
        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        check_between("label_smoothing", label_smoothing, 0.0, 1.0, "For 0 use loss 'cross_entropy'.")
        self.label_smoothing = label_smoothing

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        logits = classifier.logits(features, temperature)
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


class Focal(Loss):
    """Mean of `-(1 - p_y)^gamma log p_y`, p the softmax of the logits (Lin et al., arXiv 1708.02002, unweighted)."""

    def __init__(self, *, num_classes: int, feature_dim: int, focal_gamma: float = 2.0) -> None:
        """`focal_gamma` is gamma, above 0."""
        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        check_between("focal_gamma", focal_gamma, 0.0, math.inf, "For 0 use loss 'cross_entropy'.")
        self.focal_gamma = focal_gamma

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        odds = (score_gaps(features, labels, classifier) / temperature).logsumexp(1)
        # 1 - p = sigmoid(odds): its power from the logarithm, since for gamma < 1 it has no slope at 0
        modulation = (self.focal_gamma * functional.logsigmoid(odds)).exp()
        return (modulation * functional.softplus(odds)).mean()


class SquaredError(Loss):
    """Half the squared distance of the logits from the one-hot label (Han, Papyan and Donoho, arXiv 2106.02073)."""

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        logits = classifier.logits(features, temperature)
        target = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return (logits - target).square().sum(1).mean() / 2
