"""`gnc margins` on heads as people have them: duplicates, rows of zeros, names, and a search that is interrupted."""

import json
import re
import signal

import numpy as np
import pytest

from gnc.cli.main import main
from gnc.cli.output import MarginWatch, Watch, progress_line


def answer(capsys, *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def head(tmp_path):
    """30 rows in 6 dimensions: row 7 is row 3 three times as long, rows 20 and 21 are equal, row 11 is near row 10."""
    rows = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    rows[3] = np.round(rows[3] * 64) / 64  # so that the product with 3 is exact
    rows[7], rows[21] = 3 * rows[3], rows[20]
    rows[11] = rows[10] + 1e-3
    np.save(tmp_path / "w.npy", rows)
    return tmp_path / "w.npy"


def test_duplicates_decide_the_smallest_margin_and_are_named(head, capsys):
    facts = answer(capsys, "margins", head)
    assert facts["margin_min_lower"] == facts["margin_min_upper"] == 0.0
    assert facts["margin_mean"] is None
    assert facts["duplicates"] == [[3, 7], [20, 21]]
    assert facts["near_duplicates"] == [[10, 11]]
    assert (facts["distinct_rows"], facts["duplicate_groups"], facts["near_groups"]) == (28, 2, 1)
    assert "decide the smallest margin; --distinct" in " ".join(facts["notes"])
    for lines in (("--per-class",), ("--top", 3)):
        facts = answer(capsys, "margins", head, *lines)
        assert "classes" not in facts
        assert "no class has a line; --distinct" in " ".join(facts["notes"])
    assert answer(capsys, "margins", head, "--near", 0.9999999)["near_duplicates"] == []


def test_distinct_rows_have_the_margins_of_the_rows_alone_under_their_own_numbers(head, tmp_path, capsys):
    facts = answer(capsys, "margins", head, "--distinct", "--per-class")
    np.save(tmp_path / "alone.npy", np.delete(np.load(head), [7, 21], axis=0))
    alone = answer(capsys, "margins", tmp_path / "alone.npy", "--per-class")
    for name in ("num_classes", "margin_min_lower", "margin_mean", "margin_q05", "margin_q50", "margin_score"):
        assert facts[name] == alone[name]
    kept = [k for k in range(30) if k not in (7, 21)]
    assert [one["class"] for one in facts["classes"]] == [kept[one["class"]] for one in alone["classes"]]
    assert [one["support"] for one in facts["classes"]] == [
        [kept[j] for j in one["support"]] for one in alone["classes"]
    ]
    assert facts["classes_certified"] == 28


def test_the_largest_supports_are_the_classes_most_often_in_supports(head, capsys):
    facts = answer(capsys, "margins", head, "--distinct", "--per-class")
    times = [0] * 30
    for one in facts["classes"]:
        for k in one["support"]:
            times[k] += 1
    assert [hub["supports"] for hub in facts["largest_supports"]] == sorted(times, reverse=True)[:5]
    assert all(times[hub["class"]] == hub["supports"] for hub in facts["largest_supports"])


def test_raw_rows_are_duplicates_only_where_they_are_equal(head, capsys):
    assert answer(capsys, "margins", head, "--raw")["duplicates"] == [[20, 21]]


def test_rows_of_zeros_are_refused_or_left_out(tmp_path, capsys):
    rows = np.random.default_rng(1).standard_normal((9, 3))
    rows[[2, 5]] = 0
    np.save(tmp_path / "w.npy", rows)
    assert main(["margins", str(tmp_path / "w.npy")]) == 2
    assert "got row 2 and 1 more. Use --leave-out-zero, or --raw" in capsys.readouterr().err
    facts = answer(capsys, "margins", tmp_path / "w.npy", "--leave-out-zero", "--per-class")
    assert (facts["num_classes"], facts["rows_in_file"], facts["zero_rows"]) == (7, 9, 2)
    assert {one["class"] for one in facts["classes"]} == {0, 1, 3, 4, 6, 7, 8}


def test_centred_margins_are_those_of_the_rows_less_their_mean(tmp_path, capsys):
    rows = np.random.default_rng(2).standard_normal((12, 4)) + 5
    np.save(tmp_path / "w.npy", rows)
    np.save(tmp_path / "c.npy", rows - rows.mean(0))
    facts, less = (
        answer(capsys, "margins", tmp_path / "w.npy", "--centred"),
        answer(capsys, "margins", tmp_path / "c.npy"),
    )
    assert facts["margin_min_lower"] == pytest.approx(less["margin_min_lower"], rel=1e-9)
    assert facts["centred_mean_squared_cosine_times_dim"] == pytest.approx(less["mean_squared_cosine_times_dim"])
    assert facts["mean_squared_cosine_times_dim"] > 3 > facts["centred_mean_squared_cosine_times_dim"]
    assert facts["welch_floor"] == 8 / 11


@pytest.mark.parametrize("more", [[], ["--distinct"], ["--leave-out-zero"]])
def test_a_row_that_is_the_mean_has_no_centred_direction(tmp_path, capsys, more):
    np.save(tmp_path / "w.npy", [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert main(["margins", str(tmp_path / "w.npy"), "--centred", *more]) == 2
    assert "rows must not equal their mean with --centred, got row 2. Use --raw too" in capsys.readouterr().err
    assert answer(capsys, "margins", tmp_path / "w.npy", "--centred", "--raw")["margin_min_upper"] < 1e-12


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + json.dumps([f"c{k}" for k in range(30)]),
        json.dumps({str(k): [f"n{k:08}", f"c{k}"] for k in range(30)}),
        "\n".join(f"c{k}" for k in range(30)) + "\n",
        "\r\n".join(f"c{k}" for k in range(30)),
        json.dumps([f"c{k}" for k in range(30)]),
        json.dumps({f"c{k}": k for k in range(30)}),
        json.dumps({str(k): f"c{k}" for k in range(30)}),
    ],
)
def test_classes_are_named_by_lines_or_json(head, tmp_path, capsys, text):
    (tmp_path / "names").write_text(text, newline="")
    facts = answer(capsys, "margins", head, "--labels", tmp_path / "names")
    assert facts["labels"]["20"] == "c20"
    assert main(["margins", str(head), "--labels", str(tmp_path / "names")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "The smallest margin of 30 classes in 6 dimensions is 0. The best code known has 0.666667, random"
    )
    assert "duplicates (2): 3 'c3', 7 'c7'" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n" * 31, "at most one name per row \\(30\\), got a name for row 30"),
        (b'["a", "b"', "must be lines of text or JSON, got .*names', which is torn JSON"),
        (b'{"0": "a", "0": "b"}', "must give each number one name, got a number twice"),
        (b'{"cat": 0, "dog": 0}', "must give each number one name, got a number twice"),
        (b'{"0": "cat", "00": "dog"}', "must give each number one name, got a number twice"),
        (b'{"%s": "cat"}' % (b"1" * 5000), "must map numbers to names"),
        (b"[" * 100_000, "which is torn JSON"),
        (b'{"a": 0.5}', "must map numbers to names or names to numbers"),
        (b"\xff\xfe\xfa", "readable file of UTF-8 text"),
        (None, "readable file of UTF-8 text"),
    ],
)
def test_wrong_names_get_one_line(head, tmp_path, capsys, content, words):
    if content is not None:
        (tmp_path / "names").write_bytes(content)
    assert main(["margins", str(head), "--labels", str(tmp_path / "names")]) == 2
    assert len(error := capsys.readouterr().err.splitlines()) == 1
    assert re.search(words, error[0])


def test_a_vocabulary_may_begin_with_a_bracket(head, tmp_path, capsys):
    (tmp_path / "names").write_text("[PAD]\n{\n" + "x\n" * 28)
    facts = answer(capsys, "margins", head, "--labels", tmp_path / "names", "--per-class", "--distinct")
    assert (facts["labels"]["0"], facts["labels"]["1"]) == ("[PAD]", "{")


def test_missing_names_are_said(head, tmp_path, capsys):
    (tmp_path / "names").write_text("a\nb\n")
    assert "28 classes without a name" in " ".join(
        answer(capsys, "margins", head, "--labels", tmp_path / "names")["notes"]
    )


def test_an_interruption_prints_what_is_certified_and_exits_1(tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "w.npy", np.random.default_rng(3).standard_normal((300, 5)))
    exact = answer(capsys, "margins", tmp_path / "w.npy")
    tell, before = MarginWatch.__call__, signal.getsignal(signal.SIGINT)

    def interrupted(watch, certified, count, minimum):
        signal.raise_signal(signal.SIGINT)
        return tell(watch, certified, count, minimum)

    monkeypatch.setattr(MarginWatch, "__call__", interrupted)
    assert main(["margins", str(tmp_path / "w.npy"), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["interrupted"]
    assert facts["margin_min_lower"] <= exact["margin_min_upper"]
    assert facts["margin_min_upper"] >= exact["margin_min_lower"]
    assert facts["margin_mean"] is None
    assert signal.getsignal(signal.SIGINT) == before


def test_the_progress_line_says_what_is_certified_and_what_is_left():
    line = progress_line(250, 1000, (0.0, 0.5), 10.0)
    assert line == "250 of 1000 classes certified in 10 s, about 30 s left; smallest margin 0 to 0.5"
    assert progress_line(0, 9, (0.0, float("inf")), 3.0) == "0 of 9 classes certified in 3 s; smallest margin 0 or more"


def test_a_search_says_how_far_it_is_after_each_batch(tmp_path, capsys, monkeypatch):
    tell, told = MarginWatch.__call__, []

    def heard(watch, *state):
        stopped = tell(watch, *state)
        told.append(Watch.words)
        return stopped

    monkeypatch.setattr(MarginWatch, "__call__", heard)
    np.save(tmp_path / "w.npy", np.random.default_rng(4).standard_normal((200, 4)))
    assert main(["margins", str(tmp_path / "w.npy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_classes"] == 200
    assert told[-1].startswith("200 of 200 classes certified")
    assert Watch.words == ""
