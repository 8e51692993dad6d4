"""A metric of one's own: the share of the logit gradient that the head lets through to the features.

The gradient of cross-entropy with respect to a sample's K logits is softmax - one-hot. The head sends back only its part
in the span of the d columns of W (K x d): the rest is lost to the network. The share is that of the squared norm, summed
over samples. For a gradient of random direction it is d / K, the null to compare with.

Source: arXiv 2603.10145 (the head as a bottleneck of gradients), which reports norms; squares have the simple null.
"""

import torch
from torch.nn.functional import normalize, one_hot


def kept_share(features, labels, weights, temperature, normalization):
    """features [samples, dim], labels [samples], weights [classes, dim] -> a number from 0 to 1."""
    if normalization in ("both", "features"):
        features = normalize(features, dim=1)
    if normalization in ("both", "weights"):
        weights = normalize(weights, dim=1)
    gradient = torch.softmax(features @ weights.T / temperature, dim=1) - one_hot(labels, len(weights))
    basis = torch.linalg.qr(weights)[0]  # of the column space
    return (gradient @ basis).square().sum() / gradient.square().sum()
