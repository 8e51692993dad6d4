"""GNC1: how far features of a class lie from their mean, against how far the means lie from each other.

Knows class statistics; does not know classifiers.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gnc_models.geometry.pairwise import EPS, squared_distances
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.feature_views import Values, View, finite


def measure_variability(statistics: ClassStatistics) -> Values:
    """GNC1 in three forms and the class-distance normalised variance in two; None where they do not exist.

    Source: Papyan et al. 2020 (pinv), Tirer et al. 2023 (quotient), Galanti et al. 2021 (CDNV).
    """
    names = ("gnc1_pinv", "gnc1_rank", "gnc1_quotient", "cdnv", "cdnv_nearest")
    if not statistics.has_spread:
        return dict.fromkeys(names)
    ratio, rank = _within_over_between(statistics)
    between = float(statistics.between_covariance.trace())
    quotient = float(statistics.within_covariance.trace()) / between if between else math.nan
    cdnv = distance_variances(statistics.centred_means, statistics.variances)
    found = (ratio / len(statistics.counts), ratio / rank if rank else math.nan, quotient, *cdnv)
    return {name: finite(value) for name, value in zip(names, found, strict=True)}


def variability_columns(view: View) -> Values:
    """Every column of GNC1: the forms above, the trace on the sphere, and the two that weigh classes equally.

    Sigma_W averages over samples, so that under a long tail it is that of the frequent classes; the balanced forms
    average the classes' variances instead. With equal counts both are the same.
    """
    values = measure_variability(view.head)
    if not view.unit.has_spread:
        return values | dict.fromkeys(("trace_within", "trace_within_balanced", "gnc1_quotient_balanced"))
    between = float(view.head.between_covariance.trace())
    return {
        **values,
        "trace_within": float(view.unit.within_covariance.trace()),
        "trace_within_balanced": _mean_variance(view.unit),
        "gnc1_quotient_balanced": finite(_mean_variance(view.head) / between if between else math.nan),
    }


def _mean_variance(statistics: ClassStatistics) -> float:
    """Average over classes of the variance; a class of one sample has none that is known, and is left out."""
    return float(statistics.variances[statistics.counts > 1].mean())


def _within_over_between(statistics: ClassStatistics) -> tuple[float, int]:
    """trace(Sigma_W pinv(Sigma_B)) and the rank of Sigma_B.

    The rank rule: an eigenvalue counts if it exceeds max(classes, dim) * eps * the largest, and at most classes - 1
    count, since means centred by their own average span no more.
    """
    num_classes, dim = statistics.means.shape
    eigenvalues, vectors = torch.linalg.eigh(statistics.between_covariance)
    counted = eigenvalues > max(num_classes, dim) * EPS * eigenvalues[-1].clamp_min(0.0)
    counted[: max(0, dim - num_classes + 1)] = False  # ascending order
    within = ((vectors.T @ statistics.within_covariance) * vectors.T).sum(1)
    rank = int(counted.sum())
    return (float((within[counted] / eigenvalues[counted]).sum()) if rank else math.nan), rank


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
