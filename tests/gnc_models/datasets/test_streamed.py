"""Streamed inputs are those that held ones are, bit for bit, whoever reads them; what goes wrong there is told here."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from gnc_models.catalog.parts import digest_of, hold_code, load_part
from gnc_models.datasets.registry import make_dataset
from gnc_models.datasets.samples.draws import Draw
from gnc_models.datasets.samples.own_data import make_own_dataset
from gnc_models.datasets.samples.room import HELD, Room
from gnc_models.datasets.samples.streamed import Streamed, in_order, read_batches, stream
from tests.gnc_models import stored_layouts as layouts

NO_ROOM = Room(most_bytes=0)
PARTS = """
import numpy as np
import torch

def numbers(samples=48, dim=6):
    draw = np.random.default_rng(3)
    return draw.integers(0, 256, (samples, dim, 2, 3), dtype=np.uint8), np.arange(samples) % 4

def arrays():
    return numbers(), numbers()

def mapped(folder):
    for name, array in zip(("inputs", "labels"), numbers()):
        np.save(f"{folder}/{name}.npy", array)
    part = np.load(f"{folder}/inputs.npy", mmap_mode="r"), np.load(f"{folder}/labels.npy")
    return part, part

class Pairs(torch.utils.data.Dataset):
    def __init__(self, wrong=False, **known):
        self.inputs, self.labels = numbers()
        self.read, self.wrong = [], wrong
        self.__dict__.update(known)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        self.read.append(place)
        if self.wrong and place > 30:
            raise OSError(f"sample {place} is gone")
        return torch.from_numpy(self.inputs[place]).float(), int(self.labels[place])

def pairs(wrong=False):
    return Pairs(wrong, targets=list(np.arange(48) % 4)), Pairs()
"""
SIZES = {"num_classes": 3, "samples_per_class": 8, "test_samples_per_class": 4, "data_seed": 2}
WANTED = Draw(**SIZES)


@pytest.fixture(scope="module")
def parts():
    """The module of these parts, held as code too."""
    hold_code(digest_of(PARTS.encode()), PARTS.encode())
    return vars(sys.modules[load_part("parts.py:Pairs", digest_of(PARTS.encode())).__module__])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    layouts.write_image_classes(root / "set", [f"name {i}" for i in range(6)], 20, seed=22)
    return root


def make_folder(root, **changed):
    return make_dataset("image_folder", data_root=root, folder="set", resolution=8, **{**SIZES, **changed})


def make_own(name, room, **options):
    named = {"dataset_source": digest_of(PARTS.encode()), "dataset_options": options}
    return make_dataset(f"parts.py:{name}", room=room, **named, **SIZES)


def assert_same(held, streamed):
    assert streamed.digest == held.digest
    for name in ("train_inputs", "test_inputs", "ood_inputs"):
        expected, found = getattr(held, name), getattr(streamed, name)
        if expected is None:
            continue
        assert isinstance(found, Streamed)
        assert (found.shape, found.dtype, len(found)) == (expected.shape, expected.dtype, len(expected))
        batches = torch.randperm(len(found), generator=torch.Generator().manual_seed(1)).split(5)
        for batch, part in zip(batches, read_batches(found, batches), strict=True):
            assert torch.equal(part, expected[batch])
            assert part.is_contiguous()


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"samples_per_class": None},
        {"ood_classes": 2},
        {"imbalance": "step", "imbalance_ratio": 3.0, "label_noise": 0.3},
    ],
)
def test_a_folder_is_the_same_streamed_and_held(shape, root):
    assert_same(make_folder(root, **shape), make_folder(root, **shape, room=NO_ROOM))


def test_processes_read_the_same_and_end_with_the_data(root):
    before = set(multiprocessing.active_children())
    streamed = make_folder(root, room=Room(0, 2))
    assert_same(make_folder(root), streamed)
    assert len(set(multiprocessing.active_children()) - before) == 2
    del streamed
    assert set(multiprocessing.active_children()) == before


LEFT_OPEN = """
import builtins
import numpy as np
import torch
from gnc_models.datasets.samples.streamed import stream

def read(places):
    return np.zeros((len(places), 3), np.float32)

def convert(raw, places):
    return torch.from_numpy(raw)

if __name__ == "__main__":
    builtins.kept = stream(read, convert, 100, 2).read([slice(0, 10)] * 50)
    next(builtins.kept)
"""


def test_a_program_that_left_a_reading_open_ends_without_a_word(tmp_path):
    (tmp_path / "left_open.py").write_text(LEFT_OPEN)
    command = [sys.executable, tmp_path / "left_open.py"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", ["arrays", "mapped", "pairs"])
def test_own_data_are_the_same_streamed_and_held(name, parts, tmp_path):
    options = {"folder": str(tmp_path)} if name == "mapped" else {}
    assert_same(make_own(name, HELD, **options), make_own(name, NO_ROOM, **options))


def test_tokens_keep_their_vocabulary():
    tokens = np.arange(40).reshape(20, 2) % 13, np.arange(20) % 4
    sizes = WANTED._replace(samples_per_class=5)
    held, streamed = (make_own_dataset((tokens, tokens), sizes, room=room) for room in (HELD, NO_ROOM))
    assert held.vocabulary == streamed.vocabulary == 1 + max(held.train_inputs.max(), held.test_inputs.max())
    assert streamed.train_inputs.dtype == torch.int64


def test_what_fits_exactly_is_held_and_what_is_a_byte_larger_is_not(root):
    size = 3 * (8 + 4) * 3 * 8 * 8 * 4
    assert isinstance(make_folder(root, room=Room(size)).train_inputs, torch.Tensor)
    assert isinstance(make_folder(root, room=Room(size - 1)).train_inputs, Streamed)


def test_labels_in_targets_spare_the_reading_of_every_item(parts):
    with_targets, without = (parts["Pairs"](**known) for known in ({"targets": np.arange(48) % 4}, {}))
    data = make_own_dataset((with_targets, without), WANTED, room=NO_ROOM)
    assert sorted(set(with_targets.read)) == [0]  # for the shape
    assert sorted(set(without.read)) == list(range(48))
    assert len(data.digest) == 64
    assert len(set(with_targets.read)) in (24, 25)  # those that were drawn


@pytest.mark.parametrize("target_transform", [None, int])
def test_wrong_targets_are_refused_unless_something_changes_them(target_transform, parts):
    known = {"targets": (np.arange(48) + 1) % 4, "target_transform": target_transform}
    train, test = parts["Pairs"](**known), parts["Pairs"]()
    if target_transform:
        assert make_own_dataset((train, test), WANTED).digest == make_own_dataset((test, test), WANTED).digest
        return
    with pytest.raises(ValueError, match="train data must have the labels of their items in targets, got"):
        make_own_dataset((train, test), WANTED)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_reading_left_early_disturbs_no_other_and_an_error_is_the_original_one(processes, parts):
    held, data = make_own("pairs", HELD), make_own("pairs", Room(0, processes), wrong=True)
    for _ in range(2):  # test inputs have no fault
        assert torch.equal(next(data.test_inputs.read(in_order(12, chunk=2))), held.test_inputs[:2])
    assert torch.equal(torch.cat(list(data.test_inputs.read(in_order(12, chunk=5)))), held.test_inputs)
    with pytest.raises(OSError, match=r"sample \d+ is gone") as told:
        assert all(len(part) for part in data.train_inputs.read(in_order(24)))
    assert "in dataset = 'parts.py:pairs' of the study" in told.value.__notes__
    if processes:
        assert 'raise OSError(f"sample {place} is gone")' in str(told.value.__cause__)


def test_a_picture_that_changes_under_way_is_named(root, tmp_path):
    layouts.write_image_classes(tmp_path / "set", ["a", "b", "c"], 20, seed=1)
    data = make_folder(tmp_path, room=NO_ROOM)
    assert data.digest
    for path in (tmp_path / "set").rglob("*.png"):
        os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"png must stay as it is while trials read it, got a change"):
        next(data.train_inputs.read([slice(0, 4)]))


def test_pictures_of_one_colour_are_named_once(tmp_path, recwarn):
    from PIL import Image

    layouts.write_image_classes(tmp_path / "set", ["a", "b", "c"], 20, seed=1)
    for path in (tmp_path / "set" / "a").glob("*.png"):
        Image.new("RGB", (9, 9), (3, 4, 5)).save(path)
    data = make_folder(tmp_path, room=NO_ROOM)
    assert data.digest
    assert list(data.train_inputs.read(in_order(24)))
    named = [str(w.message) for w in recwarn if "comes out as one colour throughout" in str(w.message)]
    assert len(named) == len(set(named)) == 5


def test_reading_leaves_the_random_state_alone():
    data = stream(lambda places: np.zeros((len(places), 2)), lambda raw, _: torch.from_numpy(raw), 10, 0)
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    assert len(list(data.read([slice(0, 4), slice(4, 10)]))) == 2
    assert torch.equal(torch.randn(2), expected)
