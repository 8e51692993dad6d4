"""Benchmarks can be run: every one imports, and the parts that only they use do what they say."""

import importlib
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, report, store, trained_head
from benchmarks.margins import ROWS
from study.store.store import open_store

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_can_be_imported(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_the_trained_head_is_trained(monkeypatch):
    monkeypatch.setattr(trained_head, "STEPS", 200)
    rows, accuracy = trained_head.train_head(40, 8)
    assert rows.shape == (40, 8)
    assert accuracy > 0.5  # chance is 0.025


def test_made_up_trials_fill_a_folder_and_make_tables(tmp_path):
    configs = store.write_study(tmp_path / "many.toml", 1)[:2]
    store.fill(tmp_path, configs, epochs=3)
    assert open_store(tmp_path).seal().rows == 6
    assert report.table_of(report.configs(2), epochs=3).num_rows == 6


@pytest.mark.parametrize(("family", "member"), [(f, m) for f, members in gpu.FAMILIES.items() for m in members])
def test_every_member_has_a_trial_that_compares_a_gpu_with_a_cpu(family, member):
    assert str(getattr(gpu.make_agreement_config(family, member), family)) == str(member)


def test_a_difference_between_devices_is_seen():
    assert gpu.apart(1.0, 1.0 + 1e-5) == pytest.approx(1e-5, rel=1e-3)
    assert gpu.apart([1.0, 2.0], (1.0, 1.0)) == 0.5
    assert gpu.apart(float("nan"), float("nan")) == gpu.apart(None, None) == gpu.apart("a", "a") == 0
    assert gpu.apart(float("nan"), 1.0) == gpu.apart(None, 1.0) == gpu.apart([1.0], [1.0, 1.0]) == float("inf")


def test_the_benchmark_of_a_gpu_runs_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "FAMILIES", {"loss": ["mse"], "attack_radii": ["0.01"]})
    monkeypatch.setattr(gpu, "make_many_classes", partial(gpu.make_many_classes, classes=8))
    gpu.main(["--device", "cpu", "--small"])
    said = capsys.readouterr().out
    assert "  loss             0.0e+00\n" in said  # the same device
    assert said.count("images/s") == 4
    assert "  (60, 8): 0.2" in said
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cuda:99" if torch.cuda.is_available() else "cuda"])


@pytest.mark.parametrize("kind", sorted(set(ROWS) - {"trained", "kerdock", "e8", "600-cell"}))
def test_rows_of_every_kind_are_of_unit_length(kind):
    size = (62, 31) if kind == "orthoplex" else (200, 31)
    rows = ROWS[kind](*size)
    assert rows.shape == size
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows), dtype=torch.float64))
