"""Two losses of a paper: NTCE and NONL, which contrast a class's row with the samples of the batch, not with other rows.

Source: Koromilas et al., Neural Collapse by Design, arXiv 2605.20302; the formulas as its authors' own code states them
(github.com/pakoromilas/nc_by_design, losses.py, with the flags it asks for). With cosines c(w, h) over temperature t:

    NTCE   mean over samples i of -log( exp(c(w_yi, h_i) / t) / sum over all samples j of exp(c(w_yi, h_j) / t) )
    NONL   the same with a sum over the samples j of other classes alone, so that attraction and repulsion come apart
"""

import torch
from torch.nn.functional import cross_entropy, normalize


def ntce(features, labels, weights, temperature):
    """features [batch, dim], labels [batch], weights [classes, dim] -> scalar, nats."""
    logits = _logits(features, labels, weights, temperature)
    return cross_entropy(logits, torch.arange(len(labels), device=labels.device))


def nonl(features, labels, weights, temperature):
    """As `ntce`; a batch must hold two classes. It can be negative."""
    logits = _logits(features, labels, weights, temperature)
    others = logits.masked_fill(labels[:, None] == labels[None, :], -torch.inf)
    return (others.logsumexp(1) - logits.diagonal()).mean()


def _logits(features, labels, weights, temperature):
    """[i, j]: the row of sample i's class against sample j."""
    return normalize(weights, dim=1)[labels] @ normalize(features, dim=1).T / temperature
