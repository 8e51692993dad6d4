"""What a row is: every column with its type, unit and meaning, written once and used everywhere.

Knows pyarrow and TrialConfig; does not know where rows are kept, how they are measured, torch or Ray.
"""

import dataclasses
import io
import json
import types
import typing
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from study.config import LATER_SETTINGS, NUMBERS_VERSION, TrialConfig

# Major: a reader of another major refuses. Minor: columns were added; older fragments are read with nulls.
SCHEMA_VERSION = "1.1"


def _column(unit: str, meaning: str) -> Any:
    return dataclasses.field(metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measured epoch of one trial. None means that the quantity does not exist here, never zero."""

    epoch: int = _column("epochs", "Passes over the training set begun so far; 0 is the untrained network.")
    step: int = _column("steps", "Optimiser steps so far.")
    terminal: bool = _column(
        "", "Whether train_accuracy has reached 0.99 at this or an earlier epoch where it was looked at."
    )
    train_loss: float = _column("nats", "Mean cross-entropy on the un-augmented training set, evaluation mode.")
    train_accuracy: float = _column("share", "Accuracy on the un-augmented training set, evaluation mode.")
    objective: float | None = _column("", "What training minimises, averaged over the last epoch's steps.")
    label_entropy: float | None = _column(
        "nats", "Empirical conditional entropy of the label given the context, the least train_loss there is; text only."
    )
    test_accuracy: float | None = _column("share", "Accuracy on the test set.")
    unseen_accuracy: float | None = _column("share", "Accuracy on the font family kept out of training.")
    gnc1_pinv: float | None = _column("", "trace(Sigma_W pinv(Sigma_B)) / K; falls as 1/K by itself, do not fit in K.")
    gnc1_rank: float | None = _column("", "trace(Sigma_W pinv(Sigma_B)) / rank(Sigma_B).")
    gnc1_quotient: float | None = _column("", "tr Sigma_W / tr Sigma_B.")
    trace_within: float | None = _column("squared distance", "tr Sigma_W of the unit-length features.")
    cdnv: float | None = _column("", "Mean over class pairs of (var_i + var_j) / (2 |mu_i - mu_j|^2).")
    cdnv_nearest: float | None = _column("", "Mean over classes of var_k / min_j |mu_k - mu_j|^2.")
    margin_min_lower: float = _column("distance", "Certified lower bound of the minimum one-vs-rest margin of W.")
    margin_min_upper: float = _column("distance", "Certified upper bound of the minimum one-vs-rest margin of W.")
    margin_mean: float = _column("distance", "Mean over classes of the one-vs-rest margin of W (interval midpoints).")
    margin_q05: float = _column("distance", "5 % quantile over classes of the one-vs-rest margin of W.")
    margin_q50: float = _column("distance", "Median over classes of the one-vs-rest margin of W.")
    margin_q95: float = _column("distance", "95 % quantile over classes of the one-vs-rest margin of W.")
    mean_margin_min_lower: float = _column("distance", "Lower bound of the minimum margin of the unit class means.")
    mean_margin_min_upper: float = _column("distance", "Upper bound of the minimum margin of the unit class means.")
    mean_direction_margin_min: float = _column("distance", "Ladder: min_k min_j <w_k - w_j, unit mean_k>.")
    sample_margin_min: float = _column("distance", "Ladder: min over samples of min_j <w_y - w_j, unit h>.")
    sample_margin_q01: float = _column("distance", "1 % quantile over samples of min_j <w_y - w_j, unit h>.")
    max_cosine: float = _column("cosine", "Largest cosine between two classifier rows.")
    log_energy_mean: float | None = _column("", "Mean over pairs of log 1/|x - y|, centred unit class means.")
    log_energy_var: float | None = _column("", "Variance over pairs of log 1/|x - y|, centred unit class means.")
    gnc3: float | None = _column("", "Mean of 1 - cos(class mean - global mean, classifier row), as the paper's code.")
    gnc3_uncentred: float = _column("", "Mean of 1 - cos(class mean, classifier row), as the hypothesis.")
    ncc_agreement: float = _column("share", "Training samples where classifier and nearest class mean agree.")
    ncc_test_accuracy: float | None = _column("share", "Test accuracy of the nearest class mean.")
    weight_norm_mean: float = _column("norm", "Mean norm of the classifier rows.")
    weight_norm_cv: float = _column("", "Coefficient of variation of the classifier rows' norms.")
    feature_norm_mean: float = _column("norm", "Mean norm of the features before any normalization.")
    feature_norm_cv: float = _column("", "Coefficient of variation of the features' norms before any normalization.")
    hull_margin_min_lower: float | None = _column(
        "", "Lower bound of the minimum margin of the raw rows over the RMS centred row norm; null if W is normalised."
    )
    hull_margin_min_upper: float | None = _column(
        "", "Upper bound of the minimum margin of the raw rows over the RMS centred row norm; null if W is normalised."
    )
    centred_margin_min_lower: float | None = _column(
        "distance", "Lower bound of the minimum margin of the centred unit rows; null if W is normalised."
    )
    centred_margin_min_upper: float | None = _column(
        "distance", "Upper bound of the minimum margin of the centred unit rows; null if W is normalised."
    )
    effective_temperature: float | None = _column(
        "", "temperature / (rms|h| rms|w|), norms counted only where the head does not normalise; null for both."
    )
    wall_seconds: float = _column(
        "seconds", "Time of this trial so far, data and start included; work lost to a kill is not counted."
    )
    peak_memory_bytes: int | None = _column("bytes", "Peak memory of this trial so far; null where it cannot be told.")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a row is compared with; added when tables are read or sealed, so a better table changes no fragment."""

    reference_margin_lower: float | None = _column("distance", "Margin of the best code known for (K, d).")
    reference_margin_upper: float | None = _column("distance", "Proven upper bound of the margin for (K, d).")
    reference_source: str | None = _column("", "Where reference_margin_lower comes from.")
    reference_version: str | None = _column("", "Version of the reference tables.")
    random_margin: float | None = _column("distance", "Median minimum margin of K random unit rows in d dimensions.")
    margin_score: float | None = _column(
        "", "(margin - random) / (best known - random), margin as margin_min_lower: 0 random, 1 best known."
    )
    margin_ratio_lower: float | None = _column("", "margin_min_lower / reference_margin_upper.")
    margin_ratio_upper: float | None = _column("", "margin_min_upper / reference_margin_lower.")
    ufm_margin: float | None = _column(
        "distance", "Minimum margin at the best loss found for the unconstrained-feature model at this temperature."
    )
    ufm_loss: float | None = _column("nats", "Best loss found for the unconstrained-feature model.")
    loss_excess: float | None = _column("nats", "train_loss - ufm_loss.")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """How one trial went: a row of trials.parquet beside its settings, kept in the fragment's footer."""

    state: str = _column("", "complete, stopped (kept for schedulers), diverged or failed.")
    reason: str | None = _column("", "Why the trial is not complete.")
    attempts: int = _column("", "Times the trial was started.")
    resumed: bool = _column("", "Whether the last attempt continued from a checkpoint.")
    reached_terminal: bool | None = _column(
        "", "Whether training accuracy reached 0.99 at an epoch where it was looked at."
    )
    seconds: float | None = _column(
        "seconds", "Time of the trial, data and start included; work lost to a kill is not counted."
    )
    finished_at: str | None = _column("", "UTC time of the end, ISO 8601.")
    host: str | None = _column("", "Machine that finished the trial.")
    cpu_model: str | None = _column("", "CPU of that machine.")
    gpu_model: str | None = _column("", "GPU the trial used; null on CPU.")
    versions: str | None = _column("", "Versions as JSON of Python and of the packages that decide numbers and data.")
    dataset_digest: str | None = _column("", "SHA-256 of the data tensors.")


@dataclass(frozen=True, kw_only=True)
class SealedFrom:
    """Which file a sealed trial was read from: what decides that it need not be read again."""

    fragment_bytes: int | None = _column("bytes", "Size of the trial's file when sealed; null once compacted.")
    fragment_modified_ns: int | None = _column("nanoseconds", "Modification time of that file; null once compacted.")


class UnknownSchema(ValueError):
    """The folder was written by a version whose major schema number this one does not know."""


@dataclass(frozen=True)
class Column:
    """A column as tables, docs and axis labels need it."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str

    def field(self) -> pa.Field:
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "meaning": self.meaning})


_ARROW = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
    list[float]: pa.list_(pa.float64()),
    list[str]: pa.list_(pa.string()),
}


def _arrow_type(annotation: Any) -> pa.DataType:
    """int, float, bool, str, lists of float or str, Literal strings, Annotated or any of them or None."""
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        return _arrow_type(next(a for a in typing.get_args(annotation) if a is not type(None)))
    if origin is typing.Annotated:
        return _arrow_type(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return pa.string()
    return _ARROW[annotation]


def _columns_of(record: type) -> tuple[Column, ...]:
    hints = typing.get_type_hints(record)
    return tuple(
        Column(f.name, _arrow_type(hints[f.name]), f.metadata["unit"], f.metadata["meaning"])
        for f in dataclasses.fields(record)
    )


IDENTITY = (
    Column("trial", pa.string(), "", "The trial's key: a hash of its settings."),
    Column("cell", pa.string(), "", "The key without the seed; statistics cluster on it."),
)
SETTINGS = tuple(
    Column(name, _arrow_type(f.annotation), str(cast(dict, f.json_schema_extra)["unit"]), f.description or "")
    for name, f in TrialConfig.model_fields.items()
)
MEASUREMENTS = _columns_of(Measurement)
REFERENCES = _columns_of(Reference)
TRIAL_COLUMNS = _columns_of(TrialRecord)
SEALED_FROM = _columns_of(SealedFrom)
# Columns that differ between two correct runs of the same trial: time, host, memory and attempt.
CIRCUMSTANCES = frozenset(
    {"wall_seconds", "peak_memory_bytes", "seconds", "finished_at", "host", "attempts", "resumed"}
    | {column.name for column in SEALED_FROM}
)


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema(
        [c.field() for c in columns],
        metadata={"schema_version": SCHEMA_VERSION, "numbers_version": str(NUMBERS_VERSION)},
    )


FRAGMENT_SCHEMA = _schema(IDENTITY + SETTINGS + MEASUREMENTS)
RESULTS_SCHEMA = _schema(IDENTITY + SETTINGS + MEASUREMENTS + REFERENCES)
TRIALS_SCHEMA = _schema(IDENTITY + SETTINGS + TRIAL_COLUMNS + SEALED_FROM)
# Per-class margins: every class for K <= 10,000, else the 1,000 smallest.
MARGINS_COLUMNS = (
    Column("class_index", pa.int64(), "", "Index of the class in this trial."),
    Column("class_name", pa.string(), "", "Name of the class, for glyphs the character."),
    Column("samples", pa.int64(), "samples", "Training samples of the class."),
    Column("norm", pa.float64(), "norm", "Norm of the class's classifier row before normalization."),
    Column("nearest_class", pa.int64(), "", "Class whose row has the largest cosine with this one."),
    Column("lower", pa.float64(), "distance", "Certified lower bound of the class's one-vs-rest margin."),
    Column("upper", pa.float64(), "distance", "Certified upper bound of the class's one-vs-rest margin."),
    Column("support", pa.list_(pa.int64()), "", "Classes whose rows carry the nearest point of the hull."),
)
MARGINS_SCHEMA = _schema(MARGINS_COLUMNS)


def identity_and_settings(config: TrialConfig) -> dict[str, Any]:
    """Trial, cell and every setting by column name."""
    return {"trial": config.key, "cell": config.cell, **config.settings()}


def fragment_table(config: TrialConfig, measurements: list[Measurement]) -> pa.Table:
    """Rows of one trial under FRAGMENT_SCHEMA, by epoch; every column present, absent values null."""
    identity = identity_and_settings(config)
    rows = [identity | dataclasses.asdict(m) for m in measurements]
    return pa.Table.from_pylist(rows, schema=FRAGMENT_SCHEMA)


def record_from_json(text: str) -> TrialRecord:
    """A TrialRecord out of JSON; fields of a newer minor version are dropped, missing ones are None."""
    known = json.loads(text)
    values: dict[str, Any] = {f.name: known.get(f.name) for f in dataclasses.fields(TrialRecord)}
    return TrialRecord(**values)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the schema's columns, metadata from the schema.

    A measurement that the table does not know is null. A setting that came after it has the value that keeps the key.
    """
    settled = _later_settings(table, [f.name for f in schema if f.name not in table.column_names])
    columns = []
    for f in schema:
        if f.name in table.column_names:
            columns.append(table.column(f.name).cast(f.type))
        elif f.name in settled:
            columns.append(pa.array(settled[f.name], f.type))
        else:
            columns.append(pa.nulls(table.num_rows, f.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _later_settings(table: pa.Table, missing: list[str]) -> dict[str, list[Any]]:
    """For each missing setting with a value that keeps old keys, that value in the rows whose trial reads it."""
    wanted = [name for name in missing if name in LATER_SETTINGS]
    if not wanted or "trial" not in table.column_names:
        return {}
    known = [name for name in TrialConfig.model_fields if name in table.column_names]
    trials = table.column("trial").to_pylist()
    first = {key: index for index, key in reversed(list(enumerate(trials)))}
    rows = table.select(known).take(list(first.values())).to_pylist()
    settled = {key: TrialConfig.settle(row) for key, row in zip(first, rows, strict=True)}
    return {name: [settled[key].get(name, LATER_SETTINGS[name]) for key in trials] for name in wanted}


def to_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_parquet(content: bytes) -> pa.Table:
    """The table in a Parquet file's bytes; UnknownSchema for a foreign major version, pa.ArrowException if torn."""
    # Not pq.read_table: its read-ahead threads may still hold the bytes when the interpreter ends, which aborts it.
    table = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
    version = (table.schema.metadata or {}).get(b"schema_version", b"?").decode()
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise UnknownSchema(
            f"schema_version must be {SCHEMA_VERSION.split('.')[0]}.x, got {version!r}. "
            "Use the gnc-study version that wrote this folder, or another results folder."
        )
    return table
