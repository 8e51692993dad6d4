"""The unconstrained-feature model: a feature vector for each training sample, free of any network. Knows torch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gnc_models.encoders.input_shapes import sequence_length


class FreeFeatures(nn.Module):
    """One trained vector per sample, looked up by its index; Gaussian with mean square norm 1 at the start.

    Source: Mixon, Parshall and Pi, arXiv 2011.11619; with the sphere constraint Jiang et al., arXiv 2310.05351.
    """

    def __init__(self, num_samples: int, feature_dim: int) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(num_samples, feature_dim) * feature_dim**-0.5)

    def forward(self, index: Int[Tensor, "batch 1"] | Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        return self.features[index.flatten()]


def make_unconstrained(input_shape: tuple[int, ...], feature_dim: int, *, num_samples: int) -> FreeFeatures:
    """Free features for `num_samples` samples whose input is their index, of shape (1,)."""
    if sequence_length("unconstrained", input_shape) != 1:
        raise ValueError(f"input_shape must be (1,) for unconstrained, got {input_shape!r}. An input is one index.")
    return FreeFeatures(num_samples, feature_dim)
