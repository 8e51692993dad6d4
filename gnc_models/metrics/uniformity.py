"""Hyperspherical uniformity: energies and separation of class means and rows, and of the features of a class.

Knows sums over pairs; null and bound of each energy are in gnc_models.references.energy.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnc_models.geometry import pairwise as pairs
from gnc_models.geometry.pairwise import measure_energy, squared_distances, unit
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.feature_views import Values, View, finite

SAMPLES_A_CLASS = 64  # enters the within-class energies; a class with more is thinned evenly


def energy_columns(statistics: ClassStatistics, unit_rows: Float[Tensor, "classes dim"]) -> Values:
    """Energies between classes, of means and of rows; None where two coincide.

    Source: Liu et al., arXiv 2303.06484.
    """
    mean, variance = measure_energy(unit(statistics.centred_means))
    riesz, _, nearest = _energies(unit(statistics.means))
    row_riesz, row_log, row_nearest = _energies(unit_rows)
    return {
        "log_energy_mean": finite(mean),
        "log_energy_var": finite(variance),
        "mean_riesz_energy": finite(riesz),
        "mean_min_distance": nearest,
        "weight_riesz_energy": finite(row_riesz),
        "weight_log_energy": finite(row_log),
        "weight_min_distance": row_nearest,
    }


def _energies(points: Tensor) -> tuple[float, float, float]:
    """Mean over pairs of 1/|x-y|^2 and of log 1/|x-y|, and the smallest distance, in one pass."""
    riesz = logarithm = 0.0
    smallest = math.inf
    for _, squares in squared_distances(points):
        riesz += float(squares.reciprocal().sum())
        logarithm -= float(torch.where(squares.isinf(), 1.0, squares).log().sum()) / 2  # infinite on the diagonal
        smallest = min(smallest, float(squares.min()))
    num_pairs = len(points) * (len(points) - 1)
    return riesz / num_pairs, logarithm / num_pairs, math.sqrt(max(smallest, 0.0))


def within_columns(view: View) -> Values:
    """Mean over classes of the mean over pairs of samples of log 1/|x-y| and of |x-y|, x and y unit features.

    HUG's within-class measure in its forms s = 0 and s = -1. Exact for classes of at most SAMPLES_A_CLASS samples; of
    a larger one that many, evenly spaced in the order of the samples, stand for all. None where no class has two
    samples, and the energy where two samples coincide.
    Source: Liu et al., arXiv 2303.06484.
    """
    energy = distance = 0.0
    num_classes = 0
    for points, filled in _padded_classes(view):
        upper = torch.ones(points.shape[1], points.shape[1], dtype=torch.bool, device=points.device).triu(1)
        counted = filled.unsqueeze(1) & filled.unsqueeze(2) & upper
        # differences, not |x|^2 + |y|^2 - 2 <x, y>: under collapse nothing would be left of them
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        num_pairs = counted.sum((1, 2))
        energy -= float((torch.where(counted, distances, 1.0).log().sum((1, 2)) / num_pairs).sum())
        distance += float((torch.where(counted, distances, 0.0).sum((1, 2)) / num_pairs).sum())
        num_classes += len(points)
    if not num_classes:
        return dict.fromkeys(("within_log_energy", "within_distance"))
    return {"within_log_energy": finite(energy / num_classes), "within_distance": distance / num_classes}


def _padded_classes(view: View) -> Iterator[tuple[Float[Tensor, "classes width dim"], Bool[Tensor, "classes width"]]]:
    """Unit features class by class, from their mean, with a mask of the places that hold one; classes of 2 or more."""
    counts = view.unit.counts
    starts = counts.cumsum(0) - counts
    order = view.places[view.labels].argsort(stable=True)
    classes = counts.argsort(descending=True, stable=True)
    classes = classes[: int((counts > 1).sum())]
    while len(classes):
        width = min(int(counts[classes[0]]), SAMPLES_A_CLASS)  # the largest of those left
        height = max(1, pairs.TILE_ENTRIES // (width * max(width, view.features.shape[1])))
        batch, classes = classes[:height], classes[height:]
        taken, filled = _places(counts[batch], width)
        samples = order[starts[batch].unsqueeze(1) + taken]
        points = unit(view.features[samples.flatten()]).view(*samples.shape, -1)
        yield points - view.unit.means[batch].unsqueeze(1), filled


def _places(
    counts: Int[Tensor, " classes"], width: int
) -> tuple[Int[Tensor, "classes width"], Bool[Tensor, "classes width"]]:
    """Which samples of each class stand for it, evenly spaced if there are more than `width`; 0 where unfilled."""
    steps, counts = torch.arange(width, device=counts.device), counts.unsqueeze(1)
    used = counts.clamp_max(width)
    filled = steps < used
    return torch.where(filled, steps * counts // used, 0), filled
