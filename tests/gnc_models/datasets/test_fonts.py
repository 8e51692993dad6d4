"""Fonts of one's own: where they are found, what decides the data, and images held as bytes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gnc_models.datasets.made import glyphs
from gnc_models.datasets.made.fonts import draw_characters, find_faces, fonts_fingerprint, shared_characters
from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.stored import font_files
from gnc_models.datasets.stored.font_files import find_fonts, fonts_digest, missing_fonts
from gnc_models.datasets.stored.layouts import MissingData
from tests.gnc_models.small_fonts import CHARACTERS, write_small_fonts

SETTINGS = {"num_classes": 20, "samples_per_class": 5, "test_samples_per_class": 3, "data_seed": 0, "resolution": 32}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder with the small fonts in `small`, and a file beside them that is none."""
    root = tmp_path_factory.mktemp("data")
    (write_small_fonts(root / "small") / "README.txt").write_text("no font")
    return root


@pytest.fixture(autouse=True)
def _folders(tmp_path, monkeypatch):
    """An empty cache, and a machine without Debian packages."""
    monkeypatch.setenv("GNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(font_files, "_PACKAGE_FILES", tmp_path / "info")


def make(root: Path, **changed):
    return make_dataset("glyphs", data_root=root, **(SETTINGS | {"fonts": "small"} | changed))


def install(tmp_path: Path, root: Path, package: str = "fonts-small") -> None:
    """What dpkg leaves of a package that has these fonts."""
    (tmp_path / "info").mkdir()
    held = [root / "small", *(root / "small").rglob("*")]
    (tmp_path / "info" / f"{package}.list").write_text("\n".join(["/.", *map(str, held), "/usr/gone.ttf", ""]))


def test_images_are_bytes_that_are_the_ink_of_the_map_rounded(root):
    data = make(root, unseen_family="none")
    assert data.train_inputs.dtype == data.test_inputs.dtype == torch.uint8
    assert data.input_scale == pytest.approx(1 / (255 * 0.27))
    faces = find_faces("small", root)
    assert [face.path.stem for face in faces] == ["Sans", "Serif"]
    for label, name in enumerate(data.class_names):
        point = ord(name[-1])
        for sample, face in enumerate([0, 1, 0, 1, 0]):
            picture = torch.from_numpy(draw_characters([point], faces[face]))
            row = torch.from_numpy(glyphs.draw_maps(0, glyphs._TRAIN, point, 5)[sample : sample + 1])
            ink = glyphs.render_maps(picture, row, 32)
            assert torch.equal(data.train_inputs[5 * label + sample], ink[0].round().byte())
    assert data.train_inputs.float().mul(data.input_scale).square().mean().item() == pytest.approx(1, abs=0.3)


def test_faces_belong_to_the_family_that_their_names_say(root):
    whole, kept_out = make(root, unseen_family="none"), make(root, unseen_family="serif")
    assert kept_out.unseen_inputs.dtype == torch.uint8
    assert whole.unseen_inputs is None
    # without Serif, all training samples are of Sans: of both sets the samples with even numbers are the same
    assert torch.equal(whole.train_inputs.view(20, 5, -1)[:, ::2], kept_out.train_inputs.view(20, 5, -1)[:, ::2])
    with pytest.raises(
        ValueError, match=r"^unseen_family must leave faces on both sides, .*\['sans', 'serif'\], got 'mono'"
    ):
        make(root, unseen_family="mono")


def test_a_package_and_a_folder_with_the_same_files_are_the_same_data(root, tmp_path):
    folder = fonts_digest("small", root), make(root).digest
    install(tmp_path, root)
    assert (fonts_digest("fonts-small", None), make(None, fonts="fonts-small").digest) == folder
    assert find_fonts("fonts-small, small", root) == find_fonts("small", root)  # each file once
    shutil.copytree(root / "small", tmp_path / "moved")
    assert fonts_digest(str(tmp_path / "moved"), root) == folder[0]


def test_another_file_is_another_digest_and_refused_where_the_study_has_the_first(root, tmp_path):
    shutil.copytree(root / "small", tmp_path / "small")
    before, print_before = fonts_digest("small", tmp_path), fonts_fingerprint(find_faces("small", tmp_path))
    assert make(tmp_path, fonts_source=before).class_names
    shutil.copy(tmp_path / "small" / "deep" / "Serif.ttf", tmp_path / "small" / "Sans.ttf")
    after = fonts_digest("small", tmp_path)
    assert after != before
    assert fonts_fingerprint(find_faces("small", tmp_path)) != print_before
    with pytest.raises(ValueError, match=f"^fonts_source must be that of the files of small .*{after}.*got '{before}'"):
        make(tmp_path, fonts_source=before)


def test_what_is_missing_is_told_with_how_to_get_it(root, tmp_path):
    assert missing_fonts("small", root) is None
    assert missing_fonts("dejavu", None) is None
    assert "apt-get install fonts-noto-cjk (or" in missing_fonts("small, fonts-noto-cjk", root)
    told = missing_fonts(str(tmp_path / "Nowhere"), root)
    assert f"needs fonts in {tmp_path / 'Nowhere'}, none found" in told
    assert "apt-get" not in told
    with pytest.raises(MissingData, match="apt-get install fonts-noto-cjk"):
        make(root, fonts="fonts-noto-cjk")


def test_a_removed_package_leaves_a_list_without_fonts_and_counts_as_missing(root, tmp_path):
    install(tmp_path, root)
    (tmp_path / "info" / "fonts-small.list").write_text("/etc/fonts/conf.d/70-small.conf\n")
    assert "neither an installed Debian package" in missing_fonts("fonts-small", root)


def test_a_file_that_is_no_font_is_named(root, tmp_path):
    shutil.copytree(root / "small", tmp_path / "small")
    (tmp_path / "small" / "Broken.otf").write_bytes(b"not a font at all")
    with pytest.raises(ValueError, match=r"^fonts must be font files, got '.*Broken.otf'.*Remove or mend it"):
        make(tmp_path)


def test_how_many_classes_there_are_is_known_once_they_were_drawn(root):
    assert glyphs.known_classes("small", 32, root) is None
    make(root)
    known = glyphs.known_classes("small", 32, root)
    assert 30 < known <= len(shared_characters(find_faces("small", root))) == len(CHARACTERS)
    with pytest.raises(ValueError, match=f"^num_classes must be at most {known}, the characters of small .*got 60"):
        make(root, num_classes=60)


def test_kept_out_classes_imbalance_and_noise_keep_the_bytes_and_their_scale(root):
    data = make(root, samples_per_class=10, ood_classes=2, imbalance="step", imbalance_ratio=2.0, label_noise=0.05)
    assert data.train_inputs.dtype == data.ood_inputs.dtype == torch.uint8
    assert data.input_scale is not None
    assert len(data.train_labels) == 10 * 10 + 10 * 5
    assert np.unique(data.train_labels).size == 20
