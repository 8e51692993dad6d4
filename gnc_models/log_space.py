"""Losses so small that they underflow, by their logarithms. Knows torch only."""

import torch
from torch import Tensor

from gnc_models.shapes import Float


def log_softplus(odds: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(log(1 + exp(odds))) without underflow: below -30 it equals odds to rounding."""
    return torch.where(odds < -30, odds, torch.nn.functional.softplus(odds.clamp_min(-30)).log())
