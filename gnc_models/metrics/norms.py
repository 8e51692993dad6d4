"""Lengths and dimensions: norms of rows and features, the temperature they make, and effective ranks."""

import math

import torch
from torch import Tensor

from gnc_models.columns import columns
from gnc_models.geometry.pairwise import EPS
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.shapes import Float


@columns("norms", "weight_norm_mean", "weight_norm_cv")
def row_norm_columns(rows: Float[Tensor, "classes dim"]) -> tuple[float, float]:
    norms = rows.norm(dim=1)
    return float(norms.mean()), float(norms.std(correction=0) / norms.mean())


@columns("norms", "feature_norm_mean", "feature_norm_cv")
def feature_norm_columns(head: ClassStatistics) -> tuple[float, float]:
    """Mean and coefficient of variation of the features' norms before any normalization."""
    mean = float(head.norm_mean)
    return mean, float((head.norm_square_deviation / head.num_samples).sqrt()) / mean


@columns("norms", "effective_temperature")
def effective_temperature(
    rows: Float[Tensor, "classes dim"], head: ClassStatistics, normalization: str, temperature: float | None
) -> float | None:
    """temperature / (rms |h| rms |w|), a norm counted only where the head does not normalise; None for both."""
    if normalization == "both":
        return None
    weight_rms = float(rows.square().sum(1).mean().sqrt()) if normalization in ("features", "none") else 1.0
    feature_square = float(head.norm_mean**2 + head.norm_square_deviation / head.num_samples)
    feature_rms = math.sqrt(feature_square) if normalization in ("weights", "none") else 1.0
    scale = weight_rms * feature_rms
    return (1.0 if temperature is None else temperature) / scale if scale else None


@columns("ranks", "feature_effective_rank")
def feature_rank_column(head: ClassStatistics) -> float:
    """Effective rank of the features as the head sees them, not centred: 1 to dim."""
    weighted = head.means * head.counts.to(torch.float64).sqrt().unsqueeze(1)
    return effective_rank(head.scatter + weighted.T @ weighted)


@columns("ranks", "weight_effective_rank")
def row_rank_column(unit_rows: Float[Tensor, "classes dim"]) -> float:
    """Effective rank of the unit rows, not centred: 1 to dim."""
    tall = len(unit_rows) >= unit_rows.shape[1]  # of the two Gram matrices the smaller one
    return effective_rank(unit_rows.T @ unit_rows if tall else unit_rows @ unit_rows.T)


def effective_rank(gram: Float[Tensor, "dim dim"]) -> float:
    """Exponential of the entropy of A's scaled singular values, from `A^T A` (Roy and Vetterli, EUSIPCO 2007)."""
    eigenvalues = torch.linalg.eigvalsh(gram)
    # rounding of a zero eigenvalue would be the square root of it among the singular values
    singular = eigenvalues[eigenvalues > len(gram) * EPS * eigenvalues[-1]].sqrt()
    return float(torch.special.entr(singular / singular.sum()).sum().exp())
