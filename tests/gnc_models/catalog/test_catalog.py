"""The catalog, which knows no torch, says the same as the dicts of constructors."""

import inspect
import subprocess
import sys

import pytest
import torch

from gnc_models.catalog import members as catalog
from gnc_models.classifiers.classifier import NORMALIZATIONS
from gnc_models.datasets.made.fonts import FAMILIES
from gnc_models.datasets.made.glyphs import RESOLUTIONS
from gnc_models.datasets.registry import DATASETS
from gnc_models.datasets.samples.shaping import AUGMENTATIONS
from gnc_models.datasets.stored.layouts import STORED_SETS, missing_data
from gnc_models.encoders.registry import ENCODERS, make_encoder


def test_names_equal_those_of_the_constructors():
    assert set(catalog.DATASETS) == set(DATASETS)
    assert set(catalog.ENCODERS) == set(ENCODERS)
    assert set(catalog.FAMILIES["normalization"]) == set(NORMALIZATIONS)


def test_settings_of_a_data_set_are_what_its_constructor_reads():
    common = {"wanted", "data_root", "fonts_source", "room", "corpus"}
    applied_to_any = {"augmentation", "test_samples_per_class", "ood_classes"}
    for name, member in catalog.DATASETS.items():
        read = set(inspect.signature(DATASETS[name]).parameters) - common
        assert set(member.settings) - applied_to_any == read, name


def test_default_settings_of_glyphs_are_among_those_on_offer():
    settings = catalog.DATASETS["glyphs"].settings
    assert settings["resolution"] in RESOLUTIONS
    assert settings["unseen_family"] in FAMILIES
    assert settings["augmentation"] in AUGMENTATIONS
    assert set(catalog.DATASETS["glyphs"].max_classes) == set(RESOLUTIONS)


SHAPES = {"image": (1, 16, 16), "vector": (8,), "tokens": (5,), "index": (1,)}
BESIDE = {"transformer": {"vocabulary": 11}, "unconstrained": {"num_samples": 6}}


@pytest.mark.parametrize("name", catalog.ENCODERS)
def test_encoder_gives_features_of_every_kind_of_input_from_its_default_settings(name):
    member = catalog.ENCODERS[name]
    assert member.takes
    for kind in member.takes:
        inputs = torch.zeros(2, *SHAPES[kind], dtype=torch.long if kind in ("tokens", "index") else torch.float32)
        encoder = make_encoder(name, input_shape=SHAPES[kind], feature_dim=3, **member.settings, **BESIDE.get(name, {}))
        assert encoder.eval()(inputs).shape == (2, 3)


@pytest.mark.parametrize("name", [n for n in catalog.ENCODERS if catalog.ENCODERS[n].settings])
def test_no_setting_of_an_encoder_goes_unread(name):
    """Each setting in the catalog, were it another, makes another network or is refused."""
    member, kind = catalog.ENCODERS[name], min(catalog.ENCODERS[name].takes)
    given = {"input_shape": SHAPES[kind], "feature_dim": 3, **BESIDE.get(name, {})}
    plain = str(make_encoder(name, **given, **member.settings))
    for setting, value in member.settings.items():
        other = next(n for n in member.norm_layers if n != value) if setting == "norm_layer" else 2 * value
        assert str(make_encoder(name, **given, **{**member.settings, setting: other})) != plain, setting


@pytest.mark.parametrize("name", [n for n, member in catalog.ENCODERS.items() if member.takes == {"image"}])
def test_encoder_of_images_refuses_vectors(name):
    with pytest.raises(ValueError, match="input_shape must be"):
        make_encoder(name, input_shape=(8,), feature_dim=3, **catalog.ENCODERS[name].settings)


def test_settings_of_a_loss_and_a_classifier_are_what_their_constructors_read():
    given = {"num_classes", "feature_dim", "normalization", "temperature", "init_norm", "similarity", "points"}
    for family, package in ((catalog.LOSSES, "losses"), (catalog.CLASSIFIERS, "classifiers")):
        for member in family.values():
            constructor = catalog.load(f"gnc_models.{package}", member.made_by)
            assert set(member.settings) == set(inspect.signature(constructor).parameters) - given


@pytest.mark.parametrize("name", catalog.ENCODERS)
def test_an_encoder_can_have_the_norm_layers_that_the_catalog_says(name):
    member = catalog.ENCODERS[name]
    shape, settings = SHAPES[min(member.takes)], {**member.settings, **BESIDE.get(name, {})}
    for norm_layer in member.norm_layers:
        make_encoder(name, input_shape=shape, feature_dim=3, **{**settings, "norm_layer": norm_layer})


def test_what_a_normalization_decides_are_its_settings_and_theirs():
    expected = {"temperature", "temperature_schedule", "temperature_start", "decay_normalised"}
    assert catalog.settings_of("normalization") == expected


def test_every_data_set_that_reads_files_says_what_is_missing(tmp_path):
    for name in catalog.DATASETS:
        sentence = missing_data(name, tmp_path, folder="faces")
        assert (sentence is not None) == (name in STORED_SETS or name == "image_folder")


def test_temperature_is_a_setting_of_every_form_but_none():
    assert {
        name for name, member in catalog.FAMILIES["normalization"].items() if "temperature" not in member.settings
    } == {"none"}


def test_decay_of_normalised_rows_is_a_setting_where_rows_are_normalised():
    reading = {
        name for name, member in catalog.FAMILIES["normalization"].items() if "decay_normalised" in member.settings
    }
    assert reading == {name for name, (_, weights) in NORMALIZATIONS.items() if weights}


def test_unknown_resolution_is_refused():
    with pytest.raises(ValueError, match=r"resolution must be one of \[16, 32\] for glyphs, got 24"):
        catalog.max_classes("glyphs", 24)


def test_catalog_is_read_without_torch_or_numpy():
    code = "import sys, gnc_models.catalog.members; print([m for m in ('torch', 'numpy', 'PIL', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
