"""Where the rows come from: which trials saw the same data, by the roles that settings carry."""

import pyarrow as pa
import pytest

from analysis.report.trial_tables import warnings
from study.design.config import TrialConfig, settings_with
from study.execution.same_data import mixed_machines
from study.store.schemas import TRIALS_SCHEMA

TWO_VALUES = {
    "dataset": ("glyphs", "mnist"),
    "num_classes": (8, 12),
    "samples_per_class": (8, 12),
    "test_samples_per_class": (8, 12),
    "imbalance": ("exponential", "step"),
    "imbalance_ratio": (2.0, 4.0),
    "label_noise": (0.0, 0.5),
    "ood_classes": (0, 2),
    "resolution": (16, 32),
    "unseen_family": ("mono", "serif"),
    "folder": ("faces", "birds"),
    "fonts": ("dejavu", "faces"),
    "fonts_source": ("ab", "cd"),
    "context_length": (4, 8),
    "input_dim": (16, 32),
    "noise": (0.1, 0.2),
    "data_seed": (0, 1),
    "dataset_source": ("1f" * 8, "2e" * 8),
    "dataset_options": ('{"noise":0.1}', '{"noise":0.2}'),
}


def trials(first: dict, second: dict) -> list[dict]:
    settings = TrialConfig(num_classes=24, feature_dim=3).settings()
    absent = dict.fromkeys(TRIALS_SCHEMA.names)
    ends = ({"dataset_digest": digest, "state": "complete", "versions": "{}"} for digest in ("a", "b"))
    return [absent | settings | own | end for own, end in zip((first, second), ends, strict=True)]


def told_by_both(rows: list[dict]) -> bool:
    """Whether report and command line say that equal settings gave different data: both or neither."""
    table = pa.Table.from_pylist(rows, schema=TRIALS_SCHEMA)
    in_report = [w for w in warnings(table) if "different data sets" in w]
    on_terminal = [w for w in mixed_machines(table) if "different dataset_digest" in w]
    assert len(in_report) == len(on_terminal)
    return bool(in_report)


def test_every_setting_of_the_data_is_tested_here():
    assert set(TWO_VALUES) == set(settings_with("data", "size"))


@pytest.mark.parametrize("name", TWO_VALUES)
def test_trials_that_differ_in_a_setting_of_the_data_may_have_different_data(name):
    first, second = TWO_VALUES[name]
    assert not told_by_both(trials({name: first}, {name: second}))


@pytest.mark.parametrize("name", ["seed", "loss", "augmentation", "feature_dim", "temperature"])
def test_trials_that_differ_in_another_setting_alone_must_have_the_same_data(name):
    values = {"seed": (0, 1), "loss": ("mse", "focal"), "augmentation": ("none", "shift"), "feature_dim": (2, 3)}
    first, second = values.get(name, (0.1, 0.2))
    assert told_by_both(trials({name: first}, {name: second}))
