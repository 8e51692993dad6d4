"""A loss of one's own, by its reference, as a loss of the project."""

from typing import Any

from gnc_models.catalog.parts import call_part
from gnc_models.classifiers.classifier import Classifier, Features, Labels
from gnc_models.losses.loss import Loss, Scalar


class OwnLoss(Loss):
    """Calls `loss(features, labels, weights, **options)`; temperature and normalization where its signature names them."""

    def __init__(self, reference: str, source: str, options: dict[str, Any], **sizes: int) -> None:
        """reference, source: as in `call_part`. options: the study's."""
        super().__init__(**sizes)
        self._part, self._options = (reference, source), options

    def value(self, features: Features, labels: Labels, classifier: Classifier, temperature: float) -> Scalar:
        """The function's value; the rows are those of the classifier before any scaling."""
        extras = {"temperature": temperature, "normalization": classifier.normalization}
        given = (features, labels, classifier.weight)
        loss: Scalar = call_part("loss", *self._part, *given, options=self._options, extras=extras)
        return loss
