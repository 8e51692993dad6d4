"""Image folders as people have them: what is no picture of theirs stays out, what cannot be read is named, counts hold."""

import errno
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.stored import holdings, pictures
from gnc_models.datasets.stored.folders import list_classes, split_images
from gnc_models.datasets.stored.holdings import Wanted, survey_folder
from gnc_models.datasets.stored.layouts import missing_data
from tests.gnc_models import stored_layouts as layouts

NAMES = ["ant", "bee", "cow"]


def make(root, folder="set", **changed):
    settings = {"num_classes": 3, "samples_per_class": 4, "test_samples_per_class": 2, "data_seed": 0, "resolution": 8}
    return make_dataset("image_folder", data_root=root, folder=folder, **(settings | changed))


# --- pixels ---


def shown(path, resolution=16) -> np.ndarray:
    """The first channel; all three are alike in grey pictures."""
    read = pictures.read_image(path, resolution)
    assert (read == read[:1]).all()
    return read[0]


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_grey_of_sixteen_bits_keeps_its_shades(ending, tmp_path):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    if ending == "pgm":  # Pillow writes it with another head
        (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"a.{ending}")
    # exact fractions: the nearest of 256 steps
    assert np.array_equal(shown(tmp_path / f"a.{ending}"), np.floor(values / 257 + 0.5).astype(np.uint8))
    assert len(np.unique(shown(tmp_path / f"a.{ending}"))) == 256


def test_pictures_are_scaled_by_their_kind_and_not_by_what_they_hold(tmp_path):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64  # of a camera with twelve bits
    Image.fromarray(values).save(tmp_path / "dark.png")
    assert shown(tmp_path / "dark.png", 8).max() == round(63 * 64 / 257)
    Image.fromarray((values / 65535).astype(np.float32)).save(tmp_path / "dark.tif")
    assert np.array_equal(shown(tmp_path / "dark.tif", 8), shown(tmp_path / "dark.png", 8))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            np.float32([[0, 1.001], [0, 0]]),
            "its floats must be from 0 to 1, got 0 to 1.001. .* Save it with 8 or 16 bits",
        ),
        (np.float32([[-0.1, 1], [0, 0]]), "its floats must be from 0 to 1, got -0.1 to 1"),
        (np.float32([[np.nan, 1], [0, 0]]), "its floats must be from 0 to 1, got nan to nan"),
        (np.int32([[0, 255], [0, 0]]), "its pixels must be of at most 16 bits, got integers of 32"),
    ],
)
def test_numbers_without_a_known_white_are_refused_by_the_files_name(values, words, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"^{tmp_path / 'a.tif'} must be an image that can be read: {words}"):
        pictures.read_image(tmp_path / "a.tif", 8)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_pictures_are_turned_as_their_camera_was(ending, tmp_path):
    upright = np.zeros((12, 12, 3), dtype=np.uint8)
    upright[:4, :8] = 220  # no turn or mirror image of it is the same
    ways = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2)}
    ways |= {6: np.rot90(upright, 1), 7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1)}
    for orientation, stored in ways.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{ending}"
        Image.fromarray(np.ascontiguousarray(stored)).save(
            path, exif=exif, **({"quality": 95} if ending != "tif" else {})
        )
        found = pictures.read_image(path, 12).transpose(1, 2, 0).astype(int)
        assert np.abs(found - upright).max() < 60, (orientation, ending)  # what lossy formats change


def test_a_tag_that_cannot_be_read_turns_nothing(tmp_path):
    Image.new("RGB", (9, 9), (9, 9, 9)).save(tmp_path / "a.jpg", exif=b"Exif\0\0no tag at all")
    assert pictures.read_image(tmp_path / "a.jpg", 8).shape == (3, 8, 8)


def test_a_disk_that_fails_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    layouts.write_image_classes(tmp_path, ["ant"], 1, seed=0)

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(OSError, match="Input/output error"):
        pictures.read_image(tmp_path / "ant" / "0.png", 8)


def test_pictures_of_one_colour_are_reported_and_a_set_of_nothing_else_is_refused(tmp_path):
    layouts.write_image_classes(tmp_path / "set", NAMES, 10, seed=0)
    Image.new("RGBA", (9, 9), (0, 0, 0, 7)).save(tmp_path / "set" / "bee" / "3.png")  # its picture was its transparency
    with pytest.warns(
        RuntimeWarning, match="1 of (24|6) images come out as one colour throughout, such as .*bee/3.png"
    ):
        make(tmp_path, samples_per_class=8)
    for path in (tmp_path / "set").rglob("*.png"):
        Image.new("RGB", (9, 9), (250, 3, 3)).save(path)
    with pytest.raises(ValueError, match="images must differ, got 12 of the same colour throughout, such as"):
        make(tmp_path)


# --- folders ---


@pytest.mark.parametrize("parent", [".ipynb_checkpoints", "__MACOSX", ".thumbnails/large", "@eaDir", "real/.cache"])
@pytest.mark.parametrize("layout", ["", "train"])
def test_copies_below_hidden_folders_are_no_samples(parent, layout, tmp_path):
    base = tmp_path / "set" / layout
    layouts.write_image_classes(base, NAMES, 10, seed=0)
    before = make(tmp_path, samples_per_class=None).digest
    for name in NAMES:
        shutil.copytree(base / name, base / name / parent / "copies")
    shutil.copytree(base / "ant", base / parent.split("/")[0] / "ant") if "real" not in parent else None
    (base / "ant" / "._0.png").write_bytes(b"of macOS")
    assert make(tmp_path, samples_per_class=None).digest == before
    assert list_classes(tmp_path, "set") == tuple(NAMES)


def test_a_class_may_be_called_train_or_test(tmp_path):
    names = ["bus", "test", "train"]
    layouts.write_image_classes(tmp_path / "flat", names, 10, seed=0)
    assert sorted(make(tmp_path, "flat").class_names) == names
    for split in ("train", "test"):
        layouts.write_image_classes(tmp_path / "split" / split, names, 10, seed=0)
    assert sorted(make(tmp_path, "split").class_names) == names
    # a class in folders of years: whether train is a class or the split cannot be told
    for name in ("bus", "train"):
        layouts.write_image_classes(tmp_path / "years" / name, ["2020", "2021"], 10, seed=0)
    with pytest.raises(ValueError, match=r"train must be either the training split or a class, .* beside it in 'bus'"):
        list_classes(tmp_path, "years")


@pytest.mark.parametrize(
    "names", [("train", "test1"), ("Training", "Validation"), ("test",), ("train_set", "unlabeled")]
)
def test_folders_of_splits_are_not_taken_for_classes(names, tmp_path):
    layouts.write_image_classes(tmp_path / "set", list(names), 3, seed=0)
    said = missing_data("image_folder", tmp_path, folder="set")
    assert f"must hold a folder of images for each class, got {', '.join(sorted(names))}" in said


@pytest.mark.parametrize("split", ["test", "val", "valid", "validation"])
def test_a_folder_beside_train_that_is_named_like_a_split_has_the_test_images(split, tmp_path):
    layouts.write_image_classes(tmp_path / "set" / "train", NAMES, 4, seed=0)
    layouts.write_image_classes(tmp_path / "set" / split, NAMES, 3, seed=1)
    for _, test in split_images(tmp_path / "set", NAMES, NAMES, 0):
        assert [path.parts[-3] for path in test] == [split] * 3
    layouts.write_image_classes(tmp_path / "set" / "test", NAMES, 2, seed=2)  # where there is one, it is the test set
    assert {len(test) for _, test in split_images(tmp_path / "set", NAMES, NAMES, 0)} == {3 if split == "test" else 2}


def test_a_full_path_is_the_same_folder_and_nothing_climbs(tmp_path):
    layouts.write_image_classes(tmp_path / "set", NAMES, 10, seed=0)
    assert make(tmp_path / "elsewhere", str(tmp_path / "set")).digest == make(tmp_path).digest
    assert "must be a path without .., got '../set'" in missing_data("image_folder", tmp_path, folder="../set")


# --- lists ---


@pytest.fixture
def tiny(tmp_path):
    """Three classes and a list of six test images; writes the list as it is told."""
    layouts.write_image_classes(tmp_path / "set" / "train", NAMES, 4, seed=0)
    layouts.write_image_classes(tmp_path / "set" / "val", ["images"], 6, seed=1)
    rows = [(f"{i}.png", NAMES[i % 3]) for i in range(6)]

    def write(form="{}\t{}\t0\t0\n", head=b"", encoding="utf-8"):
        text = "".join(form.format(*row) for row in rows)
        (tmp_path / "set" / "val" / "val_annotations.txt").write_bytes(head + text.encode(encoding))
        return tmp_path

    return write


@pytest.mark.parametrize(
    "form", ["{},{}\n", "{}; {};0\n", "{} {} 0 0\n", "{}\t{}\r\n", '"{}","{}"\n', "\n{}\t{}\n  \n"]
)
@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf", b"file,label\n"])
def test_lists_are_read_with_any_separator_byte_order_mark_and_blank_lines(form, head, tiny):
    plain = make(tiny()).digest
    assert make(tiny(form, head)).digest == plain


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("lonely.png", "line 7, must hold an image's name and its class, got 'lonely.png'"),
        ("\tant", "line 7, must hold an image's name and its class"),
        ("0.png\tbee", "line 7, must name an image once, got '0.png' of line 1 again"),
        ("7.png\tant", "line 7, must name a file in .*images, got '7.png'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(last, words, tiny):
    path = tiny() / "set" / "val" / "val_annotations.txt"
    path.write_text(path.read_text() + last)
    with pytest.raises(ValueError, match=f"^{path}, {words}"):
        make(path.parents[2])
    assert words.split(",")[0] in survey_folder(path.parents[2], "set", 0, [Wanted(3, 4, 2)]).missing[0]


def test_a_list_in_another_encoding_is_named(tiny):
    root = tiny(encoding="utf-16")
    with pytest.raises(ValueError, match=r"val_annotations.txt must be text in UTF-8, got .* Save it as UTF-8"):
        make(root)


def test_a_list_may_name_classes_that_were_left_out(tiny):
    root = tiny()
    shutil.rmtree(root / "set" / "train" / "cow")
    assert make(root, num_classes=2).test_inputs.shape[0] == 4


# --- counts ---


def test_all_takes_what_each_class_has(tmp_path):
    for count, name in enumerate(NAMES, start=5):
        layouts.write_image_classes(tmp_path / "set" / "train", [name], count, seed=count)
    layouts.write_image_classes(tmp_path / "set" / "test", NAMES, 3, seed=1)
    data = make(tmp_path, samples_per_class=None)
    held = {name: int((data.train_labels == k).sum()) for k, name in enumerate(data.class_names)}
    assert held == {"ant": 5, "bee": 6, "cow": 7}
    few = make(tmp_path, samples_per_class=5)
    for k in range(3):  # the same samples come first
        assert torch.equal(data.train_inputs[data.train_labels == k][:5], few.train_inputs[few.train_labels == k])
    fewer = make(tmp_path, samples_per_class=None, num_classes=2, ood_classes=1, label_noise=0.5)
    assert len(fewer.train_inputs) == 18 - held[data.class_names[2]]


def test_everything_that_trials_lack_is_told_at_once(tmp_path):
    layouts.write_image_classes(tmp_path / "set" / "train", NAMES, 6, seed=0)
    layouts.write_image_classes(tmp_path / "set" / "test", ["ant", "bee"], 3, seed=1)
    (tmp_path / "set" / "train" / "ant" / "1.png").write_bytes(b"no picture")
    (tmp_path / "set" / "train" / "cow" / "7.gif").write_bytes(b"GIF89a")
    found = survey_folder(tmp_path, "set", 0, [Wanted(5, 4, 2), Wanted(3, 9, 4), Wanted(3, None, 1)])
    said = "\n".join(found.missing)
    for words in (
        "num_classes and ood_classes must be at most 3 together, got 5.",
        "samples_per_class must be at most 6, the training samples of class",
        "got 9. 3 classes have too few: ",
        "each class must have a test sample, got none of class 'cow'.",
        "got none of class 'cow'. 3 classes have too few: ",
        "other files too, which are not read: 1 .gif. Read are .bmp",
        f"{tmp_path / 'set' / 'train' / 'ant' / '1.png'} must be an image that can be read",
    ):
        assert words in said
    assert (
        "holds 3 classes; images of each of the first 3 of data_seed 0: 6 for training and 0 to 3 for test"
        in found.held[0]
    )


def test_what_check_passes_can_be_made_and_what_it_refuses_cannot(tmp_path):
    for count, name in enumerate(NAMES, start=9):
        layouts.write_image_classes(tmp_path / "set", [name], count, seed=count)
    for classes in (2, 3, 4):
        for samples in (None, 7, 8, 9, 10):
            for test in (1, 2, 3):
                missing = survey_folder(tmp_path, "set", 1, [Wanted(classes, samples, test)]).missing
                sizes = {"num_classes": classes, "samples_per_class": samples, "test_samples_per_class": test}
                if missing:
                    with pytest.raises(ValueError, match=r"must be at most|must have a (training|test) sample"):
                        make(tmp_path, **sizes, data_seed=1)
                else:
                    assert len(make(tmp_path, **sizes, data_seed=1).test_inputs) == classes * test


def test_a_broken_picture_is_told_whether_a_trial_draws_it_or_not(tmp_path):
    layouts.write_image_classes(tmp_path / "set" / "train", NAMES, 8, seed=0)
    layouts.write_image_classes(tmp_path / "set" / "test", NAMES, 2, seed=1)
    for image in (tmp_path / "set" / "train" / NAMES[0]).iterdir():
        image.write_bytes(image.read_bytes()[:10])
    found = survey_folder(tmp_path, "set", 0, [Wanted(3, 5, 2)])
    assert "must be an image that can be read" in found.missing[0]
    assert found.held[-1].endswith("3 of 9 images that were looked into have a fault. No trial here draws it.")


def test_only_the_ends_of_some_pictures_are_read(tmp_path, monkeypatch):
    layouts.write_image_classes(tmp_path / "set", NAMES, 100, seed=0)
    monkeypatch.setattr(holdings, "_LOOKED_INTO", 20)
    looked = []
    monkeypatch.setattr(holdings, "check_header", looked.append)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("pixels were read"))
    assert survey_folder(tmp_path, "set", 0, [Wanted(3, 50, 10)]).missing == []
    assert len(looked) == 2 * 20  # of those drawn, and of the others
    assert {path.parent.name for path in looked} == set(NAMES)
    monkeypatch.undo()
    pictures.check_header(looked[0])


def test_the_split_of_a_folder_is_that_of_its_names(tmp_path):
    layouts.write_image_classes(tmp_path / "set", NAMES, 10, seed=0)
    split = split_images(tmp_path / "set", NAMES, NAMES, 0)
    assert [(len(train), len(test)) for train, test in split] == [(8, 2)] * 3
    assert split_images(tmp_path / "set", NAMES, NAMES, 1) != split
