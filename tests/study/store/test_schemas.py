"""Columns: types, units, meanings, and files that any reader opens."""

import dataclasses
import io
import json

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from study.design.config import TrialConfig
from study.store.schemas import (
    FRAGMENT_SCHEMA,
    MEASUREMENTS,
    RESULTS_SCHEMA,
    SCHEMA_VERSION,
    SETTINGS,
    TRIALS_SCHEMA,
    UnknownSchema,
    conform,
    fragment_table,
    read_parquet,
    record_from_json,
    to_parquet,
    with_later_settings,
)
from tests.study.conftest import finish, made_up_config, made_up_measurement, made_up_record
from tools.data_dictionary import main, rows_page

# The columns that other tools may rely on, by name.
PROMISED = [
    "trial",
    "cell",
    "epoch",
    "step",
    "terminal",
    "train_loss",
    "train_accuracy",
    "test_accuracy",
    "gnc1_pinv",
    "gnc1_rank",
    "gnc1_quotient",
    "trace_within",
    "cdnv",
    "cdnv_nearest",
    "margin_min_lower",
    "margin_min_upper",
    "margin_mean",
    "margin_q05",
    "margin_q50",
    "margin_q95",
    "mean_margin_min_lower",
    "mean_margin_min_upper",
    "mean_direction_margin_min",
    "sample_margin_min",
    "sample_margin_q01",
    "max_cosine",
    "log_energy_mean",
    "log_energy_var",
    "gnc3",
    "gnc3_uncentred",
    "ncc_agreement",
    "ncc_test_accuracy",
    "weight_norm_mean",
    "weight_norm_cv",
    "feature_norm_mean",
    "feature_norm_cv",
    "wall_seconds",
    "peak_memory_bytes",
    "reference_margin_lower",
    "reference_margin_upper",
    "reference_source",
    "reference_version",
    "random_margin",
    "margin_score",
    "margin_ratio_lower",
    "margin_ratio_upper",
    "ufm_margin",
    "ufm_margin_low",
    "ufm_margin_high",
    "ufm_loss",
    "loss_excess",
    "num_classes",
    "feature_dim",
    "temperature",
    "normalization",
    "samples_per_class",
    "seed",
]


def test_every_promised_column_exists():
    assert set(PROMISED) <= set(RESULTS_SCHEMA.names)


def test_every_setting_is_a_column_and_every_column_says_what_it_means():
    assert [column.name for column in SETTINGS] == list(TrialConfig.model_fields)
    for schema in (RESULTS_SCHEMA, TRIALS_SCHEMA):
        for field in schema:
            assert field.metadata[b"meaning"].decode().endswith(".")
            assert b"unit" in field.metadata


def test_fragments_have_every_column_with_its_type_and_nulls_where_absent():
    config = made_up_config(normalization="none")
    table = fragment_table(config, [made_up_measurement(0), made_up_measurement(1)])
    assert table.schema.equals(FRAGMENT_SCHEMA, check_metadata=True)
    assert table.column("temperature").null_count == 2
    assert table.column("peak_memory_bytes").null_count == 2
    assert table.column("trial").to_pylist() == [config.key] * 2


def test_a_table_of_an_older_minor_version_reads_with_typed_nulls():
    table = fragment_table(made_up_config(), [made_up_measurement(0)]).drop_columns(["gnc3", "encoder"])
    read = conform(table, FRAGMENT_SCHEMA)
    assert read.schema.equals(FRAGMENT_SCHEMA)
    assert read.column("gnc3").to_pylist() == [None]


def test_stored_class_means_without_the_order_of_their_update_were_moved_after_the_loss():
    for classifier, expected in (("class_mean", "after"), ("linear", None)):
        config = made_up_config(classifier=classifier, decay_normalised=None, class_mean_update=expected)
        table = fragment_table(config, [made_up_measurement(epoch) for epoch in (0, 1)])
        older = table.drop_columns(["class_mean_update"])
        assert conform(older, FRAGMENT_SCHEMA).equals(table)
        settings = {name: value for name, value in config.settings().items() if name != "class_mean_update"}
        assert with_later_settings(settings) == config.settings()


def test_an_unknown_major_schema_is_refused_and_a_newer_minor_is_not():
    table = fragment_table(made_up_config(), [made_up_measurement(0)])
    assert read_parquet(to_parquet(table.replace_schema_metadata({"schema_version": "1.9"}))).num_rows == 1
    for version in ("2.0", "?"):
        with pytest.raises(UnknownSchema, match=r"schema_version must be 1.x, got"):
            read_parquet(to_parquet(table.replace_schema_metadata({"schema_version": version})))


def test_records_survive_json_and_drop_what_is_not_known():
    record = made_up_record(state="diverged", reason="it did", attempts=3)
    assert record_from_json(json.dumps(dataclasses.asdict(record) | {"of_the_future": 1})) == record


def test_floats_survive_the_file_bit_for_bit():
    value = 0.1 + 0.2
    table = fragment_table(made_up_config(), [made_up_measurement(0, gnc3=value)])
    assert read_parquet(to_parquet(table)).column("gnc3").to_pylist() == [value]


def test_the_sealed_tables_open_without_options_in_pandas_polars_duckdb_and_pyarrow(store):
    for seed in range(3):
        finish(store, made_up_config(seed=seed, **({"normalization": "none"} if seed else {})))
    store.seal()
    for name, rows, schema in (("results", 9, RESULTS_SCHEMA), ("trials", 3, TRIALS_SCHEMA)):
        path = str(store.storage.local_path(f"{name}.parquet"))
        assert pd.read_parquet(path).shape == (rows, len(schema))
        assert pl.read_parquet(path).shape == (rows, len(schema))
        assert duckdb.sql(f"select count(distinct trial) from '{path}'").fetchall() == [(3,)]
        assert ds.dataset(path).to_table().num_rows == rows
        assert pq.read_schema(path).field("temperature").metadata[b"meaning"]
    assert pl.read_parquet(path)["temperature"].null_count() == 2


def test_units_are_in_the_column_metadata_of_the_file(store):
    finish(store, made_up_config())
    store.seal()
    schema = pq.read_schema(io.BytesIO(store.storage.read("results.parquet")))
    assert schema.field("wall_seconds").metadata[b"unit"] == b"seconds"
    assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()


def test_the_data_dictionary_is_up_to_date_and_the_check_notices_when_not(tmp_path, request, capsys):
    docs = request.config.rootpath / "docs"
    assert main(["--check", str(docs / "rows.md"), str(docs / "settings.md")]) == 0
    assert "| `gnc1_rank` | double |  | min |" in rows_page()
    assert all(f"`{column.name}`" in rows_page() for column in MEASUREMENTS)
    (tmp_path / "rows.md").write_text(rows_page() + "x")
    assert main(["--check", str(tmp_path / "rows.md")]) == 1
    assert "Run: make docs" in capsys.readouterr().err
