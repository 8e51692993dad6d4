"""Equal meaning gives equal keys, however a setting is written; what was stored under another spelling is still found."""

import pytest

from gnc_models.catalog.members import FAMILIES
from gnc_models.catalog.members import settings_of as decided_by
from study.design.config import TrialConfig, settings_with
from study.design.errors import nearest
from study.design.search import Scheduler
from study.design.study_file import parse_study
from study.execution.same_data import stored_config
from study.scheduling.remaining import done_keys
from study.scheduling.suggestions import complete_study
from tests.study.conftest import finish

# Together they give every setting an effect.
CONTEXTS = [
    {"attack_radii": "0.0, 1, 0.001", "temperature_schedule": "annealed", "imbalance": "exponential", "width": 4,
     "label_noise": 1.0, "temperature": 1.0, "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 1.0, "measured_samples": 2},
    {"fonts": "faces", "fonts_source": "ab"},
    {"dataset": "synthetic", "encoder": "mlp", "loss": "hug_mgd", "logdet_eps": 1.0, "inter_weight": 0.0,
     "classifier": "class_mean", "class_mean_momentum": 0.0, "budget": "terminal", "noise": 2.0},
    {"dataset": "image_folder", "folder": "faces/small", "classifier": "fixed", "loss": "focal", "budget": "epochs"},
    {"dataset": "text", "encoder": "transformer", "loss": "label_smoothing", "optimizer": "adamw", "budget": "stationary"},
    {"dataset": "data.py:make", "dataset_source": "ab", "dataset_options": '{"a":1,"b":[2.0]}', "encoder": "nets:make",
     "encoder_source": "nets==1.0 cd", "encoder_options": '{"depth":{"a":1}}', "loss": "losses.py:f", "loss_source": "ef",
     "loss_options": '{"scale":1.0}', "metrics": "a.py:f, b.py:g", "metrics_source": "ab, cd"},
    {"loss": "cosface", "margin_penalty": 1.0, "decay_normalised": True, "workers": 2},
]  # fmt: skip
CONFIGS = [TrialConfig(num_classes=8, feature_dim=3, batch_size=16, **context) for context in CONTEXTS]


def spellings(name: str, value: object) -> list[object]:
    """Other ways to write the value of a setting."""
    if name == "attack_radii" and value is not None:
        return ["0,1,1e-3", " 0.000 ,1.0,  0.0010 ", ".0, 1, .001", "-0.0, 1, 0.001"]
    if name == "folder" and value is not None:
        return ["faces/small/", "./faces/small", "faces//small"]
    if name == "dataset_options" and value is not None:
        return ['{"b": [2.0], "a": 1}', {"b": [2.0], "a": 1}]
    if name == "metrics" and value is not None:
        return ["a.py:f,b.py:g", " a.py:f ,  b.py:g"]
    if isinstance(value, float):
        return [int(value)] * value.is_integer() + [-0.0] * (value == 0.0)
    return []


def test_every_setting_has_an_effect_somewhere_here():
    used = {name for config in CONFIGS for name, value in config.settings().items() if value is not None}
    assert used == set(TrialConfig.model_fields)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.dataset + "-" + config.loss)
def test_equal_meaning_gives_the_same_key(config):
    settings = config.settings()
    assert TrialConfig(**settings).key == config.key  # None for what has no effect is as good as leaving it out
    assert TrialConfig(**dict(reversed(settings.items()))).key == config.key
    others = {name: spellings(name, value) for name, value in settings.items()}
    for name, values in others.items():
        for value in values:
            assert TrialConfig(**settings | {name: value}).key == config.key, (name, value)
    assert TrialConfig(**settings | {name: values[0] for name, values in others.items() if values}).key == config.key


def test_other_radii_and_another_order_are_other_trials():
    keys = {
        TrialConfig(num_classes=8, feature_dim=3, attack_radii=radii).key for radii in ("0.1", "0.1,0.2", "0.2,0.1")
    }
    assert len(keys) == 3


STUDY = 'name = "s"\n{tune}[fixed]\nnum_classes = 8\nfeature_dim = 3\nattack_radii = {radii}\n[grid]\nseed = [0, 1]\n{search}'


@pytest.mark.parametrize("written", ["0.01,0.03", "0.01, 0.03", "0.010, 0.030"])
def test_a_finished_trial_of_another_spelling_keeps_its_key_and_counts_as_the_one_asked_for(store, written):
    stored = [
        stored_config(TrialConfig(num_classes=8, feature_dim=3, seed=seed).settings() | {"attack_radii": "0.01,0.03"})
        for seed in (0, 1)
    ]
    finish(store, stored[0])
    study = complete_study(parse_study(STUDY.format(radii=f'"{written}"', tune="", search="")), store)
    assert done_keys(study, store, store.states()) == {stored[0].key}
    canonical = TrialConfig(num_classes=8, feature_dim=3, seed=1, attack_radii="0.01, 0.03").key
    assert [config.key for config in study.configs] == [stored[0].key, canonical] != [stored[0].key, stored[1].key]
    store.seal()
    assert store.read_trials()["attack_radii"].to_pylist() == ["0.01,0.03"]


def test_a_search_finds_finished_trials_of_another_spelling(store):
    rate = TrialConfig(num_classes=8, feature_dim=3, learning_rate=0.05).settings()
    for seed in (0, 1):
        finish(store, stored_config(rate | {"attack_radii": "0.01,0.03", "seed": seed}))
    text = STUDY.format(
        radii='"0.01, 0.03"',
        search="[search]\nlearning_rate = { log_uniform = [0.02, 0.5] }",
        tune='[tune]\nmethod = "optuna"\nnum_samples = 3\nmetric = "train_loss"\nmode = "min"\n',
    )
    study = complete_study(parse_study(text), store)
    assert {config.key for config in study.configs} == done_keys(study, store, store.states()) == store.states().keys()


def test_two_spellings_in_one_list_are_refused_and_in_two_blocks_are_one_cell():
    with pytest.raises(ValueError, match=r"attack_radii in .grid. must be distinct, got '0.1, 0.2' twice"):
        parse_study('name = "s"\n[grid]\nattack_radii = ["0.1,0.2", "0.1, 0.2"]\n')
    blocks = "\n".join(f"[[grid]]\nseed = [0]\ntemperature = [{one}]" for one in ("1", "1.0"))
    search = '[tune]\nmethod = "optuna"\nnum_samples = 3\nmetric = "train_loss"\nmode = "min"\n'
    search += "[search]\nlearning_rate = { log_uniform = [0.02, 0.5] }\n"
    study = parse_study(f'name = "s"\n{search}[fixed]\nnum_classes = 8\nfeature_dim = 3\n{blocks}')
    assert len(study.cells) == 1


def test_a_stopping_rule_is_the_same_in_any_order_of_its_settings():
    one, other = (
        Scheduler("asha", "train_loss", "min", over=over) for over in (("width", "depth"), ("depth", "width"))
    )
    assert one.digest == other.digest
    as_once_stored = other._digest(["width", "depth"])
    assert one.stopped(as_once_stored)
    assert one.stopped(other.digest)
    assert not one.stopped(Scheduler("asha", "train_loss", "min", over=("width",)).digest)
    assert not Scheduler().stopped(Scheduler().digest)


def test_roles_cover_what_the_catalog_knows_of_the_data():
    families = {"dataset", "imbalance"}
    read = families.union(*(decided_by(family) for family in families)) - {"augmentation"}
    assert read <= set(settings_with("data", "size"))
    assert set(FAMILIES) - {"imbalance"} - set(settings_with("data", "speed", "axis")) == {
        "temperature_schedule", "optimizer", "budget",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("margin", "margin_min_lower"),
        ("GNC1", "gnc1_rank"),
        ("variability", "gnc1_rank"),
        ("accuracy", "test_accuracy"),
    ],
)
def test_a_column_is_found_by_the_name_that_others_call_it_by(name, meant):
    known = ["ufm_margin", "margin_q95", "gnc3", "margin_min_lower", "gnc1_rank", "train_accuracy", "test_accuracy"]
    assert nearest(name, known) == f"Did you mean {meant!r}?"
