"""The reference columns of a row: best code, bounds, null and same-temperature optimum for its (K, d, temperature).
Added on reading or sealing, never in a trial, so that a better table changes no trial's file. Knows the tables of
gnc_models.references; does not know where rows come from, nor the user's cache."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gnc_models.catalog.members import DATASETS
from gnc_models.codes.phases import unconstrained_optimum
from gnc_models.references import energy as energies
from gnc_models.references import margin as bounds
from gnc_models.references.tables import NO_OPTIMA, OwnOptima
from study.store.schemas import RESULTS_SCHEMA, conform

# settings that a row's references depend on
DECISIVE = ("num_classes", "feature_dim", "temperature", "normalization", "dataset", "imbalance", "label_noise")


class References:
    """What rows are compared with: the shipped tables, and the optima that lie in the results folder."""

    def __init__(self, own: OwnOptima = NO_OPTIMA) -> None:
        self._own = own
        self.version = f"{bounds.REFERENCE_VERSION}+{own.digest}" if own.digest else bounds.REFERENCE_VERSION

    def are_in(self, rows: pa.Table) -> bool:
        """Whether every row was compared with exactly these references."""
        return all(version == self.version for version in rows.column("reference_version").unique().to_pylist())

    def add_to(self, rows: pa.Table) -> pa.Table:
        """Rows under RESULTS_SCHEMA, their reference columns computed afresh."""
        settings = list(zip(*(rows.column(name).to_pylist() for name in DECISIVE), strict=True))
        of_size = {size: _size_references(*size) for size in dict.fromkeys(setting[:2] for setting in settings)}
        compared = {setting: of_size[setting[:2]] | self._optimum(*setting) for setting in dict.fromkeys(settings)}
        place = {setting: index for index, setting in enumerate(compared)}
        places = pa.array([place[setting] for setting in settings], pa.int64())
        columns = {
            name: pa.array([found[name] for found in compared.values()], RESULTS_SCHEMA.field(name).type).take(places)
            for name in next(iter(compared.values()), {})
        }
        columns |= _comparison(rows, columns) if columns else {}
        plain = conform(rows, RESULTS_SCHEMA)
        for name, values in columns.items():
            index = RESULTS_SCHEMA.get_field_index(name)
            plain = plain.set_column(index, RESULTS_SCHEMA.field(index), values)
        return plain.replace_schema_metadata(RESULTS_SCHEMA.metadata)

    def _optimum(self, *setting: Any) -> dict[str, Any]:
        num_classes, feature_dim, temperature, normalization, dataset, imbalance, label_noise = setting
        # as many training samples in each class, each with its true label: what the model's optimum is for
        balanced = "imbalance" not in DATASETS[dataset].refuses and imbalance == "none" and label_noise == 0
        optimum = None
        # the model's theory is for unit rows and unit features
        if normalization == "both" and temperature is not None and balanced:
            optimum = unconstrained_optimum(num_classes, feature_dim, temperature, self._own)
        names = ("margin", "margin_low", "margin_high", "loss")
        found = {f"ufm_{name}": getattr(optimum, name) if optimum else None for name in names}
        return found | {"reference_version": self.version}


def _size_references(num_classes: int, feature_dim: int) -> dict[str, Any]:
    best = bounds.reference_margin(num_classes, feature_dim)
    random = bounds.random_margin_interval(num_classes, feature_dim)
    return {
        "reference_margin_lower": best.lower, "reference_margin_upper": best.upper, "reference_source": best.source,
        "random_margin": random and random.median, "random_margin_lower": random and random.low,
        "random_margin_upper": random and random.high, **energies.energy_references(num_classes, feature_dim),
    }  # fmt: skip


def _comparison(rows: pa.Table, reference: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """How far each row is from its references; null where there is none, or none to divide by."""
    best, ceiling = reference["reference_margin_lower"], reference["reference_margin_upper"]
    lower, upper = rows.column("margin_min_lower"), rows.column("margin_min_upper")
    scored = (lower, upper, *(reference[f"random_margin{end}"] for end in ("", "_lower", "_upper")), best)
    least, most, null, *nulls, known = (column.to_numpy(zero_copy_only=False) for column in scored)
    ends = bounds.margin_score_bounds(least, most, (nulls[0], nulls[1]), known)
    names = ("margin_score", "margin_score_lower", "margin_score_upper")
    scores = dict(zip(names, (bounds.margin_score(least, null, known), *ends), strict=True))
    return {
        **{name: pa.array(values, pa.float64(), from_pandas=True) for name, values in scores.items()},  # NaN: null
        "margin_ratio_lower": pc.divide(lower, _nonzero(ceiling)),
        "margin_ratio_upper": pc.divide(upper, _nonzero(best)),
        "loss_excess": pc.subtract(rows.column("train_loss"), reference["ufm_loss"]),
    }


def _nonzero(values: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(values, 0.0), pa.scalar(None, pa.float64()), values)
