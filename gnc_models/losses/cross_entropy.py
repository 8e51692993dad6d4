"""Cross-entropy, its logarithm for low temperatures and the limit of that at zero, and the baselines of the literature on
neural collapse. Knows torch and classifiers. Most are functions of `odds_y = log sum_{j != y} exp(z_j - z_y)`: the
cross-entropy of a sample is softplus(odds)."""

import math

import torch
from torch.nn import functional

from gnc_models.catalog.settings import check_between
from gnc_models.classifiers.classifier import Classifier, Features, Labels, Logits
from gnc_models.log_space import log_softplus
from gnc_models.losses.chunked import chunked_cross_entropy
from gnc_models.losses.loss import Loss, Scalar


class CrossEntropy(Loss):
    """Mean cross-entropy of the classifier's logits, in nats."""

    def __init__(self, *, num_classes: int, feature_dim: int, cross_entropy: str = "dense") -> None:
        """With "dense" batch x classes logits and their gradient are held, with "chunked" never; the numbers agree."""
        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        self.chunked = cross_entropy == "chunked"

    def forward(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        """As `Loss.forward`, but dense logits are in autocast's precision."""
        run = super().forward if self.chunked else self.value
        return run(features, labels, classifier, temperature)

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        if not self.chunked:
            logits = classifier.logits(features, temperature).to(classifier.weight.dtype)
            return functional.cross_entropy(logits, labels)
        scaled, norm = classifier.scaled_features(features), classifier.normalises_weights
        return chunked_cross_entropy(scaled, classifier.weight, labels, temperature=temperature, normalises_rows=norm)


class LogCrossEntropy(Loss):
    """`temperature * log(mean cross-entropy)`, never through the cross-entropy, which underflows at low temperatures.
    As the temperature falls it tends to HardMax where every sample is on its side, and to 0 elsewhere.
    Source: Jiang et al., arXiv 2310.05351."""

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        odds = (score_gaps(features, labels, classifier) / temperature).logsumexp(1)
        return temperature * (log_softplus(odds).logsumexp(0) - math.log(len(labels)))


class HardMax(Loss):
    """The largest `<w_j - w_y, h>` over batch and j != y: only the worst sample has a gradient (arXiv 2310.05351)."""

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        return score_gaps(features, labels, classifier).amax()


class LabelSmoothing(Loss):
    """Mean cross-entropy against (1 - s) of the label and s / K of every class (Szegedy et al., arXiv 1512.00567)."""

    def __init__(self, *, num_classes: int, feature_dim: int, label_smoothing: float = 0.1) -> None:
        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
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
        return ((self.focal_gamma * functional.logsigmoid(odds)).exp() * functional.softplus(odds)).mean()


class SquaredError(Loss):
    """Half the squared distance of the logits from the one-hot label (Han, Papyan and Donoho, arXiv 2106.02073)."""

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        logits = classifier.logits(features, temperature)
        return (logits - functional.one_hot(labels, logits.shape[1]).to(logits.dtype)).square().sum(1).mean() / 2


def score_gaps(features: Features, labels: Labels, classifier: Classifier) -> Logits:
    """`<w_j - w_y, h>` on what the classifier scales, before the temperature; -infinity at j = y."""
    scores = functional.linear(*classifier.scaled(features))
    own = labels.unsqueeze(1)
    return (scores - scores.gather(1, own)).scatter(1, own, -torch.inf)
