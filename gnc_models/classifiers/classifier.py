"""What every classifier is, and the one whose rows are learned: from features to logits by one row per class, no bias.
Knows torch; does not know losses, nor how the features come about."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gnc_models.catalog.settings import check_between, check_choice

Features = Float[Tensor, "batch dim"]
Labels = Int[Tensor, " batch"]
Rows = Float[Tensor, "classes dim"]
Logits = Float[Tensor, "batch classes"]

# name: (features are normalised, weights are normalised)
NORMALIZATIONS = {"both": (True, True), "features": (True, False), "weights": (False, True), "none": (False, False)}


class Classifier(nn.Module):
    """One row per class, with or without unit length; the base of every member of `CLASSIFIERS`.
    Logits are `H W^T / temperature`, of H and W scaled to unit length where the normalization says so.
    Args of every member's constructor:
        temperature: None with normalization "none", and only there.
        init_norm: length of the rows at the start; without effect on rows that always have unit length.
    Attributes:
        weight: the rows, `[classes, dim]`: never normalised in place by `forward`. A parameter or a buffer.
        observes_before_loss: whether `observe` comes before the loss of the same batch, not after the step."""

    weight: Tensor
    observes_before_loss = False

    def __init__(self, *, normalization: str, temperature: float | None) -> None:
        super().__init__()
        check_choice("normalization", normalization, NORMALIZATIONS)
        if (temperature is None) != (normalization == "none"):
            got = f"got {temperature!r} with {normalization!r}"
            raise ValueError(f"temperature must be given unless normalization is 'none', {got}.")
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature!r}.")
        self.normalization = normalization
        self.normalises_features, self.normalises_weights = NORMALIZATIONS[normalization]
        self.temperature = 1.0 if temperature is None else temperature

    def scaled_features(self, features: Features) -> Features:
        """The features, of unit length where the normalization says so."""
        return functional.normalize(features, dim=1) if self.normalises_features else features

    def scaled(self, features: Features) -> tuple[Features, Rows]:
        """Features and rows as they enter the logits before the temperature: each of unit length or as it is."""
        weight: Tensor = self.weight
        rows = functional.normalize(weight, dim=1) if self.normalises_weights else weight
        return self.scaled_features(features), rows

    def logits(self, features: Features, temperature: float | None = None) -> Logits:
        """Logits at the classifier's temperature or at another."""
        scaled, rows = self.scaled(features)
        return functional.linear(scaled, rows) / (self.temperature if temperature is None else temperature)

    forward = logits

    def observe(
        self, features: Features, labels: Labels, *, sum_over_workers: Callable[[Tensor], object] | None = None
    ) -> None:
        """What the rows learn from a batch without a gradient, once for each batch: nothing here."""


class LinearClassifier(Classifier):
    """Rows that are learned by gradient."""

    def __init__(
        self, num_classes: int, feature_dim: int, *, normalization: str, temperature: float | None, init_norm: float
    ) -> None:
        """Rows start in random directions with norm `init_norm`: a larger one slows the turning of normalised rows."""
        super().__init__(normalization=normalization, temperature=temperature)
        check_between("init_norm", init_norm, 0.0, math.inf)
        self.weight = nn.Parameter(init_norm * random_directions(num_classes, feature_dim))


def random_directions(num_classes: int, feature_dim: int) -> Rows:
    """Rows of unit length in random directions, from torch's default generator."""
    return functional.normalize(torch.randn(num_classes, feature_dim), dim=1)
