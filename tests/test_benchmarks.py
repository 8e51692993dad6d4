"""Benchmarks can be run: every one imports, and the parts that only they use do what they say."""

import importlib
from pathlib import Path

import pytest
import torch

from benchmarks import trained_head
from benchmarks.margins import ROWS

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_can_be_imported(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_the_trained_head_is_trained(monkeypatch):
    monkeypatch.setattr(trained_head, "STEPS", 200)
    rows, accuracy = trained_head.train_head(40, 8)
    assert rows.shape == (40, 8)
    assert accuracy > 0.5  # chance is 0.025


@pytest.mark.parametrize("kind", sorted(set(ROWS) - {"trained", "kerdock", "e8", "600-cell"}))
def test_rows_of_every_kind_are_of_unit_length(kind):
    size = (62, 31) if kind == "orthoplex" else (200, 31)
    rows = ROWS[kind](*size)
    assert rows.shape == size
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows), dtype=torch.float64))
