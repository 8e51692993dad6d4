"""Supervised contrastive loss, as pytorch-metric-learning has it, which is imported when needed."""

from gnc_models.classifiers.classifier import Classifier, Features, Labels
from gnc_models.losses.loss import Loss, Scalar


class SupervisedContrastive(Loss):
    """Mean over samples of `-mean_p log(exp(cos_p / temperature) / sum_a exp(cos_a / temperature))`.

    p runs over the other samples of the class in the batch, a over all other samples. Samples without another of their
    class do not count; a batch without a pair, or of one class only, gives 0. Classifier rows get no gradient.
    Source: Khosla et al., arXiv 2004.11362, equation 2; pytorch_metric_learning.losses.SupConLoss.
    """

    def __init__(self, *, num_classes: int, feature_dim: int) -> None:
        from pytorch_metric_learning.losses import SupConLoss

        super().__init__(num_classes=num_classes, feature_dim=feature_dim)
        self._member = SupConLoss()

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        self._member.temperature = temperature
        value: Scalar = self._member(features, labels)
        return value
