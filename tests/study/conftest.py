"""Made-up trials for the store's tests: right schema, numbers from nowhere."""

import dataclasses

import pyarrow as pa
import pytest

from study.design.columns import Measurement, TrialRecord
from study.design.config import TrialConfig
from study.store.schemas import RESULTS_SCHEMA, TRIALS_SCHEMA, conform, read_parquet, to_parquet
from study.store.store import Store, open_store


def made_up_measurement(epoch: int, **values) -> Measurement:
    kinds = {int: 0, float: 0.5, bool: False, bool | None: None, int | None: None}
    fields = dataclasses.fields(Measurement)
    filled = {
        f.name: None if "list" in str(f.type) or "dict" in str(f.type) else kinds.get(f.type, 0.25) for f in fields
    }
    return Measurement(**{**filled, "epoch": epoch, "step": 10 * epoch, "peak_memory_bytes": None, **values})


def made_up_record(**values) -> TrialRecord:
    absent = dict.fromkeys((f.name for f in dataclasses.fields(TrialRecord)), None)
    return TrialRecord(**{**absent, "state": "complete", "attempts": 1, "resumed": False, "seconds": 2.0, **values})


def made_up_config(**settings) -> TrialConfig:
    return TrialConfig(**{"num_classes": 24, "feature_dim": 3, **settings})


def finish(store: Store, config: TrialConfig, *, epochs: int = 3, **record) -> None:
    store.write_fragment(config, [made_up_measurement(e) for e in range(epochs)], made_up_record(**record))


def remove_rows(store: Store, key: str) -> None:
    """Without its files, a trial that no archive holds counts as never run."""
    for entry in store.fragments().get(key, []):
        store.storage.remove(f"rows/{entry.name}")


def compact_as_before(store: Store) -> None:
    """A folder as a version without archives compacted it: the sealed tables are the only copy."""
    store.seal()
    for name, schema in (("results.parquet", RESULTS_SCHEMA), ("trials.parquet", TRIALS_SCHEMA)):
        table = conform(read_parquet(store.storage.read(name)), schema)
        table = table.drop_columns([n for n in ("fragment_name", "code_digest") if n in table.column_names])
        for column in ("fragment_bytes", "fragment_modified_ns"):
            if column in table.column_names:
                place = table.column_names.index(column)
                table = table.set_column(place, schema.field(column), pa.nulls(table.num_rows, pa.int64()))
        store.storage.write(name, to_parquet(table.replace_schema_metadata({b"schema_version": b"1.2"})))
    store.storage.write("compacted", b"")
    store.storage.remove_folder("rows")


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "results")
