"""Trials on streamed data: rows are those of held data, alone and shared, after a kill too, which leaves no process."""

import os
import signal
from pathlib import Path

import pytest

from gnc.cli.main import main
from gnc_models.datasets.samples.room import HELD, Room
from gnc_models.datasets.samples.streamed import Streamed
from study.design.config import TrialConfig
from study.design.study_file import read_study
from study.execution.granted import data_room
from study.execution.local_workers import run_here
from study.store.store import open_store
from study.training.trial import Trial
from tests.conftest import comparable, start_gnc, wait_for
from tests.gnc_models import stored_layouts as layouts

STUDY = """
name = "pictures"
[fixed]
dataset = "image_folder"
folder = "set"
resolution = 8
num_classes = 3
samples_per_class = 8
test_samples_per_class = 4
ood_classes = 1
encoder = "nets.py:make_net"
loss = "nets.py:contrast"
metrics = ["nets.py:norm"]
layers = "all"
augmentation = "crop_flip"
attack_radii = "0.1"
feature_dim = 3
batch_size = 7
learning_rate = 0.02
measure = "every"
steps = {steps}
[grid]
workers = [{workers}]
[resources]
checkpoint_seconds = 0
"""
NETS = """
from torch import nn

def make_net(in_shape, feature_dim):
    inputs = in_shape[0] * in_shape[1] * in_shape[2]
    hidden = nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)
    network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(16, feature_dim))
    network.feature_stages = lambda: [("hidden", network[3])]
    return network

def contrast(features, labels, weights, temperature):
    cosines = nn.functional.normalize(features, dim=1) @ nn.functional.normalize(weights, dim=1).T
    return nn.functional.cross_entropy(cosines / temperature, labels)

def norm(features, labels, weights):
    return features.norm(dim=1).mean()
"""
SETTINGS = {"dataset": "image_folder", "folder": "set", "resolution": 8, "num_classes": 3, "samples_per_class": 8}
SETTINGS |= {"test_samples_per_class": 4, "feature_dim": 3, "batch_size": 7, "steps": 8, "measure": "every"}
SETTINGS |= {"encoder": "mlp", "width": 8, "depth": 1, "ood_classes": 1, "augmentation": "crop_flip"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GNC_DATA", str(tmp_path))
    layouts.write_image_classes(tmp_path / "set", [f"name {i}" for i in range(5)], 20, seed=4)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def write(folder: Path, *, steps: int, workers: int = 1) -> Path:
    path = folder / "pictures.toml"
    path.write_text(STUDY.format(steps=steps, workers=workers))
    return path


def stores_of(path: Path):
    """The study's one trial, and two folders that have its code."""
    study = read_study(path)
    stores = open_store(path.parent / "held"), open_store(path.parent / "streamed")
    for store in stores:
        store.write_study(study.text, study.code)
    return study.configs[0], *stores


@pytest.mark.parametrize(
    "more",
    [
        {"attack_radii": "0.05, 0.2", "layers": "all"},
        {"precision": "float64", "classifier": "fixed", "assignment": "similarity", "code": "random"},
        {"imbalance": "step", "imbalance_ratio": 2.0, "label_noise": 0.2, "steps": 5},
    ],
)
def test_a_trial_measures_the_same_on_streamed_data(more):
    found = []
    for room in (HELD, Room(0, 0)):
        trial = Trial(TrialConfig(**SETTINGS | more), device="cpu", room=room)
        assert isinstance(trial.training.train_inputs, Streamed) == (room is not HELD)
        while not trial.is_done:
            trial.run_epoch()
        found.append([{**vars(m), "wall_seconds": 0, "peak_memory_bytes": 0} for m in trial.measurements])
        found[-1].append({name: value.tolist() for name, value in trial.training.tensors().items()})
    assert repr(found[0]) == repr(found[1])


def processes_below(parent: int) -> set[int]:
    """Numbers of all processes that this one started, and these started in turn."""
    found = set()
    for task in Path(f"/proc/{parent}/task").glob("*"):
        for child in map(int, (task / "children").read_text().split()):
            found |= {child, *processes_below(child)}
    return found


def is_there(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_killed_trial_leaves_no_process_and_goes_on_to_the_rows_of_held_data(folder, monkeypatch):
    study = write(folder, steps=80)
    config, held, streamed = stores_of(study)
    assert run_here(config, held, device="cpu")[0] == "complete"
    monkeypatch.setenv("GNC_DATA_SHARE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trial = start_gnc("trial", study, "", "--results", folder / "streamed")
    wait_for(lambda: [live for live in streamed.read_live() if live.rows.num_rows > 2], "three epochs", seconds=250)
    os.kill(trial.pid, signal.SIGSTOP)
    children = processes_below(trial.pid)
    assert children
    os.kill(trial.pid, signal.SIGKILL)
    trial.communicate()
    wait_for(lambda: not any(map(is_there, children)), "the end of the process that reads", seconds=60)
    assert run_here(config, streamed, device="cpu")[0] == "complete"
    (log,) = (folder / "streamed" / "logs").glob("*.2.log")
    assert "continues from epoch" in log.read_text()
    assert comparable(streamed.read()) == comparable(held.read())
    last = comparable(held.read())[-1]
    assert (last["layer_names"], last["custom"][0][0]) == (["hidden", "features"], "norm")


def test_check_says_which_road_the_data_take_and_why(folder, monkeypatch, capsys):
    study = write(folder, steps=8)
    assert main(["check", str(study), str(folder / "r")]) == 0
    assert "data: the images of a trial on set take 0.0 MiB of the " in (said := capsys.readouterr().out)
    assert said.endswith(": they are held in memory.\n")
    monkeypatch.setenv("GNC_DATA_SHARE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["check", str(study), str(folder / "r")]) == 0
    assert "would take 0.0 MiB, more than the 0.0 MiB that a trial's inputs may take here (0 of " in (
        said := capsys.readouterr().out
    )
    assert said.endswith("they are streamed by 1 process beside each worker.\n")


def test_workers_of_a_trial_each_stream_their_share(folder, monkeypatch):
    config, held, streamed = stores_of(write(folder, steps=4, workers=2))
    assert run_here(config, held, device="cpu") == ("complete", None)
    monkeypatch.setenv("GNC_DATA_SHARE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run_here(config, streamed, device="cpu") == ("complete", None)
    assert comparable(streamed.read()) == comparable(held.read())


def test_a_picture_that_cannot_be_read_ends_a_streamed_trial_once(folder, monkeypatch):
    monkeypatch.setenv("GNC_DATA_SHARE", "0")
    for path in (folder / "set").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60]) if path.stem == "7" else None
    store = open_store(folder / "results")
    state, reason = run_here(TrialConfig(**SETTINGS | {"samples_per_class": 16}), store, device="cpu")
    assert state == "failed"
    assert "7.png must be an image that can be read" in reason
    assert "\n" not in reason


@pytest.mark.parametrize("wrong", ["half", "1.5", "-1", "nan"])
def test_a_share_that_is_none_is_refused(wrong, monkeypatch):
    monkeypatch.setenv("GNC_DATA_SHARE", wrong)
    with pytest.raises(ValueError, match=f"GNC_DATA_SHARE must be from 0 to 1, a share of the memory, got '{wrong}'"):
        data_room()


def test_the_room_is_a_processors_part_of_the_share(monkeypatch):
    monkeypatch.setattr("study.execution.granted.usable_memory", lambda: 64 << 30)
    monkeypatch.setattr("study.execution.granted.usable_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert data_room()[:2] == (4 << 30, 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("GNC_DATA_SHARE", "0.25")
    assert data_room()[:2] == (2 << 30, 2)
    assert data_room().told("they", 3 << 30) == (
        "they would take 3.0 GiB, more than the 2.0 GiB that a trial's inputs may take here (0.25 of 64.0 GiB, over 8 "
        "processors): they are streamed by 2 processes beside each worker."
    )
