"""GNC1: how far features of a class lie from their mean, against how far the means lie from each other."""

import math

import torch
from torch import Tensor

from gnc_models.columns import columns
from gnc_models.geometry.pairwise import EPS, squared_distances
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.shapes import Float

Spectrum = tuple[Tensor, Tensor]  # eigenvalues of Sigma_B in ascending order [dim], and its eigenvectors [dim, dim]


@columns("variability", "gnc1_pinv", "gnc1_rank")
def ratio_columns(head: ClassStatistics, between: Spectrum) -> tuple[float, float] | None:
    """trace(Sigma_W pinv(Sigma_B)), over classes and over the rank (Papyan et al. 2020); None without spread."""
    if not head.has_spread:
        return None
    ratio, rank = _within_over_between(head.within_covariance, between, len(head.counts))
    return ratio / len(head.counts), ratio / rank if rank else math.nan


@columns("variability", "gnc1_quotient", "gnc1_quotient_balanced")
def quotient_columns(head: ClassStatistics) -> tuple[float, float] | None:
    """tr Sigma_W / tr Sigma_B (Tirer et al. 2023); None where no class has two samples.
    Sigma_W averages over samples, so that under a long tail it is that of the frequent classes; the balanced form
    averages the classes' variances instead. With equal counts both are the same."""
    if not head.has_spread:
        return None
    between = float(head.centred_means.square().sum(1).mean())
    return (_mean_square(head) / between, _mean_variance(head) / between) if between else (math.nan, math.nan)


@columns("variability", "gnc1_pinv_weighted", "gnc1_quotient_weighted")
def weighted_columns(head: ClassStatistics, between: Spectrum) -> tuple[float, float] | None:
    """The two forms of the papers' code, where Sigma_B is about the mean of all samples."""
    if not head.has_spread:
        return None
    centred = head.sample_centred_means
    if bool((head.counts != head.counts[0]).any()):
        between = tuple(torch.linalg.eigh(centred.T @ centred / len(centred)))
    size = float(centred.square().sum(1).mean())
    ratio, _ = _within_over_between(head.within_covariance, between, len(centred))
    return ratio / len(centred), _mean_square(head) / size if size else math.nan


@columns("variability", "cdnv", "cdnv_nearest")
def distance_columns(head: ClassStatistics) -> tuple[float, float] | None:
    """The class-distance normalised variance over all pairs and to the nearest class (Galanti et al. 2021)."""
    return distance_variances(head.centred_means, head.variances) if head.has_spread else None


@columns("sphere", "trace_within", "trace_within_balanced")
def trace_columns(sphere: ClassStatistics) -> tuple[float, float] | None:
    """tr Sigma_W of the features of unit length, samples and classes with equal weight."""
    return (_mean_square(sphere), _mean_variance(sphere)) if sphere.has_spread else None


def _mean_square(statistics: ClassStatistics) -> float:
    """tr Sigma_W: average over samples of the squared distance from their class's mean."""
    return float(statistics.square_deviations.sum()) / statistics.num_samples


def _mean_variance(statistics: ClassStatistics) -> float:
    """Average over classes of the variance; a class of one sample has none that is known, and is left out."""
    return float(statistics.variances[statistics.counts > 1].mean())


def _within_over_between(within: Tensor, between: Spectrum, num_classes: int) -> tuple[float, int]:
    """trace(Sigma_W pinv(Sigma_B)) and the rank of Sigma_B, at most classes - 1, which centred means span."""
    dim = len(within)
    eigenvalues, vectors = between
    counted = eigenvalues > max(num_classes, dim) * EPS * eigenvalues[-1].clamp_min(0.0)
    counted[: max(0, dim - num_classes + 1)] = False  # ascending order
    along = ((vectors.T @ within) * vectors.T).sum(1)
    rank = int(counted.sum())
    return (float((along[counted] / eigenvalues[counted]).sum()) if rank else math.nan), rank


def distance_variances(
    means: Float[Tensor, "classes dim"], variances: Float[Tensor, " classes"]
) -> tuple[float, float]:
    """Mean over class pairs of (var_i + var_j) / (2 |mu_i - mu_j|^2); mean over classes of var / nearest distance^2."""
    total, nearest, num_classes = 0.0, 0.0, len(means)
    for rows, squares in squared_distances(means):
        # over ordered pairs, (var_i + var_j) / 2 and var_i have the same sum
        total += float((variances[rows] * squares.reciprocal().sum(1)).sum())
        nearest += float((variances[rows] / squares.amin(1)).sum())
    return total / (num_classes * (num_classes - 1)), nearest / num_classes
