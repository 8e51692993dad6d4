"""Made-up trials for the store's tests: right schema, numbers from nowhere."""

import dataclasses

import pytest

from study.design.columns import Measurement, TrialRecord
from study.design.config import TrialConfig
from study.store.store import Store, open_store


def made_up_measurement(epoch: int, **values) -> Measurement:
    kinds = {int: 0, float: 0.5, bool: False}
    fields = dataclasses.fields(Measurement)
    filled = {f.name: None if "list" in str(f.type) else kinds.get(f.type, 0.25) for f in fields}
    return Measurement(**{**filled, "epoch": epoch, "step": 10 * epoch, "peak_memory_bytes": None, **values})


def made_up_record(**values) -> TrialRecord:
    absent = dict.fromkeys((f.name for f in dataclasses.fields(TrialRecord)), None)
    return TrialRecord(**{**absent, "state": "complete", "attempts": 1, "resumed": False, "seconds": 2.0, **values})


def made_up_config(**settings) -> TrialConfig:
    return TrialConfig(**{"num_classes": 24, "feature_dim": 3, **settings})


def finish(store: Store, config: TrialConfig, *, epochs: int = 3, **record) -> None:
    store.write_fragment(config, [made_up_measurement(e) for e in range(epochs)], made_up_record(**record))


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "results")
