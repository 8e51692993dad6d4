"""The base of every loss, a number from features, labels and a classifier, and losses by name. Knows torch."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gnc_models.catalog.members import LOSSES, is_reference, load
from gnc_models.catalog.parts import call_part
from gnc_models.classifiers.classifier import Classifier, Features, Labels

Scalar = Float[Tensor, ""]


class Loss(nn.Module):
    """A loss over a batch. It has no parameters and no state: training moves features and classifier rows.
    A member defines `value`; `forward` calls it in the precision of the rows, whatever autocast says: differences of
    logits at a low temperature, distances and determinants need more digits than bfloat16 has."""

    def __init__(self, *, num_classes: int, feature_dim: int) -> None:
        """Take the sizes, for the members that need them: rows of the classifier, at least 2, and their dimension."""
        super().__init__()

    def forward(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        """The loss of features as the encoder gives them, at the temperature in force; 1.0 with normalization "none"."""
        with torch.autocast(features.device.type, enabled=False):
            return self.value(features.to(classifier.weight.dtype), labels, classifier, temperature)

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        """The loss itself, a scalar with a gradient to the features and, where the loss moves them, to the rows."""
        raise NotImplementedError


class OwnLoss(Loss):
    """Calls one's own `loss(features, labels, weights, **options)`; the rows are those before any scaling."""

    def __init__(self, reference: str, source: str, options: dict[str, Any], **sizes: int) -> None:
        super().__init__(**sizes)
        self._part, self._options = (reference, source), options

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        extras = {"temperature": temperature, "normalization": classifier.normalization}
        given = (features, labels, classifier.weight)
        return call_part("loss", *self._part, *given, options=self._options, extras=extras)


def make_loss(name: str, *, num_classes: int, feature_dim: int, **settings: Any) -> Loss:
    """The loss of that name, or of one's own by `source` and `options`."""
    if is_reference(name):
        return OwnLoss(name, num_classes=num_classes, feature_dim=feature_dim, **settings)
    return load("gnc_models.losses", LOSSES[name].made_by)(num_classes=num_classes, feature_dim=feature_dim, **settings)
