"""Collapse in the log of a real Lightning trainer, alone and in two processes, against `gnc.measure` of the same set."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import gnc
from tests.gnc.processes import in_two_processes
from tests.gnc.test_library import run_example
from tests.study.tuning.test_loggers import read_events

pl = pytest.importorskip(
    "lightning.pytorch", reason="lightning is not installed: pip install 'gnc-study[test-adapters]'"
)
from gnc.adapters.lightning import CollapseCallback

NAMES = ("gnc1_rank", "gnc1_quotient", "margin_min_lower", "margin_min_upper", "gnc3", "gnc3_uncentred")


class Network(pl.LightningModule):
    """Two layers and a head, on points around six centres."""

    def __init__(self, learning_rate=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        self.fc = torch.nn.Linear(4, 6)
        self.learning_rate = learning_rate

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        return torch.nn.functional.cross_entropy(self.fc(self.body(inputs)), labels)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


def points(size=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 6
    return torch.randn(6, 5, generator=generator)[labels] + 0.1 * torch.randn(size, 5, generator=generator), labels


def trainer(folder, *callbacks, **options):
    return pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def loader(data):
    return DataLoader(TensorDataset(*data), batch_size=20)


def test_what_is_logged_of_the_validation_set_is_what_measure_says_of_it(tmp_path):
    network, data = Network(), points()
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer(tmp_path, CollapseCallback("fc", stage="validate"), logger=logger).fit(
        network, loader(points(seed=1)), loader(data)
    )
    events = read_events(Path(logger.log_dir))
    features = network.body(data[0])
    expected = gnc.measure(features, data[1], network.fc.weight, bias=network.fc.bias, columns=NAMES)
    for name in NAMES:
        assert len(events[f"collapse/{name}"]) == 3
        assert events[f"collapse/{name}"][-1][1] == pytest.approx(expected[name], rel=1e-5)  # the log keeps float32


def test_a_validation_alone_is_measured_before_a_fit_and_after_it(tmp_path, recwarn):
    network, data = Network(), points()
    run = trainer(tmp_path, CollapseCallback("fc", stage="validate"), logger=False, enable_checkpointing=False)
    told = []
    for step in ("validate", "fit", "validate"):
        if step == "fit":
            run.fit(network, loader(points(seed=1)), loader(data))
        else:
            told += run.validate(network, loader(data), verbose=False)
        expected = gnc.measure(network.body(data[0]), data[1], network.fc.weight, bias=network.fc.bias, columns=NAMES)
        for name in NAMES:
            assert float(run.callback_metrics[f"collapse/{name}"]) == pytest.approx(expected[name], rel=1e-5)
    assert [set(NAMES) <= {name.removeprefix("collapse/") for name in one} for one in told] == [True, True]
    assert not [warning for warning in recwarn if "Collapse" in str(warning.message)]


def test_a_validation_is_none_of_the_business_of_a_callback_for_training(tmp_path, recwarn):
    run = trainer(tmp_path, CollapseCallback("fc"), logger=False, enable_checkpointing=False)
    run.validate(Network(), loader(points()), verbose=False)
    assert not [warning for warning in recwarn if "Collapse" in str(warning.message)]


def test_of_a_network_that_stands_still_the_training_batches_tell_the_same(tmp_path):
    network, data = Network(learning_rate=0.0), points()
    run = trainer(tmp_path, CollapseCallback(columns=["variability"]), logger=False)
    run.fit(network, loader(data))
    expected = gnc.measure(network.body(data[0]), data[1], columns=["variability"])
    assert len(expected) == 8
    for name, value in expected.items():
        assert float(run.callback_metrics[f"collapse/{name}"]) == pytest.approx(value, rel=1e-5)


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where Lightning keeps checkpoints
    names = {"model": Network(), "loader": loader(points())}
    run_example("gnc.adapters.lightning", names)
    assert names["trainer"].callback_metrics["collapse/gnc1_rank"] > 0


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (lambda batch: batch[1] + 3, r"labels must be in 0\.\.5, got 8"),
        (lambda batch: batch.targets, r"AttributeError\(\"'list' object has no attribute 'targets'\"\)"),
        (lambda batch: batch[1] @ batch[0], "RuntimeError"),
    ],
)
def test_a_batch_that_cannot_be_taken_is_warned_of_and_training_goes_on(tmp_path, labels, words):
    run = trainer(tmp_path, CollapseCallback("fc", labels=labels), logger=False)
    with pytest.warns(UserWarning, match=f"Collapse was not measured in this epoch: {words}"):
        run.fit(Network(), loader(points()))
    assert run.state.finished
    assert "collapse/gnc1_rank" not in run.callback_metrics


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stage": "validate"}, "never measured: no epoch to validate ended"),
        ({"head": "spare"}, "no features entered the head"),
    ],
)
def test_a_callback_that_meets_nothing_says_so(tmp_path, options, words):
    network = Network()
    network.spare = torch.nn.Linear(4, 6)  # never called
    run = trainer(tmp_path, CollapseCallback(**{"head": "fc"} | options), logger=False, enable_checkpointing=False)
    with pytest.warns(UserWarning, match=words):
        run.fit(network, loader(points()))


def test_a_head_that_is_no_name_is_refused(tmp_path):
    run = trainer(tmp_path, CollapseCallback(Network().fc), logger=False)
    with pytest.raises(TypeError, match="head must be the name of a module, such as 'fc', got Linear"):
        run.fit(Network(), loader(points()))


def test_a_head_that_is_not_found_is_said_before_training(tmp_path):
    run = trainer(tmp_path, CollapseCallback("fcc"), logger=False)
    with pytest.raises(ValueError, match=r"head must name one module .* got 'fcc', which means 0.* Did you mean 'fc'"):
        run.fit(Network(), loader(points()))


def alone(rank, folder):
    """One of the processes of DDP."""
    network, data = Network(learning_rate=0.0), points()
    run = trainer(folder, CollapseCallback("fc"), logger=False, strategy="ddp", devices=2)
    run.fit(network, loader(data))
    print(json.dumps({name: float(value) for name, value in run.callback_metrics.items()}), flush=True)


@pytest.mark.workers
def test_two_processes_tell_what_one_does(tmp_path):
    network, data = Network(), points()
    expected = gnc.measure(network.body(data[0]), data[1], network.fc.weight, columns=NAMES)
    for said in in_two_processes(f"{__name__}:alone", tmp_path):
        found = json.loads(said.splitlines()[-1])
        for name in NAMES:
            assert found[f"collapse/{name}"] == pytest.approx(expected[name], rel=1e-5)
