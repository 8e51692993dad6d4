"""Which contexts of tokens have a single continuation, and the entropy of the label given its context."""

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def mark_contexts(
    contexts: Int64[Tensor, "samples context"], labels: Int64[Tensor, " samples"]
) -> tuple[Bool[Tensor, " samples"], float]:
    """Which samples have a context that one label alone follows, and the label's entropy given the context.

    It is the empirical `-sum_{c,y} p(c, y) log p(y | c)` in nats: no function of the context has a lower cross-entropy.
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
