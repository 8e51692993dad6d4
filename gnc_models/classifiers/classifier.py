"""What every classifier is, from features to logits by one row per class, no bias, and those whose rows training moves.
Knows torch; does not know losses, nor how the features come about."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gnc_models.catalog.members import CLASSIFIERS, load

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
        scaled, rows = self.scaled(features)
        return functional.linear(scaled, rows) / (self.temperature if temperature is None else temperature)

    forward = logits

    def observe(
        self, features: Features, labels: Labels, *, sum_over_workers: Callable[[Tensor], object] | None = None
    ) -> None:
        """What the rows learn from a batch without a gradient, once for each batch: nothing here."""


class LinearClassifier(Classifier):
    def __init__(
        self, num_classes: int, feature_dim: int, *, normalization: str, temperature: float | None, init_norm: float
    ) -> None:
        """Rows start in random directions with norm `init_norm`: a larger one slows the turning of normalised rows."""
        super().__init__(normalization=normalization, temperature=temperature)
        self.weight = nn.Parameter(init_norm * random_directions(num_classes, feature_dim))


class ClassMeanClassifier(Classifier):
    """Rows that are moving averages of their class's features (CMF): no gradient, always of unit length."""

    def __init__(
        self, num_classes: int, feature_dim: int, *, normalization: str, temperature: float | None, init_norm: float,
        class_mean_form: str = "sum", class_mean_momentum: float = 0.9, class_mean_update: str = "before",
    ) -> None:  # fmt: skip
        """Rows start in random directions (torch's default generator); `Classifier` lists the other arguments.
        Args:
            class_mean_form: "sum" as in the paper, or "mean".
            class_mean_momentum: beta in [0, 1): how much of the old row stays.
            class_mean_update: a batch moves the rows "before" its own loss, as the paper's code does, or "after"."""
        super().__init__(normalization=normalization, temperature=temperature)
        self.form, self.momentum = class_mean_form, class_mean_momentum
        self.observes_before_loss = class_mean_update == "before"
        self.register_buffer("weight", random_directions(num_classes, feature_dim))

    @torch.no_grad()
    def observe(
        self, features: Features, labels: Labels, *, sum_over_workers: Callable[[Tensor], object] | None = None
    ) -> None:
        """`W <- normalize(beta W + (1 - beta) S)`, S the sum or mean of each class's features in the batch.
        Features count as the classifier scales them; rows of classes that are not in the batch stay as they are.
        sum_over_workers: adds up a tensor in place over the processes that share the batch; None: it is all here.
        Source: Jiang et al., arXiv 2310.05351 (class-mean features; the sum is that of the released code)."""
        sums = torch.zeros_like(self.weight)
        sums.index_add_(0, labels, self.scaled_features(features.to(sums.dtype)))
        counts = torch.bincount(labels, minlength=len(sums)).to(sums.dtype).unsqueeze(1)
        if sum_over_workers is not None:
            sum_over_workers(sums)
            sum_over_workers(counts)
        if self.form == "mean":
            sums /= counts.clamp_min(1)
        moved = self.momentum * self.weight + (1 - self.momentum) * sums
        norms = moved.norm(dim=1, keepdim=True)
        # a sum that cancels the old row leaves no direction: the old one stays
        turns = (counts > 0) & (norms > torch.finfo(norms.dtype).eps)
        self.weight.copy_(torch.where(turns, moved / norms, self.weight))


def random_directions(num_classes: int, feature_dim: int) -> Rows:
    """Rows of unit length in random directions, from torch's default generator."""
    return functional.normalize(torch.randn(num_classes, feature_dim), dim=1)


def make_classifier(name: str, num_classes: int, feature_dim: int, **settings: Any) -> Classifier:
    """The classifier of that name, with the settings that its constructor reads."""
    return load("gnc_models.classifiers", CLASSIFIERS[name].made_by)(num_classes, feature_dim, **settings)
