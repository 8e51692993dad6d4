"""Lengths and dimensions: norms of rows and features, the temperature they make, and effective ranks.

Knows class statistics and rows; does not know margins.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gnc_models.geometry.pairwise import EPS
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.feature_views import Values


def norm_columns(rows: Float[Tensor, "classes dim"], raw: ClassStatistics) -> Values:
    """Mean and coefficient of variation of the norms of rows and of features."""
    norms = rows.norm(dim=1)
    spread = float((raw.norm_square_deviation / raw.num_samples).sqrt())
    return {
        "weight_norm_mean": float(norms.mean()),
        "weight_norm_cv": float(norms.std(correction=0) / norms.mean()),
        "feature_norm_mean": float(raw.norm_mean),
        "feature_norm_cv": spread / float(raw.norm_mean),
    }


def effective_temperature(
    rows: Float[Tensor, "classes dim"], raw: ClassStatistics, normalization: str, temperature: float | None
) -> float | None:
    """temperature / (rms |h| rms |w|), a norm counted only where the head does not normalise; None for both."""
    if normalization == "both":
        return None
    weight_rms = float(rows.square().sum(1).mean().sqrt()) if normalization in ("features", "none") else 1.0
    feature_square = float(raw.norm_mean**2 + raw.norm_square_deviation / raw.num_samples)
    feature_rms = math.sqrt(feature_square) if normalization in ("weights", "none") else 1.0
    scale = weight_rms * feature_rms
    return (1.0 if temperature is None else temperature) / scale if scale else None


def rank_columns(head: ClassStatistics, unit_rows: Float[Tensor, "classes dim"]) -> Values:
    """Effective ranks of the features as the head sees them and of the unit rows, neither centred: 1 to dim."""
    weighted = head.means * head.counts.to(torch.float64).sqrt().unsqueeze(1)
    tall = len(unit_rows) >= unit_rows.shape[1]  # of the two Gram matrices the smaller one
    return {
        "feature_effective_rank": effective_rank(head.scatter + weighted.T @ weighted),
        "weight_effective_rank": effective_rank(unit_rows.T @ unit_rows if tall else unit_rows @ unit_rows.T),
    }


def effective_rank(gram: Float[Tensor, "dim dim"]) -> float:
    """Exponential of the entropy of the singular values of A, normalised to sum 1, from `A^T A`.

    Source: Roy and Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
    """
    eigenvalues = torch.linalg.eigvalsh(gram)
    # rounding of a zero eigenvalue would be the square root of it among the singular values
    counted = eigenvalues > len(gram) * EPS * eigenvalues[-1]
    singular = eigenvalues[counted].sqrt()
    return float(torch.special.entr(singular / singular.sum()).sum().exp())
