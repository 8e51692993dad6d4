"""`gnc compare`: same keys, other numbers, other machines."""

import json
import math

import pytest

from gnc.cli.main import main
from study.store.store import Store, open_store
from study.upkeep.compare import IGNORED, compare_stores, relative_difference
from tests.study.conftest import finish, made_up_config, made_up_measurement, made_up_record, remove_rows

CONFIGS = [made_up_config(seed=seed) for seed in range(4)]


@pytest.fixture
def pair(tmp_path) -> tuple[Store, Store]:
    stores = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    for store in stores:
        for config in CONFIGS[:3]:
            finish(store, config, cpu_model="one", versions='{"torch": "2.7"}')
    return stores


def rewrite(store: Store, config, changes=lambda epoch: {}, epochs: int = 3, **record) -> None:
    rows = [made_up_measurement(e, **changes(e)) for e in range(epochs)]
    store.write_fragment(config, rows, made_up_record(**{"cpu_model": "one", "versions": '{"torch": "2.7"}', **record}))


def test_the_same_trials_are_the_same_sealed_compacted_or_not(pair, capsys):
    rewrite(pair[1], CONFIGS[0], lambda e: {"wall_seconds": 99.0, "peak_memory_bytes": 7}, host="elsewhere", attempts=3)
    for step in (lambda: None, lambda: pair[0].seal(), lambda: pair[1].seal(compact=True)):
        step()
        assert compare_stores(*pair).is_same
    assert main(["compare", pair[0].uri, pair[1].uri]) == 0
    out = capsys.readouterr().out
    assert "3 trials in both, of which 0 differ" in out
    assert "not compared: heads" in out
    assert "wall_seconds" in out


def test_planted_differences_are_found_with_their_size_and_place(pair, capsys):
    rewrite(pair[1], CONFIGS[0], lambda e: {"gnc1_rank": 0.25 if e != 1 else 0.2}, cpu_model="another")
    rewrite(pair[1], CONFIGS[1], lambda e: {"margin_mean": None if e == 2 else 0.5}, versions='{"torch": "2.8"}')
    rewrite(pair[1], CONFIGS[2], dataset_digest="other", reached_terminal=True)
    finish(pair[1], CONFIGS[3])
    found = compare_stores(*pair)
    assert not found.is_same
    assert found.only_second == (CONFIGS[3].key,)
    assert set(found.differing) == {config.key for config in CONFIGS[:3]}
    assert set(found.columns) == {"gnc1_rank", "margin_mean", "dataset_digest", "reached_terminal"}
    rank = found.columns["gnc1_rank"]
    assert (rank.rows, rank.trials, rank.trial, rank.epoch) == (1, 1, CONFIGS[0].key, 1)
    assert rank.largest_relative == pytest.approx(0.2)
    assert found.machines == {"cpu_model": (["one"], ["another", "one"]), "torch": (["2.7"], ["2.7", "2.8"])}
    assert main(["compare", pair[0].uri, pair[1].uri]) == 1
    out = capsys.readouterr().out
    assert "1 only in B" in out
    assert f"largest 0.2 of the value: 0.25 | 0.2 ({CONFIGS[0].key}, epoch 1)" in out
    assert "torch: 2.7 | 2.7, 2.8" in out
    assert main(["compare", pair[0].uri, pair[1].uri, "--json", "--where", "seed < 3"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["only_second"] == []
    assert facts["columns"]["gnc1_rank"]["second"] == 0.2
    assert facts["ignored"] == list(IGNORED)
    assert main(["compare", pair[0].uri, pair[1].uri, "--where", "seed > 3"]) == 0


def test_other_epochs_and_other_ends_are_differences(pair):
    rewrite(pair[1], CONFIGS[0], epochs=4)
    remove_rows(pair[1], CONFIGS[1].key)
    rewrite(pair[1], CONFIGS[1], state="diverged", reason="nan")
    found = compare_stores(*pair)
    assert found.other_epochs == (CONFIGS[0].key,)
    assert set(found.differing) == {CONFIGS[0].key, CONFIGS[1].key}
    assert found.columns["state"].first == "complete"


def test_nan_is_as_nan_and_null_is_not(pair):
    for store in pair:
        rewrite(store, CONFIGS[0], lambda e: {"gnc1_pinv": math.nan})
    assert compare_stores(*pair).is_same
    rewrite(pair[1], CONFIGS[0], lambda e: {"gnc1_pinv": None})
    assert compare_stores(*pair).columns["gnc1_pinv"].largest_relative is None


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [(1.0, 2.0, 0.5), (-1.0, 1.0, 2.0), (0.0, 1e-9, 1.0), (1, None, None), ("a", "b", None), (1.0, math.inf, None),
     ([1.0, 2.0], [1.0, 4.0], 0.5), ([1.0], [1.0, 2.0], None), ([1.0, None], [2.0, 3.0], None)],
)  # fmt: skip
def test_relative_differences(a, b, size):
    assert relative_difference(a, b) == size


def test_folders_that_are_not_there_exit_2(tmp_path, capsys):
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "RESULTS must be a results folder" in capsys.readouterr().err
