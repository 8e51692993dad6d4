"""The reference columns of a row: best code, bounds, null and same-temperature optimum for its (K, d, temperature).

Knows the tables of gnc_models.bounds; does not know where rows come from. Added on reading or sealing, never in a
trial, so that a better table changes no fragment.
"""

from typing import Any

import pyarrow as pa

from gnc_models import bounds, energies
from study.records import RESULTS_SCHEMA, conform


def add_references(rows: pa.Table) -> pa.Table:
    """Rows under RESULTS_SCHEMA, their reference columns computed afresh."""
    compared: dict[tuple[Any, ...], dict[str, Any]] = {}
    needed = ("num_classes", "feature_dim", "temperature", "normalization")
    decisive = ("dataset", "imbalance", "label_noise")
    measured = ("margin_min_lower", "margin_min_upper", "train_loss")
    columns: dict[str, list[Any]] = {}
    for row in rows.select([*needed, *decisive, *measured]).to_pylist():
        setting = (*(row[name] for name in needed), _is_balanced(row))
        if setting not in compared:
            compared[setting] = _references(*setting)
        for name, value in (compared[setting] | _comparison(row, compared[setting])).items():
            columns.setdefault(name, []).append(value)
    plain = conform(rows, RESULTS_SCHEMA)
    for name, values in columns.items():
        index = RESULTS_SCHEMA.get_field_index(name)
        plain = plain.set_column(index, RESULTS_SCHEMA.field(index), pa.array(values, RESULTS_SCHEMA.field(index).type))
    return plain.replace_schema_metadata(RESULTS_SCHEMA.metadata)


def is_current(rows: pa.Table) -> bool:
    """Whether every row was compared with the tables of this version."""
    versions = rows.column("reference_version").unique().to_pylist()
    return all(version == bounds.REFERENCE_VERSION for version in versions)


def _is_balanced(row: dict[str, Any]) -> bool:
    """Whether every class has as many training samples, each with its true label: what the model's optimum is for."""
    return row["dataset"] != "text" and row["imbalance"] == "none" and row["label_noise"] == 0


def _references(
    num_classes: int, feature_dim: int, temperature: float | None, normalization: str, balanced: bool
) -> dict[str, Any]:
    best = bounds.reference_margin(num_classes, feature_dim)
    optimum = None
    # the model's theory is for unit rows and unit features
    if normalization == "both" and temperature is not None and balanced:
        optimum = bounds.unconstrained_optimum(num_classes, feature_dim, temperature)
    return {
        "reference_margin_lower": best.lower,
        "reference_margin_upper": best.upper,
        "reference_source": best.source,
        "reference_version": bounds.REFERENCE_VERSION,
        "random_margin": bounds.random_margin(num_classes, feature_dim),
        "ufm_margin": optimum.margin if optimum else None,
        "ufm_loss": optimum.loss if optimum else None,
        **energies.energy_references(num_classes, feature_dim),
    }


def _comparison(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    best, ceiling = reference["reference_margin_lower"], reference["reference_margin_upper"]
    null, ufm_loss = reference["random_margin"], reference["ufm_loss"]
    lower, upper = row["margin_min_lower"], row["margin_min_upper"]
    return {
        "margin_score": (lower - null) / (best - null) if null is not None and best > null else None,
        "margin_ratio_lower": lower / ceiling if ceiling else None,
        "margin_ratio_upper": upper / best if best else None,
        "loss_excess": row["train_loss"] - ufm_loss if ufm_loss is not None else None,
    }
