"""How far means and rows, as the head uses them, are from a simplex, in the forms of the literature on few classes: norms,
angles, Gram errors. Up to d + 1 classes all can be 0. Beyond, the Gram errors cannot fall below `simplex_error_floor`."""

import math

import torch
from torch import Tensor

from gnc_models.columns import columns, finite
from gnc_models.geometry.pairwise import unit
from gnc_models.metrics.alignment import off_diagonal
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.shapes import Float


@columns("simplex", "mean_equinorm", "mean_equiangularity", "mean_angle_gap", "mean_etf_error")
def mean_columns(head: ClassStatistics) -> tuple[float | None, ...] | None:
    """Equinorm, equiangularity (Papyan et al. 2020) and ETF error (Zhu et al. 2021) of the centred class means."""
    centred = head.centred_means
    if not bool(centred.any(1).all()):
        return None
    norms = centred.norm(dim=1)
    return float(norms.std(correction=0) / norms.mean()), *_angles(centred), simplex_error(centred, centred)


@columns("simplex", "weight_equiangularity", "weight_angle_gap", "weight_etf_error")
def row_columns(used_rows: Float[Tensor, "present dim"]) -> tuple[float | None, ...]:
    return *_angles(used_rows), simplex_error(used_rows, used_rows)


@columns("simplex", "duality_error", "self_duality_distance")
def duality_columns(
    head: ClassStatistics, used_rows: Float[Tensor, "present dim"]
) -> tuple[float | None, float] | None:
    """How far rows and centred means are from one simplex and from each other; None where a centred mean is zero."""
    centred = head.centred_means
    if not bool(centred.any(1).all()):
        return None
    gap = used_rows / used_rows.norm() - centred / centred.norm()
    return simplex_error(used_rows, centred), float(gap.norm())


def simplex_error(left: Float[Tensor, "classes dim"], right: Float[Tensor, "classes dim"]) -> float | None:
    """`|M / |M| - S / |S||` with M = left right^T and S = I - 1 1^T / K, in Frobenius norms; None where M = 0.
    With S / |S| = S / sqrt(K - 1) the square is 2 - 2 tr(M S) / (|M| sqrt(K - 1)), where
    tr(M S) = sum_k <l_k, r_k> - <sum_k l_k, sum_k r_k> / K and |M|^2 = <left^T left, right^T right>: no K x K matrix.
    Near 0 that form keeps half of the digits only, but then K <= d + 1, and M itself is small."""
    num_classes, dim = left.shape
    left, right = left / left.abs().max().clamp_min(1e-300), right / right.abs().max().clamp_min(1e-300)
    if num_classes <= dim + 1:
        simplex = torch.eye(num_classes, dtype=left.dtype, device=left.device) - 1 / num_classes
        product = left @ right.T
        return finite(float((product / product.norm() - simplex / math.sqrt(num_classes - 1)).norm()))
    size = float((left.T @ left).mul(right.T @ right).sum().clamp_min(0.0).sqrt())
    inner = float((left * right).sum() - left.sum(0) @ right.sum(0) / num_classes)
    return math.sqrt(max(0.0, 2 - 2 * inner / (size * math.sqrt(num_classes - 1)))) if size else None


def simplex_error_floor(num_classes: int, feature_dim: int) -> float:
    """The least `simplex_error` in d dimensions: 0 up to d + 1 classes, then sqrt(2 - 2 sqrt(d / (K - 1))).
    M has rank d at most. Among matrices of that rank and |M| = 1 the largest inner product with the projection S is
    sqrt(d), reached by a projection of rank d inside that of S."""
    if num_classes < 2 or feature_dim < 1:
        got = (num_classes, feature_dim)
        raise ValueError(f"num_classes must be at least 2 and feature_dim at least 1, got {got!r}.")
    return math.sqrt(2 - 2 * math.sqrt(min(1.0, feature_dim / (num_classes - 1))))


def _angles(points: Tensor) -> tuple[float, float]:
    """Standard deviation over pairs of the cosine, and mean of `|cosine + 1 / (K - 1)|`, in two streamed passes."""
    directions, num_classes = unit(points), len(points)
    num_pairs = num_classes * (num_classes - 1)
    total = directions.sum(0)
    mean = (float(total @ total) - float(directions.square().sum())) / num_pairs
    squares = gaps = 0.0
    for cosines in off_diagonal(directions, directions):
        squares += float((cosines - mean).square().sum())
        gaps += float((cosines + 1 / (num_classes - 1)).abs().sum())
    return math.sqrt(squares / num_pairs), gaps / num_pairs
