"""Results folders as they are found: real trials that ended in every way, real torn files, both formats.

Each gives a page with a clear sentence and what can be told from the rest, or a refusal in words; never a traceback.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.rows.frames import final_rows, load_study
from gnc.cli.main import main
from study.design.study_file import parse_study
from study.execution.attempt import Execution
from study.store.schemas import RESULTS_SCHEMA
from study.store.store import open_store
from study.training.trial import Trial

pytestmark = pytest.mark.xdist_group("folders")  # its fixtures take longer than its tests: built in one process

STUDY = """
name = "as-found"
[fixed]
dataset = "synthetic"
encoder = "mlp"
width = 16
depth = 1
feature_dim = 3
samples_per_class = 8
test_samples_per_class = 2
batch_size = 32
steps = 30
[[grid]]
num_classes = [6, 12]
seed = [0, 1]
learning_rate = [0.1]
[[grid]]
num_classes = [8]
seed = [0]
learning_rate = [1e9]
[[grid]]
num_classes = [10, 14, 16]
seed = [0]
learning_rate = [0.1]
"""
FORMATS = ("html", "md")


def run(store, config, *, stop_after: int | None = None) -> str:
    """One trial in this process, asked to stop after some epochs where that is wanted."""
    asked = iter(range(1, 1000))
    return Execution(config, store, attempt=1, device="cpu").run(
        should_stop=lambda: stop_after is not None and next(asked) >= stop_after
    )


@pytest.fixture(scope="session")
def found(tmp_path_factory) -> Path:
    """A folder with four complete trials, a stopped, a diverged, a failed and a half-finished one."""
    folder = tmp_path_factory.mktemp("found") / "results"
    store, study = open_store(folder), parse_study(STUDY)
    store.write_study(STUDY)
    *configs, failing, stopped = study.configs
    ends = [run(store, config, stop_after=2 if config.num_classes == 10 else None) for config in configs]
    assert sorted(ends) == ["complete"] * 4 + ["diverged", "interrupted"]
    trial = Trial(stopped, device="cpu")
    trial.run_epoch()
    Execution(stopped, store, attempt=1)._finish(trial, "stopped", "a scheduler ended it")
    with pytest.MonkeyPatch.context() as patch:  # a disk that is full when the kept head is written
        patch.setattr(store, "write_head", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert run(store, failing) == "failed"
    return folder


@pytest.fixture
def folder(found, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(found, tmp_path / "results"))


def report(folder: Path, capsys, page_format: str = "html") -> str:
    """What `gnc report` prints and writes, as one text; a traceback or a bare NaN in it fails the test."""
    assert main(["report", str(folder), "--format", page_format]) == 0
    said = capsys.readouterr()
    text = said.out + said.err + (folder / "report" / f"report.{page_format}").read_text()
    assert "Traceback (most recent call last)" not in text
    json.loads((folder / "report" / "fits.json").read_text())
    return text


def files(folder: Path, below: str) -> list[Path]:
    return sorted(path for path in (folder / below).iterdir() if path.is_file())


def cut(path: Path) -> None:
    """Half of the file, as a kill or a full disk leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("page_format", FORMATS)
def test_trials_that_ended_in_every_way_give_a_partial_report(folder, capsys, page_format):
    text = report(folder, capsys, page_format)
    assert "4 complete, 1 stopped, 1 diverged, 1 failed" in text
    assert "1 trial of the study has not been run or not finished" in text
    assert "No space left on device" in text
    assert "3 of 7 trials not complete" in text


@pytest.mark.parametrize("page_format", FORMATS)
def test_torn_files_of_every_kind_are_named_and_the_rest_is_reported(folder, capsys, page_format):
    complete = final_rows(folder)["trial"].to_pylist()
    torn = [folder / "rows" / f"{complete[0]}.parquet"]
    torn += [folder / "margins" / f"{complete[1]}.parquet", folder / "heads" / f"{complete[1]}.safetensors"]
    torn += [files(folder, "failures")[0]]
    for path in torn:
        cut(path)
    (folder / "rows" / "0000000000000000.parquet").write_bytes(b"")
    (folder / "rows" / "notes.parquet").write_bytes(b"not a table")
    text = report(folder, capsys, page_format)
    assert "3 complete, 1 stopped, 1 diverged" in text
    for name in (f"rows/{complete[0]}.parquet", "rows/0000000000000000.parquet", "rows/notes.parquet"):
        assert f"warning: {name} cannot be read" in text
    assert f"failures/{torn[-1].name}" in text


@pytest.mark.parametrize("name", ["results.parquet", "trials.parquet"])
@pytest.mark.parametrize("damage", ["cut", "empty", "pages"])
def test_a_torn_sealed_table_is_made_again_from_the_trials_own_files(folder, capsys, name, damage):
    before = final_rows(folder)
    open_store(folder).seal()
    path = folder / name
    content = path.read_bytes()
    if damage == "pages":  # the footer still reads
        pages = len(content) - pq.read_metadata(path).serialized_size - 8
        path.write_bytes(content[:4] + random.Random(0).randbytes(pages - 4) + content[pages:])
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    text = report(folder, capsys)
    assert "4 complete, 1 stopped, 1 diverged, 1 failed" in text
    assert f"warning: {name} cannot be read" in text
    assert final_rows(folder).drop_columns(["reference_version"]).equals(before.drop_columns(["reference_version"]))


def test_tables_sealed_by_an_older_minor_version_are_reported(folder, capsys):
    before = final_rows(folder)
    open_store(folder).seal()
    path = folder / "results.parquet"
    table = pq.read_table(path).drop_columns(["imbalance", "label_noise", "gnc3_cross"])
    pq.write_table(table.replace_schema_metadata({b"schema_version": b"1.0"}), path)
    assert "4 complete, 1 stopped, 1 diverged, 1 failed" in report(folder, capsys)
    after = final_rows(folder)
    assert after.select(["imbalance", "margin_min_lower"]).equals(before.select(["imbalance", "margin_min_lower"]))


def test_some_trials_sealed_and_some_fresh_read_as_if_none_were_sealed(folder):
    fresh = open_store(folder).read()
    complete = final_rows(folder)["trial"].to_pylist()
    aside = folder.parent / "aside.parquet"
    for key in (complete[0], complete[-1]):  # the first and the last by key: their rows belong around the sealed ones
        kept = folder / "rows" / f"{key}.parquet"
        content, times = kept.read_bytes(), kept.stat()
        kept.rename(aside)
        open_store(folder).seal()
        assert key not in pq.read_table(folder / "results.parquet")["trial"].to_pylist()
        aside.rename(kept)
        os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert kept.read_bytes() == content
        for columns in (None, ["trial", "epoch", "margin_min_lower"], ["num_classes"]):
            names = RESULTS_SCHEMA.names if columns is None else [n for n in RESULTS_SCHEMA.names if n in columns]
            assert open_store(folder).read(columns).equals(fresh.select(names))
        assert final_rows(folder)["trial"].to_pylist() == complete
        assert open_store(folder).read(["epoch"], last=True).num_rows == 6


def test_a_trial_run_again_after_sealing_is_read_from_its_own_file(folder):
    store = open_store(folder)
    store.seal()
    sealed = store.read()
    key = final_rows(folder)["trial"].to_pylist()[1]
    path = folder / "rows" / f"{key}.parquet"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # another file by its time: it is read instead of the table
    assert open_store(folder).read().equals(sealed)
    cut(path)
    store = open_store(folder)
    told: list[str] = []
    assert key not in store.read(on_unreadable=told.append)["trial"].to_pylist()
    assert told == [f"rows/{key}.parquet"]


@pytest.mark.parametrize("page_format", FORMATS)
@pytest.mark.parametrize("kept", ["one trial", "one K", "failures alone"])
def test_little_or_nothing_gives_a_clear_sentence(folder, capsys, kept, page_format):
    final = final_rows(folder)
    by_size = dict(zip(final["trial"].to_pylist(), final["num_classes"].to_pylist(), strict=True))
    wanted = {"one trial": set(list(by_size)[:1]), "one K": {key for key, size in by_size.items() if size == 12}}
    for path in files(folder, "rows"):
        if path.stem not in wanted.get(kept, set()):
            path.unlink()
    if kept != "failures alone":
        shutil.rmtree(folder / "failures")
    shutil.rmtree(folder / "live")
    text = report(folder, capsys, page_format)
    expected = {
        "one trial": "No trend in the number of classes can be told",
        "one K": "No trend in the number of classes can be told",
        "failures alone": "No trial is complete, so there is no answer yet.",
    }
    assert expected[kept] in text


FREE = """
name = "free"
[fixed]
dataset = "indices"
encoder = "unconstrained"
loss = "log_cross_entropy"
samples_per_class = 1
batch_size = 5
steps = 20
measure = "final"
[grid]
feature_dim = [2, 3]
num_classes = [5, 6]
"""


@pytest.mark.parametrize("page_format", FORMATS)
def test_one_sample_a_class_has_no_variability_and_its_margins_are_reported(tmp_path, capsys, page_format):
    store, study = open_store(tmp_path / "free"), parse_study(FREE)
    store.write_study(FREE)
    assert {run(store, config) for config in study.configs} == {"complete"}
    text = report(tmp_path / "free", capsys, page_format)
    assert "4 complete" in text
    assert "the trials were measured only at their end" in text


def test_a_folder_that_is_not_there_and_one_of_another_kind_are_refused_in_words(tmp_path, capsys):
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "does not exist" in capsys.readouterr().err
    other = tmp_path / "other"
    (other / "rows").mkdir(parents=True)
    (other / "notes.txt").write_text("not a study")
    for command in (["report"], ["report", "--check"], ["contrast", "--setting", "loss"]):
        assert main([command[0], str(other), *command[1:]]) == 2
        assert "RESULTS must be a results folder" in capsys.readouterr().err
    assert sorted(path.name for path in other.iterdir()) == ["notes.txt", "rows"]


@pytest.mark.parametrize("torn", [False, True])
def test_a_folder_without_a_trial_that_can_be_read_gives_one_sentence_and_no_report(folder, capsys, torn):
    if torn:
        for path in [*files(folder, "rows"), *files(folder, "failures")]:
            cut(path)
    else:
        shutil.rmtree(folder / "rows")
        shutil.rmtree(folder / "failures")
    assert main(["report", str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"No trial in {folder} {'can be read' if torn else 'has finished yet'}")
    assert len(said.err.splitlines()) == 1
    assert not (folder / "report").exists()


def test_the_contrast_command_prints_a_table_and_draws_or_refuses_in_a_sentence(folder, tmp_path, capsys):
    arguments = ["contrast", str(folder), "--measure", "margin_min_lower", "--measure", "test_accuracy"]
    assert main([*arguments, "--setting", "normalization"]) == 2
    assert "normalization must vary" in capsys.readouterr().err
    assert main([*arguments, "--setting", "num_classes", "--where", "num_class == 3"]) == 2
    assert "Did you mean 'num_classes'" in capsys.readouterr().err
    for bound, words in {
        "gnc1_rank=2": "--bound must be COLUMN=SIZE of a compared measure, got 'gnc1_rank=2'. Compared: margin_min_lower",
        "0.01": "--bound must be COLUMN=SIZE of a compared measure, got '0.01'",
        "test_accuracy=small": "--bound must give test_accuracy a number, got 'small'. Write test_accuracy=0.01.",
        "test_accuracy=nan": "bound of test_accuracy must be above 0, got nan. It is a difference.",
    }.items():
        assert main([*arguments, "--setting", "num_classes", "--bound", bound]) == 2
        assert words in capsys.readouterr().err
    figure = tmp_path / "figures" / "contrast.png"
    assert main([*arguments, "--setting", "num_classes", "--where", "seed >= 0", "--figure", str(figure)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("### The effect of num_classes where seed >= 0\n\n| measure | num_classes | seeds |")
    assert "| margin_min_lower | 6 | 2 | 1 | 2 of 2 |" in text
    assert "With 2 seeds no verdict is given: at least 5 are needed." in text
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_torn_study_file_and_a_torn_report_do_not_stop_the_next_one(folder, capsys):
    report(folder, capsys)
    (study,) = files(folder, "studies")
    study.write_bytes(b'name = "as-fo')
    (folder / "report" / "predictions.json").write_bytes(b'{"predictions": [')
    text = report(folder, capsys)
    assert "the study file is no longer valid" in text
    assert "4 complete, 1 stopped, 1 diverged, 1 failed" in text
    assert load_study(open_store(folder)).missing == 0
