"""What the page on shipped heads is made from: parts whose answers are known without the packages."""

import struct

import numpy as np
import pytest

from benchmarks import heads
from benchmarks.shipped import page, recogniser

RANDOM = np.random.default_rng(0)


def test_every_head_has_a_line_in_its_list_and_a_name_on_the_page():
    assert set(page.NUMBERED) == set(heads.SOURCES)
    for name, source in heads.SOURCES.items():
        package, version = source.requirement.split("==")
        assert f"| {name} | {package} {version}, " in (heads.__doc__ or "")


def test_a_table_of_flatbuffers_is_read_by_the_numbers_of_its_fields():
    # a root table with the fields 0 (a number), 2 (a vector of three floats) and 3 (a vector with one table inside)
    inner = struct.pack("<HHH", 6, 8, 4) + b"\0\0" + struct.pack("<iI", 8, 77)  # its own list of fields comes first
    floats = struct.pack("<I3f", 3, 0.5, -2.0, 8.0)
    fields = struct.pack("<HHHHHH", 12, 16, 4, 0, 8, 12)
    at = 4 + len(fields)  # of the root table: the offset back to its fields, the number, two offsets onward
    after = at + 16
    tables = after + len(floats)
    body = struct.pack("<iIII", len(fields), 41, after - (at + 8), tables - (at + 12))
    data = struct.pack("<I", at) + fields + body + floats + struct.pack("<II", 1, 4 + 8) + inner
    table = heads._Table.root(data)
    assert table.number(0) == 41
    assert table.number(1) == 0  # not there
    assert table.values(2, "<f4").tolist() == [0.5, -2.0, 8.0]
    assert table.values(7, "<f4").tolist() == []
    (found,) = table.tables(3)
    assert found.number(0) == 77


def test_the_step_with_the_least_blank_is_taken_and_blank_is_never_read():
    features, rows, bias = RANDOM.normal(size=(7, 5, 3)), RANDOM.normal(size=(11, 3)), RANDOM.normal(size=11)
    found, read = recogniser.at_the_character(features, rows, bias)
    for picture, one, label in zip(features, found, read, strict=True):
        answers = [np.exp(rows @ step + bias) for step in picture]
        step = int(np.argmin([answer[0] / answer.sum() for answer in answers]))
        assert np.array_equal(one, picture[step])
        assert label == 1 + int(answers[step][1:].argmax())


def test_what_was_done_is_kept_and_not_done_again(tmp_path):
    made = []

    def make(labels):
        made.extend(labels)
        return {"labels": np.array(labels)}

    labels = list(range(250))
    first = list(recogniser.chunks(tmp_path / "parts", labels[:200], make))
    again = list(recogniser.chunks(tmp_path / "parts", labels, make))
    assert made == labels
    assert np.concatenate([part["labels"] for part in again]).tolist() == labels
    assert len(first) == 2


def test_the_chance_of_being_rarer_is_that_over_all_pairs():
    some, others = RANDOM.integers(0, 6, 20), RANDOM.integers(0, 8, 30)
    pairs = [(a < b) + 0.5 * (a == b) for a in some for b in others]
    assert page.chance_rarer(some, others) == pytest.approx(np.mean(pairs))


def test_parts_by_use_begin_with_the_rarest():
    used = RANDOM.permutation(50)
    parts = page.by_use(used * 2.0, used)
    assert [part.min() for part in parts] == [10.0 * k for k in range(10)]
    assert [part.max() for part in parts] == [10.0 * k + 8 for k in range(10)]


def test_collapse_without_some_classes_is_that_of_a_head_that_never_had_them():
    weights = RANDOM.normal(size=(9, 4)).astype(np.float32)
    labels = np.repeat([1, 2, 4, 5, 7], 6)
    features = weights[labels] + 0.1 * RANDOM.normal(size=(30, 4)).astype(np.float32)
    found = {
        "features": features,
        "labels": labels,
        "read": labels,
        "weights": weights,
        "bias": np.zeros(9, np.float32),
    }
    left_out = np.array([0, 4])
    kept = [k for k in range(9) if k not in left_out]
    enters = labels != 4
    alone = {
        **found,
        "features": features[enters],
        "labels": np.searchsorted(kept, labels[enters]),
        "read": np.searchsorted(kept, labels[enters]),
        "weights": weights[kept],
        "bias": found["bias"][kept],
    }
    assert page.measure(found, left_out) == page.measure(alone, np.array([], dtype=int))
    assert page.measure(found, left_out)["classes drawn"] == 4
