"""Glyphs: which characters are classes, which samples they have, and that two processes may make them at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gnc_models import user_cache as cache
from gnc_models.catalog import members as catalog
from gnc_models.datasets.made import glyphs
from gnc_models.datasets.made.fonts import (
    FAMILIES,
    RASTER_SIDE,
    draw_characters,
    find_faces,
    fonts_fingerprint,
    shared_characters,
)
from gnc_models.datasets.made.glyphs import LEAST_DIFFERENCE, distinct_characters, similar_pairs
from gnc_models.datasets.registry import make_dataset

pytestmark = pytest.mark.xdist_group("glyphs")  # its fixtures take longer than its tests: built in one process

RACER = """
import sys
import torch
torch.set_num_threads(1)
from gnc_models.datasets.registry import make_dataset
input()
data = make_dataset("glyphs", num_classes=30, samples_per_class=16, test_samples_per_class=8, data_seed=0,
                    resolution=16, unseen_family="serif")
print(data.digest, "matplotlib" in sys.modules)
"""


FACES = find_faces("dejavu")


def make_glyphs(**changed):
    settings = {"num_classes": 30, "samples_per_class": 16, "test_samples_per_class": 8, "data_seed": 0}
    return make_dataset("glyphs", **(settings | {"resolution": 16, "unseen_family": "serif"} | changed))


@pytest.fixture(scope="module")
def race(tmp_path_factory):
    """Two processes that ask for the same data at the same moment, with an empty cache: what they printed."""
    folder = tmp_path_factory.mktemp("cache")
    environment = os.environ | {"GNC_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    printed = [racer.communicate(timeout=200)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    return folder, printed


@pytest.fixture(autouse=True)
def _cache(race, monkeypatch):
    """Every test reads the cache that the two processes left."""
    monkeypatch.setenv("GNC_CACHE", str(race[0]))


@pytest.fixture(scope="module")
def some_pictures():
    """Pictures of some 50 characters in all faces, with look-alikes across scripts and cases among them."""
    alike = [ord(c) for c in "AΑАBΒВoοоOΟОcCсСsSxX×хХIlІ|1-‐–−.·,'´kκкĸ"]  # noqa: RUF001
    known = shared_characters(FACES)
    others = np.random.default_rng(0).choice(known, 20, replace=False).tolist()
    chosen = [c for c in known if c in {*alike, *others}]
    return chosen, np.stack([draw_characters(chosen, face) for face in FACES], axis=1)


def find_pairs(pictures: np.ndarray, resolution: int) -> np.ndarray:
    return np.concatenate([similar_pairs(pictures[:, face], resolution) for face in range(pictures.shape[1])])


# --- which characters ---


def ref_relative_differences(first: np.ndarray, second: np.ndarray, resolution: int) -> np.ndarray:
    """By what share of the larger energy two characters differ in each face, least over the nine shifts, by slices."""
    factor = RASTER_SIDE // resolution
    a, b = (
        np.pad(
            p.astype(np.float64).reshape(-1, resolution, factor, resolution, factor).mean((2, 4)),
            ((0, 0), (2, 2), (2, 2)),
        )
        for p in (first, second)
    )
    size = resolution + 4
    differences = []
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            moved = np.zeros_like(b)
            moved[:, 1:-1, 1:-1] = b[:, 1 + down : size - 1 + down, 1 + across : size - 1 + across]
            differences.append(((a - moved) ** 2).sum((1, 2)))
    return np.min(differences, axis=0) / np.maximum((a**2).sum((1, 2)), (b**2).sum((1, 2)))


@pytest.mark.parametrize("resolution", [16, 32])
def test_lookalike_rule_equals_brute_force(some_pictures, resolution):
    _, pictures = some_pictures
    expected = {
        (j, i)
        for i in range(len(pictures))
        for j in range(i)
        if ref_relative_differences(pictures[i], pictures[j], resolution).min() < LEAST_DIFFERENCE
    }
    assert len(expected) > 10
    assert set(map(tuple, find_pairs(pictures, resolution).tolist())) == expected


def test_first_of_each_group_of_lookalikes_is_kept(some_pictures):
    code_points, pictures = some_pictures
    pairs = find_pairs(pictures, 16)
    kept, found = distinct_characters(len(pictures), pairs).tolist(), set(map(tuple, pairs.tolist()))
    for position in range(len(pictures)):
        rivals = [k for k in kept if (k, position) in found]
        assert (position in kept) == (not rivals)
    names = "".join(chr(code_points[k]) for k in kept)
    assert "A" in names
    assert not set(names) & set("ΑАΒВοо")  # noqa: RUF001


def test_all_classes_differ_enough_in_every_face():
    """The rule for all pairs of all classes at once, by dense products."""
    total = catalog.max_classes("glyphs", 16)
    _, _, pictures = glyphs._read_classes(FACES, 16, total, 0)
    inks = torch.from_numpy(pictures).float().div(255).flatten(0, 1)[:, None]
    pooled = torch.nn.functional.pad(torch.nn.functional.avg_pool2d(inks, 4), (1, 1, 1, 1)).view(total, 12, 18, 18)
    least = torch.full((total, total), torch.inf)
    for face in range(12):
        still = pooled[:, face].flatten(1)
        energy = still.square().sum(1)
        product = torch.full((total, total), -torch.inf)
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                product = torch.maximum(product, still @ pooled[:, face].roll((down, across), (1, 2)).flatten(1).T)
        difference = energy[:, None] + energy[None, :] - 2 * product
        least = torch.minimum(least, difference / torch.maximum(energy[:, None], energy[None, :]))
    least.fill_diagonal_(torch.inf)
    # float32 products: within 1e-4 of the exact rule
    assert least.min().item() >= LEAST_DIFFERENCE - 1e-4
    assert least.min().item() < LEAST_DIFFERENCE + 1e-3


@pytest.mark.parametrize("resolution", [16, 32])
def test_catalog_states_how_many_classes_there_are(resolution):
    stated = catalog.max_classes("glyphs", resolution)
    available, code_points, _ = glyphs._read_classes(FACES, resolution, 10_000, 0)
    assert available == stated == len(set(code_points))
    with pytest.raises(ValueError, match=f"num_classes must be at most {stated}, .*got {stated + 1}"):
        make_glyphs(resolution=resolution, num_classes=stated + 1, samples_per_class=1, test_samples_per_class=1)


def test_shared_characters_are_letters_numbers_punctuation_and_symbols():
    shared = shared_characters(FACES)
    assert shared == sorted(set(shared))
    assert {ord(c) for c in "Az09+!БΩ"} <= set(shared)
    assert not {ord(" "), 0x0301, 0x00A0} & set(shared)
    assert ord("⟷") not in shared  # the long arrow does not fit and is left out, not cut


def test_pictures_are_whole_centred_and_on_one_scale():
    pictures = np.stack([draw_characters([ord(c) for c in "oO-"], face) for face in FACES], axis=1)
    assert pictures.shape == (3, len(FACES), RASTER_SIDE, RASTER_SIDE)
    ink = pictures.astype(float)
    place = np.arange(RASTER_SIDE) + 0.5
    across = (ink.sum(2) * place).sum(-1) / ink.sum((2, 3))
    assert across[:2, [0, 4, 8]] == pytest.approx(RASTER_SIDE / 2, abs=1)  # upright faces
    heights = (ink.max(axis=3) > 127).sum(axis=2)
    assert (heights[1] > 1.25 * heights[0]).all()
    assert (ink[:, :, [0, -1]] == 0).all()


# --- which samples ---


def test_samples_have_the_shapes_and_labels_of_their_classes():
    data = make_glyphs()
    assert data.train_inputs.shape == (30 * 16, 1, 16, 16)
    assert data.test_inputs.shape == data.unseen_inputs.shape == (30 * 8, 1, 16, 16)
    assert data.train_inputs.dtype == torch.float32
    assert data.train_labels.tolist() == [c for c in range(30) for _ in range(16)]
    assert data.test_labels.tolist() == data.unseen_labels.tolist() == [c for c in range(30) for _ in range(8)]
    assert len(set(data.class_names)) == 30
    assert all(name == f"U+{ord(name[-1]):04X} {name[-1]}" for name in data.class_names)
    assert make_glyphs(resolution=32, num_classes=2).train_inputs.shape == (32, 1, 32, 32)


def test_background_is_zero_and_power_about_one():
    inputs = make_glyphs(num_classes=200, samples_per_class=8).train_inputs
    assert inputs.min() == 0
    assert (inputs == 0).float().mean() > 0.5
    assert inputs.max().item() <= 1 / 0.27 + 1e-5
    assert inputs.square().mean().item() == pytest.approx(1, abs=0.25)


def test_fewer_classes_and_fewer_samples_lie_inside_more_bit_for_bit():
    small = make_glyphs(num_classes=10, samples_per_class=5, test_samples_per_class=3)
    large = make_glyphs(num_classes=37, samples_per_class=23, test_samples_per_class=9)
    assert small.class_names == large.class_names[:10]
    for name, kept in (("train_inputs", 5), ("test_inputs", 3), ("unseen_inputs", 3)):
        inside = getattr(large, name).unflatten(0, (37, -1))[:10, :kept]
        assert torch.equal(getattr(small, name).unflatten(0, (10, kept)), inside)


def test_same_arguments_give_the_same_data_and_other_arguments_other_data():
    data = make_glyphs()
    assert make_glyphs().digest == data.digest
    others = [make_glyphs(data_seed=1), make_glyphs(unseen_family="mono"), make_glyphs(unseen_family=None)]
    assert len({data.digest, *(other.digest for other in others)}) == 4
    assert others[0].class_names != data.class_names
    assert others[1].class_names == data.class_names


def test_no_map_is_used_twice():
    seen = set()
    for stream in (glyphs._TRAIN, glyphs._TEST, glyphs._UNSEEN):
        for code_point in (65, 66, 0x416):
            for data_seed in (0, 1):
                seen |= {row.tobytes() for row in glyphs.draw_maps(data_seed, stream, code_point, 50)}
    assert len(seen) == 3 * 3 * 2 * 50


def test_no_test_image_is_a_training_image():
    data = make_glyphs(test_samples_per_class=16)
    images = [image.numpy().tobytes() for part in (data.train_inputs, data.test_inputs) for image in part]
    assert len(set(images)) == len(images)


def test_maps_stay_within_their_ranges():
    maps = glyphs.draw_maps(0, glyphs._TRAIN, 65, 5000)
    determinant = np.linalg.det(maps[:, :, :2].astype(np.float64))
    assert np.abs(np.log(determinant)).max() <= 0.2 + 1e-6
    assert np.abs(np.log(determinant)).max() > 0.18
    assert np.abs(maps[:, :, 2]).max() <= 0.1 + 1e-6  # 5 % of a side of 2 units
    assert np.abs(maps[:, 1, 0]).max() <= np.exp(0.1) * np.sin(0.15) + 1e-6


def test_identity_map_gives_the_area_average_of_the_picture():
    picture = torch.randint(0, 256, (1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    identity = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
    drawn = glyphs.render_maps(picture, identity, 32)[0, 0]
    expected = picture.double().view(32, 2, 32, 2).mean((1, 3))
    assert drawn.numpy() == pytest.approx(expected.numpy(), abs=1e-2)


def test_map_moves_the_picture_by_its_shift():
    picture = torch.zeros(1, 64, 64, dtype=torch.uint8)
    picture[0, 20:24, 30:34] = 200
    # an inverse map that reads 8 picture pixels (a quarter of half the side) further right and 4 further down
    shift = torch.tensor([[[1.0, 0, 8 / 32], [0, 1.0, 4 / 32]]])
    still, moved = (glyphs.render_maps(picture, m, 32)[0, 0] for m in (torch.eye(2, 3)[None], shift))
    assert torch.allclose(moved, still.roll((-2, -4), (0, 1)), atol=1e-2)
    assert still.sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_unseen_family_is_in_no_training_or_test_sample(family, monkeypatch):
    """Blotting out a family's pictures blots out the unseen samples and changes no other; and the other way round."""
    read = glyphs._read_classes
    of_family = np.array([face.family == family for face in FACES])
    whole = make_glyphs(unseen_family=family)

    def with_blotted(faces):
        def blotted(*arguments):
            available, code_points, pictures = read(*arguments)
            pictures = pictures.copy()
            pictures[:, faces] = 0
            return available, code_points, pictures

        monkeypatch.setattr(glyphs, "_read_classes", blotted)
        return make_glyphs(unseen_family=family)

    without = with_blotted(of_family)
    assert torch.equal(without.train_inputs, whole.train_inputs)
    assert torch.equal(without.test_inputs, whole.test_inputs)
    assert not without.unseen_inputs.any()
    only = with_blotted(~of_family)
    assert torch.equal(only.unseen_inputs, whole.unseen_inputs)
    assert not only.train_inputs.any()
    assert not only.test_inputs.any()


@pytest.mark.parametrize(("unseen_family", "used"), [("serif", 8), ("sans", 8), (None, 12)])
def test_samples_of_a_class_take_the_faces_in_turn(unseen_family, used, monkeypatch):
    """Blotting out one face blots out every sample whose index modulo the number of faces is the face's place."""
    read = glyphs._read_classes
    blotted = 7  # the last face of mono

    def without_one_face(*arguments):
        available, code_points, pictures = read(*arguments)
        pictures = pictures.copy()
        pictures[:, blotted] = 0
        return available, code_points, pictures

    monkeypatch.setattr(glyphs, "_read_classes", without_one_face)
    blank = ~make_glyphs(unseen_family=unseen_family, samples_per_class=30).train_inputs.view(30, 30, -1).any(2)
    place = blotted - (4 if unseen_family == "sans" else 0)
    assert torch.equal(blank, (torch.arange(30) % used == place).expand(30, -1))


def test_without_an_unseen_family_all_faces_are_used():
    data = make_glyphs(unseen_family=None)
    assert data.unseen_inputs is None
    assert data.unseen_labels is None
    assert data.train_inputs.shape == (30 * 16, 1, 16, 16)


# --- the cache ---


def test_two_processes_that_make_the_cache_at_once_get_the_same_data(race):
    folder, printed = race
    assert printed[0] == printed[1]
    assert printed[0].split()[1:] == ["False"]  # drawn without importing matplotlib
    assert printed[0].split()[0] == make_glyphs().digest
    left = [path.name for path in Path(folder).iterdir() if path.name.startswith("glyphs-16")]
    assert left == [f"glyphs-16-{LEAST_DIFFERENCE}-{fonts_fingerprint(FACES)}.npz"]
    assert not list(Path(folder).glob(".*"))


def test_torn_cache_is_made_anew_with_the_same_data(race, tmp_path, monkeypatch):
    before = make_glyphs().digest
    (whole,) = Path(race[0]).glob("glyphs-16-*.npz")
    with np.load(whole) as arrays:
        content = dict(arrays)
    torn = tmp_path / whole.name
    torn.write_bytes(whole.read_bytes()[:-1000])
    monkeypatch.setenv("GNC_CACHE", str(tmp_path))
    monkeypatch.setattr(glyphs, "_make_classes", lambda faces, resolution: content)
    assert make_glyphs().digest == before
    assert torn.stat().st_size == whole.stat().st_size


def test_cache_that_holds_other_pictures_is_not_used(race, tmp_path, monkeypatch):
    (whole,) = Path(race[0]).glob("glyphs-16-*.npz")
    with np.load(whole) as arrays:
        content = dict(arrays)
    made = []
    monkeypatch.setenv("GNC_CACHE", str(tmp_path))
    monkeypatch.setattr(glyphs, "_make_classes", lambda faces, resolution: made.append(resolution) or content)
    cache._write(
        tmp_path / whole.name,
        {name: array[..., :32, :32] if array.ndim == 3 else array for name, array in content.items()},
    )
    assert make_glyphs().train_inputs.shape == (30 * 16, 1, 16, 16)
    assert made == [16]


def test_other_versions_read_another_file(monkeypatch):
    before = fonts_fingerprint(FACES)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    assert fonts_fingerprint(FACES) != before
    assert fonts_fingerprint(FACES[:11]) != fonts_fingerprint(FACES)


def test_the_built_in_pictures_are_those_of_the_first_release():
    if fonts_fingerprint(FACES) != "ebb9737f8ceb3053":
        pytest.skip("other versions of the fonts, Pillow, FreeType or fontTools draw other pictures")
    assert make_glyphs().digest == "04fc65bcc00a7832c5547dee2ed87277239b53f4b8748ed20f475d0fefc5ceca"
    assert (
        make_glyphs(fonts="dejavu", unseen_family="mono", data_seed=3).digest
        == "35b65f8e01faae7a3d69934b305246d5c036fd859c8fae4c0feb27ee94099d30"
    )
