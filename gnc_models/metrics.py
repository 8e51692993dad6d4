"""Measures of generalized neural collapse: features, labels and classifier rows in, one value a column out.

Knows class statistics, certified margins and sums over pairs; does not know networks, training, tables or the disk.
Formulas, meaning, sources and traps are in docs/metrics.md. Everything is float64 and streamed: beside the features
themselves, memory is O(classes x dim + dim^2 + samples) and a few tiles.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gnc_models.margin_search import EPS
from gnc_models.margins import Margins, one_vs_rest_margins
from gnc_models.pairs import (
    max_cosine,
    measure_energy,
    nearest_rows,
    one_vs_rest_scores,
    squared_distances,
    tiles,
    unit,
)
from gnc_models.statistics import ClassStatistics, check_labels

Normalization = Literal["both", "features", "weights", "none"]
Values = dict[str, float | None]


@dataclass(frozen=True)
class Collapse:
    """What one measurement found: a value for each column, with the parts that later steps keep."""

    values: Values
    margins: Margins  # of the unit classifier rows
    class_means: Float[Tensor, "classes dim"]  # float64; of unit features if the head normalises features


def measure_collapse(
    features: Float[Tensor, "samples dim"],
    labels: Int[Tensor, " samples"],
    weights: Float[Tensor, "classes dim"],
    *,
    normalization: Normalization,
    temperature: float | None,
    test_features: Float[Tensor, "test_samples dim"],
    test_labels: Int[Tensor, " test_samples"],
    tolerance: float = 1e-6,
) -> Collapse:
    """Every geometric column of a measurement (study.records.Measurement), in float64.

    Args:
        features: training features as the encoder gives them, before any normalization.
        labels: class of each, 0..classes-1.
        weights: classifier rows before any normalization; the head has no bias.
        normalization: what the head scales to unit length before the logits.
        temperature: the logits are divided by it; None with normalization "none".
        test_features: like features, for the nearest-class-mean accuracy.
        test_labels: like labels.
        tolerance: relative gap of the certified margins.
    Returns:
        The values by column name; None where a quantity does not exist (variability from one sample a class, energies
        of coinciding means, ...), never zero for it.
    Raises:
        ValueError: wrong shapes, labels out of range, a class without samples, a value that is not finite, a
            temperature that the normalization does not take, a classifier row of zeros, features that are all zero.
    Source: docs/metrics.md names the paper of each formula.
    """
    _check(features, labels, weights, normalization, temperature, test_features, test_labels)
    rows = weights.detach().to(torch.float64)
    unit_rows = unit(rows)
    view = _View(features.detach(), labels, len(rows), normalization)
    margins = one_vs_rest_margins(unit_rows, tolerance=tolerance)
    # GNC3 says that means lie near rows, so their margins are searched from where those of the rows were found
    mean_margins = one_vs_rest_margins(unit(view.head.means), tolerance=tolerance, warm_start=margins)
    classes = torch.arange(len(rows), device=rows.device)
    values: Values = {
        **measure_variability(view.head),
        "trace_within": float(view.unit.within_covariance.trace()) if view.unit.has_spread else None,
        **_margin_columns(margins),
        "mean_margin_min_lower": mean_margins.minimum[0],
        "mean_margin_min_upper": mean_margins.minimum[1],
        "mean_direction_margin_min": float(one_vs_rest_scores(unit(view.unit.means), classes, unit_rows).min()),
        **_sample_columns(view, rows, unit_rows),
        "max_cosine": max_cosine(unit_rows),
        **_energy_columns(view.head),
        **_alignment_columns(view.head, rows),
        "ncc_test_accuracy": _nearest_mean_accuracy(view, test_features.detach(), test_labels),
        **_norm_columns(rows, view.raw),
        **_scale_free_margins(rows, normalization, tolerance, margins),
        "effective_temperature": _effective_temperature(rows, view.raw, normalization, temperature),
    }
    return Collapse(values, margins, view.head.means)


def _check(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    normalization: str,
    temperature: float | None,
    test_features: Tensor,
    test_labels: Tensor,
) -> None:
    if weights.ndim != 2:
        raise ValueError(f"weights must be a matrix, one row a class, got shape {tuple(weights.shape)}.")
    for name, values in (("features", features), ("test_features", test_features)):
        if values.ndim != 2 or values.shape[1] != weights.shape[1] or not len(values):
            raise ValueError(
                f"{name} must be a matrix with {weights.shape[1]} columns, as weights, got shape {tuple(values.shape)}."
            )
        broken = int((~values.isfinite()).any(1).sum())
        if broken:
            raise ValueError(f"{name} must be finite, got NaN or infinity in {broken} of {len(values)} rows.")
    dead = (~weights.any(1)).nonzero()[:, 0].tolist()
    if dead:
        raise ValueError(f"weights must have no row of zeros, got {len(dead)}, the first is {dead[0]}.")
    if not bool(features.any()):
        raise ValueError("features must not all be zero, got nothing else. The encoder is dead.")
    check_labels(labels, len(features), len(weights))
    check_labels(test_labels, len(test_features), len(weights))
    if normalization not in ("both", "features", "weights", "none"):
        raise ValueError(f"normalization must be both, features, weights or none, got {normalization!r}.")
    if (temperature is None) != (normalization == "none") or not (temperature is None or temperature > 0):
        raise ValueError(
            f"temperature must be above 0, and None with normalization 'none', got {temperature!r} with "
            f"{normalization!r}."
        )


class _View:
    """Training features as they are, of unit length, and as the head sees them, with the statistics of each."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, normalization: str) -> None:
        self.features, self.labels = features, labels
        self.unit_features = normalization in ("both", "features")
        self.unit_weights = normalization in ("both", "weights")
        self.raw, self.unit = (ClassStatistics(num_classes, features.shape[1], features.device) for _ in range(2))
        for tile in tiles(len(features), features.shape[1]):
            self.raw.update(features[tile], labels[tile])
            self.unit.update(unit(features[tile]), labels[tile])
        self.raw.check_every_class()
        self.head = self.unit if self.unit_features else self.raw

    def as_head_sees(self, features: Tensor) -> Tensor:
        return unit(features) if self.unit_features else features.to(torch.float64)


# --- variability: GNC1 -------------------------------------------------------------------------------------------


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
    found = (ratio / len(statistics.counts), ratio / rank if rank else math.nan, quotient, *_cdnv(statistics))
    return {name: _finite(value) for name, value in zip(names, found, strict=True)}


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


def _cdnv(statistics: ClassStatistics) -> tuple[float, float]:
    """Mean over class pairs of (var_i + var_j) / (2 |mu_i - mu_j|^2); mean over classes of var / nearest distance^2."""
    variances, num_classes = statistics.variances, len(statistics.counts)
    total = nearest = 0.0
    for rows, squares in squared_distances(statistics.centred_means):
        # over ordered pairs, (var_i + var_j) / 2 and var_i have the same sum
        total += float((variances[rows] * squares.reciprocal().sum(1)).sum())
        nearest += float((variances[rows] / squares.amin(1)).sum())
    return total / (num_classes * (num_classes - 1)), nearest / num_classes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- margins and the ladder: GNC2 --------------------------------------------------------------------------------


def _margin_columns(margins: Margins) -> Values:
    middle = (margins.lower + margins.upper) / 2
    low, median, high = torch.quantile(middle, middle.new_tensor([0.05, 0.5, 0.95])).tolist()
    return {
        "margin_min_lower": margins.minimum[0],
        "margin_min_upper": margins.minimum[1],
        "margin_mean": float(middle.mean()),
        "margin_q05": low,
        "margin_q50": median,
        "margin_q95": high,
    }


def _sample_columns(view: _View, rows: Tensor, unit_rows: Tensor) -> Values:
    """What sets every sample against every class: the ladder's last rung, and the nearest-mean agreement."""
    head_rows = unit_rows if view.unit_weights else rows
    least, agreed = [], 0
    for tile in tiles(len(view.features), max(rows.shape)):
        features = view.features[tile]
        least.append(one_vs_rest_scores(unit(features), view.labels[tile], unit_rows))
        seen = view.as_head_sees(features)
        agreed += int(((seen @ head_rows.T).argmax(1) == nearest_rows(seen, view.head.means)).sum())
    margins = torch.cat(least).sort().values
    # the linear rule of torch.quantile, which refuses more than 16 million values
    at = 0.01 * (len(margins) - 1)
    below, above = float(margins[math.floor(at)]), float(margins[math.ceil(at)])
    return {
        "sample_margin_min": float(margins[0]),
        "sample_margin_q01": below + (above - below) * (at - math.floor(at)),
        "ncc_agreement": agreed / len(margins),
    }


def _scale_free_margins(rows: Tensor, normalization: str, tolerance: float, start: Margins) -> Values:
    """Margins that a common shift of all rows does not change; None where the head normalises its rows."""
    names = ("hull_margin_min_lower", "hull_margin_min_upper", "centred_margin_min_lower", "centred_margin_min_upper")
    centred = rows - rows.mean(0)
    scale = float(centred.square().sum(1).mean().sqrt())
    if normalization in ("both", "weights") or not scale:
        return dict.fromkeys(names)
    hull = one_vs_rest_margins(centred, tolerance=tolerance, warm_start=start).minimum
    angular = one_vs_rest_margins(unit(centred), tolerance=tolerance, warm_start=start).minimum
    rounding = 4 * EPS  # of the scale and of the division by it
    found = (hull[0] / scale * (1 - rounding), hull[1] / scale * (1 + rounding), *angular)
    return dict(zip(names, found, strict=True))


# --- energies, self-duality, nearest class mean: GNC2, GNC3, NC4 -------------------------------------------------


def _energy_columns(statistics: ClassStatistics) -> Values:
    mean, variance = measure_energy(unit(statistics.centred_means))
    return {"log_energy_mean": _finite(mean), "log_energy_var": _finite(variance)}


def _alignment_columns(statistics: ClassStatistics, rows: Tensor) -> Values:
    """GNC3: 1 - cos of mean and row, averaged over classes, with and without centring the means."""
    centred = statistics.centred_means
    exists = bool((centred.square().sum(1) > 0).all())
    return {
        "gnc3": _misalignment(centred, rows) if exists else None,
        "gnc3_uncentred": _misalignment(statistics.means, rows),
    }


def _misalignment(means: Tensor, rows: Tensor) -> float:
    # |u - v|^2 / 2 = 1 - cos keeps its digits where the cosine is nearly 1
    return float((unit(means) - unit(rows)).square().sum(1).mean() / 2)


def _nearest_mean_accuracy(view: _View, features: Tensor, labels: Tensor) -> float:
    right = 0
    for tile in tiles(len(features), max(view.head.means.shape)):
        right += int((nearest_rows(view.as_head_sees(features[tile]), view.head.means) == labels[tile]).sum())
    return right / len(labels)


# --- norms -------------------------------------------------------------------------------------------------------


def _norm_columns(rows: Tensor, raw: ClassStatistics) -> Values:
    norms = rows.norm(dim=1)
    spread = float((raw.norm_square_deviation / raw.num_samples).sqrt())
    return {
        "weight_norm_mean": float(norms.mean()),
        "weight_norm_cv": float(norms.std(correction=0) / norms.mean()),
        "feature_norm_mean": float(raw.norm_mean),
        "feature_norm_cv": spread / float(raw.norm_mean),
    }


def _effective_temperature(
    rows: Tensor, raw: ClassStatistics, normalization: str, temperature: float | None
) -> float | None:
    """temperature / (rms |h| rms |w|), a norm counted only where the head does not normalise; None for both."""
    if normalization == "both":
        return None
    weight_rms = float(rows.square().sum(1).mean().sqrt()) if normalization in ("features", "none") else 1.0
    feature_square = float(raw.norm_mean**2 + raw.norm_square_deviation / raw.num_samples)
    feature_rms = math.sqrt(feature_square) if normalization in ("weights", "none") else 1.0
    scale = weight_rms * feature_rms
    return (1.0 if temperature is None else temperature) / scale if scale else None
