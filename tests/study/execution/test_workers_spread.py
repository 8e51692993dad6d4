"""A whole float32 run of two workers beside one worker's over five seeds: rounding apart, the same trial."""

import pytest

from study.design.config import TrialConfig
from study.execution.local_workers import run_here
from study.store.store import open_store

SETTINGS = {
    "num_classes": 20,
    "feature_dim": 3,
    "samples_per_class": 16,
    "width": 8,
    "batch_size": 63,
    "steps": 600,
    "measure": "final",
    "augmentation": "shift",
}
COLUMNS = (
    *("train_loss", "train_accuracy", "test_accuracy", "gnc1_pinv", "gnc1_rank", "gnc1_quotient", "cdnv"),
    *("margin_min_lower", "margin_mean", "sample_margin_min", "log_energy_mean", "gnc3", "weight_norm_mean"),
)


@pytest.mark.workers
def test_a_run_of_two_workers_differs_from_one_by_less_than_seeds_do(tmp_path):
    store = open_store(tmp_path)
    configs = [TrialConfig(**SETTINGS, seed=seed) for seed in range(5)]
    configs.append(TrialConfig(**SETTINGS, seed=0, workers=2))
    for config in configs:
        assert run_here(config, store) == ("complete", None)
    rows = {(row["workers"], row["seed"]): row for row in store.read().to_pylist()}
    print(f"\n{'column':<20}{'one worker':>14}{'two workers':>14}{'difference':>12}{'spread':>12}")
    for name in COLUMNS:
        seeds = [rows[1, seed][name] for seed in range(5)]
        spread, difference = max(seeds) - min(seeds), abs(rows[2, 0][name] - rows[1, 0][name])
        print(f"{name:<20}{rows[1, 0][name]:>14.6g}{rows[2, 0][name]:>14.6g}{difference:>12.2g}{spread:>12.2g}")
        assert difference <= spread, name
