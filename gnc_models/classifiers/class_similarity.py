"""How similar the inputs of the classes are, before any network. Knows torch; does not know networks or codes."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from gnc_models.datasets.samples.streamed import Streamed, in_order, read_batches
from gnc_models.geometry.pairwise import unit


def class_mean_inputs(
    inputs: Shaped[Tensor, " samples *input"] | Streamed, labels: Int[Tensor, " samples"], num_classes: int
) -> Float[Tensor, "classes input_dim"]:
    """The mean input of each class, flattened, in float64; zeros for a class without samples."""
    sums = torch.zeros(num_classes, inputs.shape[1:].numel(), dtype=torch.float64, device=labels.device)
    chunks = list(in_order(len(labels)))
    for chunk, part in zip(chunks, read_batches(inputs, chunks), strict=True):
        sums.index_add_(0, labels[chunk], part.flatten(1).to(labels.device, torch.float64))
    counts = torch.bincount(labels, minlength=num_classes).clamp_min(1).unsqueeze(1)
    return sums / counts


def input_similarity(class_means: Float[Tensor, "classes input_dim"]) -> Float[Tensor, "classes classes"]:
    """Cosines of the mean inputs about their average: what assignment "similarity" is based on (arXiv 2310.05351)."""
    centred = unit(class_means - class_means.mean(0))
    return centred @ centred.T
