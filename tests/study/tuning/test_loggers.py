"""TensorBoard, MLflow and Weights & Biases: logs written by the real tools and read back; a broken one ends nothing."""

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gnc.cli.main import main
from study.design.errors import StudyError
from study.design.study_file import CALLBACKS, Study, parse_study
from study.store.store import Store, open_store
from study.tuning import loggers
from study.tuning.loggers import TOOLS, check_callbacks, folder_id, numbers_of
from study.tuning.logging_callback import NAMES, LoggingCallback
from tests.study.conftest import made_up_measurement, made_up_record

STUDY = 'name = "logged"\n[grid]\nnum_classes = [12, 24]\nfeature_dim = [3]\nseed = [0, 1]\n[log]\ncallbacks = ["tensorboard"]\n'


@pytest.fixture(autouse=True)
def _no_tracking_elsewhere(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("study.tuning.logging_callback.CLOSE_SECONDS", 250.0)  # what is logged here is read here


def rows_of(config, epochs: int = 4) -> list:
    return [made_up_measurement(e, train_loss=config.num_classes / (1 + e), test_accuracy=None) for e in range(epochs)]


def run(callback: LoggingCallback, store: Store, config, *, seen=(0, 2), state: str = "complete") -> None:
    """A trial as Tune shows it: some measurements on the way, the rest in the store at its end."""
    trial = SimpleNamespace(
        config={"key": config.key, "settings": json.dumps(config.settings())}, last_result={"state": state}
    )
    rows = rows_of(config)
    callback.on_trial_start(0, [], trial)
    for epoch in seen:
        columns = {name: getattr(rows[epoch], name) for name in NAMES}
        callback.on_trial_result(
            0, [], trial, {**columns, "measured": True, "state": "running", "training_iteration": 1}
        )
    callback.on_trial_result(0, [], trial, {"epoch": 3, "share_done": 0.9, "measured": False})
    if state == "complete":
        store.write_fragment(config, rows, made_up_record())
    callback.on_trial_complete(0, [], trial)


def run_all(store: Store, name: str, *configs, study: str = STUDY, **how) -> None:
    callback = LoggingCallback(name, parse_study(study), store)
    for config in configs:
        run(callback, store, config, **how)
    callback.on_experiment_end([])


def configs() -> tuple:
    return parse_study(STUDY).configs[::2]


def test_the_names_a_study_may_use_are_the_tools_there_are():
    assert set(CALLBACKS) == set(TOOLS)


def test_tensorboard_holds_every_row_of_each_trial_once(store):
    pytest.importorskip("tensorboardX")
    run_all(store, "tensorboard", *configs())
    for config in configs():
        points = read_events(Path(store.uri) / "callbacks" / "tensorboard" / config.key)
        assert sorted(points["train_loss"]) == [(10 * e, pytest.approx(config.num_classes / (1 + e))) for e in range(4)]
        assert sorted(points["epoch"]) == [(10 * e, e) for e in range(4)]
        assert "test_accuracy" not in points  # null is no number
        assert set(points) >= {"margin_min_lower", "gnc1_rank"}


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of the event files in a folder, by tag: records are a length, a checksum, an event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    points: dict[str, list[tuple[int, float]]] = {}
    for file in folder.glob("events.*"):
        content, at = file.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def test_mlflow_holds_a_run_a_trial_with_settings_as_parameters(store, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: pip install 'gnc-study[mlflow]'")
    from mlflow import MlflowClient

    first, second = configs()
    run_all(store, "mlflow", first, second)
    run_all(store, "mlflow", second, state="interrupted")  # logged anew: the last attempt's run takes the place
    client = MlflowClient(f"sqlite:///{store.uri}/callbacks/mlflow/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "logged"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"K=12 seed=0", "K=24 seed=0"}
    assert runs["K=12 seed=0"].info.status == "FINISHED"
    assert runs["K=24 seed=0"].info.status == "KILLED"
    assert runs["K=12 seed=0"].data.params["num_classes"] == "12"
    tags = runs["K=12 seed=0"].data.tags
    assert (tags["trial"], tags["cell"], tags["study"]) == (first.key, f"K=12 {first.cell[:8]}", "logged")
    assert json.loads(tags["units"])["margin_min_lower"] == "distance"
    history = client.get_metric_history(runs["K=12 seed=0"].info.run_id, "train_loss")
    assert sorted((m.step, m.value) for m in history) == [(10 * e, 12 / (1 + e)) for e in range(4)]
    assert "test_accuracy" not in runs["K=12 seed=0"].data.metrics


def test_two_results_folders_on_one_mlflow_server_leave_each_other_their_runs(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: pip install 'gnc-study[mlflow]'")
    from mlflow import MlflowClient

    server = f"sqlite:///{tmp_path}/server.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    config, mine, theirs = configs()[0], open_store(tmp_path / "mine"), open_store(tmp_path / "theirs")
    client = MlflowClient(server)
    old = client.create_run(client.create_experiment("logged"), run_name=config.key, tags={"trial": config.key})
    run_all(theirs, "mlflow", config)
    run_all(mine, "mlflow", config, state="interrupted")
    run_all(open_store(mine.uri), "mlflow", config)  # the same folder again: this run takes the place of its own alone
    runs = client.search_runs([old.info.experiment_id])
    assert {run.data.tags["trial"] for run in runs} == {config.key}
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED", "RUNNING"]
    assert old.info.run_id in {run.info.run_id for run in runs}


def test_a_results_folder_has_one_id_that_neither_its_copy_nor_another_with_its_path_has(tmp_path):
    store = open_store(tmp_path / "one")
    known = folder_id(store)
    assert folder_id(open_store(store.uri)) == known
    shutil.copytree(store.uri, tmp_path / "copy")
    assert folder_id(open_store(tmp_path / "copy")) != known
    shutil.rmtree(store.uri)  # as on another machine
    assert folder_id(open_store(store.uri)) != known


def test_two_results_folders_give_one_trial_two_wandb_runs_and_one_folder_the_same_again(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'gnc-study[wandb]'")
    config = configs()[0]
    ids = []
    for folder in ("mine", "mine", "theirs"):
        run_all(open_store(tmp_path / folder), "wandb", config)
        (file,) = (tmp_path / folder / "callbacks" / "wandb" / config.key).rglob("*.wandb")
        ids.append(file.stem.removeprefix("run-"))
    assert ids[0] == ids[1] != ids[2]
    assert all(name.startswith(config.key) for name in ids)


def test_wandb_writes_offline_runs_where_it_knows_no_key(store, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))  # where a key would lie
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'gnc-study[wandb]'")
    (first, second) = configs()
    run_all(store, "wandb", first, second)
    assert wandb.run is None
    for config in (first, second):
        losses = sorted(
            (row["step"], row["train_loss"]) for row in read_wandb(Path(store.uri), config.key) if "train_loss" in row
        )
        assert losses == [(10.0 * e, pytest.approx(config.num_classes / (1 + e))) for e in range(4)]


def read_wandb(results: Path, key: str, what: str = "history") -> list:
    """Records of an offline run (history rows as dicts): a LevelDB log of protocol buffers, behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    (file,) = (results / "callbacks" / "wandb" / key).rglob("*.wandb")
    content, at, data, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        data += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record.FromString(data)
            data = b""
            if record.WhichOneof("record_type") == what == "run":
                rows.append(record.run)
            elif record.WhichOneof("record_type") == what:
                rows.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
    return rows


PROJECT = STUDY.replace('["tensorboard"]', '["wandb", "mlflow"]\nproject = "shared"\ntags = ["paper", "draft-2"]')


def test_the_runs_of_wandb_and_mlflow_have_project_group_tags_and_units_of_the_study(store):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: pip install 'gnc-study[mlflow]'")
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'gnc-study[wandb]'")
    from mlflow import MlflowClient

    (config, _) = configs()
    for name in ("wandb", "mlflow"):
        run_all(store, name, config, study=PROJECT)
    (run,) = read_wandb(Path(store.uri), config.key, "run")
    assert (run.project, run.display_name) == ("shared", "K=12 seed=0")
    assert (run.run_group, list(run.tags)) == (f"K=12 {config.cell[:8]}", ["paper", "draft-2"])
    given = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert given["units"]["margin_min_lower"] == "distance"
    assert (given["trial"], given["study"], given["num_classes"]) == (config.key, "logged", 12)
    client = MlflowClient(f"sqlite:///{store.uri}/callbacks/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("shared").experiment_id])
    assert (run.data.tags["tag.paper"], run.data.tags["tag.draft-2"]) == ("true", "true")


def test_a_study_of_one_trial_names_its_run_by_the_key():
    study = parse_study('name = "one"\n[fixed]\nnum_classes = 12\n[grid]\nfeature_dim = [3]')
    (config,) = study.configs
    trial = loggers.logged_trial(config, study)
    assert (trial.name, trial.group) == (config.key, config.cell[:8])


class Broken:
    """A tool that fails at every call."""

    def __init__(self, study: Study, store: Store) -> None:
        self.close = self.start = self.log = self.end = self._refuse

    def _refuse(self, *_: object) -> None:
        raise RuntimeError("the server is gone\nand more")


class Slow(Broken):
    """A tool that answers only when it is let go."""

    let_go = threading.Event()

    def _refuse(self, *_: object) -> None:
        self.let_go.wait(60)


def test_a_tool_that_raises_ends_nothing_and_is_said_once(store, monkeypatch, capsys):
    monkeypatch.setitem(TOOLS, "wandb", loggers.Tool("json", "", Broken))
    run_all(store, "wandb", *configs())
    assert capsys.readouterr().err.count("wandb cannot log every trial; the run continues: the server is gone\n") == 1


def test_a_tool_that_cannot_be_made_is_tried_again_and_ends_nothing(store, monkeypatch, capsys):
    def refuse(study: Study, folder: Store) -> Broken:
        raise OSError("no room")

    monkeypatch.setitem(TOOLS, "mlflow", loggers.Tool("json", "", refuse))
    run_all(store, "mlflow", *configs())
    assert capsys.readouterr().err.count("no room") == 1


def test_a_slow_tool_keeps_no_trial_waiting(store, monkeypatch, capsys):
    monkeypatch.setitem(TOOLS, "wandb", loggers.Tool("json", "", Slow))
    monkeypatch.setattr("study.tuning.logging_callback.CLOSE_SECONDS", 0.1)
    run_all(store, "wandb", *configs())  # returns although the tool has answered nothing
    assert "wandb did not finish in 0 s: its log may lack trials" in capsys.readouterr().err
    Slow.let_go.set()
    deadline = time.monotonic() + 60
    while any(thread.name == "log-wandb" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_tool_that_is_not_installed_is_refused_before_anything_starts(tmp_path, monkeypatch, capsys, store):
    monkeypatch.setitem(TOOLS, "wandb", loggers.Tool("no_such_module", "pip install 'gnc-study[wandb]'", Broken))
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace("tensorboard", "wandb"))
    for command in ("check", "run"):
        assert main([command, str(path), store.uri]) == 2
        err = capsys.readouterr().err
        assert "got 'wandb' without its package no_such_module. pip install 'gnc-study[wandb]'" in err
    assert not Path(store.uri).exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('callbacks = ["tensorbord"]', "got 'tensorbord'. Did you mean 'tensorboard'?"),
        ('callbacks = "tensorboard"', "must be a list, got 'tensorboard'. It is: names of logging tools"),
        ('callbacks = ["mlflow", "mlflow"]', "must be distinct"),
        ("callback = []", "Did you mean 'callbacks'?"),
        ('project = "mine"', '[log] project must be left out unless callbacks has "mlflow" or "wandb"'),
        ('callbacks = ["wandb"]\nproject = "a/b"', "[log] project must hold none of"),
        ('callbacks = ["wandb"]\ntags = ["a b"]', "[log] tag must be a word of letters"),
        ('callbacks = ["wandb"]\ntags = ["a", "a"]', "[log] tags must be distinct"),
    ],
)
def test_a_wrong_log_table_is_refused(table, words):
    with pytest.raises(StudyError) as refused:
        parse_study(STUDY.replace('callbacks = ["tensorboard"]', table))
    assert words in str(refused.value)


def test_a_log_changes_no_key():
    without = parse_study(STUDY.split("[log]")[0])
    assert [c.key for c in without.configs] == [c.key for c in parse_study(STUDY).configs]


def test_mlflow_needs_a_place_where_results_are_no_folder(tmp_path, monkeypatch):
    remote = SimpleNamespace(uri="s3://bucket/x", storage=SimpleNamespace(is_local=False))
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    with pytest.raises(StudyError, match="MLFLOW_TRACKING_URI must be set"):
        check_callbacks(["mlflow"], remote)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    check_callbacks(["mlflow"], remote)


def test_only_finite_numbers_are_logged():
    columns = {"a": 1, "b": float("nan"), "c": None, "d": True, "e": "x", "f": 2.5, "g": [1.0]}
    assert numbers_of(columns, columns) == {"a": 1.0, "d": 1.0, "f": 2.5}
