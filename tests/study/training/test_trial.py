"""One trial: deterministic, resumable bit for bit after any epoch, measured where asked, honest about divergence."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gnc_models.catalog.members import ENCODERS, LOSSES
from study.design.columns import Measurement
from study.design.config import TrialConfig
from study.design.study_file import read_study
from study.execution.attempt import INTERRUPTED, Execution
from study.store.schemas import CIRCUMSTANCES
from study.store.store import Store
from study.training.schedules import awaited_course, learning_rate_share, temperature_at
from study.training.training import Diverged
from study.training.trial import Trial, is_log_epoch
from tests.conftest import comparable

SMALL = {
    "dataset": "synthetic",
    "encoder": "mlp",
    "width": 16,
    "depth": 1,
    "num_classes": 8,
    "feature_dim": 3,
    "samples_per_class": 6,
    "test_samples_per_class": 2,
    "batch_size": 20,
    "learning_rate": 0.05,
    "steps": 14,
}
VARIANTS = {
    "plain": {},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-2},
    "cosine": {"schedule": "cosine"},
    "features": {"normalization": "features"},
    "weights": {"normalization": "weights", "decay_normalised": True},
    "none": {"normalization": "none"},
    "float64": {"precision": "float64"},
    "bfloat16": {"precision": "bfloat16"},
    "epochs": {"budget": "epochs", "epochs": 5, "steps": None, "measure": "every"},
    "terminal": {"budget": "terminal", "terminal_epochs": 3, "max_epochs": 12, "steps": None},
    "stationary": {
        "budget": "stationary",
        "stationary_tolerance": 0.9,
        "max_steps": 96,
        "steps": None,
        "schedule": "cosine",
    },
    "final": {"measure": "final"},
    "images": {
        "dataset": "glyphs",
        "encoder": "small_resnet",
        "width": 4,
        "num_classes": 4,
        "augmentation": "shift",
        "samples_per_class": 12,
        "steps": 7,
    },
    "annealed": {"loss": "log_cross_entropy", "temperature_schedule": "annealed", "temperature": 0.05},
    "long tail, noisy labels, OoD": {
        "imbalance": "exponential",
        "imbalance_ratio": 3.0,
        "label_noise": 0.2,
        "ood_classes": 2,
    },
    "free features": {
        "dataset": "indices",
        "encoder": "unconstrained",
        "width": None,
        "depth": None,
        "test_samples_per_class": None,
        "optimizer": "adamw",
        "loss": "log_cross_entropy",
    },
    "text": {
        "dataset": "text",
        "encoder": "transformer",
        "width": 8,
        "context_length": 3,
        "num_classes": 20,
        "samples_per_class": 8,
    },
    "layers and attacks": {
        "dataset": "glyphs",
        "encoder": "small_resnet",
        "width": 4,
        "num_classes": 4,
        "samples_per_class": 12,
        "steps": 4,
        "layers": "all",
        "attack_radii": "0.01, 0.1",
    },
}
LOSSES_TO_TRY = {
    name: {"loss": name, "logdet_eps": 0.1 if name == "hug_mgd" else None}
    for name in LOSSES
    if name != "supervised_contrastive"
} | {"supervised_contrastive": {"loss": "supervised_contrastive", "classifier": "class_mean"}}
CLASSIFIERS_TO_TRY = {
    "class_mean": {"classifier": "class_mean"},
    "class_mean, mean, after": {"classifier": "class_mean", "class_mean_form": "mean", "class_mean_update": "after"},
    "fixed, best": {"classifier": "fixed"},
    "fixed, by similarity": {"classifier": "fixed", "assignment": "similarity"},
    "fixed, random": {"classifier": "fixed", "code": "random"},
    "chunked": {"cross_entropy": "chunked"},
}
NETWORKS_TO_TRY = {
    name: {
        "dataset": "glyphs",
        "encoder": name,
        "width": 8 if "width" in member.settings else None,
        "depth": 1 if "depth" in member.settings else None,
        "num_classes": 4,
        "steps": 2,
        "measure": "every",
        "batch_size": 12,
    }
    for name, member in ENCODERS.items()
    # the larger residual networks differ from resnet18 by a table of layers, which tests of encoders read
    if "image" in member.takes and name not in {"resnet34", "resnet50", "resnext50"}
}
VARIANTS |= LOSSES_TO_TRY | CLASSIFIERS_TO_TRY | NETWORKS_TO_TRY


def config_of(variant: str, **settings) -> TrialConfig:
    return TrialConfig(**{**SMALL, **VARIANTS[variant], **settings})


def run_to_end(trial: Trial) -> list[dict]:
    while not trial.is_done:
        trial.run_epoch()
    return values_of(trial.measurements)


def values_of(measurements: list[Measurement]) -> list[dict]:
    return [{n: v for n, v in dataclasses.asdict(m).items() if n not in CIRCUMSTANCES} for m in measurements]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trial_resumed_in_the_middle_gives_the_same_rows_bit_for_bit(variant):
    undisturbed = Trial(config_of(variant), device="cpu")
    rows = run_to_end(undisturbed)
    stop_after = max(1, undisturbed.epoch // 2)
    first = Trial(config_of(variant), device="cpu")
    while first.epoch < stop_after:
        first.run_epoch()
    torch.manual_seed(999)  # whatever another trial did to this process
    second = Trial(config_of(variant), checkpoint=first.save(), device="cpu")
    assert second.resumed
    assert second.epoch == stop_after
    assert run_to_end(second) == rows
    assert torch.equal(second.training.classifier.weight, undisturbed.training.classifier.weight)


def test_text_is_measured_above_its_own_entropy_and_where_the_next_token_is_one():
    row = run_to_end(Trial(config_of("text"), device="cpu"))[-1]
    assert row["label_entropy"] > 0
    assert row["loss_above_entropy"] == row["train_loss"] - row["label_entropy"]


def test_free_features_have_no_test_set_and_reach_their_optimum():
    free = {"optimizer": "adamw", "learning_rate": 0.1, "weight_decay": 0.0, "steps": 600, "temperature": 0.3}
    config = config_of("free features", **free, num_classes=4, samples_per_class=2, batch_size=8, precision="float64")
    row = run_to_end(Trial(config, device="cpu"))[-1]
    assert (row["test_accuracy"], row["ncc_test_accuracy"]) == (None, None)
    assert row["margin_min_lower"] == pytest.approx(4 / 3, abs=1e-3)  # the simplex of four points in three dimensions


def test_attacks_are_tried_at_the_last_epoch_and_layers_at_each():
    rows = run_to_end(Trial(config_of("layers and attacks"), device="cpu"))
    assert [row["fgsm_accuracy"] is None for row in rows] == [True] * (len(rows) - 1) + [False]
    assert len(rows[-1]["pgd_accuracy"]) == 2
    assert all(len(row["layer_names"]) == len(row["layer_gnc1_quotient"]) == 5 for row in rows)
    assert rows[-1]["layer_names"][-1] == "features"


def test_an_untrained_network_is_measured_once():
    rows = run_to_end(Trial(config_of("plain", steps=0), device="cpu"))
    assert [(row["epoch"], row["step"], row["objective"]) for row in rows] == [(0, 0, None)]


def test_an_annealed_temperature_falls_geometrically_and_rests_at_its_end():
    config = config_of("annealed")
    assert temperature_at(config, 0.0) == 1.0
    assert temperature_at(config, 0.4) == pytest.approx((1.0 * 0.05) ** 0.5)
    assert temperature_at(config, 0.8) == temperature_at(config, 1.0) == pytest.approx(0.05)
    assert temperature_at(config_of("plain"), 0.3) == 0.1
    assert temperature_at(config_of("none"), 0.3) == 1.0


def test_resuming_after_every_epoch_changes_nothing():
    rows = run_to_end(Trial(config_of("plain"), device="cpu"))
    trial = Trial(config_of("plain"), device="cpu")
    while not trial.is_done:
        trial.run_epoch()
        trial = Trial(config_of("plain"), checkpoint=trial.save(), device="cpu")
    assert values_of(trial.measurements) == rows


def test_another_seed_gives_other_numbers_and_the_same_seed_the_same():
    rows = [run_to_end(Trial(config_of("plain", seed=seed), device="cpu")) for seed in (0, 0, 1)]
    assert rows[0] == rows[1]
    assert rows[0][-1]["train_loss"] != rows[2][-1]["train_loss"]


def test_training_reduces_the_loss_and_reaches_the_terminal_phase():
    rows = run_to_end(Trial(config_of("plain", steps=200), device="cpu"))
    assert rows[-1]["train_loss"] < 0.1 * rows[0]["train_loss"]
    assert [row["terminal"] for row in rows] == sorted(row["terminal"] for row in rows)
    assert rows[-1]["terminal"]


def test_a_checkpoint_of_another_trial_is_refused():
    trial = Trial(config_of("plain"), device="cpu")
    trial.run_epoch()
    with pytest.raises(ValueError, match="checkpoint must be of trial"):
        Trial(config_of("plain", seed=1), checkpoint=trial.save(), device="cpu")


def test_budgets_end_where_they_say():
    # 48 samples in batches of at most 20: three steps an epoch
    assert run_to_end(Trial(config_of("plain"), device="cpu"))[-1]["step"] == 14
    assert run_to_end(Trial(config_of("epochs"), device="cpu"))[-1]["step"] == 15
    terminal = Trial(config_of("terminal", max_epochs=60, noise=0.01), device="cpu")
    rows = run_to_end(terminal)
    assert terminal.terminal_epoch is not None
    assert rows[-1]["epoch"] == terminal.terminal_epoch + 3
    hopeless = Trial(config_of("terminal", learning_rate=1e-9), device="cpu")
    assert run_to_end(hopeless)[-1]["epoch"] == 12
    assert hopeless.terminal_epoch is None


def stationary_free_features(**settings) -> Trial:
    """Four free unit vectors in three dimensions, whose optimum is the simplex: margin 4/3, and its loss in closed form."""
    free = {
        "optimizer": "adamw",
        "learning_rate": 0.03,
        "weight_decay": 0.0,
        "temperature": 0.5,
        "loss": "cross_entropy",
    }
    free |= {"num_classes": 4, "samples_per_class": 2, "batch_size": 8, "precision": "float64", "schedule": "cosine"}
    budget = {
        "budget": "stationary",
        "steps": None,
        "stationary_tolerance": 1e-5,
        "max_steps": 3000,
        "measure": "final",
    }
    return Trial(config_of("free features", **(free | budget | settings)), device="cpu")


def test_free_features_rest_at_their_closed_form_and_end_half_as_many_steps_later():
    trial = stationary_free_features()
    (row,) = run_to_end(trial)
    assert row["stationary"]
    assert row["margin_min_lower"] == pytest.approx(4 / 3, rel=1e-5)
    assert row["train_loss"] == pytest.approx(math.log(1 + 3 * math.exp(-4 / 3 / 0.5)), rel=1e-5)
    assert 16 <= row["stationary_step"] < 2000
    assert row["step"] == row["stationary_step"] + math.ceil(row["stationary_step"] / 2)


def test_a_cap_that_comes_first_ends_training_and_is_told():
    (row,) = run_to_end(stationary_free_features(max_steps=40, learning_rate=1e-3))
    assert (row["stationary"], row["stationary_step"], row["step"]) == (False, None, 40)
    assert run_to_end(Trial(config_of("plain"), device="cpu"))[-1]["stationary"] is None


@pytest.mark.parametrize("max_steps", range(3, 30))
def test_no_course_is_longer_than_its_cap_and_all_end_at_a_low_rate(max_steps):
    config = stationary_free_features(max_steps=max_steps).config
    for begun in (None, *range(1, max_steps)):
        held, falling = awaited_course(config, 1, begun)
        assert held + falling <= max_steps
        assert falling >= 1
    assert awaited_course(config, 1, None) == awaited_course(config, 1, max_steps)


@pytest.mark.parametrize("begun", [None, 400, 700, 1900])
def test_the_learning_rate_of_a_stationary_budget_makes_no_leap_and_ends_near_zero(begun):
    trial = stationary_free_features(schedule="one_cycle")
    trial.stationary_step = begun
    rates = [trial._rate_share(step) for step in range(trial._total_steps())]
    assert max(rates) == 1.0
    assert rates[-1] < 1e-4
    assert max(abs(after - before) for before, after in itertools.pairwise(rates)) < 0.01


def test_the_measured_epochs_are_those_asked_for():
    epochs = {m: [row["epoch"] for row in run_to_end(Trial(config_of("epochs", measure=m), device="cpu"))]
              for m in ("every", "final", "log")}  # fmt: skip
    assert epochs == {"every": [0, 1, 2, 3, 4, 5], "final": [5], "log": [0, 1, 2, 3, 4, 5]}
    assert [e for e in range(70) if is_log_epoch(e)] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]


def test_measuring_does_not_disturb_training():
    last = [run_to_end(Trial(config_of("epochs", measure=m), device="cpu"))[-1] for m in ("every", "final")]
    assert last[0] == last[1]


def test_every_sample_is_seen_once_an_epoch_in_near_equal_batches():
    training = Trial(config_of("plain"), device="cpu").training
    batches = list(training.batches(1))
    assert [len(batch) for batch in batches] == [16, 16, 16]
    assert sorted(torch.cat(batches).tolist()) == list(range(48))
    assert torch.cat(batches).tolist() != torch.cat(list(training.batches(2))).tolist()


def test_schedules_start_peak_and_end_where_they_say():
    assert learning_rate_share("cosine", 0.0) == 1.0
    assert learning_rate_share("cosine", 1.0) == pytest.approx(0.0)
    assert learning_rate_share("one_cycle", 0.0) == pytest.approx(0.04)
    assert learning_rate_share("one_cycle", 0.3) == pytest.approx(1.0)
    assert learning_rate_share("one_cycle", 1.0) == pytest.approx(0.0)
    assert all(0 <= learning_rate_share("one_cycle", i / 50) <= 1 for i in range(51))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
@pytest.mark.parametrize("terminal_epoch", [None, 1, 4, 30])
def test_the_learning_rate_of_a_terminal_budget_makes_no_leap_and_ends_near_zero(schedule, terminal_epoch):
    trial = Trial(config_of("terminal", schedule=schedule, terminal_epochs=20, max_epochs=60), device="cpu")
    trial.terminal_epoch = terminal_epoch
    rates = [trial._rate_share(step) for step in range(trial._total_steps())]
    assert max(rates) == pytest.approx(1.0, abs=0.2)
    assert rates[-1] < 0.01
    assert max(abs(after - before) for before, after in itertools.pairwise(rates)) < 0.15


def test_normalised_head_rows_are_decayed_only_on_request():
    def head_decay(**settings):
        return Trial(config_of("plain", **settings), device="cpu").training.optimizer.param_groups[1]["weight_decay"]

    assert head_decay() == 0.0
    assert head_decay(decay_normalised=True) == 5e-4
    assert head_decay(normalization="features") == 5e-4


def test_divergence_is_raised_with_its_reason():
    trial = Trial(config_of("none", learning_rate=1e30), device="cpu")
    with pytest.raises(Diverged, match=r"training loss was|not finite"):
        run_to_end(trial)


@pytest.mark.parametrize("normalization", ["none", "weights", "both", "features"])
def test_a_trial_whose_last_step_explodes_is_diverged_and_not_complete(normalization):
    temperature = {} if normalization == "none" else {"temperature": 0.1}
    trial = Trial(
        config_of("plain", normalization=normalization, steps=1, learning_rate=1e30, **temperature), device="cpu"
    )
    with pytest.raises(Diverged, match=r"finite|training loss was|loss in evaluation was"):
        run_to_end(trial)


def test_peak_memory_is_this_trials_own_or_absent():
    rows = Trial(config_of("plain"), device="cpu").run_epoch().measurement
    ballast = torch.ones(400 << 20, dtype=torch.uint8)
    high = Trial(config_of("plain"), device="cpu").run_epoch().measurement
    del ballast
    after = Trial(config_of("plain"), device="cpu").run_epoch().measurement
    if after.peak_memory_bytes is None:
        pytest.skip("this kernel does not reset a process's high-water mark")
    assert high.peak_memory_bytes > rows.peak_memory_bytes + (300 << 20)
    assert after.peak_memory_bytes < high.peak_memory_bytes - (300 << 20)


# --- against the store -----------------------------------------------------------------------------------------------


def test_a_finished_trial_leaves_rows_margins_and_head_and_nothing_else(store: Store):
    config = config_of("plain")
    assert Execution(config, store, attempt=1, checkpoint_seconds=0).run() == "complete"
    assert store.states() == {config.key: "complete"}
    margins, head = store.read_margins(config.key), store.read_head(config.key)
    assert head["weights"].shape == head["class_means"].shape == (8, 3)
    assert margins.num_rows == 8
    last = store.read().to_pylist()[-1]
    assert min(margins.column("lower").to_pylist()) == last["margin_min_lower"]
    assert set(margins.column("samples").to_pylist()) == {6}
    assert store.read_live() == []
    assert not any(store.read_checkpoints(config.key))


def test_keep_says_what_is_kept(store: Store):
    for keep, seed in (("nothing", 0), ("head", 1), ("model", 2)):
        Execution(config_of("final", seed=seed), store, attempt=1, keep=keep).run()
    assert store.read_head(config_of("final", seed=0).key) is None
    assert set(store.read_head(config_of("final", seed=1).key)) == {"weights", "class_means"}
    assert "model.head.weight" in store.read_head(config_of("final", seed=2).key)


def test_an_interrupted_trial_continues_to_the_same_rows(store: Store, tmp_path):
    config = config_of("plain")
    whole = Store(type(store.storage)(tmp_path / "whole"))
    Execution(config, whole, attempt=1).run()
    for attempt in (1, 2):
        assert Execution(config, store, attempt=attempt).run(should_stop=lambda: True) == INTERRUPTED
    assert store.states() == {}
    assert store.read_live()[0].interrupted
    assert Execution(config, store, attempt=3).run() == "complete"
    assert comparable(store.read()) == comparable(whole.read())
    trial = store.read_trials().to_pylist()[0]
    assert (trial["attempts"], trial["resumed"]) == (3, True)


def test_a_torn_checkpoint_costs_an_epoch_is_told_and_changes_nothing(store: Store, tmp_path, capsys):
    config = config_of("plain")
    whole = Store(type(store.storage)(tmp_path / "whole"))
    Execution(config, whole, attempt=1).run()
    stops = iter([False, True])
    Execution(config, store, attempt=1, checkpoint_seconds=0).run(should_stop=lambda: next(stops))
    newest = store.storage.entries(f"checkpoints/{config.key}")[-1]
    store.storage.write(f"checkpoints/{config.key}/{newest.name}", b"torn" * 100)
    assert Execution(config, store, attempt=2).run() == "complete"
    assert f"warning: checkpoints/{config.key}/{newest.name} cannot be read" in capsys.readouterr().err
    assert comparable(store.read()) == comparable(whole.read())


def test_a_diverged_trial_becomes_rows_with_a_reason(store: Store):
    config = config_of("none", learning_rate=1e30)
    assert Execution(config, store, attempt=1).run() == "diverged"
    trial = store.read_trials().to_pylist()[0]
    assert trial["state"] == "diverged"
    assert "finite" in trial["reason"] or "training loss was" in trial["reason"]
    assert store.read().num_rows >= 1  # what was measured before it diverged


def test_a_trial_that_raises_becomes_a_failure_with_its_traceback(store: Store):
    config = config_of("plain", feature_dim=10**13)
    execution = Execution(config, store, attempt=1)
    assert execution.run() == "failed"
    (failure,) = store.failures()[config.key]
    assert "Traceback" in failure["traceback"]
    assert failure["reason"] == execution.reason
    assert store.read_trials().to_pylist()[0]["feature_dim"] == 10**13
    assert store.read_live() == []


def test_a_checkpoint_from_before_a_column_was_added_is_continued_with_nulls(store: Store):
    config = config_of("epochs")
    trial = Trial(config, device="cpu")
    for _ in range(3):
        trial.run_epoch()
    length = int.from_bytes((content := trial.save())[:8], "little")
    header = json.loads(content[8 : 8 + length])
    state = json.loads(header["__metadata__"]["state"])
    for row in state["measurements"]:
        del row["gnc3"]
    header["__metadata__"]["state"] = json.dumps(state)
    text = json.dumps(header).encode()
    older = len(text).to_bytes(8, "little") + text + content[8 + length :]
    store.write_checkpoint(config.key, trial.epoch, older)
    assert Execution(config, store, attempt=2).run() == "complete"
    nulls = [row["gnc3"] is None for row in store.read().to_pylist()]
    assert nulls == [True] * 3 + [False] * 3


def test_a_checkpoint_that_cannot_be_continued_from_is_passed_over(store: Store, tmp_path):
    config = config_of("plain")
    store.write_checkpoint(config.key, 2, b"whole by its checksum, and no checkpoint")
    other = Trial(config_of("plain", seed=5), device="cpu")
    other.run_epoch()
    store.write_checkpoint(config.key, 3, other.save())
    assert Execution(config, store, attempt=1).run() == "complete"
    assert not store.read_trials().to_pylist()[0]["resumed"]


def test_a_complete_trial_is_not_replaced_by_a_diverged_one(store: Store, monkeypatch):
    config = config_of("plain")
    Execution(config, store, attempt=1).run()
    before = store.read()

    def diverge(self):
        raise Diverged("another machine, another rounding")

    monkeypatch.setattr(Trial, "run_epoch", diverge)
    assert Execution(config, store, attempt=2).run() == "diverged"
    assert store.read() == before


def test_the_histogram_of_all_margins_is_in_the_table(store: Store):
    config = config_of("plain")
    Execution(config, store, attempt=1).run()
    histogram = json.loads(store.read_margins(config.key).schema.metadata[b"histogram"])
    assert sum(histogram["counts"]) == 8
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1


def test_a_disk_that_fills_during_a_trial_is_told_with_its_cure(study_file, tmp_path):
    """A tmpfs with room for the writability probe and not for a trial's kept files, in a mount namespace of its own."""
    study, results = study_file(steps=400, checkpoint_seconds=0), tmp_path / "results"
    results.mkdir()
    mount = f"mount -t tmpfs -o size=1100k tmpfs {results}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace needs root, which this machine does not give")
    wide = study.read_text().replace("width = [32]", "width = [4096]").replace("batch_size = 32", "batch_size = 8")
    study.write_text(wide)
    key = read_study(study).configs[0].key
    command = f'{mount} && exec "$0" -m gnc.cli.main trial {study} {key} --results {results}'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 1, done.stderr
    assert "failed: FolderError: results folder must be writable and have room" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
