"""Classifiers: from features to logits, by one row a class that is learned, averaged or fixed.

Knows torch and codes; does not know losses, nor how the features come about. A classifier has no bias. `normalization`
says what is scaled to unit length first, and with it what a logit is:

    both      normalize(H) @ normalize(W).T / temperature
    features  normalize(H) @ W.T / temperature
    weights   H @ normalize(W).T / temperature
    none      H @ W.T
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gnc_models.catalog.pairings import check_classifier
from gnc_models.catalog.settings import check_choice, read_settings
from gnc_models.classifiers.assignment import assign_classes
from gnc_models.codes.best_code import best_code
from gnc_models.codes.constructions.explicit import simplex

# name: (features are normalised, weights are normalised)
NORMALIZATIONS = {
    "both": (True, True),
    "features": (True, False),
    "weights": (False, True),
    "none": (False, False),
}
CODES = ("simplex", "best", "random")
ASSIGNMENTS = ("random", "similarity")
CLASS_MEAN_FORMS = ("sum", "mean")


class Classifier(nn.Module):
    """One row a class, with or without unit length; the base of every member of `CLASSIFIERS`.

    Attributes:
        weight: the rows, `[classes, dim]`: never normalised in place by `forward`. A parameter or a buffer.
        temperature: what `logits` divides by unless told otherwise; 1.0 with normalization "none".
        normalises_features, normalises_weights: what `scaled` scales to unit length.
    """

    weight: Tensor

    def __init__(self, *, normalization: str, temperature: float | None) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {sorted(NORMALIZATIONS)}, got {normalization!r}.")
        if (temperature is None) != (normalization == "none"):
            raise ValueError(
                f"temperature must be given unless normalization is 'none', got {temperature!r} with {normalization!r}."
            )
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature!r}.")
        self.normalises_features, self.normalises_weights = NORMALIZATIONS[normalization]
        self.temperature = 1.0 if temperature is None else temperature

    def scaled_features(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The features, of unit length where the normalization says so."""
        return functional.normalize(features, dim=1) if self.normalises_features else features

    def scaled(
        self, features: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "classes dim"]]:
        """Features and rows as they enter the logits before the temperature: each of unit length or as it is."""
        weight: Tensor = self.weight
        rows = functional.normalize(weight, dim=1) if self.normalises_weights else weight
        return self.scaled_features(features), rows

    def logits(
        self, features: Float[Tensor, "batch dim"], temperature: float | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits, in the form the module's docstring lists, at the classifier's temperature or at another."""
        scaled, rows = self.scaled(features)
        return functional.linear(scaled, rows) / (self.temperature if temperature is None else temperature)

    def forward(
        self, features: Float[Tensor, "batch dim"], temperature: float | None = None
    ) -> Float[Tensor, "batch classes"]:
        """The same as `logits`."""
        return self.logits(features, temperature)

    def observe(self, features: Float[Tensor, "batch dim"], labels: Int[Tensor, " batch"]) -> None:
        """What the rows learn from a batch without a gradient, after each optimiser step: nothing here."""


class LinearClassifier(Classifier):
    """Rows that are learned by gradient."""

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        normalization: str,
        temperature: float | None,
        init_norm: float,
    ) -> None:
        """Rows start in random directions (torch's default generator), each with norm `init_norm`.

        Args:
            num_classes: rows.
            feature_dim: columns.
            normalization: a name in `NORMALIZATIONS`.
            temperature: the logits are divided by it; None with normalization "none", and only there.
            init_norm: in the unit of the rows; a larger norm slows the turning of rows that are normalised.
        Raises:
            ValueError: an unknown normalization, a temperature missing, unwanted or not positive.
        """
        super().__init__(normalization=normalization, temperature=temperature)
        self.weight = nn.Parameter(_check_norm(init_norm) * _random_directions(num_classes, feature_dim))


class ClassMeanClassifier(Classifier):
    """Rows that are moving averages of their class's features (CMF): no gradient, always of unit length."""

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        normalization: str,
        temperature: float | None,
        init_norm: float,
        class_mean_form: str = "sum",
        class_mean_momentum: float = 0.9,
    ) -> None:
        """Rows start in random directions (torch's default generator).

        Args:
            num_classes: rows.
            feature_dim: columns.
            normalization: a name in `NORMALIZATIONS` but "none".
            temperature: the logits are divided by it.
            init_norm: without effect, since the rows have unit length.
            class_mean_form: "sum" as in the paper, or "mean".
            class_mean_momentum: beta in [0, 1): how much of the old row stays.
        Raises:
            ValueError: a setting out of range, or normalization "none".
        """
        super().__init__(normalization=normalization, temperature=temperature)
        check_classifier("class_mean", normalization, num_classes, feature_dim, None)
        check_choice("class_mean_form", class_mean_form, CLASS_MEAN_FORMS)
        if not 0 <= class_mean_momentum < 1:
            raise ValueError(f"class_mean_momentum must be at least 0 and below 1, got {class_mean_momentum!r}.")
        self.form, self.momentum = class_mean_form, class_mean_momentum
        self.register_buffer("weight", _random_directions(num_classes, feature_dim))

    @torch.no_grad()
    def observe(self, features: Float[Tensor, "batch dim"], labels: Int[Tensor, " batch"]) -> None:
        """`W <- normalize(beta W + (1 - beta) S)`, S the sum or mean of each class's features in the batch.

        Features count as the classifier scales them. With m samples of a class in the batch the sum form weighs new
        against old by m (1 - beta) / beta, the mean form by (1 - beta) / beta. Rows of classes that are not in the
        batch stay as they are. Where torch.distributed is initialised, the batch is that of all its processes.

        Args:
            features: as the encoder gives them.
            labels: their classes.
        Source: Jiang et al., arXiv 2310.05351 (class-mean features; the sum is that of the released code).
        """
        sums = torch.zeros_like(self.weight)
        sums.index_add_(0, labels, self.scaled_features(features.to(sums.dtype)))
        counts = torch.bincount(labels, minlength=len(sums)).to(sums.dtype).unsqueeze(1)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
            torch.distributed.all_reduce(counts)
        if self.form == "mean":
            sums /= counts.clamp_min(1)
        moved = self.momentum * self.weight + (1 - self.momentum) * sums
        norms = moved.norm(dim=1, keepdim=True)
        # a sum that cancels the old row leaves no direction: the old one stays
        turns = (counts > 0) & (norms > torch.finfo(norms.dtype).eps)
        self.weight.copy_(torch.where(turns, moved / norms, self.weight))


class FixedClassifier(Classifier):
    """Rows that are the points of a code from the start and never move."""

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        normalization: str,
        temperature: float | None,
        init_norm: float,
        code: str = "best",
        assignment: str = "random",
        similarity: Float[Tensor, "classes classes"] | None = None,
        points: Float[Tensor, "classes dim"] | None = None,
    ) -> None:
        """Points of the code, one a class, of unit length where the head normalises rows, else of norm `init_norm`.

        Args:
            num_classes: rows.
            feature_dim: columns.
            normalization: a name in `NORMALIZATIONS`.
            temperature: the logits are divided by it; None with normalization "none", and only there.
            init_norm: in the unit of the rows; without effect where the head normalises them.
            code: "simplex", "best" (see `code_rows`) or "random" directions (torch's default generator).
            assignment: of classes to points: "random" (torch's default generator), or "similarity", which gives
                similar classes near points.
            points: unit rows of the code where they are at hand; they are made where this is None.
            similarity: of the classes, larger is nearer; with assignment "similarity", and only there.
        Raises:
            ValueError: a setting out of range, a simplex of more than feature_dim + 1 classes, a similarity missing
                or unwanted.
        """
        super().__init__(normalization=normalization, temperature=temperature)
        check_choice("code", code, CODES)
        check_choice("assignment", assignment, ASSIGNMENTS)
        check_classifier("fixed", normalization, num_classes, feature_dim, code)
        _check_norm(init_norm)
        if (similarity is None) == (assignment == "similarity"):
            found = "none" if similarity is None else "one"
            raise ValueError(
                f"similarity must be given with assignment 'similarity' and only there, got {found} with {assignment!r}."
            )
        points = code_rows(code, num_classes, feature_dim) if points is None else points
        order = torch.randperm(num_classes) if similarity is None else assign_classes(similarity, points @ points.T)
        norm = 1.0 if self.normalises_weights else init_norm
        self.register_buffer("weight", (norm * points[order]).to(torch.get_default_dtype()))


CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "linear": LinearClassifier,
    "class_mean": ClassMeanClassifier,
    "fixed": FixedClassifier,
}


def make_classifier(
    name: str,
    num_classes: int,
    feature_dim: int,
    *,
    normalization: str,
    temperature: float | None,
    init_norm: float,
    **settings: Any,
) -> Classifier:
    """The classifier of that name.

    Args:
        name: a name in `CLASSIFIERS`.
        num_classes: rows, at least 2.
        feature_dim: columns.
        normalization: a name in `NORMALIZATIONS`.
        temperature: the logits are divided by it; None with normalization "none", and only there.
        init_norm: norm of the rows at the start, where that has an effect.
        settings: `class_mean_form` and `class_mean_momentum` for class_mean; `code`, `assignment` and `similarity` for
            fixed; None counts as not given.
    Returns:
        The classifier, initialised from torch's default generator.
    Raises:
        ValueError: an unknown name, a setting out of range or without effect, a pair that cannot be.
    """
    check_choice("classifier", name, CLASSIFIERS)
    constructor = CLASSIFIERS[name]
    return constructor(
        num_classes,
        feature_dim,
        normalization=normalization,
        temperature=temperature,
        init_norm=init_norm,
        **read_settings("classifier", name, constructor, settings),
    )


def code_rows(code: str, num_classes: int, feature_dim: int) -> Float[Tensor, "classes dim"]:
    """Unit rows of a code in float64, in the code's own order.

    Args:
        code: "simplex"; "best", of `codes.best_code`, which says what that costs (seconds up to about 200 classes in 64
            dimensions, minutes at 10,000); or "random" directions from torch's default generator.
        num_classes: K.
        feature_dim: d; a simplex is padded with zeros.
    """
    if code == "random":
        return _random_directions(num_classes, feature_dim).to(torch.float64)
    if code == "best":
        return best_code(num_classes, feature_dim).points
    points = torch.from_numpy(simplex(num_classes))
    return functional.normalize(functional.pad(points, (0, feature_dim - points.shape[1])), dim=1)


def _random_directions(num_classes: int, feature_dim: int) -> Float[Tensor, "classes dim"]:
    return functional.normalize(torch.randn(num_classes, feature_dim), dim=1)


def _check_norm(init_norm: float) -> float:
    if not init_norm > 0:
        raise ValueError(f"init_norm must be positive, got {init_norm!r}.")
    return init_norm
