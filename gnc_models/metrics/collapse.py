"""One measurement with all its columns: checks the arguments, prepares the features once, calls each kind of column.

Knows every other module here; does not know networks, training, tables or the disk.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gnc_models.geometry.margins import Margins, one_vs_rest_margins
from gnc_models.geometry.pairwise import max_cosine, one_vs_rest_scores, unit
from gnc_models.metrics.alignment import alignment_columns, input_correlation, ood_deviation
from gnc_models.metrics.class_statistics import check_labels
from gnc_models.metrics.feature_views import Values, View
from gnc_models.metrics.norms import effective_temperature, norm_columns, rank_columns
from gnc_models.metrics.samples import nearest_mean_accuracy, sample_columns
from gnc_models.metrics.separation import count_columns, margin_columns, scale_free_columns
from gnc_models.metrics.uniformity import energy_columns, within_columns
from gnc_models.metrics.variability import variability_columns

Normalization = Literal["both", "features", "weights", "none"]


@dataclass(frozen=True)
class Collapse:
    """What one measurement found: a value for each column, with the parts that later steps keep."""

    values: Values
    margins: Margins  # of the unit classifier rows
    class_means: Float[Tensor, "classes dim"]  # float64; of unit features if the head normalises features; NaN: absent


def measure_collapse(
    features: Float[Tensor, "samples dim"],
    labels: Int[Tensor, " samples"],
    weights: Float[Tensor, "classes dim"],
    *,
    normalization: Normalization,
    temperature: float | None,
    test_features: Float[Tensor, "test_samples dim"] | None = None,
    test_labels: Int[Tensor, " test_samples"] | None = None,
    ood_features: Float[Tensor, "ood_samples dim"] | None = None,
    class_inputs: Float[Tensor, "classes input_dim"] | None = None,
    counted: Bool[Tensor, " samples"] | None = None,
    absent_classes: bool = False,
    tolerance: float = 1e-6,
) -> Collapse:
    """Every geometric column of a measurement (study.store.schemas.Measurement), in float64.

    Args:
        features: training features as the encoder gives them, before any normalization.
        labels: class of each, 0..classes-1.
        weights: classifier rows before any normalization; the head has no bias.
        normalization: what the head scales to unit length before the logits.
        temperature: the logits are divided by it; None with normalization "none".
        test_features: like features, for the nearest-class-mean accuracy; None without a test set.
        test_labels: like labels; with test_features or not at all.
        ood_features: like features, of samples that belong to no class.
        class_inputs: mean input of each class, flattened; rows of classes without samples are not read.
        counted: which training samples enter; None for all. The counts of classes are those of all samples.
        absent_classes: whether classes without a sample that counts may be. Their rows enter the margins, while
            what is measured at class means leaves them out.
        tolerance: relative gap of the certified margins.
    Returns:
        The values by column name; None where a quantity does not exist (variability from one sample per class, energies
        of coinciding means, ...), never zero for it.
    Raises:
        ValueError: wrong shapes, labels out of range, a class without samples, a value that is not finite, a
            temperature that the normalization does not take, a classifier row of zeros, features that are all zero.
    Source: docs/metrics.md names the paper of each formula.
    """
    _check_samples(weights, features, labels, (test_features, test_labels), ood_features)
    _check_settings(normalization, temperature, features, weights, counted, class_inputs)
    rows = weights.detach().to(torch.float64)
    unit_rows = unit(rows)
    view = View(features.detach(), labels, len(rows), normalization, counted=counted, absent_classes=absent_classes)
    margins = one_vs_rest_margins(unit_rows, tolerance=tolerance)
    values: Values = {
        **variability_columns(view),
        **margin_columns(margins),
        **count_columns(margins, unit_rows, view.sample_counts),
        **_mean_margin_columns(view, unit_rows, margins, tolerance),
        **sample_columns(view, rows, unit_rows, temperature),
        "max_cosine": max_cosine(unit_rows),
        **energy_columns(view.head, unit_rows),
        **within_columns(view),
        **alignment_columns(view.head, rows[view.classes]),
        "ood_deviation": ood_deviation(view, ood_features),
        "input_correlation": None,
        "ncc_test_accuracy": None,
        **norm_columns(rows, view.raw),
        **rank_columns(view.head, unit_rows),
        **scale_free_columns(rows, view.unit_weights, tolerance, margins),
        "effective_temperature": effective_temperature(rows, view.raw, normalization, temperature),
    }
    if class_inputs is not None:
        values["input_correlation"] = input_correlation(unit_rows[view.classes], class_inputs[view.classes])
    if test_features is not None and test_labels is not None:
        values["ncc_test_accuracy"] = nearest_mean_accuracy(view, test_features.detach(), test_labels)
    return Collapse(values, margins, view.class_means())


def _mean_margin_columns(view: View, unit_rows: Tensor, margins: Margins, tolerance: float) -> Values:
    """Margins of the class means, and of their directions against the rows."""
    # GNC3 says that means lie near rows, so their margins are searched from where those of the rows were found
    start = margins if view.all_present else None
    found = one_vs_rest_margins(unit(view.head.means), tolerance=tolerance, warm_start=start).minimum
    directions = one_vs_rest_scores(unit(view.unit.means), view.classes, unit_rows)
    return {
        "mean_margin_min_lower": found[0],
        "mean_margin_min_upper": found[1],
        "mean_direction_margin_min": float(directions.min()),
    }


# --- what is refused ---------------------------------------------------------------------------------------------


def _check_samples(
    weights: Tensor, features: Tensor, labels: Tensor, test: tuple[Tensor | None, Tensor | None], ood: Tensor | None
) -> None:
    test_features, test_labels = test
    if weights.ndim != 2:
        raise ValueError(f"weights must be a matrix, one row per class, got shape {tuple(weights.shape)}.")
    sets = {"weights": weights, "features": features, "test_features": test_features, "ood_features": ood}
    for name, values in sets.items():
        if values is not None:
            _check_features(name, values, weights.shape[1])
    check_labels(labels, len(features), len(weights))
    if (test_features is None) != (test_labels is None):
        raise ValueError("test_features and test_labels must be given together or not at all, got one of them.")
    if test_features is not None and test_labels is not None:
        check_labels(test_labels, len(test_features), len(weights))


def _check_features(name: str, values: Tensor, feature_dim: int) -> None:
    if values.ndim != 2 or values.shape[1] != feature_dim or not len(values):
        raise ValueError(
            f"{name} must be a matrix with {feature_dim} columns, as weights, got shape {tuple(values.shape)}."
        )
    broken = int((~values.isfinite()).any(1).sum())
    if broken:
        raise ValueError(f"{name} must be finite, got NaN or infinity in {broken} of {len(values)} rows.")


def _check_settings(
    normalization: str,
    temperature: float | None,
    features: Tensor,
    weights: Tensor,
    counted: Tensor | None,
    class_inputs: Tensor | None,
) -> None:
    dead = (~weights.any(1)).nonzero()[:, 0].tolist()
    if dead:
        raise ValueError(f"weights must have no row of zeros, got {len(dead)}, the first is {dead[0]}.")
    if counted is not None and (counted.shape != (len(features),) or counted.dtype != torch.bool or not counted.any()):
        raise ValueError(
            f"counted must be {len(features)} booleans, one per sample and some true, got shape {tuple(counted.shape)} "
            f"of {counted.dtype}."
        )
    if not bool((features if counted is None else features[counted]).any()):
        raise ValueError("features must not all be zero, got nothing else. The encoder is dead.")
    if class_inputs is not None and (class_inputs.ndim != 2 or len(class_inputs) != len(weights)):
        raise ValueError(
            f"class_inputs must have one row per class ({len(weights)}), got shape {tuple(class_inputs.shape)}."
        )
    if normalization not in ("both", "features", "weights", "none"):
        raise ValueError(f"normalization must be both, features, weights or none, got {normalization!r}.")
    if (temperature is None) != (normalization == "none") or not (temperature is None or temperature > 0):
        raise ValueError(
            f"temperature must be above 0, and None with normalization 'none', got {temperature!r} with "
            f"{normalization!r}."
        )
