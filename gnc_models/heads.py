"""Heads: from features to logits, by one weight row a class. Knows torch; not how the features come about.

The head has no bias. `normalization` says what is scaled to unit length first, and with it what a logit is:

    both      normalize(H) @ normalize(W).T / temperature
    features  normalize(H) @ W.T / temperature
    weights   H @ normalize(W).T / temperature
    none      H @ W.T
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

# name: (features are normalised, weights are normalised)
NORMALIZATIONS = {
    "both": (True, True),
    "features": (True, False),
    "weights": (False, True),
    "none": (False, False),
}


class LinearHead(nn.Module):
    """One weight row a class, with or without unit length.

    Attributes:
        weight: the rows, `[classes, dim]`, as trained: never normalised in place.
        normalises_features, normalises_weights: what `forward` scales to unit length.
    """

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
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {sorted(NORMALIZATIONS)}, got {normalization!r}.")
        if (temperature is None) != (normalization == "none"):
            raise ValueError(
                f"temperature must be given unless normalization is 'none', got {temperature!r} with {normalization!r}."
            )
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature!r}.")
        if not init_norm > 0:
            raise ValueError(f"init_norm must be positive, got {init_norm!r}.")
        self.normalises_features, self.normalises_weights = NORMALIZATIONS[normalization]
        self.temperature = 1.0 if temperature is None else temperature
        directions = functional.normalize(torch.randn(num_classes, feature_dim), dim=1)
        self.weight = nn.Parameter(init_norm * directions)

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Logits, in the form the module's docstring lists."""
        weight: Tensor = self.weight
        if self.normalises_features:
            features = functional.normalize(features, dim=1)
        if self.normalises_weights:
            weight = functional.normalize(weight, dim=1)
        return functional.linear(features, weight) / self.temperature
