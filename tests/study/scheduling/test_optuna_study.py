"""Stored trials in a file of Optuna: read back by Optuna itself, and opened by optuna-dashboard on loopback."""

import json
import socket
import threading
import urllib.request
import wsgiref.simple_server

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gnc.cli.main import main
from study.design.study_file import parse_study
from study.execution.attempt import Execution
from study.store.store import open_store
from study.training.trial import Trial

STUDY = """
name = "little-search"
[fixed]
dataset = "indices"
encoder = "unconstrained"
loss = "log_cross_entropy"
samples_per_class = 1
batch_size = 5
steps = 20
feature_dim = 2
[grid]
num_classes = [5, 6]
seed = [0]
[search]
learning_rate = { log_uniform = [0.01, 1.0] }
[tune]
method = "random"
num_samples = 3
metric = "margin_min_lower"
mode = "max"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six trials: four complete, one stopped, one failed."""
    folder = tmp_path_factory.mktemp("search") / "results"
    store, study = open_store(folder), parse_study(STUDY)
    store.write_study(STUDY)
    *complete, stopped, failing = study.configs
    for config in complete:
        assert Execution(config, store, attempt=1, device="cpu").run(should_stop=lambda: False) == "complete"
    trial = Trial(stopped, device="cpu")
    trial.run_epoch()
    Execution(stopped, store, attempt=1)._finish(trial, "stopped", "a scheduler ended it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "write_head", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert Execution(failing, store, attempt=1, device="cpu").run(should_stop=lambda: False) == "failed"
    return folder


def opened(path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def test_every_trial_is_read_back_by_optuna_as_it_is_stored(folder, tmp_path, capsys):
    path = tmp_path / "trials.log"
    assert main(["export", str(folder), "--optuna", str(path)]) == 0
    assert f"optuna-dashboard {path}" in capsys.readouterr().out
    names = optuna.get_all_study_names(opened(path))
    assert sorted(names) == ["little-search: num_classes=5", "little-search: num_classes=6"]
    studies = [optuna.load_study(study_name=name, storage=opened(path)) for name in sorted(names)]
    assert all(study.direction.name == "MAXIMIZE" and study.metric_names == ["margin_min_lower"] for study in studies)
    trials = {trial.user_attrs["trial"]: trial for study in studies for trial in study.trials}
    stored = {row["trial"]: row for row in open_store(folder).read(last=True).to_pylist()}
    states = open_store(folder).states()
    assert {key: trial.state.name for key, trial in trials.items()} == {
        key: {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}[state] for key, state in states.items()
    }
    for key, trial in trials.items():
        if states[key] == "complete":
            assert trial.value == stored[key]["margin_min_lower"]
            assert trial.params == {"learning_rate": stored[key]["learning_rate"]}
            assert trial.intermediate_values[stored[key]["epoch"]] == trial.value
            assert trial.datetime_complete > trial.datetime_start
    best = max((row for key, row in stored.items() if states[key] == "complete"), key=lambda r: r["margin_min_lower"])
    assert max(study.best_value for study in studies) == best["margin_min_lower"]


def test_optuna_dashboard_opens_the_file(folder, tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    from optuna_dashboard._storage_url import get_storage

    path = tmp_path / "trials.log"
    main(["export", str(folder), "--optuna", str(path), "--metric", "gnc3_uncentred", "--mode", "min"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # as `optuna-dashboard FILE` opens it
    server = wsgiref.simple_server.make_server("127.0.0.1", port, dashboard.wsgi(get_storage(str(path))))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=30) as answer:
            listed = json.load(answer)["study_summaries"]
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/studies/{listed[0]['study_id']}", timeout=30
        ) as answer:
            shown = json.load(answer)
    finally:
        server.shutdown()
        server.server_close()
    assert {one["study_name"] for one in listed} == {f"little-search: num_classes={k}" for k in (5, 6)}
    assert [direction.lower() for direction in shown["directions"]] == ["minimize"]
    assert len(shown["trials"]) == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--metric", "accuracy"], "--metric"),
        (
            ["--metric", "test_accuracy", "--mode", "max", "--mode", "min"],
            "--mode must be given once for each of 1 metrics",
        ),
    ],
)
def test_a_wrong_metric_or_mode_is_refused_and_nothing_is_written(folder, tmp_path, capsys, more, words):
    path = tmp_path / "trials.log"
    assert main(["export", str(folder), "--optuna", str(path), *more]) == 2
    assert words in capsys.readouterr().err
    assert not path.exists()


def test_an_existing_file_a_missing_folder_and_an_empty_results_folder_are_refused(folder, tmp_path, capsys):
    (tmp_path / "there").write_text("mine")
    assert main(["export", str(folder), "--optuna", str(tmp_path / "there")]) == 2
    assert "which exists" in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "mine"
    assert main(["export", str(folder), "--optuna", str(tmp_path / "no" / "file")]) == 2
    assert "must lie in a folder that exists" in capsys.readouterr().err
    empty = tmp_path / "empty"
    open_store(empty).write_study(STUDY)
    assert main(["export", str(empty), "--optuna", str(tmp_path / "new.log")]) == 2
    assert "must have a trial that ended" in capsys.readouterr().err
    assert not (tmp_path / "new.log").exists()


def test_a_metric_that_nobody_measured_makes_its_trials_fail_with_the_reason(folder, tmp_path):
    path = tmp_path / "trials.log"
    assert main(["export", str(folder), "--optuna", str(path), "--metric", "label_entropy", "--mode", "min"]) == 0
    study = optuna.load_study(study_name="little-search: num_classes=5", storage=opened(path))
    assert {trial.state.name for trial in study.trials} == {"FAIL"}
    assert {trial.user_attrs["reason"] for trial in study.trials} == {"label_entropy was not measured"}
