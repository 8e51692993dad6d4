"""What is said of data before anything starts, what all samples of a class cost, and that bad input is tried once."""

import pytest

from gnc.cli.main import main
from gnc_models.datasets.stored import layouts as stored
from study.design.errors import StudyError, make_config
from study.design.setting import canonical
from study.execution.cost import price
from study.execution.local_workers import run_here
from study.scheduling.remaining import spent_keys
from study.store.schemas import identity_and_settings
from study.training.data import check_data, find_data, load_dataset, training_samples
from tests.gnc_models import stored_layouts as layouts
from tests.study.conftest import made_up_measurement, made_up_record

SETTINGS = {"dataset": "image_folder", "folder": "set", "resolution": 8, "num_classes": 3, "test_samples_per_class": 1}
SETTINGS |= {"encoder": "mlp", "width": 8, "depth": 1, "feature_dim": 2, "batch_size": 6, "steps": 2}


def config_of(**settings):
    return make_config({**SETTINGS, "samples_per_class": 4, **settings})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Training classes of 5, 6 and 7 images, test classes of 2."""
    monkeypatch.setenv("GNC_DATA", str(tmp_path))
    for count, name in enumerate(("ant", "bee", "cow"), start=5):
        layouts.write_image_classes(tmp_path / "set" / "train", [name], count, seed=count)
    layouts.write_image_classes(tmp_path / "set" / "test", ["ant", "bee", "cow"], 2, seed=1)
    return tmp_path / "set"


def test_all_is_written_as_a_word_and_kept_as_a_number(folder):
    config = config_of(samples_per_class="all")
    assert config.key == config_of(samples_per_class=0).key != config_of().key
    assert identity_and_settings(config)["samples_per_class"] == 0
    assert len(load_dataset(config).train_labels) == 18
    assert canonical("samples_per_class", "all") == 0  # so that a search finds its trials again
    assert canonical("samples_per_class", "many") == "many"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"samples_per_class": "most"}, "samples_per_class must be an integer, got 'most'"),
        ({"samples_per_class": -1}, "samples_per_class must be at least 0, got -1"),
        (
            {"samples_per_class": "all", "imbalance": "step", "imbalance_ratio": 2.0},
            "imbalance must be 'none' where samples_per_class is 'all', got 'step'",
        ),
        ({"samples_per_class": "all", "folder": "a/../b"}, None),
    ],
)
def test_all_goes_with_what_it_can_go_with(wrong, words, folder):
    if words is None:
        assert "must be a path without .., got 'a/../b'" in find_data([config_of(**wrong)]).missing[0]
        return
    with pytest.raises(StudyError, match=words):
        config_of(**wrong)


@pytest.mark.parametrize("given", ["all", 0])
def test_sets_that_are_made_have_no_end(given):
    with pytest.raises(StudyError, match="samples_per_class must be at least 1 for dataset 'glyphs', got 'all'"):
        make_config({"num_classes": 24, "feature_dim": 3, "samples_per_class": given})


def test_everything_that_a_study_lacks_is_told_before_anything_starts(folder):
    configs = [config_of(num_classes=3, ood_classes=2), config_of(samples_per_class=9), config_of(folder="none")]
    configs += [config_of(samples_per_class="all", seed=seed) for seed in (0, 1)]
    said = "\n".join(find_data(configs).missing)
    for words in (
        "num_classes and ood_classes must be at most 3 together, got 5",
        "got 9",
        "none or in its train folder",
    ):
        assert said.count(words) == 1
    with pytest.raises(StudyError, match="num_classes and ood_classes must be at most 3"):
        check_data(configs)
    held = find_data([config_of()])
    assert held.missing == []
    assert (
        "holds 3 classes; images of each of the first 3 of data_seed 0: 5 to 7 for training and 2 for test."
        in held.held[0]
    )


def test_batches_of_samples_that_are_counted_are_checked_too(folder):
    words = "batch_size must be at most the 18 training samples, got 19."
    assert find_data([config_of(samples_per_class="all", batch_size=19)]).missing == [words]
    assert find_data([config_of(samples_per_class="all", batch_size=18)]).missing == []


@pytest.mark.parametrize("ood", [0, 1])
def test_all_samples_cost_what_so_many_cost(ood, folder, store):
    timed = config_of(samples_per_class=5)
    store.write_fragment(timed, [made_up_measurement(1, step=3)], made_up_record(seconds=5.0))
    plain = {"num_classes": 2, "ood_classes": ood, "seed": 1, "budget": "epochs", "epochs": 4, "steps": None}
    whole = config_of(**plain, samples_per_class="all")
    count = len(load_dataset(whole).train_labels)
    assert training_samples(whole) == count
    below, above = (
        price([config_of(**plain, samples_per_class=n)], store, cpus=1).seconds for n in (count // 2, -(-count // 2))
    )
    assert below <= price([whole], store, cpus=1).seconds <= above
    # a folder that is gone makes the price unknown, and no check fails
    assert price([config_of(folder="none", samples_per_class="all")], store, cpus=1).seconds is None


def test_all_of_a_stored_set_is_at_most_its_largest_classes():
    config = config_of(dataset="cifar10", folder=None, resolution=None, samples_per_class="all")
    assert training_samples(config) == 3 * stored.STORED_SETS["cifar10"].largest_class == 15_000


def test_bad_input_is_tried_once_and_an_accident_again(folder, store, monkeypatch):
    study = type("Study", (), {"resources": type("Resources", (), {"attempts": 3})})
    config = config_of(samples_per_class="all")
    bad = folder / "train" / "ant" / "1.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    assert "image file is truncated" in find_data([config]).missing[0]
    bad.write_bytes(whole[:60] + whole[-20:])  # its first and last bytes are those of a picture
    assert find_data([config]).missing == []
    state, reason = run_here(config, store, device="cpu")
    assert state == "failed"
    assert f"{bad} must be an image that can be read" in reason
    assert spent_keys(study, store) == {config.key}
    other = config_of(folder="none")  # on this machine: another may have it
    assert run_here(other, store, device="cpu")[0] == "failed"
    assert spent_keys(study, store) == {config.key}


def test_check_prints_what_folders_hold_and_lack(folder, tmp_path, capsys):
    lines = [f"{name} = {value!r}" for name, value in SETTINGS.items()]
    text = "\n".join(["name = 'pictures'", "[fixed]", *lines, "[grid]", "samples_per_class = ['all', 5, 50]"])
    (tmp_path / "pictures.toml").write_text(text)
    assert main(["check", str(tmp_path / "pictures.toml"), str(tmp_path / "r")]) == 0
    said = capsys.readouterr().out
    assert f"data: {folder} holds 3 classes" in said
    assert "missing: samples_per_class must be at most 5, the training samples of class 'ant', got 50." in said
    assert "pictures: 3 trials" in said
