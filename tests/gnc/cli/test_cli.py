"""The command line: data on stdout, refusals in a line or two on stderr, exit codes."""

import json
import os
import pty
import re
import select
import subprocess
import sys

import pyarrow as pa
import pytest

from gnc.cli.main import main
from study.design.study_file import read_study
from study.store.schemas import identity_and_settings, to_parquet
from study.store.store import open_store
from tests.conftest import run_gnc
from tests.study.conftest import finish, made_up_config, made_up_record


def test_check_says_what_is_stored_missing_and_what_it_costs(study_file, tmp_path, capsys):
    study = study_file()
    assert main(["check", str(study), str(tmp_path / "r")]) == 0
    assert "The cost of 4 of the 4 trials to run is unknown; --probe measures it." in capsys.readouterr().out
    store = open_store(tmp_path / "r")
    for config in read_study(study).configs[:3]:
        store.write_fragment(config, [], made_up_record(seconds=10.0))
    assert main(["check", str(study), str(tmp_path / "r"), "--trials"]) == 0
    lines = capsys.readouterr().out.splitlines()[:4]
    assert [line.split()[:2] for line in lines] == [
        [config.key, state]
        for config, state in zip(read_study(study).configs, ["complete"] * 3 + ["missing"], strict=True)
    ]
    assert main(["check", str(study), str(tmp_path / "r"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["trials"], len(facts["missing"]), facts["unpriced"]) == (4, 1, 0)
    # same steps and samples a step for every K here, up to an epoch's rounding: about ten seconds too
    assert facts["seconds"] == pytest.approx(10, rel=0.3)
    assert facts["price_source"] == "stored trials"


def test_missing_data_are_told_with_their_cure_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GNC_DATA", str(tmp_path / "none"))
    study = tmp_path / "stored.toml"
    study.write_text('name = "stored"\n[fixed]\ndataset = "cifar10"\nnum_classes = 4\n[grid]\nfeature_dim = [2, 3]\n')
    assert main(["check", str(study), str(tmp_path / "r")]) == 0
    assert "missing: cifar10 needs data_batch_1" in capsys.readouterr().out
    keys = [config.key for config in read_study(study).configs]
    for command in (
        ["run", str(study), str(tmp_path / "r")],
        ["trial", str(study), keys[0], "--results", str(tmp_path / "r")],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "Get it with: python -m gnc_models.datasets.stored.fetching cifar10" in said
    assert open_store(tmp_path / "r").states() == {}


def test_a_probe_prices_kinds_that_were_never_run(study_file, tmp_path, capsys):
    assert main(["check", str(study_file()), str(tmp_path / "r"), "--probe", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["price_source"] == "probe"
    assert 0 < facts["seconds"] < 600
    assert not (tmp_path / "r").exists()


def test_status_covers_the_latest_study_and_counts_the_others(study_file, tmp_path, capsys):
    study, store = study_file(), open_store(tmp_path)
    store.write_study(study.read_text())
    finish(store, made_up_config())
    finish(store, read_study(study).configs[0])
    assert main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 complete, 3 not started" in out
    assert "1 trial of other studies" in out
    assert main(["status", str(tmp_path), "--all", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["trials"], facts["complete"]) == (2, 2)


def test_a_study_is_named_where_the_last_one_was_meant(study_file, tmp_path, capsys):
    study, store = study_file(), open_store(tmp_path / "r")
    text = study.read_text()
    store.write_study(text)
    store.write_study(
        text.replace('name = "small"', 'name = "other"').replace("num_classes = [6, 12]", "num_classes = [7]")
    )
    for words, trials in (([], 2), (["--study", "small"], 4), (["--study", "other"], 2)):
        assert main(["status", store.uri, *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["trials"] == trials
    assert main(["status", store.uri, "--study", "smal"]) == 2
    assert "--study must name a study that was run in" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", store.uri, "--study", "small", "--all"])
    assert main(["report", store.uri, "--study", "small"]) == 1
    assert "No trial in" in capsys.readouterr().err
    finish(store, read_study(study).configs[0])
    assert main(["report", store.uri]) == 1
    assert "No trial of the study in" in capsys.readouterr().err
    assert main(["trial", store.uri, "0", "--study", "smal"]) == 2
    assert main(["trial", str(study), "0", "--study", "small"]) == 2
    assert "--study must come with a results folder, got the study file" in capsys.readouterr().err


def test_a_trial_can_be_named_by_a_folder_and_the_first_digits_of_its_key(study_file, tmp_path, capsys):
    study = study_file()
    store = open_store(tmp_path / "r")
    store.write_study(study.read_text())
    key = read_study(study).configs[1].key
    assert main(["trial", str(tmp_path / "r"), key[:10]]) == 0
    assert store.states() == {key: "complete"}
    assert "epoch 0" in capsys.readouterr().err
    assert main(["trial", str(study), "", "--results", str(tmp_path / "r")]) == 2
    assert "KEY must name one trial of small, got '', which names 4" in capsys.readouterr().err
    assert main(["seal", str(tmp_path / "r")]) == 0
    assert "of 1 trial, 1 new" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "absent.toml"], "study file must be a readable TOML file, got 'absent.toml'"),
        (["status", "foo://x"], "RESULTS must be a folder or a URI"),
        (["status", "absent"], "RESULTS must be a results folder, got 'absent'"),
        (["seal", "absent"], "RESULTS must be a results folder"),
        (["report", "absent"], "RESULTS must be a results folder"),
        (["trial", "absent", "0"], "RESULTS must be a results folder"),
    ],
)
def test_wrong_input_exits_2_with_one_clear_line(arguments, words, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_results_folder_that_is_not_there_is_told_the_nearest_folder_never_a_file(tmp_path, capsys):
    (tmp_path / "small-run.log").write_text("")
    assert main(["status", str(tmp_path / "small-run")]) == 2
    assert capsys.readouterr().err.rstrip().endswith("which does not exist. Name one that is there.")
    (tmp_path / "small-runs").mkdir()
    assert main(["status", str(tmp_path / "small-run")]) == 2
    assert f"Did you mean {str(tmp_path / 'small-runs')!r}?" in capsys.readouterr().err


def test_a_wrong_study_exits_2_names_the_file_and_starts_nothing(study_file, tmp_path, capsys):
    study = study_file(num_classes="[6, 1]")
    assert main(["run", str(study), str(tmp_path / "r")]) == 2
    err = capsys.readouterr().err
    assert "num_classes must be at least 2, got 1" in err
    assert f"in study file {study}" in err
    assert not (tmp_path / "r").exists()
    assert main(["run", str(study_file()), str(tmp_path / "r"), "--max-concurrent", "0"]) == 2


def test_a_file_where_the_results_folder_should_be_exits_2(study_file, tmp_path, capsys):
    (tmp_path / "r").write_text("")
    assert main(["run", str(study_file()), str(tmp_path / "r")]) == 2
    assert "results folder must be a folder" in capsys.readouterr().err


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="must be a readable TOML file"):
        main(["--debug", "check", "absent.toml"])


def test_a_folder_of_an_unknown_major_version_is_refused(tmp_path):
    table = pa.table({"trial": ["x"]}).replace_schema_metadata({"schema_version": "9.0"})
    open_store(tmp_path).storage.write("trials.parquet", to_parquet(table))
    done = run_gnc("status", tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("schema_version must be 1.x, got '9.0'")


LIVE_VIEW = """
from study.tuning.run_view import View
with View(3, already_done=5) as view:
    view.started("a", "K=6 d=3")
    view.started("b", "K=12 d=3")
    view.progressed("a", {"epoch": 4, "share_done": 0.5, "train_accuracy": 0.75, "gnc1_rank": 1e-3})
    view.ended("b", "diverged", {"reason": "loss was nan"})
"""


def test_the_live_view_on_a_terminal_shows_counts_figures_and_what_went_wrong():
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    view = subprocess.Popen([sys.executable, "-c", LIVE_VIEW], stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            shown += os.read(leader, 1 << 16)
        except OSError:  # the other end is closed: the process has ended
            break
    assert view.wait() == 0
    text = shown.decode(errors="replace")
    figures = ("K=6 d=3", "50%", "0.750", "1.00e-03")
    for words in ("0 done", "1 running", "1 failed", "of 3", "(+5 stored)", "left", "loss was nan", *figures):
        assert words in text


def test_a_stored_study_file_that_is_no_longer_valid_hides_no_rows(tmp_path, capsys):
    store = open_store(tmp_path)
    finish(store, made_up_config())
    store.write_study('name = "old"\n[grid]\nof_the_past = [1]')
    assert main(["status", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "1 complete" in captured.out
    assert "no longer valid" in captured.err


def test_a_failure_that_was_overcome_is_not_shown(tmp_path, capsys):
    store, config = open_store(tmp_path), made_up_config()
    failure = {"attempt": 1, "state": "failed", "reason": "it did", "settings": identity_and_settings(config)}
    store.write_failure(config.key, 1, failure)
    assert main(["status", str(tmp_path)]) == 0
    assert "it did" in capsys.readouterr().out
    finish(store, config)
    assert main(["status", str(tmp_path)]) == 0
    assert "it did" not in capsys.readouterr().out


def test_mixed_machines_are_told(tmp_path, capsys):
    store = open_store(tmp_path)
    for seed, cpu in enumerate(("one CPU", "another CPU")):
        finish(store, made_up_config(seed=seed), cpu_model=cpu, versions="{}")
    assert main(["status", str(tmp_path)]) == 0
    assert "2 values of cpu_model (another CPU; one CPU)" in capsys.readouterr().err


def test_checking_a_study_names_a_torn_checkpoint(study_file, tmp_path, capsys):
    store = open_store(tmp_path / "results")
    name = "checkpoints/0123456789abcdef/00000001.checkpoint"
    store.storage.write(name, b"{")
    assert main(["check", str(study_file()), store.uri]) == 0
    assert f"warning: {name} cannot be read" in capsys.readouterr().err


def test_a_trial_of_a_search_has_no_index_since_its_place_changes(study_file, tmp_path, capsys):
    study = study_file()
    search = "[search]\nlearning_rate = { log_uniform = [0.01, 0.5] }\n"
    tune = '[tune]\nmethod = "optuna"\nnum_samples = 1\nmetric = "test_accuracy"\nmode = "max"\n'
    study.write_text(study.read_text().replace("learning_rate = 0.1\n", "") + search + tune)
    for _ in range(2):
        assert main(["trial", str(study), "--next", "--results", str(tmp_path / "r")]) == 0
    capsys.readouterr()
    assert main(["check", str(study), str(tmp_path / "r"), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["planned"]
    assert len(planned) >= 2
    assert {trial["index"] for trial in planned} == {None}


@pytest.mark.parametrize("command", ["check", "slurm", "trial"])
def test_a_path_that_readers_take_for_a_column_is_warned_of_by_every_command_that_is_to_fill_it(
    command, study_file, tmp_path, capsys
):
    place = str(tmp_path / "x=1")
    words = {
        "check": ["check", str(study_file()), place],
        "slurm": ["slurm", str(study_file()), place, "--cpus", "1", "--tasks", "1", "--time", "60"],
        "trial": ["trial", str(study_file()), "--index", "9", "--results", place],
    }[command]
    main(words)
    assert "warning: x=1 in the path of the results is read as a column" in capsys.readouterr().err


def test_an_index_names_the_same_trial_in_check_and_in_trial(study_file, tmp_path, capsys):
    study, results = str(study_file()), str(tmp_path / "r")
    keys = [config.key for config in read_study(study).configs]
    for where, indices in (([], [0, 1, 2, 3]), (["--where", "num_classes > 6"], [2, 3])):
        assert main(["check", study, results, "--json", *where]) == 0
        planned = json.loads(capsys.readouterr().out)["planned"]
        assert [trial["index"] for trial in planned] == indices
        assert [trial["key"] for trial in planned] == [keys[index] for index in indices]
    assert main(["trial", study, "--index", "2", "--results", results]) == 0
    assert " left" in capsys.readouterr().err
    assert open_store(results).states() == {keys[2]: "complete"}
    assert main(["check", study, results, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["planned"][2]["state"] == "complete"
    open_store(results).take(keys[2], "run-killed-as-it-ended", after=0)
    assert main(["trial", study, "--index", "2", "--results", results]) == 0  # nothing to run
    assert open_store(results).claims() == {}
    for words, said in (
        (["--index", "4"], "--index must be 0 to 3 in small, got 4. See gnc check --json."),
        (["--index", "1", "--next"], "gnc trial must be given one of KEY, --next and --index, got 2 of them."),
    ):
        assert main(["trial", study, "--results", results, *words]) == 2
        assert said in capsys.readouterr().err


LINES = """
import time
from study.tuning import run_view
run_view.APART_SECONDS = 0
with run_view.View(2) as view:
    time.sleep(1.0)  # starting up, which no trial after it does again
    for key in ("a", "b"):
        view.started(key, f"trial {key}")
    view.progressed("a", {"epoch": 4, "share_done": 0.25})
    time.sleep(0.5)
    view.progressed("a", {"epoch": 8, "share_done": 0.5})
    view.ended("a", "complete", {})
    view.ended("b", "complete", {})
"""


def test_without_a_terminal_lines_tell_the_time_left():
    done = subprocess.run([sys.executable, "-c", LINES], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [line[:14] for line in lines] == ["[0/2] running ", "[0/2] running ", "[1/2] complete", "[2/2] complete"]
    assert lines[0].endswith("25% done, estimating time left")
    assert re.search(r"50% done, (\d+ min )?\d+ s left$", lines[1])
    assert re.search(r"; [12] s left$", lines[2])
    assert not lines[3].endswith(" left")
