"""The metric against `gnc.measure`, in a collection, over epochs and where states of several processes are gathered."""

import pytest
import torch

import gnc
from tests.gnc.test_library import run_example

torchmetrics = pytest.importorskip(
    "torchmetrics", reason="torchmetrics is not installed: pip install 'gnc-study[test-adapters]'"
)
from gnc.adapters.torchmetrics import CollapseMetric


def samples(seed=0, size=120):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 6
    return torch.randn(6, 4, generator=generator)[labels] + 0.1 * torch.randn(size, 4, generator=generator), labels


def agree(found, expected):
    assert found
    for name, value in found.items():
        assert float(value) == pytest.approx(expected[name], rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"normalization": "both", "temperature": 0.1}])
def test_a_metric_in_a_collection_tells_what_measure_does_and_forgets_on_reset(settings):
    head, (features, labels) = torch.nn.Linear(4, 6), samples()
    metrics = torchmetrics.MetricCollection([CollapseMetric(head, **settings)])
    for seed in (1, 0):
        features, labels = samples(seed)
        metrics.reset()
        for part in torch.arange(120).split(17):
            metrics.update(features[part], labels[part])
        agree(metrics.compute(), gnc.measure(features, labels, head.weight, **settings))
    assert not list(metrics.parameters())  # the head's are not the metric's


def test_the_example_of_the_docs_runs(capsys):
    model = torch.nn.Module()
    model.fc = torch.nn.Linear(4, 6)
    features, labels = samples()
    run_example("gnc.adapters.torchmetrics", {"model": model, "features": features, "labels": labels})
    assert "gnc1_rank" in capsys.readouterr().out


def test_states_of_several_processes_are_merged():
    head, (features, labels) = torch.nn.Linear(4, 6), samples()
    shares = torch.arange(120).split([100, 1, 19])
    parts = [CollapseMetric(head, columns=["variability", "sphere"]) for _ in shares]
    for metric, share in zip(parts, shares, strict=True):
        metric(features[share], labels[share])
    names = iter(parts[0]._defaults)

    def gather(state, group=None):
        """What torch.distributed gives to the first process: the state of every one."""
        name = next(names)
        assert torch.equal(state, getattr(parts[0], name))
        return [getattr(metric, name) for metric in parts]

    sync = {"dist_sync_fn": gather, "distributed_available_fn": lambda: True}
    first = CollapseMetric(head, columns=["variability", "sphere"], sync=sync)
    first(features[shares[0]], labels[shares[0]])
    agree(first.compute(), gnc.measure(features, labels, head.weight))
    assert int(first.head_counts.sum()) == 100  # its own again


def test_a_copy_reads_the_head_that_is_trained():
    head, (features, labels) = torch.nn.Linear(4, 6), samples()
    copied = torchmetrics.MetricCollection([CollapseMetric(head, columns=["minimum"])]).clone(prefix="train_")
    with torch.no_grad():
        head.weight.copy_(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)))
    copied.update(features, labels)
    found = float(copied.compute()["train_margin_min_lower"])
    assert found == pytest.approx(gnc.margins(head.weight).minimum[0], rel=1e-6)


def test_a_head_without_rows_is_refused():
    for head in (torch.nn.ReLU(), torch.nn.Conv2d(3, 4, 1)):
        with pytest.raises(ValueError, match=r"head must have a weight of rows \[classes, dim\]"):
            CollapseMetric(head)
