"""What every loss is: a number from features, labels and a classifier. Knows torch; no loss in particular."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnc_models.classifiers.classifier import Classifier


class Loss(nn.Module):
    """A loss over a batch, without parameters or state of its own: what is trained are features and classifier rows.

    A member gives `value`; `forward` calls it in the precision of the rows, whatever autocast says: differences of
    logits at a low temperature, distances and determinants need more digits than bfloat16 has.
    """

    def __init__(self, *, num_classes: int, feature_dim: int) -> None:
        """The sizes, for the members that need them.

        Args:
            num_classes: rows of the classifier, at least 2.
            feature_dim: dimension of the features, at least 1.
        Raises:
            ValueError: a size out of range.
        """
        super().__init__()
        for name, given, least in (("num_classes", num_classes, 2), ("feature_dim", feature_dim, 1)):
            if given < least:
                raise ValueError(f"{name} must be at least {least}, got {given!r}.")

    def forward(
        self,
        features: Float[Tensor, "batch dim"],
        labels: Int[Tensor, " batch"],
        classifier: Classifier,
        temperature: float,
    ) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            features: as the encoder gives them, before any scaling.
            labels: their classes.
            classifier: has the rows and says what is scaled to unit length.
            temperature: the one in force at this step; 1.0 with normalization "none". Some losses do not depend on it
                (the catalog's `has_temperature`).
        Returns:
            A scalar with a gradient to the features and, where they are trained and the loss moves them, to the rows.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.value(features.to(classifier.weight.dtype), labels, classifier, temperature)

    def value(
        self,
        features: Float[Tensor, "batch dim"],
        labels: Int[Tensor, " batch"],
        classifier: Classifier,
        temperature: float,
    ) -> Float[Tensor, ""]:
        """The loss itself; arguments as those of `forward`."""
        raise NotImplementedError
