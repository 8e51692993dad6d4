"""Which contexts of tokens have a single continuation, and the entropy of the label given its context."""

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def mark_contexts(
    contexts: Int64[Tensor, "samples context"], labels: Int64[Tensor, " samples"]
) -> tuple[Bool[Tensor, " samples"], float]:
    """Which samples have a context that one label alone follows, and the entropy of the label given the context.

    Returns:
        A mark for each sample, true where all samples with the same context have the same label; and the empirical
        conditional entropy in nats, `-sum_{c,y} p(c, y) log p(y | c)`: no function of the context has a smaller mean
        cross-entropy on these samples.
    """
    # a row's bytes as one value: rows are equal exactly where these are
    rows = np.ascontiguousarray(contexts.numpy()).view(np.dtype((np.void, contexts.shape[1] * 8)))[:, 0]
    _, group = np.unique(rows, return_inverse=True)
    wide = int(labels.max()) + 1
    pairs, counts = np.unique(group * wide + labels.numpy(), return_counts=True)
    owner = pairs // wide
    share = counts / np.bincount(owner, weights=counts)[owner]
    entropy = float(-(counts * np.log(share)).sum() / len(rows))
    return torch.from_numpy(np.bincount(owner)[group] == 1), entropy + 0.0  # never -0.0
