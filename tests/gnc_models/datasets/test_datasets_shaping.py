"""Long tails, wrong labels and classes kept out, on any set; indices; crops and flips."""

import numpy as np
import pytest
import torch

from gnc_models.catalog.settings import class_counts
from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.samples.dataset import Dataset, digest_tensors
from gnc_models.datasets.samples.shaping import augment, noisy_labels


def make(name="synthetic", **changed):
    settings = {"num_classes": 6, "samples_per_class": 40, "test_samples_per_class": 3, "data_seed": 0}
    own = {"synthetic": {"input_dim": 12, "noise": 0.0}, "glyphs": {"resolution": 16, "unseen_family": "serif"}}
    return make_dataset(name, **(settings | own.get(name, {}) | changed))


def true_labels(data: Dataset, plain: Dataset) -> torch.Tensor:
    """The class that each training sample was drawn from: without noise around the centres, inputs say it."""
    centres = plain.test_inputs[::3]
    return (data.train_inputs @ centres.T).argmax(1)


# --- long tails ---


@pytest.mark.parametrize(("kind", "ratio"), [("exponential", 20.0), ("step", 8.0), ("exponential", 1e6), ("step", 1.0)])
@pytest.mark.parametrize("name", ["synthetic", "glyphs"])
def test_long_tail_holds_the_first_samples_of_each_class(name, kind, ratio):
    samples = 12 if name == "glyphs" else 40
    balanced = make(name, samples_per_class=samples)
    tailed = make(name, samples_per_class=samples, imbalance=kind, imbalance_ratio=ratio)
    counts = class_counts(6, samples, imbalance=kind, imbalance_ratio=ratio)
    assert torch.bincount(tailed.train_labels).tolist() == list(counts)
    expected = [balanced.train_inputs[balanced.train_labels == k][:count] for k, count in enumerate(counts)]
    assert torch.equal(tailed.train_inputs, torch.cat(expected))
    assert torch.equal(tailed.test_inputs, balanced.test_inputs)
    assert tailed.class_names == balanced.class_names
    assert (tailed.digest == balanced.digest) == (ratio == 1)


# --- label noise ---


@pytest.mark.parametrize("noise", [0.004, 0.1, 0.37, 0.5, 0.999])
def test_exact_share_of_labels_is_wrong(noise):
    data, plain = make(label_noise=noise, samples_per_class=41), make()
    wrong = (true_labels(data, plain) != data.train_labels).sum().item()
    assert wrong == int(noise * 6 * 41 + 0.5)
    assert data.train_labels.tolist() == sorted(data.train_labels.tolist())
    assert torch.equal(data.test_inputs, plain.test_inputs)
    assert torch.equal(data.test_labels, plain.test_labels)


def test_noise_keeps_every_sample_and_follows_the_long_tail():
    settings = {"noise": 0.1, "imbalance": "step", "imbalance_ratio": 4.0}
    plain, noisy = make(**settings), make(**settings, label_noise=0.3)
    rows = [sorted(row.numpy().tobytes() for row in data.train_inputs) for data in (plain, noisy)]
    assert rows[0] == rows[1]
    assert len(noisy.train_labels) == 3 * 40 + 3 * 10


def test_wrong_labels_are_uniform_over_the_other_classes():
    labels = torch.arange(5).repeat_interleave(20_000)
    noisy = noisy_labels(labels, 0.5, data_seed=3)
    table = np.zeros((5, 5))
    np.add.at(table, (labels.numpy(), noisy.numpy()), 1)
    # 50,000 wrong labels over 20 pairs: a pair's standard deviation is about 49
    wrong = table[~np.eye(5, dtype=bool)]
    assert wrong.sum() == 50_000
    assert np.abs(wrong - 2500).max() < 5 * 49
    # and each class has about half its labels wrong: standard deviation about 70 of 20,000
    assert np.abs(np.diag(table) - 10_000).max() < 5 * 71


def test_more_noise_wrongs_the_same_samples_in_the_same_way():
    labels = torch.arange(4).repeat_interleave(50)
    little, much = noisy_labels(labels, 0.1, 0), noisy_labels(labels, 0.6, 0)
    wronged = little != labels
    assert torch.equal(much[wronged], little[wronged])
    assert not torch.equal(noisy_labels(labels, 0.1, 1), little)


def test_fully_random_labels_are_right_by_chance_alone_and_keep_the_counts():
    labels = torch.arange(10).repeat_interleave(torch.arange(1000, 2000, 100))
    shuffled = noisy_labels(labels, 1.0, 0)
    assert torch.equal(torch.bincount(shuffled), torch.bincount(labels))
    by_chance = (torch.bincount(labels) / len(labels)).square().sum().item()
    # standard error sqrt(0.1 * 0.9 / 14,500) = 0.0025
    assert (shuffled == labels).float().mean().item() == pytest.approx(by_chance, abs=0.0125)


def test_noise_that_empties_a_class_is_refused():
    with pytest.raises(ValueError, match=r"label_noise must leave every class a sample, got 0\.9"):
        make(samples_per_class=1, label_noise=0.9)


# --- classes kept out ---


@pytest.mark.parametrize("name", ["synthetic", "glyphs"])
def test_classes_kept_out_are_the_next_ones_of_the_order(name):
    plain, more = make(name, samples_per_class=4), make(name, num_classes=8, samples_per_class=4)
    data = make(name, samples_per_class=4, ood_classes=2)
    assert torch.equal(data.ood_inputs, more.test_inputs[-6:])
    for field in ("train_inputs", "train_labels", "test_inputs", "test_labels", "unseen_inputs", "unseen_labels"):
        mine, theirs = getattr(data, field), getattr(plain, field)
        assert (mine is None and theirs is None) or torch.equal(mine, theirs)
    assert data.class_names == plain.class_names
    assert data.digest != plain.digest


def test_digest_of_a_set_without_later_fields_is_that_of_its_six_tensors():
    for data in (make(), make("glyphs", samples_per_class=2), make(imbalance="step", imbalance_ratio=2.0)):
        tensors = [data.train_inputs, data.train_labels, data.test_inputs, data.test_labels]
        assert data.digest == digest_tensors([*tensors, data.unseen_inputs, data.unseen_labels])


@pytest.mark.parametrize("values", [(None, None, None, None), ("none", None, 0.0, 0)])
@pytest.mark.parametrize("name", ["synthetic", "glyphs"])
def test_settings_without_effect_change_nothing(name, values):
    names = ("imbalance", "imbalance_ratio", "label_noise", "ood_classes")
    shaped = make(name, samples_per_class=3, **dict(zip(names, values, strict=True)))
    assert shaped.digest == make(name, samples_per_class=3).digest


# --- indices ---


def test_indices_number_the_samples_and_have_no_test_set():
    data = make("indices", num_classes=3, samples_per_class=4)
    assert data.train_inputs.tolist() == [[i] for i in range(12)]
    assert data.train_inputs.dtype == torch.int64
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test_inputs is None
    assert data.test_labels is None
    assert make("indices", num_classes=3, samples_per_class=4, test_samples_per_class=None).digest == data.digest


def test_indices_have_no_gaps_under_a_long_tail():
    data = make("indices", num_classes=3, samples_per_class=8, imbalance="exponential", imbalance_ratio=4.0)
    assert torch.bincount(data.train_labels).tolist() == [8, 4, 2]
    assert data.train_inputs.flatten().tolist() == list(range(14))


# --- crops and flips ---


@pytest.mark.parametrize(("side", "margin"), [(8, 1), (9, 2), (16, 2), (28, 4), (32, 4)])
def test_crop_and_flip_give_a_window_of_the_padded_image_or_its_mirror(side, margin):
    images = torch.rand(120, 3, side, side, generator=torch.Generator().manual_seed(0)) + 0.1
    changed = augment(images, "crop_flip", torch.Generator().manual_seed(1))
    assert changed.shape == images.shape
    padded = torch.zeros(120, 3, side + 2 * margin, side + 2 * margin)
    padded[:, :, margin:-margin, margin:-margin] = images
    used = []
    for before, after in zip(padded, changed, strict=True):
        matches = [
            (down, across, mirrored)
            for down in range(2 * margin + 1)
            for across in range(2 * margin + 1)
            for mirrored in (False, True)
            if torch.equal(before[:, down : down + side, across : across + side], after.flip(2) if mirrored else after)
        ]
        assert len(matches) == 1
        used += matches
    assert {down for down, _, _ in used} == {across for _, across, _ in used} == set(range(2 * margin + 1))
    # 120 throws: standard deviation 5.5
    assert 60 - 28 < sum(mirrored for _, _, mirrored in used) < 60 + 28


def test_crop_and_flip_depend_on_the_generator_alone_and_refuse_what_is_no_image():
    images = torch.randn(50, 1, 6, 6)
    first, again, other = (augment(images, "crop_flip", torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for inputs in (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64)):
        with pytest.raises(ValueError, match="augmentation must be none for inputs that are not images, got 'crop_fl"):
            augment(inputs, "crop_flip", torch.Generator())
