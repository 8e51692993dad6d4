"""What many classes need: inputs held as bytes until a batch is made, and measurements of a few samples of each class."""

from dataclasses import replace

import pytest
import torch

from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.stored.font_files import fonts_digest
from gnc_models.metrics.collapse import measure_collapse
from study.design.config import TrialConfig
from study.design.errors import StudyError
from study.training.data import find_data, load_dataset
from study.training.schedules import Pace
from study.training.training import Training
from study.training.trial import Trial
from tests.gnc_models.small_fonts import write_small_fonts

SMALL = {
    "dataset": "synthetic",
    "encoder": "mlp",
    "width": 16,
    "depth": 1,
    "num_classes": 9,
    "feature_dim": 3,
    "samples_per_class": 8,
    "test_samples_per_class": 2,
    "batch_size": 20,
    "learning_rate": 0.05,
    "budget": "epochs",
    "epochs": 5,
    "measured_samples": 3,
}
CPU = torch.device("cpu")


@pytest.mark.parametrize("augmentation", ["none", "shift", "crop_flip"])
@pytest.mark.parametrize("encoder", ["mlp", "small_resnet"])
def test_bytes_train_bit_for_bit_as_the_numbers_they_stand_for(augmentation, encoder):
    config = TrialConfig(
        dataset="glyphs", num_classes=5, feature_dim=3, samples_per_class=8, test_samples_per_class=2, width=8, depth=1,
        encoder=encoder, augmentation=augmentation, batch_size=10, assignment=None,
    )  # fmt: skip
    size = {"num_classes": 5, "samples_per_class": 8, "test_samples_per_class": 2, "data_seed": 0, "resolution": 16}
    drawn, scale = make_dataset("glyphs", **size), 1 / (255 * 0.27)
    as_bytes = (drawn.train_inputs / scale).round().to(torch.uint8)
    as_numbers = replace(drawn, train_inputs=as_bytes.float() * scale)
    trained = []
    for dataset in (as_numbers, replace(drawn, train_inputs=as_bytes, input_scale=scale)):
        training = Training(config, dataset, CPU)
        training.train_epoch(1, [Pace(0.1, 0.1)] * training.steps_per_epoch)
        trained.append(training.tensors() | {"features": training.features(training.train_inputs)})
        assert training.class_inputs is not None
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
    assert training.train_inputs.dtype == torch.uint8


def run(**changed):
    trial = Trial(TrialConfig(**(SMALL | changed)))
    while not trial.is_done:
        trial.run_epoch()
    return trial


def test_the_first_samples_of_each_class_are_measured_by_class_statistics():
    trial = run()
    first, last = trial.measurements[0], trial.measurements[-1]
    training = trial.training
    chosen = torch.cat([torch.arange(8 * k, 8 * k + 3) for k in range(9)])
    expected = measure_collapse(
        training.features(training.train_inputs[chosen]),
        training.train_labels[chosen],
        training.classifier.weight.detach(),
        normalization="both",
        temperature=0.1,
    ).values
    for name in ("gnc1_rank", "gnc1_quotient", "cdnv_nearest", "gnc3_uncentred", "trace_within", "max_cosine"):
        assert getattr(last, name) == pytest.approx(expected[name], rel=1e-12)
    for name in ("margin_min", "mean_margin_min"):
        low, high = getattr(last, f"{name}_lower"), getattr(last, f"{name}_upper")
        assert low <= expected[f"{name}_upper"]
        assert expected[f"{name}_lower"] <= high <= low * (1 + 2e-4)
    assert last.margin_mean == pytest.approx(expected["margin_mean"], rel=2e-4)
    assert (last.sample_margin_min, last.ncc_agreement, last.within_distance) == (None, None, None)
    # what compares all pairs of classes waits for the last epoch
    assert (first.margin_mean, first.max_cosine, first.mean_margin_min_lower) == (None, None, None)
    assert first.gnc1_rank is not None
    assert first.margin_min_lower > 0
    assert last.test_accuracy is not None


def test_training_is_the_same_however_few_samples_are_measured():
    few, all_of_them = run(), run(measured_samples=None)
    found = all_of_them.training.tensors()
    assert all(torch.equal(value, found[name]) for name, value in few.training.tensors().items())
    assert few.config.key != all_of_them.config.key
    whole = run(measured_samples=100)  # more than there are: all
    assert whole.measurements[-1].gnc1_rank == pytest.approx(all_of_them.measurements[-1].gnc1_rank, rel=1e-12)
    assert whole.measurements[-1].train_loss == pytest.approx(all_of_them.measurements[-1].train_loss, rel=1e-5)
    assert whole.measurements[-1].train_accuracy == all_of_them.measurements[-1].train_accuracy


@pytest.mark.parametrize("budget", [{}, {"budget": "terminal", "epochs": None, "terminal_epochs": 1, "max_epochs": 3}])
def test_a_rare_class_gives_what_it_has(budget):
    trial = run(imbalance="exponential", imbalance_ratio=8.0, **budget)
    counts = torch.bincount(load_dataset(trial.config).train_labels)
    assert int(counts.min()) == 1
    measured = trial.training.train_labels[trial.training.measured]
    assert torch.equal(torch.bincount(measured), counts.clamp_max(3))
    assert trial.measurements[-1].gnc1_rank is not None


def test_the_check_of_a_study_counts_the_classes_of_fonts_once_they_were_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("GNC_DATA", str(tmp_path))
    monkeypatch.setenv("GNC_CACHE", str(tmp_path / "cache"))
    write_small_fonts(tmp_path / "small")
    settings = {
        "dataset": "glyphs",
        "fonts": "small",
        "fonts_source": fonts_digest("small", tmp_path),
        "resolution": 16,
    }
    configs = [TrialConfig(**settings, feature_dim=3, num_classes=count) for count in (20, 300)]
    before = find_data(configs)
    assert "small: the first trial draws and compares the characters" in before.held[0]
    assert before.missing == []
    data = load_dataset(configs[0])
    assert data.train_inputs.dtype == torch.uint8
    after = find_data(configs)
    known = int(after.held[0].split()[1])
    assert f"small: {known} characters differ enough at resolution 16." == after.held[0]
    assert after.missing == [f"num_classes and ood_classes must be at most {known} together with small, got 300."]
    with pytest.raises(StudyError, match=f"num_classes must be at most {known}"):
        load_dataset(configs[1])
    (tmp_path / "small" / "Sans.ttf").unlink()
    with pytest.raises(StudyError, match="fonts_source must be that of the files of small on this machine"):
        load_dataset(configs[0])
    (tmp_path / "small" / "deep" / "Serif.ttf").write_bytes(b"broken")
    assert "Serif.ttf': " in find_data(configs).missing[0]
