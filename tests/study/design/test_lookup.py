"""What is said of settings is what the settings do."""

import pytest

from gnc_models.catalog.members import FAMILIES, REQUIRED
from study.design.config import ALIASES, MEMBERS, TrialConfig
from study.design.lookup import TABLES, member_lines, setting_facts, table_facts
from study.design.study_file import parse_study

NAMES = tuple(TrialConfig.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_blank(name):
    facts = setting_facts(name)
    assert all(facts[label] for label in ("name", "meaning", "type", "default", "read by", "since"))


def test_defaults_and_readers_are_those_of_a_trial():
    for family, member, info in MEMBERS:
        settled = TrialConfig.settle({family: member})
        for name, default in info.settings.items():
            assert settled[name] is default or settled[name] == default
            assert member in setting_facts(name)["read by"]
            assert default is REQUIRED or str(default).lower() in setting_facts(name)["default"].lower()
    assert setting_facts("width")["default"] == "16 (small_resnet); 128 (mlp); 64 (vit, transformer)"
    assert setting_facts("temperature")["read by"] == "normalization: both, features, weights"
    assert setting_facts("steps")["default"] == "1500"
    config = parse_study('name = "s"\n[fixed]\nfeature_dim = 3\n[grid]\nnum_classes = [20]').configs[0]
    for name in ("learning_rate", "batch_size", "weight_decay", "encoder", "measure", "label_noise"):
        assert setting_facts(name)["default"] == str(getattr(config, name))


def test_bounds_and_choices_are_those_that_are_enforced():
    allowed = {name: setting_facts(name)["allowed"] for name in NAMES}
    assert allowed["label_smoothing"] in ("above 0 and below 1", "below 1 and above 0")
    assert allowed["num_classes"] == "at least 2"
    assert allowed["schedule"] == "cosine, one_cycle"
    assert allowed["encoder"].endswith("or your own, file.py:name")
    for family, members in FAMILIES.items():
        assert allowed[family].startswith(", ".join(members))
        assert [name for name, _ in member_lines(family)] == list(members)


def test_every_table_has_entries_with_a_meaning():
    for table in TABLES:
        assert all(facts["meaning"] and facts["type"] and facts["default"] for facts in table_facts(table))


def test_an_alias_names_one_setting_and_is_none_itself():
    assert not ALIASES.keys() & set(NAMES)
    assert set(ALIASES.values()) <= set(NAMES)
    assert "lr" in setting_facts("learning_rate")["also called"]
