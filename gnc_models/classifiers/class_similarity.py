"""How similar the inputs of the classes are, before any network. Knows torch; does not know networks or codes."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from gnc_models.geometry.pairwise import unit


def class_mean_inputs(
    inputs: Shaped[Tensor, " samples *input"], labels: Int[Tensor, " samples"], num_classes: int
) -> Float[Tensor, "classes input_dim"]:
    """The mean input of each class, flattened, in float64; zeros for a class without samples."""
    flat = inputs.flatten(1)
    sums = torch.zeros(num_classes, flat.shape[1], dtype=torch.float64, device=flat.device)
    for part, own in zip(flat.split(4096), labels.split(4096), strict=True):
        sums.index_add_(0, own, part.to(torch.float64))
    counts = torch.bincount(labels, minlength=num_classes).clamp_min(1).unsqueeze(1)
    return sums / counts


def input_similarity(class_means: Float[Tensor, "classes input_dim"]) -> Float[Tensor, "classes classes"]:
    """Cosines of the mean inputs about their average: what assignment "similarity" is based on.

    Source: Jiang et al., arXiv 2310.05351, on which class gets which point of the code.
    """
    centred = unit(class_means - class_means.mean(0))
    return centred @ centred.T
