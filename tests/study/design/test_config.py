"""TrialConfig: what is refused and why, and the keys that name results for good."""

import json
import math
import typing
from pathlib import Path

import pytest
from pydantic import Field

from gnc_models.catalog.members import ANY_NORM
from gnc_models.datasets.samples.shaping import AUGMENTATIONS
from study.design import config as config_module
from study.design.config import LATER_SETTINGS, TrialConfig, canonical_json
from study.design.errors import StudyError, make_config

GOLDEN = Path(__file__).parents[2] / "golden" / "keys.json"
SMALL = {"num_classes": 24, "feature_dim": 3}


@pytest.mark.parametrize("stored", json.loads(GOLDEN.read_text()), ids=lambda stored: stored["key"])
def test_key_of_a_stored_config_never_changes(stored):
    config = make_config(stored["settings"])
    assert (config.key, config.cell) == (stored["key"], stored["cell"])


def test_twenty_distinct_golden_keys_are_kept():
    assert len({stored["key"] for stored in json.loads(GOLDEN.read_text())}) == 20


def test_a_later_setting_at_its_old_value_leaves_every_key_unchanged(monkeypatch):
    class Later(TrialConfig):
        mixup: float = Field(0.0)

    monkeypatch.setitem(LATER_SETTINGS, "mixup", 0.0)
    for stored in json.loads(GOLDEN.read_text()):
        assert Later(**stored["settings"]).key == stored["key"]
        assert Later(**stored["settings"], mixup=0.1).key != stored["key"]


def test_class_means_moved_before_the_loss_are_new_trials_and_those_moved_after_it_keep_their_keys():
    # keys of the version that knew only "after", without the setting
    for given, key, cell in (
        ({}, "7f37eea33aa80af8", "c5a16a39cf516bfb"),
        ({"class_mean_form": "mean", "class_mean_momentum": 0.1}, "451846a683a67f33", "7ee425fb337fd552"),
    ):
        settings = {"num_classes": 100, "feature_dim": 10, "classifier": "class_mean", **given}
        after = TrialConfig(**settings, class_mean_update="after")
        assert (after.key, after.cell) == (key, cell)
        assert TrialConfig(**settings).class_mean_update == "before"
        assert TrialConfig(**settings).key != key


def test_numbers_version_is_part_of_the_key(monkeypatch):
    before = TrialConfig(**SMALL).key
    monkeypatch.setattr(config_module, "NUMBERS_VERSION", 2)
    assert TrialConfig(**SMALL).key != before


def test_better_tables_of_codes_give_new_trials_where_rows_are_fixed_at_the_best_code(monkeypatch):
    def keys():
        return TrialConfig(**SMALL, classifier="fixed").key, TrialConfig(**SMALL).key

    before = keys()
    monkeypatch.setattr(config_module, "best_code_version", lambda: "better")
    fixed, learned = keys()
    assert fixed != before[0]
    assert learned == before[1]


def test_cell_ignores_the_seed_and_nothing_else():
    first, again = TrialConfig(**SMALL, seed=1), TrialConfig(**SMALL, seed=2)
    assert first.key != again.key
    assert first.cell == again.cell
    assert TrialConfig(**SMALL, data_seed=1).cell != first.cell


def test_spelling_out_a_default_gives_the_same_key():
    implied = TrialConfig(**SMALL)
    spelled_out = {name: value for name, value in implied.settings().items() if value is not None}
    assert len(spelled_out) > len(SMALL)
    assert TrialConfig(**spelled_out).key == implied.key


def test_an_integer_where_a_number_is_meant_is_the_same_setting():
    assert TrialConfig(**SMALL, temperature=1).key == TrialConfig(**SMALL, temperature=1.0).key


def test_a_setting_of_an_idle_kind_is_none_beside_rows_that_are_not_trained():
    assert TrialConfig(**SMALL).decay_normalised is False
    assert TrialConfig(**SMALL, classifier="class_mean").decay_normalised is None


def test_an_untrained_network_is_a_trial_of_no_steps():
    assert TrialConfig(**SMALL, steps=0).key != TrialConfig(**SMALL).key


def test_canonical_json_has_one_zero_and_refuses_what_is_not_finite():
    assert canonical_json({"b": -0.0, "a": 1}) == canonical_json({"a": 1, "b": 0.0})
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            canonical_json({"a": value})


def test_settings_without_effect_are_none():
    config = TrialConfig(**SMALL, normalization="none", budget="epochs")
    assert config.temperature is None
    assert config.steps is None
    assert config.input_dim is None


def test_a_setting_under_another_name_is_not_missing_as_well():
    with pytest.raises(StudyError) as refusal:
        make_config({"K": 10, "d": 3})
    assert refusal.value.args == (
        "'K' is no setting. Did you mean 'num_classes'?", "'d' is no setting. Did you mean 'feature_dim'?",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temprature": 0.1}, "'temprature' is no setting. Did you mean 'temperature'?"),
        ({"normalization": "none", "temperature": 0.1}, "temperature must be left out unless normalization is 'both'"),
        ({"encoder": "resnet-18"}, "got 'resnet-18'. It is: Network before the head. Did you mean 'resnet18'?"),
        ({"temperature": 0.0}, "temperature must be greater than 0, got 0.0"),
        ({"temperature": math.nan}, "temperature must be finite, got nan"),
        ({"temperature": "warm"}, "temperature must be a number, got 'warm'"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"num_classes": 24.0}, "num_classes must be an integer, got 24.0"),
        ({"num_classes": 100_000}, "num_classes must be at most"),
        ({"dataset": "imagenet"}, "dataset must be 'glyphs', 'synthetic', .* or 'indices', got 'imagenet'"),
        ({"resolution": 20}, r"resolution must be one of \[16, 32\] for glyphs, got 20"),
        ({"dataset": "synthetic"}, "encoder must accept vector inputs"),
        ({"input_dim": 5}, "input_dim must be left out unless dataset is 'synthetic'"),
        ({"budget": "epochs", "steps": 10}, "steps must be left out unless budget is 'steps'"),
        ({"budget": "terminal", "terminal_epochs": 9, "max_epochs": 3}, "terminal_epochs must be at most max_epochs"),
        ({"batch_size": 600}, "batch_size must be at most the 576 training samples, got 600"),
        (
            {"num_classes": 3, "samples_per_class": 2},
            "got 64. That is the default of batch_size, which is not written.",
        ),
        (
            {"batch_size": 2, "num_classes": 5, "samples_per_class": 1},
            "batch_size must leave no batch of one of 5 samples",
        ),
        ({"loss": "huge"}, "loss must be 'cross_entropy', .*, got 'huge'"),
        (
            {"loss": "focal", "label_smoothing": 0.1},
            "label_smoothing must be left out unless loss is 'label_smoothing'",
        ),
        ({"loss": "hug_mgd"}, "logdet_eps must be given where loss is 'hug_mgd'"),
        ({"loss": "cosface", "normalization": "none"}, "normalization must be 'both' for loss 'cosface', got 'none'"),
        ({"loss": "hardmax", "normalization": "weights"}, "normalization must be 'both' for loss 'hardmax'"),
        ({"loss": "supervised_contrastive"}, "classifier must be 'class_mean' or 'fixed' for loss"),
        ({"classifier": "class_mean", "normalization": "none"}, "normalization must not be 'none' for classifier"),
        ({"classifier": "fixed", "code": "simplex"}, "code must fit into feature_dim, got 'simplex' with 24 classes"),
        ({"classifier": "class_mean", "decay_normalised": True}, "decay_normalised must be left out unless"),
        ({"dataset": "text", "encoder": "transformer", "imbalance": "step"}, "imbalance must be left out for dataset"),
        ({"dataset": "text", "encoder": "mlp"}, "encoder must accept tokens inputs for dataset 'text'"),
        ({"dataset": "image_folder"}, "folder must be given where dataset is 'image_folder'"),
        ({"num_classes": 1390, "ood_classes": 10}, "num_classes must be at most 1387 beside 10 ood_classes"),
        ({"label_noise": 1.5}, "label_noise must be at most 1, got 1.5"),
        ({"attack_radii": "a lot"}, "attack_radii must be numbers separated by commas, got 'a lot'"),
        (
            {"temperature_schedule": "annealed", "budget": "terminal"},
            "temperature_schedule must be 'constant' with budget 'terminal'",
        ),
        (
            {"temperature_schedule": "annealed", "budget": "stationary"},
            "temperature_schedule must be 'constant' with budget 'stationary'",
        ),
        (
            {"budget": "steps", "stationary_tolerance": 0.1},
            "stationary_tolerance must be left out unless budget is 'stationary'",
        ),
        ({"steps": 100, "epochs": 5}, "one budget must be chosen, got steps = 100 and epochs = 5. Keep one of them"),
        ({"budget": "stationary", "stationary_tolerance": 0.0}, "stationary_tolerance must be greater than 0, got 0.0"),
        ({"budget": "stationary", "max_steps": 2}, "max_steps must be at least 3, got 2"),
        ({"budget": "stationary", "steps": 10}, "steps must be left out unless budget is 'steps'"),
        ({"learning_rate": 1e39}, "learning_rate must be at most 1e.38"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"workers": 65}, "workers must be at most 64, the samples of the smallest batch, got 65"),
        ({"workers": 3, "batch_size": 3, "num_classes": 2, "samples_per_class": 5}, "workers must be at most 2"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"feature_dim": True}, "feature_dim must be an integer, got True"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(wrong, words):
    with pytest.raises(StudyError, match=words):
        make_config({**SMALL, **wrong})


def test_a_missing_setting_is_named_with_its_meaning():
    with pytest.raises(StudyError, match="feature_dim must be given: Dimension of the last-layer features"):
        make_config({"num_classes": 24})


def test_names_that_the_mathematics_lists_are_those_a_setting_may_take():
    listed = {"augmentation": tuple(AUGMENTATIONS), "norm_layer": ANY_NORM}
    for name, names in listed.items():
        literal, _ = typing.get_args(TrialConfig.model_fields[name].annotation)
        assert typing.get_args(literal) == names
