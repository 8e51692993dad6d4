"""Hyperspherical uniformity: energies and separation of class means and rows, and of the features of a class."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gnc_models.columns import columns
from gnc_models.geometry import pairwise as pairs
from gnc_models.geometry.pairwise import measure_energy, squared_distances, unit
from gnc_models.metrics.class_statistics import ClassStatistics
from gnc_models.metrics.feature_views import View
from gnc_models.shapes import Bool, Float, Int

SAMPLES_A_CLASS = 64  # enters the within-class energies; a class with more is thinned evenly


@columns("energies", "log_energy_mean", "log_energy_var")
def centred_energy_columns(head: ClassStatistics) -> tuple[float, float]:
    """Mean and variance over pairs of log 1/|x - y| between centred class means (Liu et al., arXiv 2303.06484)."""
    return measure_energy(unit(head.centred_means))


@columns("energies", "mean_riesz_energy", "mean_min_distance")
def mean_energy_columns(head: ClassStatistics) -> tuple[float, float]:
    """Energy and least distance of the class means; no energy where two coincide."""
    riesz, _, nearest = _energies(unit(head.means))
    return riesz, nearest


@columns("energies", "weight_riesz_energy", "weight_log_energy", "weight_min_distance")
def row_energy_columns(unit_rows: Float[Tensor, "classes dim"]) -> tuple[float, float, float]:
    """Energies and least distance of the rows; no energies where two coincide."""
    return _energies(unit_rows)


cosine_column = columns("energies", "max_cosine")(pairs.max_cosine)


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


@columns("samples", "within_log_energy", "within_distance")
def within_columns(view: View, sphere: ClassStatistics) -> tuple[float, float] | None:
    """Mean over classes of the mean over pairs of samples of log 1/|x-y| and of |x-y|, x and y unit features.
    Of a class of more than SAMPLES_A_CLASS that many stand for all, evenly spaced in the order of the samples. None
    where no class has two samples, and the energy where two samples coincide.
    Source: Liu et al., arXiv 2303.06484 (HUG's within-class measure in its forms s = 0 and s = -1)."""
    energy = distance = 0.0
    num_classes = 0
    for points, filled in _padded_classes(view, sphere):
        upper = torch.ones(points.shape[1], points.shape[1], dtype=torch.bool, device=points.device).triu(1)
        counted = filled.unsqueeze(1) & filled.unsqueeze(2) & upper
        # differences, not |x|^2 + |y|^2 - 2 <x, y>: under collapse nothing would be left of them
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        num_pairs = counted.sum((1, 2))
        energy -= float((torch.where(counted, distances, 1.0).log().sum((1, 2)) / num_pairs).sum())
        distance += float((torch.where(counted, distances, 0.0).sum((1, 2)) / num_pairs).sum())
        num_classes += len(points)
    return (energy / num_classes, distance / num_classes) if num_classes else None


def _padded_classes(
    view: View, sphere: ClassStatistics
) -> Iterator[tuple[Float[Tensor, "classes width dim"], Bool[Tensor, "classes width"]]]:
    """Unit features class by class, from their mean, with a mask of the places that hold one; classes of 2 or more."""
    counts = sphere.counts
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
        yield points - sphere.means[batch].unsqueeze(1), filled


def _places(
    counts: Int[Tensor, " classes"], width: int
) -> tuple[Int[Tensor, "classes width"], Bool[Tensor, "classes width"]]:
    """Which samples of each class stand for it, evenly spaced if there are more than `width`; 0 where unfilled."""
    steps, counts = torch.arange(width, device=counts.device), counts.unsqueeze(1)
    used = counts.clamp_max(width)
    filled = steps < used
    return torch.where(filled, steps * counts // used, 0), filled
