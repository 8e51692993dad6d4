"""What all data sets promise, the synthetic one, augmentation, and the cache they may use."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.samples.dataset import digest_tensors
from gnc_models.datasets.samples.shaping import augment
from gnc_models.user_cache import cache_folder, read_or_make


def make_synthetic(**changed):
    settings = {"num_classes": 5, "samples_per_class": 4, "test_samples_per_class": 3, "data_seed": 0}
    return make_dataset("synthetic", **(settings | {"input_dim": 7, "noise": 0.1} | changed))


# --- synthetic ---


def test_synthetic_samples_have_the_shapes_and_labels_of_their_classes():
    data = make_synthetic()
    assert data.train_inputs.shape == (20, 7)
    assert data.test_inputs.shape == (15, 7)
    assert data.train_inputs.dtype == torch.float32
    assert data.train_labels.tolist() == [c for c in range(5) for _ in range(4)]
    assert data.test_labels.tolist() == [c for c in range(5) for _ in range(3)]
    assert data.unseen_inputs is None
    assert data.unseen_labels is None
    assert data.class_names == ("0", "1", "2", "3", "4")


def test_synthetic_centres_have_unit_length():
    data = make_synthetic(noise=0.0)
    assert data.train_inputs.norm(dim=1).numpy() == pytest.approx(1, abs=1e-6)
    assert torch.equal(data.train_inputs[:4], data.train_inputs[:1].expand(4, -1))


def test_synthetic_noise_is_the_root_mean_square_distance_from_the_centre():
    settings = {"num_classes": 50, "samples_per_class": 400, "input_dim": 20}
    centres = make_synthetic(**settings, noise=0.0).train_inputs
    noisy = make_synthetic(**settings, noise=0.3).train_inputs
    # the mean of 400,000 squares: its relative standard error is sqrt(2 / 400,000) = 0.2 %
    assert (noisy - centres).square().sum(1).mean().sqrt().item() == pytest.approx(0.3, rel=0.01)


def test_synthetic_centres_are_spread_evenly():
    centres = make_synthetic(num_classes=4000, samples_per_class=1, noise=0.0, input_dim=5).train_inputs
    covariance = centres.T @ centres / len(centres)
    assert covariance.numpy() == pytest.approx(np.eye(5) / 5, abs=0.02)
    assert centres.mean(0).norm() < 0.05


def test_synthetic_test_samples_are_not_training_samples():
    data = make_synthetic(samples_per_class=4, test_samples_per_class=4)
    assert not (data.train_inputs == data.test_inputs).any()


# --- any data set ---


def test_fewer_classes_and_fewer_samples_lie_inside_more():
    small, large = make_synthetic(), make_synthetic(num_classes=9, samples_per_class=11, test_samples_per_class=8)
    for name, kept in (("train_inputs", 4), ("test_inputs", 3)):
        inside = getattr(large, name).view(9, -1, 7)[:5, :kept]
        assert torch.equal(getattr(small, name).view(5, kept, 7), inside)


def test_same_arguments_give_the_same_data_and_another_seed_other_data():
    assert make_synthetic().digest == make_synthetic().digest
    assert torch.equal(make_synthetic().train_inputs, make_synthetic().train_inputs)
    assert make_synthetic(data_seed=1).digest != make_synthetic().digest


def test_digest_changes_with_a_value_a_shape_and_a_type():
    tensor = torch.arange(6.0)
    digests = {
        digest_tensors(tensors)
        for tensors in (
            [tensor],
            [tensor + torch.tensor([0, 0, 0, 0, 0, 1e-6])],
            [tensor.view(2, 3)],
            [tensor.view(torch.int32)],
            [tensor, None],
            [None, tensor],
        )
    }
    assert len(digests) == 6
    assert all(len(digest) == 64 for digest in digests)
    assert digest_tensors([tensor.view(2, 3).T.contiguous()]) == digest_tensors([tensor.view(2, 3).T])


def test_settings_without_effect_are_refused_unless_none():
    assert make_synthetic(resolution=None).digest == make_synthetic().digest
    with pytest.raises(TypeError, match="resolution"):
        make_synthetic(resolution=16)


# --- augmentation ---


def shifted(image: torch.Tensor, down: int, across: int) -> torch.Tensor:
    """One image moved, pixel by pixel."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - across < width:
                moved[:, row, column] = image[:, row - down, column - across]
    return moved


def test_shift_moves_each_image_by_up_to_one_pixel_each_way():
    images = torch.randn(200, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    moved = augment(images, "shift", torch.Generator().manual_seed(1))
    assert moved.shape == images.shape
    used = set()
    for before, after in zip(images, moved, strict=True):
        matches = [(d, a) for d in (-1, 0, 1) for a in (-1, 0, 1) if torch.equal(shifted(before, d, a), after)]
        assert len(matches) == 1
        used.add(matches[0])
    assert len(used) == 9


def test_shift_depends_on_the_generator_alone():
    images = torch.randn(50, 1, 6, 6)
    first, again, other = (augment(images, "shift", torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("augmentation", ["shift", "crop_flip"])
def test_a_part_of_a_batch_changes_as_it_does_in_the_whole(augmentation):
    images = torch.rand(7, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = augment(images, augmentation, torch.Generator().manual_seed(1))
    for part in (slice(3), slice(3, 7)):
        generator = torch.Generator().manual_seed(1)
        alone = augment(images[part], augmentation, generator, start=part.start or 0, batch_size=len(images))
        assert torch.equal(alone, whole[part])


@pytest.mark.parametrize("augmentation", [None, "none"])
def test_no_augmentation_changes_neither_inputs_nor_generator(augmentation):
    images, generator = torch.randn(3, 1, 4, 4), torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert augment(images, augmentation, generator) is images
    assert torch.equal(generator.get_state(), state)


def test_shift_of_vectors_is_refused():
    with pytest.raises(ValueError, match="augmentation must be none for inputs that are not images, got 'shift'"):
        augment(torch.zeros(3, 4), "shift", torch.Generator())


# --- cache ---


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A function that reads arrays through the cache in `tmp_path` and the list of the times they were made."""
    monkeypatch.setenv("GNC_CACHE", str(tmp_path / "cache"))
    made = []

    def make():
        made.append(1)
        return {"few": np.arange(5), "many": np.random.default_rng(0).integers(0, 255, 5000, dtype=np.uint8)}

    def pick(arrays):
        if arrays["few"].shape != (5,):
            raise ValueError("few has another shape")
        return int(arrays["many"].sum())

    return (lambda: read_or_make("some", make=make, pick=pick)), made, tmp_path / "cache" / "some.npz"


def test_cached_arrays_are_made_once(counted):
    read, made, path = counted
    assert read() == read() == read()
    assert len(made) == 1
    assert os.listdir(path.parent) == ["some.npz"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _flip_a_byte,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: np.save(path.open("wb"), np.arange(5)),
        lambda path: np.savez(path, few=np.arange(6), many=np.arange(3)),
        lambda path: np.savez(path, other=np.arange(5)),
        lambda path: np.savez(path, few=np.array([None] * 5), many=np.arange(3)),
    ],
    ids=["torn", "flipped", "empty", "text", "npy", "shapes", "members", "pickle"],
)
def test_damaged_or_foreign_cache_file_is_made_anew(counted, damage):
    read, made, path = counted
    value = read()
    damage(path)
    assert read() == value
    assert len(made) == 2
    assert read() == value
    assert len(made) == 2


def test_cache_folder_that_cannot_be_written_is_done_without(counted, caplog):
    read, made, path = counted
    path.parent.write_text("a file where the folder should be")
    assert read() == read()
    assert len(made) == 2
    assert "cannot be written" in caplog.text


def test_failed_write_leaves_no_temporary_file(counted, monkeypatch):
    read, _, path = counted
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    read()
    assert os.listdir(path.parent) == []


def test_cache_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("GNC_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/gnc-study")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/gnc-study")
    monkeypatch.setenv("GNC_CACHE", "/here")
    assert cache_folder() == Path("/here")
