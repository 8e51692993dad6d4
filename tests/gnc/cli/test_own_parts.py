"""Trials with parts of one's own: their code goes through the results folder, and what lies there alone is not run unasked."""

import shutil
from pathlib import Path

import pytest

from gnc.cli.main import main
from gnc_models.catalog import parts
from study.design.config import TrialConfig
from study.design.study_file import read_study
from study.execution.attempt import INTERRUPTED, Execution
from study.execution.local_workers import run_here
from study.store.store import Store, open_store
from tests.conftest import comparable, run_gnc

PARTS = """
import torch
from torch import nn

def make_net(in_shape, feature_dim, width=8):
    return nn.Sequential(nn.Linear(in_shape[0], width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, feature_dim))

def make_data(classes=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 5, generator=draw)
    labels = torch.arange(classes).repeat_interleave(12)
    return tuple((centres[labels] + 0.1 * torch.randn(len(labels), 5, generator=draw), labels) for _ in range(2))

def contrast(features, labels, weights, temperature, scale=1.0):
    return scale * nn.functional.cross_entropy(features @ weights.T / temperature, labels)

def norm(features, labels, weights):
    return features.norm(dim=1).mean()

def odd(features, labels, weights):
    return float("nan") if len(features) > 20 else 1.0  # the checks see fewer

def breaks(in_shape, feature_dim):
    return nn.Sequential(nn.Linear(in_shape[0], feature_dim), Breaking())

class Breaking(nn.Module):
    def forward(self, features):
        raise RuntimeError("the original words")
"""
STUDY = """
name = "own"
[fixed]
num_classes = 4
feature_dim = 3
samples_per_class = 10
test_samples_per_class = 4
batch_size = 13
steps = 12
learning_rate = 0.01
measure = "every"
dataset = "parts.py:make_data"
encoder = "parts.py:{encoder}"
loss = "parts.py:contrast"
metrics = ["parts.py:norm", "parts.py:odd"]
loss_options.scale = 0.5
[grid]
{grid}
[resources]
checkpoint_seconds = 0
"""


@pytest.fixture
def study(tmp_path) -> Path:
    return write(tmp_path)


def write(folder: Path, *, encoder: str = "make_net", grid: str = "encoder_options.width = [8, 16]") -> Path:
    (folder / "parts.py").write_text(PARTS)
    path = folder / "own.toml"
    path.write_text(STUDY.format(encoder=encoder, grid=grid))
    return path


def configs_of(study: Path, store: Store) -> tuple[TrialConfig, ...]:
    """The study's trials, its code in the store as a run puts it there, and none of it held by this process."""
    found = read_study(study)
    store.write_study(found.text, found.code)
    forget()
    return found.configs


def forget() -> None:
    """As a process that was just started on another machine."""
    parts._HELD.clear()
    parts.load_part.cache_clear()
    parts._load_file.cache_clear()


def test_a_trial_takes_its_code_from_the_folder_and_keeps_the_values_of_own_metrics(study, tmp_path):
    store = open_store(tmp_path / "results")
    config, wider = configs_of(study, store)
    (tmp_path / "parts.py").unlink()
    assert Execution(config, store, attempt=1, device="cpu").run() == "complete"
    rows = store.read(["epoch", "custom", "feature_norm_mean", "objective", "train_loss"]).to_pylist()
    assert len(rows) == 4  # the untrained network and three epochs
    for row in rows:
        assert dict(row["custom"]) == {"norm": pytest.approx(row["feature_norm_mean"], rel=1e-5), "odd": None}
    store.seal()
    assert store.read(["custom"]).to_pylist() == [{"custom": row["custom"]} for row in rows]
    assert config.key != wider.key


def test_an_interrupted_trial_goes_on_in_another_process_with_the_same_rows(study, tmp_path):
    whole, parted = open_store(tmp_path / "whole"), open_store(tmp_path / "parted")
    config = configs_of(study, whole)[0]
    configs_of(study, parted)
    assert Execution(config, whole, attempt=1, device="cpu").run() == "complete"
    assert Execution(config, parted, attempt=1, device="cpu").run(should_stop=lambda: True) == INTERRUPTED
    forget()
    assert Execution(config, parted, attempt=1, device="cpu").run() == "complete"
    assert comparable(parted.read()) == comparable(whole.read())


def test_several_workers_share_a_trial(tmp_path):
    store = open_store(tmp_path / "results")
    (config,) = configs_of(write(tmp_path, grid="workers = [2]"), store)
    assert run_here(config, store, device="cpu") == ("complete", None)
    last = store.read(["custom", "feature_norm_mean"], last=True).to_pylist()[0]
    assert dict(last["custom"])["norm"] == pytest.approx(last["feature_norm_mean"], rel=1e-5)


def test_a_failure_keeps_the_original_exception_and_the_line_of_the_study(tmp_path):
    store = open_store(tmp_path / "results")
    (config,) = configs_of(write(tmp_path, encoder="breaks", grid="seed = [0]"), store)
    assert Execution(config, store, attempt=1, device="cpu").run() == "failed"
    failure = store.failure_of(config.key, 1)
    assert failure["reason"] == "RuntimeError: the original words; in encoder = 'parts.py:breaks' of the study"
    log = store.storage.read(f"logs/{config.key}.1.log").decode()
    assert '    raise RuntimeError("the original words")' in log  # the part's own line
    assert f"<parts.py {config.encoder_source[:8]}>" in log


def test_a_file_that_was_changed_in_the_folder_is_not_run(study, tmp_path):
    store = open_store(tmp_path / "results")
    config = configs_of(study, store)[0]
    store.storage.write(f"code/{config.encoder_source}.py", PARTS.replace("ReLU", "Tanh").encode())
    assert Execution(config, store, attempt=1, device="cpu").run() == "failed"
    assert "must be the file of that digest" in store.failure_of(config.key, 1)["reason"]


def test_code_of_a_folder_runs_only_where_it_is_allowed(study, tmp_path, capsys):
    results = tmp_path / "results"
    key = configs_of(study, open_store(results))[0].key
    (tmp_path / "parts.py").unlink()
    assert main(["trial", str(results), key]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"--allow-code must be given to run code that {results} has or names, got parts.py:contrast,"
    )
    stored = tmp_path / "copy.toml"
    stored.write_text(open_store(results).latest_study())  # as a study file it says no more about whose code it is
    assert main(["run", str(stored), str(results)]) == 2
    assert "--allow-code must be given" in capsys.readouterr().err
    assert main(["check", str(stored), str(results)]) == 0
    assert f"Only {results} has or names parts.py:contrast" in capsys.readouterr().out
    array = ["slurm", str(stored), str(results), "--cpus", "1", "--tasks", "2", "--time", "60"]
    assert main(array) == 2
    assert "--allow-code must be given" in capsys.readouterr().err
    assert main([*array, "--allow-code"]) == 0
    assert f"run {stored} {results} --allow-code &" in capsys.readouterr().out
    done = run_gnc("trial", results, key, "--allow-code")
    assert "complete" in done.stderr


def test_best_and_merge_take_the_code_along(study, tmp_path, capsys):
    results = tmp_path / "results"
    store = open_store(results)
    for config in configs_of(study, store):
        assert Execution(config, store, attempt=1, device="cpu").run() == "complete"
    merged, elsewhere = tmp_path / "merged", tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert main(["merge", str(results), str(merged)]) == 0
    shutil.rmtree(results)
    best = elsewhere / "best.toml"
    by = ["--by", "num_classes", "--metric", "test_accuracy"]
    assert main(["best", str(merged), *by, "--write", str(best)]) == 0
    assert (elsewhere / "parts.py").read_text() == PARTS
    forget()
    (winner,) = read_study(best).configs
    assert winner.key in store_states(merged)
    assert read_study(best).code_elsewhere == ()
    assert main(["report", str(merged)]) == 0
    assert "parts.py:make_net" in (merged / "report" / "report.html").read_text()
    assert main(["compare", str(merged), str(merged)]) == 0
    capsys.readouterr()


def store_states(results: Path) -> dict[str, str]:
    return open_store(results).states()


def test_best_writes_no_file_outside_the_new_study_s_folder(tmp_path, capsys):
    (tmp_path / "lab").mkdir()
    study = write(tmp_path / "lab", grid="seed = [0]")
    shutil.move(tmp_path / "lab" / "parts.py", tmp_path / "parts.py")
    study.write_text(study.read_text().replace('"parts.py', '"../parts.py'))
    store = open_store(tmp_path / "results")
    (config,) = configs_of(study, store)
    assert Execution(config, store, attempt=1, device="cpu").run() == "complete"
    (tmp_path / "parts.py").unlink()
    by = ["--by", "num_classes", "--metric", "test_accuracy"]
    assert main(["best", store.uri, *by, "--write", str(tmp_path / "lab" / "best.toml")]) == 0
    assert not (tmp_path / "parts.py").exists()
    capsys.readouterr()


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_run_on_ray_equals_trials_in_process(study, tmp_path):
    alone = open_store(tmp_path / "alone")
    for config in configs_of(study, alone):
        assert Execution(config, alone, attempt=1, device="cpu").run() == "complete"
    run_gnc("run", study, tmp_path / "results")
    assert comparable(open_store(tmp_path / "results").read()) == comparable(alone.read())
