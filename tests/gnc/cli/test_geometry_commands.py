"""`gnc margins`, `gnc code`, `gnc measure` on anyone's files, right and wrong ones."""

import json
import os
import pickle
import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save_file

from gnc.cli.main import main
from gnc_models.codes.search import optimise_code
from study.design.errors import make_config
from study.execution.attempt import Execution
from study.store.sealing.reference_columns import _comparison
from study.store.store import open_store


def answer(capsys, *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def polygon(num_classes: int) -> torch.Tensor:
    angles = 2 * torch.pi * torch.arange(num_classes, dtype=torch.float64) / num_classes
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt", "safetensors"])
def test_margins_of_a_scaled_polygon_are_those_of_the_polygon_in_every_format(tmp_path, capsys, suffix):
    path = tmp_path / f"w.{suffix}"
    rows = polygon(7) * torch.arange(1, 8)[:, None]
    if suffix == "npy":
        np.save(path, rows.numpy())
    elif suffix == "npz":
        np.savez(path, w=rows.numpy(), bias=np.zeros(7))
    elif suffix == "pt":
        torch.save({"model": {"head.weight": rows, "head.bias": torch.zeros(7)}}, path)
    else:
        save_file({"head.weight": rows, "step": torch.tensor(3)}, path)
    facts = answer(capsys, "margins", path)
    exact = 1 - np.cos(2 * np.pi / 7)
    assert facts["margin_min_lower"] <= exact <= facts["margin_min_upper"]
    assert facts["margin_min_upper"] - facts["margin_min_lower"] <= 1e-6 * exact
    assert facts["margin_mean"] == pytest.approx(exact)
    assert facts["margin_score"] == pytest.approx(1.0)
    assert {"num_classes", "feature_dim", "tolerance", "rounds", "seconds"} <= set(facts)


@pytest.mark.parametrize(("num_classes", "is_scored"), [(12, True), (3, False)])
def test_score_is_the_one_that_sealed_rows_get(tmp_path, capsys, num_classes, is_scored):
    np.save(tmp_path / "w.npy", np.random.default_rng(0).standard_normal((num_classes, 3)))
    facts = answer(capsys, "margins", tmp_path / "w.npy")
    rows = pa.table({name: [facts[name]] for name in ("margin_min_lower", "margin_min_upper")} | {"train_loss": [1.0]})
    nulls = ("random_margin", "random_margin_lower", "random_margin_upper")
    names = ("reference_margin_lower", "reference_margin_upper", *nulls, "ufm_loss")
    references = {name: pa.array([facts.get(name)], pa.float64()) for name in names}
    sealed = _comparison(rows, references)
    for name in ("margin_score", "margin_score_lower", "margin_score_upper"):
        assert sealed[name].to_pylist() == [facts[name]]
    assert (facts["margin_score"] is not None) == is_scored


def test_raw_margins_are_in_the_rows_own_unit_and_zero_inside_the_hull(tmp_path, capsys):
    np.save(tmp_path / "w.npy", np.array([[2.0, 0], [-1, 1], [-1, -1], [0, 0]]))
    facts = answer(capsys, "margins", tmp_path / "w.npy", "--raw")
    assert facts["margin_min_lower"] == 0.0
    assert "margin_score" not in facts
    assert main(["margins", str(tmp_path / "w.npy")]) == 2
    assert "classifier rows must not be zero, got row 3" in capsys.readouterr().err


def test_top_shows_the_smallest_margins_their_norms_and_supports(tmp_path, capsys):
    rows = polygon(6)
    rows[5] = polygon(60)[49]  # now between its old place and row 4: these two are close
    np.save(tmp_path / "w.npy", 3 * rows.numpy())
    assert main(["margins", str(tmp_path / "w.npy"), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line.split()[0].isdigit()]
    assert {row[0] for row in table} == {"4", "5"}
    assert all(row[3] == "3" for row in table)
    assert all(set(row[4:]) <= set("012345") for row in table)


def test_json_holds_the_classes_that_are_asked_for(tmp_path, capsys):
    np.save(tmp_path / "w.npy", 3 * polygon(6).numpy())
    facts = answer(capsys, "margins", tmp_path / "w.npy", "--top", "2")
    assert len(facts["classes"]) == 2
    assert all(one["lower"] <= 0.5 <= one["upper"] and one["norm"] == pytest.approx(3) for one in facts["classes"])
    assert all(set(one["support"]) <= set(range(6)) for one in facts["classes"])
    assert len(answer(capsys, "margins", tmp_path / "w.npy", "--per-class")["classes"]) == 6
    assert "classes" not in answer(capsys, "margins", tmp_path / "w.npy")


@pytest.mark.parametrize("factor", [1e-300, 1e-14, 1e170])
def test_the_length_of_rows_does_not_matter_without_raw(tmp_path, capsys, factor):
    np.save(tmp_path / "w.npy", factor * polygon(7).numpy())
    facts = answer(capsys, "margins", tmp_path / "w.npy", "--top", "1")
    exact = 1 - np.cos(2 * np.pi / 7)
    assert facts["margin_min_lower"] <= exact <= facts["margin_min_upper"] <= exact * (1 + 1e-6)
    assert facts["classes"][0]["norm"] == pytest.approx(factor)


def test_the_interval_that_is_printed_holds_that_of_the_json(tmp_path, capsys):
    np.save(tmp_path / "w.npy", np.random.default_rng(0).normal(size=(40, 3)))
    facts = answer(capsys, "margins", tmp_path / "w.npy")
    assert main(["margins", str(tmp_path / "w.npy")]) == 0
    printed = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert float(printed["margin_min_lower"]) <= facts["margin_min_lower"]
    assert float(printed["margin_min_upper"]) >= facts["margin_min_upper"]


def test_several_matrices_ask_for_a_name(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    save_file({"a.weight": polygon(5), "b.weight": polygon(9)}, path)
    assert main(["margins", str(path)]) == 2
    assert "--tensor must be given" in (err := capsys.readouterr().err)
    assert "likeliest first: b.weight (9, 2), a.weight (5, 2)" in err
    assert answer(capsys, "margins", path, "--tensor", "b.weight")["num_classes"] == 9
    assert main(["margins", str(path), "--tensor", "c"]) == 2
    assert "--tensor must name a tensor" in capsys.readouterr().err


def test_no_pickle_is_ever_executed(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"w": polygon(5), "trap": Trap()}, tmp_path / "w.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    np.save(tmp_path / "w.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    assert answer(capsys, "margins", tmp_path / "w.pt")["num_classes"] == 5
    for name in ("plain.pt", "w.npy"):
        assert one_line(capsys, "margins", tmp_path / name).startswith("FILE must")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_empty_and_torn_files_get_one_clear_line(tmp_path, capsys, suffix, content):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    assert main(["margins", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("FILE must")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.array([[1.0, 0], [np.nan, 1], [0, np.inf]]), "got 2 rows with NaN or infinity, the first is 1"),
        (np.ones((1, 3)), "must hold a floating-point matrix of at least 2 rows"),
        (np.ones(3), r"must hold a floating-point matrix .* without one: array \(3,\)"),
        (np.ones((3, 2, 2)), r"without one: array \(3, 2, 2\)"),
        (np.ones((3, 2), dtype=np.int64), "must hold a floating-point matrix"),
        (np.ones((3, 2), dtype=np.longdouble), "without one: array .numbers of more than 8 bytes"),
    ],
)
def test_wrong_matrices_get_one_clear_line(tmp_path, capsys, rows, words):
    np.save(tmp_path / "w.npy", rows)
    assert main(["margins", str(tmp_path / "w.npy")]) == 2
    err = capsys.readouterr().err
    assert re.search(words, err)
    assert len(err.splitlines()) == 1


def test_code_gives_the_reference_and_rows_that_reach_it(tmp_path, capsys):
    facts = answer(capsys, "code", "--classes", 12, "--dim", 3, "--output", tmp_path / "code.npy")
    assert facts["reference_margin_lower"] == pytest.approx(1 - 5**-0.5)
    assert facts["code_margin_lower"] == pytest.approx(1 - 5**-0.5)
    assert answer(capsys, "margins", tmp_path / "code.npy")["margin_score"] == pytest.approx(1.0)
    searched = answer(capsys, "code", "--classes", 7, "--dim", 3, "--optimise", "--starts", 8)
    assert searched["code_margin_lower"] == pytest.approx(searched["reference_margin_lower"], rel=1e-6)


def test_code_at_a_temperature_gives_the_unconstrained_optimum(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GNC_CACHE", str(tmp_path))
    tabulated = answer(capsys, "code", "--classes", 12, "--dim", 3, "--temperature", 0.1)
    searched = answer(capsys, "code", "--classes", 12, "--dim", 3, "--temperature", 0.1, "--optimise", "--starts", 4)
    assert tabulated["ufm_source"] == "table"
    assert searched["ufm_loss"] == pytest.approx(tabulated["ufm_loss"], rel=1e-6)
    assert main(["code", "--classes", "12", "--dim", "3", "--temperature", "-1"]) == 2
    assert main(["code", "--classes", "12", "--dim", "3", "--seed", str(2**70)]) == 2
    assert main(["code", "--classes", "50257", "--dim", "768", "--optimise"]) == 2
    assert "--classes times --dim must be at most 5,000,000" in capsys.readouterr().err
    assert main(["code", "--classes", "1", "--dim", "3"]) == 2
    assert "--classes must be at least 2, got 1" in capsys.readouterr().err


def test_an_optimum_between_switches_comes_with_its_rows_and_needs_no_search(capsys, tmp_path):
    cell = ("code", "--classes", 6, "--dim", 4, "--temperature", 0.45)
    facts = answer(capsys, *cell, "--output", tmp_path / "rows.npy")
    assert (facts["ufm_source"], facts["ufm_margin"]) == ("phases", pytest.approx(1.0, abs=1e-6))
    assert np.load(tmp_path / "rows.npy").shape == (6, 4)
    assert main(list(map(str, (*cell, "--starts", 4)))) == 2
    assert "The optimum is known" in capsys.readouterr().err


def test_an_optimum_computed_for_a_results_folder_lies_there_and_nowhere_else(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GNC_CACHE", str(tmp_path / "cache"))
    cell = ("code", "--classes", 9, "--dim", 2, "--temperature", 0.123)
    without = answer(capsys, *cell, "--starts", 2)
    assert "ufm_kept_in" not in without
    folder = tmp_path / "results"
    first = answer(capsys, *cell, "--starts", 2, "--results", folder)
    assert (first["ufm_source"], first["ufm_kept_in"]) == ("optimised from 2 starts, seed 0", str(folder))
    (folder / "optima" / "foreign.csv").write_text("torn,line\n9,2,0.1")
    later = answer(capsys, *cell, "--results", folder)
    assert later["ufm_source"] == "results"
    assert later["ufm_loss"] == pytest.approx(first["ufm_loss"], rel=1e-9)
    assert not (tmp_path / "cache" / "unconstrained_optima.csv").exists()


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt", "safetensors"])
def test_files_cut_in_the_middle_get_one_clear_line(tmp_path, capsys, suffix):
    whole, rows = tmp_path / f"w.{suffix}", polygon(600)
    if suffix in ("npy", "npz"):
        (np.save if suffix == "npy" else np.savez)(whole, rows.numpy())
    else:
        (torch.save if suffix == "pt" else save_file)({"w": rows}, whole)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert main(["margins", str(whole)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("FILE must be readable")
    assert len(err.splitlines()) == 1


def one_line(capsys, *arguments: object) -> str:
    """What the command says as it refuses."""
    assert main([str(x) for x in arguments]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def test_an_older_pt_cut_anywhere_gets_one_clear_line(tmp_path, capsys):
    path = tmp_path / "w.pt"
    torch.save({"w": polygon(20)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for cut in range(1, len(whole), 7):
        path.write_bytes(whole[:cut])
        assert one_line(capsys, "margins", path).startswith("FILE must")


def test_wrong_bytes_anywhere_in_a_file_are_refused_in_one_line_or_are_other_numbers(tmp_path, capsys):
    generator = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "w.npz", w=polygon(40).numpy())
    np.save(tmp_path / "w.npy", polygon(40).numpy())
    torch.save(polygon(40), tmp_path / "w.pt")
    for path in sorted(tmp_path.glob("w.*")):
        whole = path.read_bytes()
        for _ in range(60):
            torn = bytearray(whole)
            for place in generator.integers(len(torn), size=3):
                torn[place] = generator.integers(256)
            path.write_bytes(torn)
            if main(["margins", str(path)]) != 0:
                assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "bin", "tar"])
def test_a_file_is_read_by_what_it_holds_whatever_its_ending(tmp_path, capsys, suffix):
    torch.save({"w": polygon(5)}, tmp_path / "w.pt")
    (tmp_path / "w.pt").rename(tmp_path / f"w.{suffix}")
    assert answer(capsys, "margins", tmp_path / f"w.{suffix}")["num_classes"] == 5


def test_tensors_without_dense_values_are_not_taken_for_matrices(tmp_path, capsys):
    torch.save({"a": polygon(5).to_sparse(), "b": polygon(5).to("meta")}, tmp_path / "w.pt")
    told = "without one: a (a sparse tensor, which is not read), b (a meta tensor, which is not read)"
    assert told in one_line(capsys, "margins", tmp_path / "w.pt")


def test_a_parameter_is_a_matrix_like_another(tmp_path, capsys):
    torch.save(torch.nn.Parameter(polygon(5)), tmp_path / "w.pt")
    assert len(answer(capsys, "margins", tmp_path / "w.pt", "--top", "1")["classes"]) == 1


def test_codes_on_a_line_are_refused_in_one_line(tmp_path, capsys):
    for wanted in (("--optimise",), ("--output", tmp_path / "c"), ("--temperature", 0.2)):
        assert "--dim must be at least 2" in one_line(capsys, "code", "--classes", 7, "--dim", 1, *wanted)
    assert answer(capsys, "code", "--classes", 7, "--dim", 1)["reference_margin_upper"] >= 0


def test_the_code_is_in_the_file_that_is_named(tmp_path, capsys):
    facts = answer(capsys, "code", "--classes", 6, "--dim", 3, "--output", tmp_path / "code")
    assert np.load(facts["output"]).shape == (6, 3)


def test_measure_gives_every_metric_of_features_and_only_those_that_exist(tmp_path, capsys):
    means = polygon(5)
    labels = torch.arange(5).repeat_interleave(4)
    features = means[labels] + 0.01 * torch.randn(
        20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    np.savez(tmp_path / "f.npz", features=features, labels=labels, weights=means)
    facts = answer(capsys, "measure", tmp_path / "f.npz", "--normalization", "both", "--temperature", 0.1)
    assert facts["margin_min_lower"] == pytest.approx(1 - np.cos(2 * np.pi / 5))
    assert 0 < facts["gnc1_rank"] < 1e-3
    assert facts["ncc_test_accuracy"] is None
    np.savez(tmp_path / "g.npz", features=features, labels=labels)
    alone = answer(capsys, "measure", tmp_path / "g.npz", "--normalization", "both")
    assert "margin_min_lower" not in alone
    assert any("no columns about rows" in note for note in alone["notes"])
    assert "gnc3" not in alone
    assert alone["gnc1_rank"] == facts["gnc1_rank"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.array([0, 1, -1, 0])}, "labels must lie in 0..1, got -1..1"),
        ({"labels": np.array([0, 2, 2, 0])}, "every class must have samples, got none for class 1"),
        ({"labels": np.array([0.7, 1.2, 0.1, 1.0])}, "labels must be integers"),
        (
            {"labels": np.array([], dtype=np.int64), "features": np.ones((0, 2))},
            "labels must be integers below .*, at least one",
        ),
        ({"labels": np.array(1)}, "features must be .samples, dim. and labels .samples."),
        ({"labels": np.array([0, 1])}, "features must be .samples, dim. and labels .samples."),
        ({"features": np.full((4, 2), np.nan)}, "features must be finite"),
        ({"weights": np.ones((2, 3))}, "weights must be .classes, 2."),
        ({"weights": np.ones((0, 2))}, "weights must be .classes, 2."),
        ({"weights": np.full((2, 2), np.nan)}, "weights must be finite, got 2 rows"),
        ({"weights": np.ones((2, 2), dtype=complex)}, "weights must be real, got torch.complex128"),
        ({"labels": np.array([0, 1, 10**12, 1])}, "got 1,000,000,000,001 classes and 4 samples"),
        (
            {"features": np.full((4, 2), 1e200)},
            r"largest of features must be between 1e-100 and 1e\+100 in size, got 1e\+200",
        ),
        ({"features": np.eye(4)[:, :2] * 1e-170}, r"largest of features must be between .* got 1e-170"),
        ({"test_features": np.ones((4, 2))}, "test_features and test_labels must be in the file together"),
        (
            {"weights": np.ones((2, 2), dtype=np.longdouble)},
            "weights of .* must hold numbers, got numbers of more than 8 bytes",
        ),
        ({"weights": np.array(["a", "b"])}, "weights must hold numbers"),
        ({"test_features": np.ones((0, 2)), "test_labels": np.array([0])}, r"test_features must be .samples, 2."),
        ({"test_features": np.ones((3, 2)), "test_labels": np.array([0])}, "test_labels must be one per row"),
        (
            {"test_features": np.ones((4, 2)), "test_labels": np.array([0.2, 1.7, 0.0, 1.0])},
            "test_labels must be integers",
        ),
    ],
)
def test_wrong_features_get_one_clear_line(tmp_path, capsys, change, words):
    arrays = {"features": np.random.default_rng(0).normal(size=(4, 2)), "labels": np.array([0, 1, 0, 1])}
    np.savez(tmp_path / "f.npz", **{**arrays, **change})
    assert re.search(words, one_line(capsys, "measure", tmp_path / "f.npz"))


def test_measure_of_a_results_folder_agrees_with_its_rows(tmp_path, capsys):
    store = open_store(tmp_path / "results")
    settings = {"dataset": "synthetic", "encoder": "mlp", "width": 8, "num_classes": 6, "feature_dim": 3, "steps": 5}
    config = make_config({**settings, "batch_size": 20})
    Execution(config, store, attempt=1).run()
    (facts,) = answer(capsys, "measure", store.uri)
    row = store.read().to_pylist()[-1]
    for name in ("margin_min_lower", "mean_margin_min_upper", "max_cosine", "gnc3_uncentred"):
        assert facts[name] == pytest.approx(row[name], rel=1e-5)
    head = dict(store.read_head(config.key))
    head["class_means"][2] = np.nan  # as of a token without a context that counted
    store.write_head(config.key, save(head))
    (present,) = answer(capsys, "measure", store.uri)
    assert present["margin_min_lower"] == facts["margin_min_lower"]
    assert present["mean_margin_min_upper"] >= facts["mean_margin_min_upper"]
    assert 0 <= present["gnc3_uncentred"] < 2
    assert main(["measure", str(store.uri) + "-absent"]) == 2


def test_measure_keeps_the_digits_of_class_means_that_nearly_agree_with_their_rows(tmp_path, capsys):
    rows = polygon(5)
    angle = 1e-6  # 1 - cos is 5e-13: as a difference from 1 it would have three digits
    means = rows * np.cos(angle) + torch.stack([-rows[:, 1], rows[:, 0]], dim=1) * np.sin(angle)
    expected = 2 * np.sin(angle / 2) ** 2
    store = open_store(tmp_path / "results")
    store.write_head("0" * 16, save({"weights": rows.numpy(), "class_means": means.numpy()}))
    (kept,) = answer(capsys, "measure", store.uri)
    labels = np.arange(5)
    np.savez(tmp_path / "f.npz", features=means, labels=labels, weights=rows)
    assert kept["gnc3_uncentred"] == pytest.approx(expected, rel=1e-8, abs=0)
    assert answer(capsys, "measure", tmp_path / "f.npz")["gnc3_uncentred"] == pytest.approx(expected, rel=1e-8, abs=0)


def test_the_search_of_the_command_is_that_of_the_library(tmp_path, capsys):
    facts = answer(capsys, "code", "--classes", 7, "--dim", 3, "--optimise", "--starts", 2, "--seed", 5)
    found = optimise_code(7, 3, starts=2, seed=5)
    assert facts["code_margin_lower"] == found.margin_lower
    assert facts["code"] == "optimised from 2 starts, seed 5"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--starts", 3), "--starts must come with a search, got none here. Add --optimise."),
        (("--classes", 4, "--seed", 3, "--output", "x.npy"), "A code is known; --optimise searches for another."),
        (("--temperature", 0.1, "--starts", 3), "The optimum is known; --optimise searches for another."),
        (("--results", "r"), "--results must come with --temperature, got 'r' alone."),
        (("--output", ""), "--output must name a file, got ''."),
    ],
)
def test_an_option_of_code_without_effect_is_refused(capsys, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert main(["code", "--classes", "24", "--dim", "3", *map(str, options)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_integers_are_named_as_what_a_classifier_is_not(capsys, tmp_path):
    np.save(tmp_path / "w.npy", np.arange(8).reshape(4, 2))
    assert main(["margins", str(tmp_path / "w.npy")]) == 2
    assert "without one: array (4, 2) int64." in capsys.readouterr().err


def test_arrays_under_other_names_are_named_where_one_is_missing(capsys, tmp_path):
    np.savez(tmp_path / "f.npz", Features=np.eye(3), labels=np.arange(3))
    assert main(["measure", str(tmp_path / "f.npz")]) == 2
    assert "got ['labels']; the array 'Features' is not used. Did you mean 'features'?" in capsys.readouterr().err
