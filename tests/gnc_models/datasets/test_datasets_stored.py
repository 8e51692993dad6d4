"""Stored sets: read as torchvision reads them, nested, refused with what is missing, and no foreign code run."""

import gzip
import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from gnc_models.datasets.registry import DATASETS, make_dataset
from gnc_models.datasets.stored import image_folder
from gnc_models.datasets.stored import images as batches
from gnc_models.datasets.stored import images as stored
from gnc_models.datasets.stored import layouts as stored_sets
from gnc_models.datasets.stored.fetching import fetch_dataset
from gnc_models.datasets.stored.layouts import MissingData, missing_data
from tests.gnc_models import stored_layouts as layouts

CLASSES = {"mnist": 10, "fashion_mnist": 10, "emnist": 47, "cifar10": 10, "cifar100": 100}
FOLDERS = {"mnist": ("MNIST/raw", "train", "t10k"), "fashion_mnist": ("FashionMNIST/raw", "train", "t10k")}
FOLDERS["emnist"] = ("EMNIST/raw", "emnist-balanced-train", "emnist-balanced-test")
NAMES = [f"name {i}" for i in range(7)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All five sets with 6 training and 4 test images a class, and image folders with and without a split."""
    root = tmp_path_factory.mktemp("stored")
    for seed, (name, classes) in enumerate(CLASSES.items()):
        shape = (3, 32, 32) if name.startswith("cifar") else (28, 28)
        train = layouts.draw_images(classes, 6, shape, 2 * seed)
        test = layouts.draw_images(classes, 4, shape, 2 * seed + 1)
        if name.startswith("cifar"):
            getattr(layouts, f"write_{name}")(root, train, test)
        else:
            folder, *splits = FOLDERS[name]
            layouts.write_idx_set(root / folder, dict(zip(splits, (train, test), strict=True)))
    layouts.write_image_classes(root / "split" / "train", NAMES, 6, seed=20)
    layouts.write_image_classes(root / "split" / "val", NAMES, 4, seed=21)
    layouts.write_image_classes(root / "whole", NAMES, 20, seed=22)
    return root


def make(name, root, **changed):
    settings = {"num_classes": 5, "samples_per_class": 3, "test_samples_per_class": 2, "data_seed": 0}
    if name == "image_folder":
        settings |= {"folder": "split", "resolution": 8}
    return make_dataset(name, data_root=root, **(settings | changed))


# --- what is read ---


@pytest.mark.parametrize("name", CLASSES)
def test_whole_set_has_the_images_and_labels_that_torchvision_reads(name, root, monkeypatch):
    # torchvision insists on the checksums of the real CIFAR files, which tiny ones cannot have
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    constructor = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "emnist": "EMNIST"}.get(name, name.upper())
    more = {"split": "balanced"} if name == "emnist" else {}
    data = make(name, root, num_classes=CLASSES[name], samples_per_class=6, test_samples_per_class=4)
    for inputs, labels, train in (
        (data.train_inputs, data.train_labels, True),
        (data.test_inputs, data.test_labels, False),
    ):
        theirs = getattr(torchvision.datasets, constructor)(str(root), train=train, **more)
        pixels = torch.as_tensor(np.asarray(theirs.data))
        pixels = pixels.permute(0, 3, 1, 2) if name.startswith("cifar") else pixels[:, None]
        expected = stored.normalise(pixels, stored_sets.STORED_SETS[name].mean, stored_sets.STORED_SETS[name].deviation)
        known = {
            row.numpy().tobytes(): theirs.classes[label] for row, label in zip(expected, theirs.targets, strict=True)
        }
        names = [data.class_names[label] for label in labels]
        found = [known[row.numpy().tobytes()] for row in inputs]
        assert len(known) == len(inputs) == len({row.numpy().tobytes() for row in inputs})
        # MNIST's names are "0 - zero" at torchvision
        assert [name.split(" - ")[0] for name in found] == names


def test_grey_background_stays_0_and_colours_are_standardised():
    grey = stored.normalise(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), (0.3,), (0.4,))
    assert grey.flatten().tolist() == pytest.approx([0, 1 / 0.5])
    colours = stored.normalise(torch.full((1, 3, 1, 1), 51, dtype=torch.uint8), (0.1, 0.2, 0.4), (0.1, 0.5, 0.2))
    assert colours.flatten().tolist() == pytest.approx([1, 0, -1], abs=1e-6)


def test_gzipped_files_and_debians_folder_give_the_same_data(root, tmp_path):
    read = {name: batches.read_idx(path) for name in ("train", "t10k") for path in [_idx(root, name, "images")]}
    labels = {name: batches.read_idx(_idx(root, name, "labels")) for name in read}
    splits = {name: (read[name], labels[name]) for name in read}
    layouts.write_idx_set(tmp_path / "fashion-mnist", splits, zipped=True)
    assert make("fashion_mnist", tmp_path).digest == make("fashion_mnist", root).digest


def _idx(root: Path, split: str, kind: str) -> Path:
    return root / "FashionMNIST" / "raw" / f"{split}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"


def test_debians_package_is_read_as_it_is():
    if missing := missing_data("fashion_mnist", stored_sets.DEBIAN_ROOT):
        pytest.skip(f"Debian's dataset-fashion-mnist is not installed: {missing}")
    data = make(
        "fashion_mnist", stored_sets.DEBIAN_ROOT, num_classes=10, samples_per_class=6000, test_samples_per_class=1000
    )
    assert data.train_inputs.shape == (60_000, 1, 28, 28)
    assert data.test_inputs.shape == (10_000, 1, 28, 28)
    # the published mean and deviation of the training pixels have four digits
    pixels = data.train_inputs * np.hypot(0.2860, 0.3530)
    assert pixels.mean().item() == pytest.approx(0.2860, abs=1e-4)
    assert pixels.double().std().item() == pytest.approx(0.3530, abs=1e-4)
    with pytest.raises(ValueError, match="samples_per_class must be at most 6000, the training samples of class"):
        make("fashion_mnist", stored_sets.DEBIAN_ROOT, samples_per_class=6001)


@pytest.mark.parametrize("name", [*CLASSES, "image_folder"])
def test_fewer_classes_and_samples_lie_inside_more(name, root):
    small = make(name, root, num_classes=3, samples_per_class=2, test_samples_per_class=1)
    large = make(name, root, num_classes=6, samples_per_class=5, test_samples_per_class=3)
    for split, kept, held in (("train_inputs", 2, 5), ("test_inputs", 1, 3)):
        inside = getattr(large, split).unflatten(0, (6, held))[:3, :kept]
        assert torch.equal(getattr(small, split).unflatten(0, (3, kept)), inside)
    assert small.class_names == large.class_names[:3]
    other = make(name, root, num_classes=6, samples_per_class=5, test_samples_per_class=3, data_seed=1)
    assert other.digest != large.digest
    assert other.class_names != large.class_names


@pytest.mark.parametrize("name", [*CLASSES, "image_folder"])
def test_too_many_classes_and_samples_are_refused(name, root):
    most = CLASSES.get(name, 7)
    with pytest.raises(ValueError, match=f"num_classes must be at most {most}, .*got {most + 1}"):
        make(name, root, num_classes=most + 1)
    with pytest.raises(ValueError, match=r"^samples_per_class must be at most 6, the training samples of .*got 7"):
        make(name, root, samples_per_class=7)
    with pytest.raises(ValueError, match=r"^test_samples_per_class must be at most 4, the test samples of .*got 5"):
        make(name, root, test_samples_per_class=5)


def test_classes_kept_out_count_as_classes(root):
    data = make("cifar10", root, num_classes=7, ood_classes=3)
    assert data.ood_inputs.shape == (6, 3, 32, 32)
    with pytest.raises(ValueError, match=r"num_classes must be at most 10, .*got 11") as caught:
        make("cifar10", root, num_classes=7, ood_classes=4)
    assert caught.value.__notes__ == ["num_classes counts the 4 ood_classes too."]


# --- what is missing ---


@pytest.mark.parametrize("name", CLASSES)
def test_missing_files_are_named_with_the_command_that_gets_them(name, tmp_path):
    text = missing_data(name, tmp_path)
    stored_set = stored_sets.STORED_SETS[name]
    assert str(tmp_path / stored_set.folders[0]) in text
    assert stored_set.train_files[0] in text
    assert f"python -m gnc_models.datasets.stored.fetching {name} {tmp_path}" in text
    assert ("apt-get install dataset-fashion-mnist" in text) == (name == "fashion_mnist")
    with pytest.raises(MissingData) as caught:
        make(name, tmp_path)
    assert str(caught.value) == text
    with pytest.raises(MissingData, match="needs data_root"):
        make(name, None)
    assert not any(tmp_path.iterdir())


def test_command_of_debians_package_links_its_folder_where_it_is_looked_for(root, tmp_path, monkeypatch):
    command = missing_data("fashion_mnist", tmp_path).split("apt-get install dataset-fashion-mnist && ")[1][:-1]
    # with the package's folder elsewhere, as if it were installed
    splits = {
        name: (batches.read_idx(_idx(root, name, "images")), batches.read_idx(_idx(root, name, "labels")))
        for name in ("train", "t10k")
    }
    layouts.write_idx_set(tmp_path / "debian" / "fashion-mnist", splits, zipped=True)
    subprocess.run(command.replace(str(stored_sets.DEBIAN_ROOT), str(tmp_path / "debian")), shell=True, check=True)
    assert missing_data("fashion_mnist", tmp_path) is None
    assert make("fashion_mnist", tmp_path).digest == make("fashion_mnist", root).digest
    monkeypatch.setattr(stored_sets, "DEBIAN_ROOT", tmp_path / "none")
    assert missing_data("fashion_mnist", tmp_path / "none").endswith("apt-get install dataset-fashion-mnist)")


def test_one_absent_file_is_the_one_named(root, tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    for file in ("train", "test"):
        (tmp_path / "cifar-100-python" / file).write_bytes((root / "cifar-100-python" / file).read_bytes())
    assert missing_data("cifar100", tmp_path).startswith(f"cifar100 needs meta in {tmp_path / 'cifar-100-python'}, ")
    assert missing_data("cifar100", root) is None


def test_sets_that_are_made_lack_nothing():
    stored_ones = {*CLASSES, "image_folder"}
    assert [missing_data(name, None) for name in DATASETS if name not in stored_ones] == [None] * 4


def test_what_is_missing_is_known_without_torch():
    code = (
        "import sys, gnc_models.catalog.settings, gnc_models.datasets.stored.layouts; "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture
def host(tmp_path):
    """A folder and the address under which this machine serves it."""
    folder = tmp_path / "host"
    folder.mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_fetched_set_is_found_and_never_fetched_twice(root, host, tmp_path, monkeypatch):
    """torchvision's own download, from this machine instead of its host."""
    theirs, resources = torchvision.datasets.FashionMNIST, []
    for name, _ in theirs.resources:
        content = gzip.compress((root / "FashionMNIST" / "raw" / name.removesuffix(".gz")).read_bytes())
        (host[0] / name).write_bytes(content)
        resources.append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(theirs, "mirrors", [host[1]])
    monkeypatch.setattr(theirs, "resources", resources)
    fetch_dataset("fashion_mnist", tmp_path / "data")
    assert make("fashion_mnist", tmp_path / "data").digest == make("fashion_mnist", root).digest
    monkeypatch.setattr(theirs, "download", lambda _: pytest.fail("fetched again"))
    fetch_dataset("fashion_mnist", tmp_path / "data")
    with pytest.raises(ValueError, match=r"dataset must be one of .* to be fetched, got 'glyphs'"):
        fetch_dataset("glyphs", tmp_path)


# --- damaged and foreign files ---


class Foreign:
    """A pickle of this would run a command on being read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("place", ["data", "labels", "extra"])
def test_pickle_that_names_a_function_is_refused_and_runs_nothing(place, tmp_path):
    batch = {"data": np.zeros((1, 3072), np.uint8), "labels": [0]} | {place: Foreign(tmp_path / "ran")}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"batch{protocol}"
        path.write_bytes(pickle.dumps(batch, protocol=protocol))
        with pytest.raises(ValueError, match=f"batch{protocol} must be a CIFAR file .* names posix.mkdir"):
            batches.read_batches([path])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_batches_that_newer_pythons_write_are_read(protocol, tmp_path):
    images, labels = layouts.draw_images(3, 2, (3, 32, 32), 0)
    batch = {"data": images.reshape(6, -1), "labels": labels.tolist(), "batch_label": b"1 of 1"}
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    read_images, read_labels = batches.read_batches([tmp_path / "batch"])
    assert np.array_equal(read_images, images)
    assert np.array_equal(read_labels, labels)


REPACKED = {
    "array": np.array,
    "bytes": lambda labels: np.array(labels, np.uint8),
    "big-endian": lambda labels: np.array(labels, ">i4"),
    "scalars": lambda labels: list(np.array(labels)),
    "tuple": tuple,
    "objects": lambda labels: np.array(labels, object),
}


@pytest.mark.parametrize("form", REPACKED)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_batches_with_arrays_for_lists_are_read(form, protocol, tmp_path):
    images, labels = layouts.draw_images(3, 2, (3, 32, 32), 0)
    batch = {"data": images, "fine_labels": REPACKED[form](labels.tolist()), "filenames": np.array(["a"] * 6)}
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    read_images, read_labels = batches.read_batches([tmp_path / "batch"])
    assert np.array_equal(read_images, images)
    assert (read_labels.dtype, read_labels.tolist()) == (np.int64, labels.tolist())


@pytest.mark.parametrize(
    "form", [list, tuple, np.array, lambda names: np.array(names, "S"), lambda n: np.array(n, object)]
)
def test_names_in_arrays_are_read(form, tmp_path):
    (tmp_path / "meta").write_bytes(pickle.dumps({"label_names": form(["cat", "giraffe"])}))
    assert batches.read_names(tmp_path / "meta", "label_names") == ("cat", "giraffe")
    for absent in (form([]), 3, np.array(3), {"cat": 1}, None, np.zeros((0, 2), ">f4")):
        (tmp_path / "meta").write_bytes(pickle.dumps({"label_names": absent}))
        with pytest.raises(ValueError, match=r"meta must (hold label_names|be a CIFAR file)"):
            batches.read_names(tmp_path / "meta", "label_names")


@pytest.mark.parametrize("name", CLASSES)
def test_all_of_a_stored_set_is_each_classes_whole_training_split(name, root):
    whole = make(name, root, num_classes=7, samples_per_class=None)
    assert whole.digest == make(name, root, num_classes=7, samples_per_class=6).digest


@pytest.mark.parametrize(
    "batch",
    [
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": np.zeros((1, 32, 32, 3), np.uint8), "labels": [0]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [0.5]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": np.array([0.5])},
        {"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [[0], [1, 2]]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": [[0]]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": 0},
        {"data": np.zeros((1, 3072), np.float32), "labels": [0]},
        {"data": np.zeros((3072, 2), np.uint8).T, "labels": [0, 1]},
        {"data": [0] * 3072, "labels": [0]},
        {"labels": [0]},
        {"data": np.zeros((1, 3072), np.uint8)},
        ["data"],
    ],
    ids=[
        "length",
        "order",
        "shares",
        "share-array",
        "words",
        "ragged",
        "nested",
        "one-label",
        "type",
        "columns",
        "list",
        "no-data",
        "no-labels",
        "no-dict",
    ],
)
def test_batches_of_another_shape_are_refused(batch, tmp_path):
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(ValueError, match=f"^{tmp_path / 'batch'} must"):
        batches.read_batches([tmp_path / "batch"])


def test_torn_and_foreign_files_are_refused_by_name(tmp_path):
    images, labels = layouts.draw_images(2, 2, (3, 32, 32), 0)
    whole = layouts.python2_batch(images, labels)
    for length in (0, 1, 50, len(whole) - 1):
        (tmp_path / "batch").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="batch must be a CIFAR file"):
            batches.read_batches([tmp_path / "batch"])
    layouts.write_idx(tmp_path / "some", np.zeros((3, 4, 4)))
    whole = (tmp_path / "some").read_bytes()
    for content in (b"", b"PNG....", whole[:10], whole[:-1], whole + b"\0", b"\0\0\x0d\x01\0\0\0\0"):
        (tmp_path / "idx").write_bytes(content)
        with pytest.raises(ValueError, match=r"idx must (be an idx file|hold \(.*\) bytes)"):
            batches.read_idx(tmp_path / "idx")
    for content in (b"", whole, gzip.compress(whole)[:-3]):
        (tmp_path / "idx.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"idx.gz must be"):
            batches.read_idx(tmp_path / "idx.gz")


def test_images_and_labels_of_different_numbers_are_refused(tmp_path):
    layouts.write_idx_set(tmp_path, {"a": (np.zeros((3, 4, 4)), np.zeros(2))})
    with pytest.raises(ValueError, match="must hold one image per label"):
        batches.read_idx_images([tmp_path / "a-images-idx3-ubyte", tmp_path / "a-labels-idx1-ubyte"])


# --- image folders ---


def test_image_folder_has_the_images_of_its_files(root):
    data = make("image_folder", root, num_classes=7, samples_per_class=6, test_samples_per_class=4)
    assert sorted(data.class_names) == NAMES
    for split, inputs, labels in (
        ("train", data.train_inputs, data.train_labels),
        ("val", data.test_inputs, data.test_labels),
    ):
        files = {name: sorted((root / "split" / split / name).iterdir()) for name in NAMES}
        for k, name in enumerate(data.class_names):
            pixels = np.stack([image_folder.read_image(path, 8) for path in files[name]])
            expected = stored.normalise(torch.from_numpy(pixels), image_folder._MEAN, image_folder._DEVIATION)
            mine = {row.numpy().tobytes() for row in inputs[labels == k]}
            assert mine == {row.numpy().tobytes() for row in expected}


def test_one_folder_is_split_by_names_alone(root):
    whole = {"folder": "whole", "samples_per_class": 16, "test_samples_per_class": 4}
    data = make("image_folder", root, **whole)
    rows = [{row.numpy().tobytes() for row in inputs} for inputs in (data.train_inputs, data.test_inputs)]
    assert [len(part) for part in rows] == [5 * 16, 5 * 4]
    assert not rows[0] & rows[1]
    assert make("image_folder", root, **whole, data_seed=0).digest == data.digest
    with pytest.raises(ValueError, match="samples_per_class must be at most 16"):
        make("image_folder", root, folder="whole", samples_per_class=17)


def test_tiny_imagenets_validation_list_is_read(root, tmp_path):
    names = ["n01", "n02"]
    for name in names:
        layouts.write_image_classes(tmp_path / "tiny" / "train" / name, ["images"], 3, seed=len(name))
    layouts.write_image_classes(tmp_path / "tiny" / "val", ["images"], 5, seed=9)
    layouts.write_image_classes(tmp_path / "tiny" / "test", ["images"], 2, seed=10)
    rows = [f"{i}.png\t{names[i % 2]}\t0\t0\t62\t62" for i in range(5)]
    (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    data = make("image_folder", tmp_path, folder="tiny", num_classes=2)
    for k, name in enumerate(data.class_names):
        listed = [tmp_path / "tiny" / "val" / "images" / f"{i}.png" for i in range(5) if names[i % 2] == name]
        pixels = np.stack([image_folder.read_image(path, 8) for path in listed])
        allowed = stored.normalise(torch.from_numpy(pixels), image_folder._MEAN, image_folder._DEVIATION)
        for row in data.test_inputs[data.test_labels == k]:
            assert any(torch.equal(row, one) for one in allowed)


def test_resized_image_keeps_its_proportions_and_its_centre(tmp_path):
    from PIL import Image

    # left third red, middle third green, right third blue: the centre of a 3:1 image is the green square
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:40, 1] = pixels[:, 40:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels.swapaxes(0, 1)).save(tmp_path / "b.png")
    for name in ("a", "b"):
        read = image_folder.read_image(tmp_path / f"{name}.png", 10)
        assert read.shape == (3, 10, 10)
        assert (read[1, 1:-1, 1:-1] == 255).all()
        assert (read[[0, 2], 1:-1, 1:-1] == 0).all()
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    assert image_folder.read_image(tmp_path / "grey.png", 20).shape == (3, 20, 20)


def test_bad_image_is_named(root, tmp_path):
    layouts.write_image_classes(tmp_path / "faces", ["a", "b"], 5, seed=0)
    bad = tmp_path / "faces" / "b" / "2.png"
    for content in (b"", b"no image", bad.read_bytes()[:60]):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=f"{bad} must be an image that can be read"):
            make("image_folder", tmp_path, folder="faces", num_classes=2, samples_per_class=4, test_samples_per_class=1)


def test_folders_that_are_missing_or_elsewhere_are_refused(root, tmp_path):
    for folder, text in (("none", "one folder of images per class"), ("../x", "a path without ..")):
        assert text in missing_data("image_folder", tmp_path, folder=folder)
    with pytest.raises(MissingData, match="one folder of images per class"):
        make("image_folder", tmp_path, folder="none")
    with pytest.raises(MissingData, match="needs data_root and folder"):
        make("image_folder", None)
    with pytest.raises(ValueError, match="resolution must be at least 8, got 7"):
        make("image_folder", root, resolution=7)
    assert missing_data("image_folder", root, folder="split") is None
    assert stored_sets.list_classes(root, "split") == stored_sets.list_classes(root, "whole") == tuple(NAMES)
