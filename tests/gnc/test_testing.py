"""Contracts of parts of one's own: a right part passes, and each wrong one is told in one line that says what is wrong."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from gnc.testing import BrokenPart, check_dataset, check_encoder, check_loss, check_metric
from tests.conftest import run_gnc

INPUTS = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def make_right(in_shape, feature_dim, width=8):
    inputs = int(np.prod(in_shape))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, feature_dim)
    )


def test_right_parts_pass():
    check_encoder(make_right, inputs=INPUTS, feature_dim=3, options={"width": 5})
    check_loss(lambda features, labels, weights: nn.functional.cross_entropy(features @ weights.T, labels), **SIZES)
    check_metric(lambda features, labels, weights: features.norm(), **SIZES)
    found = check_dataset(lambda: (arrays(), arrays(seed=1)), **DATA)
    assert [*found.train_inputs.shape, *found.test_inputs.shape] == [12, 5, 6, 5]


SIZES = {"num_classes": 4, "feature_dim": 3}
DATA = {"num_classes": 3, "samples_per_class": 4, "test_samples_per_class": 2}


def arrays(seed=0, samples=40):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(samples, 5)).astype("float32"), np.arange(samples) % 4


class Scaled(nn.Module):
    """A right network whose output something wrong is done to."""

    def __init__(self, in_shape, feature_dim, change):
        super().__init__()
        self.network, self.change = make_right(in_shape, feature_dim), change

    def forward(self, inputs):
        return self.change(self, self.network(inputs))


def changed(change):
    return lambda in_shape, feature_dim: Scaled(in_shape, feature_dim, change)


def after(act, make=make_right):
    """A factory that does something else besides."""

    def factory(in_shape, feature_dim):
        act()
        return make(in_shape, feature_dim)

    return factory


def unsavable(in_shape, feature_dim):
    class Extra(nn.Sequential):
        def get_extra_state(self):
            return {"anything": 1}

        def set_extra_state(self, state):
            pass

    return Extra(*make_right(in_shape, feature_dim))


def randomly_filled(in_shape, feature_dim):
    network = make_right(in_shape, feature_dim)
    network[1].weight.data += torch.from_numpy(np.random.default_rng().normal(size=(8, 16))).float()
    return network


class Detach(nn.Module):
    def forward(self, features):
        return features.detach().requires_grad_()


WAIT = threading.Event()
WRONG_ENCODERS = {
    "must be callable, got int": 7,
    "must be callable as make(in_shape, feature_dim), got: missing a required argument: 'depth'": lambda a, b, depth: a,
    "must run, got ZeroDivisionError: division by zero": after(lambda: 1 / 0),
    "must return a torch.nn.Module, got int": lambda in_shape, feature_dim: 3,
    "must give features [batch, feature_dim], here [6, 3], got [6, 2]": lambda s, d: make_right(s, d - 1),
    "must give finite features": changed(lambda self, features: features * float("nan")),
    "must be the same network for the same seed": randomly_filled,
    "must give the same features for the same seed": changed(
        lambda self, features: features + float(np.random.default_rng().normal()) * self.training
    ),
    "must give the same features twice in evaluation": changed(lambda self, f: f + torch.randn(())),
    "must keep tensors alone in its state": unsavable,
    "must give a sample's features whatever its batch mates": changed(
        lambda self, features: features if self.training else features - features.mean(0)
    ),
    "must have a gradient": lambda in_shape, feature_dim: nn.Sequential(make_right(in_shape, feature_dim), Detach()),
    "leave no thread behind": after(lambda: threading.Thread(target=WAIT.wait, name="lingering").start()),
    "must not print, got hello": after(lambda: print("hello")),
    "must not end the process, got exit(3)": after(lambda: sys.exit(3)),
    "leave no process behind": after(lambda: subprocess.Popen(["sleep", "20"])),
    "as it is, got torch's default dtype": after(lambda: torch.set_default_dtype(torch.float64)),
    "as it is, got torch's seed": after(lambda: torch.manual_seed(0)),
    "as it is, got NumPy's random state": after(lambda: np.random.normal()),
    "as it is, got Python's random state": after(random.random),
    "as it is, got torch's number of threads": after(lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
}


@pytest.mark.parametrize("message", WRONG_ENCODERS)
def test_a_wrong_network_is_told_in_one_line(message):
    threads, dtype = threading.active_count(), torch.get_default_dtype()
    try:
        with pytest.raises(BrokenPart, match=re.escape(message)) as told:
            check_encoder(WRONG_ENCODERS[message], inputs=INPUTS, feature_dim=3, name="encoder 'nets.py:make'")
    finally:
        WAIT.set()
    assert "\n" not in str(told.value)
    assert str(told.value).startswith("encoder 'nets.py:make' must ")
    assert torch.get_default_dtype() == dtype  # what the part changed is put back
    WAIT.clear()
    assert threading.active_count() <= threads + 1


def test_what_a_fork_leaves_is_told_once():
    def fork():
        if os.fork() == 0:
            time.sleep(0.01)

    with pytest.raises(BrokenPart, match="must leave no process behind"):
        check_encoder(after(fork), inputs=INPUTS, feature_dim=3)


class Ending:
    """A data set that gives its samples once."""

    def __init__(self):
        self.left = iter(zip(*arrays(), strict=True))

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return next(self.left)


WRONG_DATA = {
    "must return a pair (train, test), got 1 of them": lambda: (arrays(),),
    "got generator, which ends after one pass": lambda: ((x for x in range(3)), arrays()),
    "must give data that can be read again, got an iterator that ended": lambda: (Ending(), arrays()),
    "train inputs must be finite": lambda: ((arrays()[0] * np.nan, arrays()[1]), arrays()),
    "train labels must be 40 whole numbers": lambda: ((arrays()[0], arrays()[1] + 0.5), arrays()),
    "train inputs must be [samples": lambda: ((arrays()[0][:, :, None], arrays()[1]), arrays()),
    "must have training and test inputs of one shape": lambda: (arrays(), (arrays()[0][:, :4], arrays()[1])),
    "samples_per_class must be at most 2": lambda: (arrays(samples=8), arrays()),
    "must give the same samples each time it is made": lambda: (arrays(seed=time.monotonic_ns()), arrays()),
}


@pytest.mark.parametrize("message", WRONG_DATA)
def test_a_wrong_data_set_is_told_in_one_line(message):
    with pytest.raises(BrokenPart, match=re.escape(message)) as told:
        check_dataset(WRONG_DATA[message], **DATA)
    assert "\n" not in str(told.value)


WRONG_LOSSES = {
    "must return a scalar tensor, got shape [8]": lambda features, labels, weights: features.sum(1),
    "must return a scalar tensor, got float": lambda features, labels, weights: 1.0,
    "must be finite, got nan": lambda features, labels, weights: features.sum() * float("nan"),
    "must have a finite gradient to the features, got none": lambda features, labels, weights: weights.sum(),
    "must leave its arguments as they are": lambda features, labels, weights: (features.data.mul_(2)).sum(),
    "must give the same value for the same arguments": lambda f, labels, weights: (
        f.sum() * np.random.default_rng().normal()
    ),
    "must be callable as loss(features, labels, weights, scale=...)": lambda features, labels, weights: features.sum(),
}


@pytest.mark.parametrize("message", WRONG_LOSSES)
def test_a_wrong_loss_is_told_in_one_line(message):
    with pytest.raises(BrokenPart, match=re.escape(message)):
        check_loss(WRONG_LOSSES[message], **SIZES, options={"scale": 1.0} if "scale" in message else None)


@pytest.mark.parametrize(
    ("value", "message"), [([1.0], "must return one number, got list"), (np.inf, "must be finite")]
)
def test_a_wrong_metric_is_told_in_one_line(value, message):
    with pytest.raises(BrokenPart, match=message):
        check_metric(lambda features, labels, weights: value, **SIZES)


STUDY = """
name = "wrong"
[fixed]
num_classes = 4
feature_dim = 3
samples_per_class = 4
batch_size = 8
steps = 2
dataset = "synthetic"
encoder = "parts.py:{encoder}"
metrics = ["parts.py:ends"]
[grid]
seed = [0]
"""
PARTS = """
import os
from torch import nn

def fails(in_shape, feature_dim):
    return nn.Linear(in_shape[0], widht)

def ends(features, labels, weights):
    os._exit(5)
"""


def test_check_tells_all_that_is_wrong_and_starts_nothing(tmp_path):
    (tmp_path / "parts.py").write_text(PARTS)
    study = tmp_path / "study.toml"
    study.write_text(STUDY.format(encoder="fails"))
    done = run_gnc("--debug", "check", study, tmp_path / "results", check=False)
    assert done.returncode == 1  # a traceback, as --debug asks
    lines = done.stderr.splitlines()
    assert "  encoder 'parts.py:fails' must run, got NameError: name 'widht' is not defined" in lines
    assert any(line.startswith("  metric 'parts.py:ends' must not end the process, got exit code 5") for line in lines)
    assert "    return nn.Linear(in_shape[0], widht)" in lines  # the part's own line, from its own traceback
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_a_part_that_ends_the_process_is_told_whatever_code_it_ends_with(tmp_path, code):
    (tmp_path / "parts.py").write_text(PARTS.replace("os._exit(5)", f"os._exit({code})"))
    (tmp_path / "study.toml").write_text(STUDY.format(encoder="fine"))
    with (tmp_path / "parts.py").open("a") as parts:
        parts.write("\ndef fine(in_shape, feature_dim):\n    return nn.Linear(in_shape[0], feature_dim)\n")
    done = run_gnc("check", tmp_path / "study.toml", tmp_path / "results", check=False)
    assert done.returncode == 2
    assert f"metric 'parts.py:ends' must not end the process, got exit code {code}" in done.stderr


def test_a_process_that_a_part_leaves_behind_does_not_hold_the_check(tmp_path):
    forks = "os.fork() or (time.sleep(3600), os._exit(0))"
    (tmp_path / "parts.py").write_text("import time" + PARTS.replace("os._exit(5)", forks))
    (tmp_path / "study.toml").write_text(STUDY.format(encoder="fails"))
    done = run_gnc("check", tmp_path / "study.toml", tmp_path / "results", check=False)
    left = re.search(r"metric 'parts.py:ends' must leave no process behind, got (\d+)", done.stderr)
    assert left is not None, done.stderr
    os.kill(int(left[1]), signal.SIGKILL)  # still there: the check ended without it


def test_check_names_what_the_file_has_where_a_name_is_wrong(tmp_path):
    (tmp_path / "parts.py").write_text(PARTS.replace("os._exit(5)", "return 1.0"))
    study = tmp_path / "study.toml"
    study.write_text(STUDY.format(encoder="fail"))
    done = run_gnc("check", study, tmp_path / "results", check=False)
    assert done.returncode == 2
    assert "parts.py:fail must name something in parts.py, got no 'fail' there. It has ['fails', 'ends']" in done.stderr
    assert "Traceback" not in done.stderr
