"""A made-up study for tests of the analysis: rows from formulas, never from a network, under the real schemas."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gnc_models.references import margin as bounds
from gnc_models.references.tables import best_code_points
from study.design.config import TrialConfig
from study.design.study_file import parse_study
from study.store.schemas import MARGINS_SCHEMA, RESULTS_SCHEMA, TRIALS_SCHEMA
from study.store.storage import ignore

STUDY = 'name = "made up <for tests>"\n[grid]\nnum_classes = [8, 12]\n'
# (feature_dim, num_classes, temperature, normalization, seed), along the grid of the quickstart.
GRID: tuple[tuple[int, int, float | None, str, int], ...] = (
    *((2, k, 0.1, "both", s) for k in (8, 12) for s in (0, 1)),
    *((3, k, t, "both", 0) for k in (12, 24, 48) for t in (1.0, 0.3, 0.1, 0.05)),
    *((3, k, 0.1, "both", 1) for k in (12, 24, 48)),
    *((10, k, 0.1, "both", 0) for k in (50, 100, 200)),
    (10, 100, 1.0, "both", 0),
    (10, 100, 0.2, "both", 0),
    (3, 24, 0.1, "features", 0),
    (3, 24, None, "none", 0),
    (10, 100, 0.1, "features", 0),
    (10, 100, None, "none", 0),
)
STEPS = (0, 30, 60, 120, 240, 480, 960, 1500)


@dataclass
class MadeUpStore:
    """The reading and reporting half of a store, over tables in memory."""

    results: pa.Table
    trials: pa.Table
    heads: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    margins: dict[str, pa.Table] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    study: str | None = STUDY
    written: dict[str, bytes] = field(default_factory=dict)
    uri: str = "results/made-up"

    def is_results_folder(self) -> bool:
        return True

    def read(self, columns: Collection[str] | None = None, *, last: bool = False, on_unreadable=ignore) -> pa.Table:
        for name in self.unreadable:
            on_unreadable(name)
        rows = self.results.sort_by([("trial", "ascending"), ("epoch", "ascending")])
        trial = rows["trial"].to_pylist()
        ends = [i for i, key in enumerate(trial) if i + 1 == len(trial) or trial[i + 1] != key]
        names = [n for n in rows.column_names if columns is None or n in columns]
        return (rows.take(pa.array(ends, pa.int64())) if last else rows).select(names)

    def read_trials(self, on_unreadable=ignore) -> pa.Table:
        return self.trials

    def read_margins(self, key: str, on_unreadable=ignore) -> pa.Table | None:
        return self.margins.get(key)

    def read_head(self, key: str, on_unreadable=ignore) -> dict[str, np.ndarray] | None:
        return self.heads.get(key)

    def latest_study(self) -> str | None:
        return self.study

    def write_report(self, files: dict[str, bytes | None]) -> None:
        self.written.update({name: content for name, content in files.items() if content is not None})

    def read_report(self, name: str) -> bytes | None:
        return self.written.get(name)


def made_up_config(dim: int, num_classes: int, temperature: float | None, normalization: str, seed: int) -> TrialConfig:
    given: dict[str, Any] = {"temperature": temperature} if temperature is not None else {}
    return TrialConfig(num_classes=num_classes, feature_dim=dim, normalization=normalization, seed=seed, **given)


def made_up_rows(config: TrialConfig) -> list[dict[str, Any]]:
    """Plausible courses: GNC1 and GNC3 fall with the step, the margin rises to a share of the best known."""
    k, d, tau = config.num_classes, config.feature_dim, config.temperature or 0.3
    reference = bounds.reference_margin(k, d)
    random = 0.4 * reference.lower * (1 - 1 / d)
    chance = np.random.default_rng(int(config.key[:8], 16))
    reach = (0.97 if config.normalization == "both" else 0.8) / (1 + 3 * tau**2) * (1 - 0.02 * chance.random())
    rows = []
    for epoch, step in enumerate(STEPS):
        done = step / STEPS[-1]
        spread = 2.0 * (1 + step) ** -0.7 * (k / 12) ** 0.3 * (1 + tau) * np.exp(0.1 * chance.normal())
        margin = reference.lower * (0.2 + (reach - 0.2) * done**0.3)
        row: dict[str, Any] = {
            name: 0.5 for name in RESULTS_SCHEMA.names if pa.types.is_floating(RESULTS_SCHEMA.field(name).type)
        }
        row |= {"trial": config.key, "cell": config.cell, **config.settings(), "epoch": epoch, "step": step}
        row |= {
            "terminal": done > 0.3,
            "train_accuracy": min(0.2 + done, 1.0),
            "test_accuracy": 0.9 * min(0.2 + done, 1),
        }
        row |= {"gnc1_rank": spread, "gnc1_quotient": spread, "gnc1_pinv": spread / k, "trace_within": spread / 2}
        row |= {
            "cdnv_nearest": spread * 3,
            "gnc3_uncentred": spread / 20,
            "gnc3": spread / 10,
            "train_loss": 1 - 0.9 * done,
        }
        row |= {"margin_min_lower": margin, "margin_min_upper": margin * (1 + 1e-6), "peak_memory_bytes": 10**8}
        row |= {"mean_direction_margin_min": margin * 0.9, "sample_margin_min": margin * 0.9 - spread / 10}
        row |= {"reference_margin_lower": reference.lower, "reference_margin_upper": reference.upper}
        row |= {"reference_source": reference.source, "reference_version": "made up", "random_margin": random}
        optimum = reference.lower * 0.98 / (1 + 0.2 * tau)
        for name, factor in (("ufm_margin", 1.0), ("ufm_margin_low", 0.99), ("ufm_margin_high", 1.01)):
            row |= {name: factor * optimum if config.temperature else None}
        row |= {"margin_ratio_upper": margin / reference.lower, "margin_ratio_lower": margin / reference.upper}
        rows.append(row)
    return rows


def made_up_trial(config: TrialConfig, state: str = "complete", reason: str | None = None) -> dict[str, Any]:
    versions = json.dumps({"python": "3.11.2", "torch": "2.15.0", "numpy": "2.4.6", "gnc-study": "0.1.0"})
    return {
        "trial": config.key,
        "cell": config.cell,
        **config.settings(),
        "state": state,
        "reason": reason,
        "attempts": 1,
        "resumed": False,
        "reached_terminal": state == "complete",
        "seconds": 9.5,
        "finished_at": "2026-01-01T00:00:00Z",
        "host": "bench",
        "cpu_model": "Made-up CPU",
        "gpu_model": None,
        "versions": versions,
        "dataset_digest": f"digest-of-{config.num_classes}",
    }


def made_up_head(config: TrialConfig, *, noise: float = 0.05) -> dict[str, np.ndarray]:
    """The best code held (or random rows), turned, in another order, and shaken."""
    chance = np.random.default_rng(config.seed)
    points = best_code_points(config.num_classes, config.feature_dim)
    if points is None:
        points = chance.normal(size=(config.num_classes, config.feature_dim))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    turn, _ = np.linalg.qr(chance.normal(size=(config.feature_dim,) * 2))
    rows = points[chance.permutation(len(points))] @ turn
    shaken = rows + noise * (config.temperature or 1) * chance.normal(size=rows.shape)
    return {"weights": shaken.astype(np.float32), "class_means": (0.95 * rows).astype(np.float32)}


def made_up_margins(config: TrialConfig, smallest: float) -> pa.Table:
    lower = smallest * (1 + np.linspace(0, 0.6, config.num_classes) ** 2)
    columns = {
        "class_index": range(config.num_classes),
        "class_name": [chr(65 + i) for i in range(config.num_classes)],
        "samples": [24] * config.num_classes,
        "norm": [1.0] * config.num_classes,
        "nearest_class": [0] * config.num_classes,
        "lower": lower,
        "upper": lower * (1 + 1e-6),
        "support": [[0]] * config.num_classes,
    }
    return pa.table(
        {name: pa.array(list(v), MARGINS_SCHEMA.field(name).type) for name, v in columns.items()}, schema=MARGINS_SCHEMA
    )


def make_made_up_store(
    grid: Sequence[tuple[int, int, float | None, str, int]] = GRID,
    *,
    broken: Sequence[tuple[tuple[int, int, float | None, str, int], str, str | None]] = (),
    unreadable: Sequence[str] = (),
) -> MadeUpStore:
    """A store with these complete trials, and broken ones as (settings, state, reason)."""
    configs = [made_up_config(*settings) for settings in grid]
    rows = {config.key: made_up_rows(config) for config in configs}
    trials = [made_up_trial(config) for config in configs]
    trials += [made_up_trial(made_up_config(*settings), state, reason) for settings, state, reason in broken]
    return MadeUpStore(
        results=pa.Table.from_pylist([row for each in rows.values() for row in each], schema=RESULTS_SCHEMA),
        trials=pa.Table.from_pylist(trials, schema=TRIALS_SCHEMA),
        heads={config.key: made_up_head(config) for config in configs},
        margins={c.key: made_up_margins(c, rows[c.key][-1]["margin_min_lower"]) for c in configs},
        unreadable=list(unreadable),
    )


@pytest.fixture
def make_store() -> Callable[..., MadeUpStore]:
    """The maker of made-up studies."""
    return make_made_up_store


@pytest.fixture(scope="session")
def full_store() -> MadeUpStore:
    """The made-up quickstart with a failed, a diverged and a stopped trial."""
    return make_made_up_store(
        broken=[
            ((3, 96, 0.1, "both", 0), "failed", "RuntimeError: <script>alert('x')</script> & more\nTraceback ..."),
            ((3, 192, 0.1, "both", 0), "diverged", "train_loss is not finite at step 40"),
            ((10, 400, 0.1, "both", 0), "stopped", None),
        ]
    )


SEARCH = """
name = "little-search"
[fixed]
feature_dim = 3
num_classes = 12
[grid]
seed = [0]
[search]
learning_rate = { log_uniform = [0.001, 10.0] }
weight_decay = { log_uniform = [1e-6, 0.1] }
[tune]
method = "random"
num_samples = 40
metric = "margin_min_lower"
mode = "max"
scheduler = "asha"
grace_epochs = 1
reduction_factor = 2
"""


@pytest.fixture
def search_store() -> MadeUpStore:
    """A made-up search: the margin falls with the distance of the learning rate from 0.1 and ignores the weight decay.

    Trials with a learning rate above 1 were stopped after their third measured epoch.
    """
    configs = parse_study(SEARCH).configs
    far = {config.key: abs(np.log10(config.learning_rate / 0.1)) for config in configs}
    stopped = {config.key for config in configs if config.learning_rate > 1}
    rows = []
    for config in configs:
        course = made_up_rows(config)[: 3 if config.key in stopped else None]
        rows += [row | {"margin_min_lower": row["margin_min_lower"] * np.exp(-far[config.key])} for row in course]
    states = {config.key: "stopped" if config.key in stopped else "complete" for config in configs}
    trials = [made_up_trial(config, states[config.key]) for config in configs]
    for index, trial in enumerate(trials):
        trial["finished_at"] = f"2026-01-01T00:{index:02d}:00Z"
    return MadeUpStore(
        results=pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA),
        trials=pa.Table.from_pylist(trials, schema=TRIALS_SCHEMA),
        study=SEARCH,
    )
