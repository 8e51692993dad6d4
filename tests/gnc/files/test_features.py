"""`gnc measure` on feature sets as people have them: labels of every kind, several files, Parquet, what is left out."""

import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gnc.cli.main import main
from gnc.files.features import in_batches, open_features
from gnc_models.metrics.collapse import measure_collapse
from study.design.columns import columns_with

RANDOM = np.random.default_rng(0)
LABELS = np.repeat(np.arange(5), 4)
WEIGHTS = RANDOM.normal(size=(5, 3))
FEATURES = 2 * WEIGHTS[LABELS] + 0.3 * RANDOM.normal(size=(20, 3))
SET = {"features": FEATURES, "labels": LABELS, "weights": WEIGHTS}


def answer(capsys, *arguments: object) -> dict:
    assert main(["measure", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *arguments: object) -> str:
    assert main(["measure", *map(str, arguments)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def saved(folder, **changes: np.ndarray | None) -> str:
    np.savez(folder / "f.npz", **{name: value for name, value in {**SET, **changes}.items() if value is not None})
    return str(folder / "f.npz")


def values(facts: dict) -> dict:
    return {name: value for name, value in facts.items() if name != "notes"}


@pytest.fixture
def expected(tmp_path, capsys) -> dict:
    """What the plain set gives."""
    return values(answer(capsys, saved(tmp_path)))


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (LABELS.astype(np.float32), ()),
        (LABELS.astype(np.uint8), ()),
        (LABELS.astype(">i4"), ()),
        (LABELS + 1, ("--relabel",)),
        (7 * LABELS - 3, ("--relabel",)),
        (np.array(["ant", "bee", "cow", "dog", "eel"])[LABELS], ("--relabel",)),
        (np.array([b"ant", b"bee", b"cow", b"dog", b"eel"])[LABELS], ("--relabel",)),
    ],
)
def test_labels_of_every_kind_give_the_same_numbers_and_rows_follow_their_order(
    tmp_path, capsys, expected, labels, options
):
    path = saved(tmp_path, labels=labels, test_features=FEATURES[::4], test_labels=labels[::4])
    facts = answer(capsys, path, *options)
    assert facts.pop("ncc_test_accuracy") is not None
    expected.pop("ncc_test_accuracy")
    assert values(facts) == expected
    if options:
        assert "in the order of their 5 labels" in " ".join(facts["notes"])


def test_arrays_of_an_archive_that_are_called_training_ones_are_taken(tmp_path, capsys, expected):
    np.savez(tmp_path / "t.npz", train_features=FEATURES, train_labels=LABELS, weights=WEIGHTS)
    facts = answer(capsys, tmp_path / "t.npz")
    assert values(facts) == expected
    assert {"features are those called 'train_features'", "labels are those called 'train_labels'"} <= set(
        facts["notes"]
    )
    np.savez(tmp_path / "t.npz", train_features=FEATURES + 9, **SET)
    facts = answer(capsys, tmp_path / "t.npz")
    assert values(facts) == expected
    assert any(note.startswith("the array 'train_features' is not used") for note in facts["notes"])


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"labels": LABELS + 1}, (), "labels must lie in 0..4, got 1..5. Use --relabel"),
        ({"labels": LABELS.astype(str)}, (), "labels must be integers, got text. Use --relabel"),
        ({"labels": LABELS + 0.5}, ("--relabel",), "labels must be integers"),
        ({"labels": LABELS.astype(np.uint64) + np.uint64(2**63)}, ("--relabel",), "labels must be integers below 2^63"),
        ({"features": FEATURES[:, :0], "weights": None}, (), "features must be [samples, dim] and labels [samples], got"),
        ({"features": FEATURES.reshape(5, 4, 3), "labels": LABELS.reshape(5, 4)}, (), "got (5, 4, 3) and (5, 4). Give one"),
        ({"labels": None}, (), "f.npz' must hold the array 'labels', got ['features', 'weights']. Give the file of the"),
        ({"bias": np.ones(5) * 1j}, (), "bias must be 5 finite numbers, one per row of weights, got (5,) of torch.complex128"),
        ({"bias": np.full(5, np.nan)}, (), "got NaN or infinity in it"),
        ({"weights": None}, ("--temperature", 0.1), "--temperature must come with weights, got 0.1 without: no column"),
        ({"weights": None}, ("--temperature", 0.1, "--normalization", "both", "--stream"), "--temperature must come with"),
        ({"labels": np.where(LABELS, LABELS, np.nan)}, ("--relabel",), "labels must be integers"),
        ({"labels": LABELS // 2}, ("--relabel",), "one row for each of the 3 labels with --relabel, got 5"),
        ({"labels": LABELS.astype(object)}, (), "must hold numbers, got Python objects, which are never read"),
        ({"labels": np.eye(5)[LABELS]}, (), "got (20, 3) and (20, 5). Of one-hot labels give argmax(1)"),
        ({"bias": np.ones(4)}, (), "bias must be 5 finite numbers"),
        ({"bias": np.ones(5), "weights": None}, (), "bias must come with weights"),
        ({}, ("--temperature", 0.1), "--temperature must come with features and rows of unit length"),
        ({}, ("--temperature", 0.1, "--normalization", "none"), "must not come with --normalization none"),
        ({"weights": None}, ("--normalization", "weights"), "--normalization weights must come with weights, got none"),
        ({}, ("--tensor", "w"), "--tensor must come with --weights"),
        ({"labels": LABELS - 1}, (), "Leave out samples that belong to no class"),
        ({"features": FEATURES.astype(str)}, (), "features must hold numbers, got text"),
        ({"features": FEATURES + 1j}, (), "features must be real numbers, got complex128"),
        ({}, ("--labels", "labels.npy"), "labels must be given once"),
        ({"weights": WEIGHTS.astype(str)}, (), "weights must hold numbers, got text"),
    ],
)  # fmt: skip
def test_what_would_give_wrong_numbers_is_refused_in_one_line(tmp_path, capsys, changes, options, words):
    assert words in refusal(capsys, saved(tmp_path, **changes), *options)


def test_options_of_features_are_refused_for_a_results_folder(tmp_path, capsys):
    for option in (("--relabel",), ("--normalization", "none"), ("--temperature", 2), ("--weights", "w.pt")):
        assert f"{option[0]} must come with features" in refusal(capsys, tmp_path, *option)


def test_a_bias_beside_the_features_and_in_the_checkpoint_is_refused(tmp_path, capsys):
    torch.save(torch.nn.Linear(3, 5).state_dict(), tmp_path / "fc.pt")
    path = saved(tmp_path, weights=None, bias=np.ones(5))
    assert "bias must be given once" in refusal(capsys, path, "--weights", tmp_path / "fc.pt")


def test_test_labels_that_training_does_not_have_are_refused(tmp_path, capsys):
    labels = np.array(["a", "b", "c", "d", "e"])[LABELS]
    for other in (np.where(LABELS == 2, "zebra", labels), LABELS):
        path = saved(tmp_path, labels=labels, test_features=FEATURES, test_labels=other)
        assert "test_labels must be" in refusal(capsys, path, "--relabel")


def test_a_bias_enters_the_columns_of_logits_and_no_other(tmp_path, capsys, expected):
    bias = 30 * RANDOM.normal(size=5)
    facts = answer(capsys, saved(tmp_path, bias=bias))
    other = {name for name, value in values(facts).items() if value != expected[name]}
    assert other == {"ncc_agreement", "active_classes"}
    logits = FEATURES @ WEIGHTS.T + bias
    means = np.stack([FEATURES[k == LABELS].mean(0) for k in range(5)])
    nearest = ((FEATURES[:, None] - means) ** 2).sum(2).argmin(1)
    assert facts["ncc_agreement"] == pytest.approx((logits.argmax(1) == nearest).mean())
    logits[np.arange(20), LABELS] = -np.inf
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    assert facts["active_classes"] == pytest.approx(np.exp(entropy).mean())
    assert any("bias" in note and "without it" in note for note in facts["notes"])


def test_a_bias_is_not_divided_by_the_temperature():
    sets = (torch.tensor(FEATURES), torch.tensor(LABELS), torch.tensor(WEIGHTS))
    bias = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = measure_collapse(*sets, normalization="features", temperature=0.1, bias=bias).values
    scaled = (sets[0], sets[1], 10 * sets[2])
    same = measure_collapse(*scaled, normalization="features", temperature=1.0, bias=bias).values
    for name in ("ncc_agreement", "active_classes"):
        assert found[name] == pytest.approx(same[name])


def test_arrays_that_are_not_used_are_named_and_objects_beside_the_numbers_do_no_harm(
    tmp_path, capsys, expected, monkeypatch
):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = saved(tmp_path, weight=WEIGHTS, paths=np.array([Trap()] * 20, dtype=object), epoch=np.array(3))
    facts = answer(capsys, path)
    assert values(facts) == expected
    notes = " ".join(facts["notes"])
    assert "'weight' is not used. Did you mean 'weights'?" in notes
    assert "'paths' is not used" in notes
    assert "'epoch' is not used" in notes
    assert not (tmp_path / "executed").exists()


def test_the_head_that_is_assumed_is_said(tmp_path, capsys):
    plain = answer(capsys, saved(tmp_path))
    assert (plain["normalization"], plain["temperature"]) == ("none", None)
    assert any("--normalization none is assumed" in note for note in plain["notes"])
    unit = {name: SET[name] / np.linalg.norm(SET[name], axis=1, keepdims=True) for name in ("features", "weights")}
    for kind in (np.float64, np.float16):
        path = saved(tmp_path, **{name: value.astype(kind) for name, value in unit.items()})
        facts = answer(capsys, path, "--temperature", 0.1)
        assert (facts["normalization"], facts["temperature"]) == ("both", 0.1)
    mixed = answer(capsys, saved(tmp_path, features=unit["features"]))
    assert mixed["normalization"] == "none"
    given = answer(capsys, saved(tmp_path), "--normalization", "features")
    assert (given["normalization"], given["temperature"]) == ("features", 1.0)
    assert any("--temperature 1 is assumed" in note for note in given["notes"])


def test_classes_of_one_sample_do_not_make_variability_look_collapsed(tmp_path, capsys):
    singles = np.concatenate([WEIGHTS, RANDOM.normal(size=(40, 3))])
    features = np.concatenate([FEATURES, 2 * singles[5:]])
    labels = np.concatenate([LABELS, np.arange(5, 45)])
    facts = answer(capsys, saved(tmp_path, features=features, labels=labels, weights=singles))
    alone = answer(capsys, saved(tmp_path))
    assert facts["single_sample_classes"] == 40
    assert any("40 classes with one sample left out" in note for note in facts["notes"])
    for name in ("gnc1_rank", "gnc1_quotient", "trace_within", "cdnv", "cdnv_nearest"):
        assert facts[name] == pytest.approx(alone[name], rel=1e-12)
    assert facts["margin_min_upper"] < alone["margin_min_upper"]  # their rows compete


def test_test_samples_of_classes_without_a_mean_are_left_out_and_counted(tmp_path, capsys):
    tested = {"test_features": FEATURES, "test_labels": LABELS}
    whole = answer(capsys, saved(tmp_path, **tested))
    assert whole["ncc_test_accuracy"] == 1
    for kept in (np.r_[0:12, 12], np.r_[0:12]):  # class 3 has one sample or none, class 4 has none
        facts = answer(capsys, saved(tmp_path, features=FEATURES[kept], labels=LABELS[kept], **tested))
        assert facts["ncc_test_accuracy"] == 1
        assert "8 test samples of classes without a mean of training samples left out" in facts["notes"]
    path = saved(
        tmp_path, features=FEATURES[:12], labels=LABELS[:12], test_features=FEATURES[12:], test_labels=LABELS[12:]
    )
    assert answer(capsys, path)["ncc_test_accuracy"] is None


def test_sets_whose_classes_all_or_nearly_all_have_one_sample(tmp_path, capsys):
    singles = answer(capsys, saved(tmp_path, features=FEATURES[::4], labels=LABELS[::4]))
    assert "5 classes with one sample, and none with more: none is left out" in " ".join(singles["notes"])
    assert singles["gnc1_rank"] is None
    assert singles["gnc3"] is not None
    kept = np.r_[0:4, 4, 8, 12, 16]
    words = "at least 2 classes must have two samples or more, got 1 of 5 with samples. Of one sample"
    assert words in refusal(capsys, saved(tmp_path, features=FEATURES[kept], labels=LABELS[kept]))


def test_classes_without_samples_are_counted_where_rows_tell_that_they_are(tmp_path, capsys):
    more = np.concatenate([WEIGHTS, -WEIGHTS[:2]])
    facts = answer(capsys, saved(tmp_path, weights=more))
    assert facts["num_classes"] == 7
    assert any("2 of 7 classes without a sample, the first: 5, 6" in note for note in facts["notes"])


def test_files_side_by_side_parquet_and_a_checkpoint_give_the_same_numbers(tmp_path, capsys, expected):
    (tmp_path / "set").mkdir()
    for name, array in SET.items():
        np.save(tmp_path / "set" / f"{name}.npy", np.asfortranarray(array))
        np.save(tmp_path / f"train_{name}.npy", array)
    np.save(tmp_path / "mine.npy", LABELS)
    torch.save({"state_dict": {"fc.weight": torch.tensor(WEIGHTS)}}, tmp_path / "last.ckpt")
    head = ("--weights", tmp_path / "last.ckpt")
    for number, kind in enumerate((pa.list_(pa.float64()), pa.list_(pa.float64(), 3))):
        table = {"features": pa.array(list(FEATURES), kind), "labels": LABELS.astype(float), "path": ["x"] * 20}
        pq.write_table(pa.table(table), tmp_path / f"{number}.parquet", row_group_size=7)
    parquets = sorted(tmp_path.glob("*.parquet"))
    assert len(parquets) == 2
    for source in ((tmp_path / "set",), (tmp_path / "train_features.npy",), *((path, *head) for path in parquets)):
        facts = answer(capsys, *source)
        assert values(facts) == expected, source
    assert any("'path' is not used" in note for note in facts["notes"])
    assert any("fc.weight (5, 3)" in note for note in facts["notes"])
    np.save(tmp_path / "other.npy", FEATURES)
    assert values(answer(capsys, tmp_path / "other.npy", "--labels", tmp_path / "mine.npy", *head)) == expected


def test_arrays_beside_train_features_are_found_and_files_that_are_not_used_are_named(tmp_path, capsys, expected):
    for name, array in SET.items():
        np.save(tmp_path / f"{name if name == 'weights' else f'train_{name}'}.npy", array)
    np.save(tmp_path / "test_features.npy", FEATURES)
    np.save(tmp_path / "test_labels.npy", LABELS)
    np.save(tmp_path / "bais.npy", np.ones(5))
    facts = answer(capsys, tmp_path / "train_features.npy")
    assert facts["ncc_test_accuracy"] == 1
    assert {name for name, value in values(facts).items() if value != expected[name]} == {"ncc_test_accuracy"}
    for note in ("weights is taken from 'weights.npy'", "the file 'bais.npy' is not used. Did you mean 'bias'?"):
        assert note in facts["notes"]
    facts = answer(capsys, tmp_path / "test_features.npy")  # the test set itself: its own labels, the same head
    assert facts["ncc_test_accuracy"] is None
    assert values(facts) == expected
    np.save(tmp_path / "labels.npy", LABELS[::-1])  # of plain features.npy, should it be there
    (tmp_path / "train_labels.npy").unlink()
    assert "must hold the array 'labels'" in refusal(capsys, tmp_path / "train_features.npy")


def test_other_arrays_of_the_file_of_labels_are_named(tmp_path, capsys):
    np.save(tmp_path / "features.npy", FEATURES)
    np.savez(tmp_path / "more.npz", **SET)
    notes = answer(capsys, tmp_path / "features.npy", "--labels", tmp_path / "more.npz")["notes"]
    for name in ("features", "weights"):
        assert f"the array '{name}' of '{tmp_path / 'more.npz'}' is not used" in notes


def test_labels_in_a_list_are_read(tmp_path, capsys, expected):
    for labels, options in ((LABELS.tolist(), ()), ([f"c{k}" for k in LABELS], ("--relabel",))):
        held = {name: torch.tensor(SET[name]) for name in ("features", "weights")}
        torch.save(held | {"labels": labels, "mixed": [1, "a"]}, tmp_path / "f.pt")
        assert values(answer(capsys, tmp_path / "f.pt", *options)) == expected


def test_codes_beside_their_scales_are_refused(tmp_path, capsys):
    held = {name: torch.tensor(array) for name, array in SET.items()}
    for name in ("features", "weights"):
        codes = {name: held[name].to(torch.float8_e4m3fn), f"{name}_scale": torch.ones(1)}
        torch.save(held | codes, tmp_path / "f.pt")
        words = f"must be plain numbers, got float8_e4m3fn with '{name}_scale' beside it. Save codes times scales"
        assert words in refusal(capsys, tmp_path / "f.pt")
        torch.save(held | {name: codes[name]}, tmp_path / "f.pt")
        assert "must be plain numbers, got float8_e4m3fn. Save codes" in refusal(capsys, tmp_path / "f.pt")


def test_what_is_neither_file_nor_folder_is_refused(capsys):
    assert "SOURCE must be a file of features or a results folder, got '/dev/null'" in refusal(capsys, "/dev/null")


def test_a_temperature_that_a_streamed_set_does_not_need_is_said(tmp_path, capsys):
    facts = answer(capsys, saved(tmp_path), "--normalization", "both", "--temperature", 0.1, "--stream")
    assert any(
        note.startswith("the temperature enters no column of a set that is read in batches") for note in facts["notes"]
    )


def test_parquet_columns_that_are_not_used_do_no_harm_and_tensors_are_read(tmp_path, capsys, expected):
    table = {
        "features": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(FEATURES)),
        "labels": LABELS,
        "tokens": [[1] * (i % 3) for i in range(20)],
        "meta": [{"a": [1, 2]}] * 20,
    }
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    np.save(tmp_path / "w.npy", WEIGHTS)
    facts = answer(capsys, tmp_path / "f.parquet", "--weights", tmp_path / "w.npy")
    assert values(facts) == expected
    assert "the array 'tokens' is not used" in facts["notes"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"labels": [b"\xff0", b"\xff1"] * 2}, "f.parquet' must be one column of numbers, text .* got binary. Cast"),
        ({"features": [{"a": [1.0]}] * 4}, "must be one column of numbers, .* got struct"),
        ({"features": [[[1.0]]] * 4}, "flat lists of numbers, got list<"),
        ({"features": [[1.0, 2.0], [1.0]] * 2}, "of one length"),
        ({"features": [[1.0, 2.0], None] * 2}, "no nulls"),
        ({"features": [[1.0, None]] * 4}, "no nulls"),
        ({"labels": [0, None, 1, 0]}, "no nulls"),
        ({"labels": [[0], [1]] * 2}, "labels .samples."),
        ({"features": [[]] * 4}, "of one length of at least 1"),
        ({"features": [1.0] * 4}, "features must be .samples, dim."),
    ],
)
def test_parquet_that_is_no_feature_set_is_refused_in_one_line(tmp_path, capsys, columns, words):
    table = {"features": [[1.0, 2.0], [3.0, 4.0]] * 2, "labels": [0, 1, 1, 0]} | columns
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    assert re.search(words, refusal(capsys, tmp_path / "f.parquet"))


def test_mapped_files_and_parquet_come_in_batches_that_hold_every_row_once(tmp_path, monkeypatch):
    monkeypatch.setattr("gnc.files.features.BATCH_VALUES", 20)
    np.save(tmp_path / "features.npy", FEATURES.astype(np.float32))
    pq.write_table(pa.table({"features": list(FEATURES.astype(np.float32))}), tmp_path / "f.parquet", row_group_size=9)
    for name in ("features.npy", "f.parquet"):
        arrays, _ = open_features(str(tmp_path / name))
        parts = list(in_batches(arrays["features"]))
        assert max(map(len, parts)) <= 6
        assert torch.equal(torch.cat(parts), torch.tensor(FEATURES.astype(np.float32)).double())


def test_a_streamed_set_gives_the_columns_of_the_whole_set_and_says_what_it_cannot(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gnc.files.features.BATCH_VALUES", 20)
    labels = np.where(np.arange(20) == 0, 5, LABELS)
    labels[1:4] = 1  # class 0 has no sample, class 5 has one
    path = saved(tmp_path, labels=labels, weights=np.concatenate([WEIGHTS, -WEIGHTS[:1]]), bias=np.ones(6))
    whole, streamed = answer(capsys, path), answer(capsys, path, "--stream")
    assert any("read in batches" in note for note in streamed["notes"])
    assert "the bias enters no column of a set that is read in batches" in " ".join(streamed["notes"])
    shared = [name for name in values(streamed) if isinstance(streamed[name], float)]
    assert {"gnc1_rank", "gnc3", "margin_min_lower", *columns_with("rows")} & set(shared)
    for name in shared:
        assert streamed[name] == pytest.approx(whole[name], rel=1e-9), name
