"""Workers of one trial: what they exchange, and that several train and measure as one does."""

import dataclasses
import itertools
import math

import pytest
import torch

from gnc_models.catalog.members import LOSSES
from study.design.config import TrialConfig
from study.store.schemas import CIRCUMSTANCES
from study.training.data import load_dataset
from study.training.measuring import compute_outputs, measure
from study.training.schedules import Pace
from study.training.training import Training
from study.training.worker_group import ALONE, Group, PeerFailed
from tests.study.groups import run_group

SMALL = {
    "dataset": "synthetic",
    "encoder": "mlp",
    "width": 16,
    "depth": 1,
    "num_classes": 5,
    "feature_dim": 3,
    "samples_per_class": 10,
    "test_samples_per_class": 3,
    "batch_size": 13,  # 50 samples in batches of 13 and 12: never an even share for two and three workers
    "learning_rate": 0.05,
    "steps": 5,
    "precision": "float64",
    "ood_classes": 1,
}
IMAGES = {
    **SMALL,
    "dataset": "glyphs",
    "encoder": "small_resnet",
    "width": 4,
    "augmentation": "crop_flip",
    "layers": "all",
    "attack_radii": "0.05",
}
FEW = {"samples_per_class": 5, "batch_size": 7}  # 25 samples in batches of 7 and 6
NONE = {"width": None, "depth": None}
VARIANTS = {
    **{f"loss {name}": {**SMALL, "loss": name} for name in LOSSES if name != "supervised_contrastive"},
    "loss hug_mgd": {**SMALL, "loss": "hug_mgd", "logdet_eps": 0.1},
    "contrastive, class means": {**SMALL, "loss": "supervised_contrastive", "classifier": "class_mean"},
    "class means, mean form": {**SMALL, "classifier": "class_mean", "class_mean_form": "mean"},
    "class means, after": {**SMALL, "classifier": "class_mean", "class_mean_update": "after"},
    "chunked": {**SMALL, "cross_entropy": "chunked"},
    "fixed rows, adamw": {**SMALL, "classifier": "fixed", "optimizer": "adamw", "learning_rate": 0.01},
    "images": IMAGES,
    "images, shift, group norm": {**IMAGES, "augmentation": "shift", "norm_layer": "group"},
    "torchvision": {**IMAGES, **NONE, "encoder": "mobilenet_v2", "layers": "none", "attack_radii": None, **FEW},
    "free features": {
        **{name: value for name, value in SMALL.items() if name not in ("test_samples_per_class", "ood_classes")},
        **NONE,
        "dataset": "indices",
        "encoder": "unconstrained",
        "loss": "log_cross_entropy",
    },
    "text": {
        **{name: value for name, value in SMALL.items() if name != "ood_classes"},
        "dataset": "text",
        "encoder": "transformer",
        "width": 8,
        "context_length": 3,
        "num_classes": 20,
    },
}
STEPS = 5


def first_steps(training: Training) -> list[dict[str, torch.Tensor]]:
    """Loss, gradients, batch statistics and rows of the first steps."""
    training.encoder.train()
    found: list[dict[str, torch.Tensor]] = []
    for epoch in itertools.count(1):
        augmentation = torch.Generator().manual_seed(epoch)
        for batch in training.batches(epoch):
            if len(found) == STEPS:
                return found
            loss = training.group.sum(training.step(batch, Pace(0.05, 0.2), augmentation))
            gradients = {f"gradient {n}": p.grad.clone() for n, p in training.encoder.named_parameters()}
            gradients |= {f"head {n}": p.grad.clone() for n, p in training.classifier.named_parameters()}
            statistics = {n: b.clone().double() for n, b in training.encoder.named_buffers()}
            rows = training.classifier.weight.detach().clone()
            found.append({"loss": loss, **gradients, **statistics, "rows": rows})
    return found


def measured(training: Training) -> dict:
    """Every measured value; of several workers only worker 0 has them."""
    data = load_dataset(training.config)
    outputs = compute_outputs(training, data, None)
    return training.group.lead(lambda: measure(training, data, outputs, final=True)[1], shared=ArithmeticError)


def train_and_measure(group: Group, names: list[str]) -> dict[str, tuple]:
    found = {}
    for name in names:
        config = TrialConfig(**VARIANTS[name], workers=group.size)
        training = Training(config, load_dataset(config), torch.device("cpu"), group)
        steps = first_steps(training)
        found[name] = steps, training.tensors(), measured(training)
    return found if group.leads else {}


def assert_like_one_worker(variant: str, found: tuple) -> None:
    steps, tensors, values = found
    config = TrialConfig(**VARIANTS[variant])
    alone = Training(config, load_dataset(config), torch.device("cpu"), ALONE)
    for number, (several, one) in enumerate(zip(steps, first_steps(alone), strict=True)):
        assert several.keys() == one.keys()
        for name, value in one.items():
            assert torch.allclose(several[name], value, rtol=1e-9, atol=1e-9), (number, name)
    alone.load(tensors)  # the same weights to the last bit
    expected = measured(alone)
    assert values.keys() == expected.keys()
    for name in values.keys() - CIRCUMSTANCES:
        assert (values[name] is None) == (expected[name] is None), name
        if name != "layer_names" and values[name] is not None:
            assert values[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("update", ["before", "after"])
def test_a_batch_moves_class_means_before_its_own_loss_or_after_it(update):
    config = TrialConfig(**SMALL, classifier="class_mean", class_mean_update=update)
    training = Training(config, load_dataset(config), torch.device("cpu"), ALONE)
    batch, rows = next(training.batches(1)), training.classifier.weight.clone()
    labels = training.train_labels[batch]
    training.encoder.train()
    features = torch.nn.functional.normalize(training.encoder(training.train_inputs[batch]).detach(), dim=1)
    sums = torch.stack([features[labels == k].sum(0) for k in range(5)])
    moved = torch.nn.functional.normalize(0.9 * rows + 0.1 * sums, dim=1)
    read = torch.nn.functional.normalize(moved if update == "before" else rows, dim=1)
    logits = features @ read.T / 0.2
    loss = training.step(batch, Pace(0.05, 0.2), torch.Generator())
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-12)
    torch.testing.assert_close(training.classifier.weight, moved)  # once, whenever it is


@pytest.fixture(scope="module")
def of_three(tmp_path_factory) -> list[tuple]:
    """What each of three workers found, over all variants: starting them costs more than running them."""
    found = run_group(all_of_it, 3, tmp_path_factory.mktemp("group"), list(VARIANTS))
    assert all(isinstance(each, tuple) for each in found), found
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_five_steps_and_a_measurement_of_three_workers_are_those_of_one(variant, of_three):
    assert_like_one_worker(variant, of_three[0][0][variant])


def test_five_steps_and_a_measurement_of_two_workers_are_those_of_one(tmp_path):
    variants = ["loss cross_entropy", "loss log_cross_entropy", "class means, mean form", "images"]
    (found, _) = run_group(train_and_measure, 2, tmp_path, variants)
    for variant in variants:
        assert_like_one_worker(variant, found[variant])


def exchange(group: Group) -> dict:
    own = torch.arange(7.0, dtype=torch.float64)[group.share(7)].clone().requires_grad_()
    gathered = group.gather(own, 7)
    (gathered.square().sum() * (group.rank + 1)).backward()
    found = {
        "gathered": gathered.tolist(),
        "slope": own.grad.tolist(),
        "sum": float(group.sum(torch.tensor(float(group.rank)))),
        "agreed": group.agree(f"of {group.rank}"),
        "everyone": group.everyone(group.rank),
        "empty": group.gather(torch.zeros(1, 2)[group.share(1)], 1).shape,
    }
    for words, error in (("shared", ZeroDivisionError("a")), ("not shared", OSError("b"))):
        try:
            group.lead(lambda error=error: raise_(error), shared=ZeroDivisionError)
        except (ZeroDivisionError, OSError, PeerFailed) as raised:
            found[words] = repr(raised)
    return found


def raise_(error: Exception) -> None:
    raise error


def all_of_it(group: Group, names: list[str]) -> tuple[dict, dict]:
    return train_and_measure(group, names), exchange(group)


def test_workers_exchange_uneven_shares_and_decide_as_worker_0_does(of_three):
    found = [given for _, given in of_three]
    for rank, given in enumerate(found):
        assert given["gathered"] == list(range(7))
        assert given["sum"] == 3
        assert given["agreed"] == "of 0"
        assert given["everyone"] == [0, 1, 2]
        assert given["empty"] == (1, 2)
        assert given["shared"] == "ZeroDivisionError('a')"
        expected = "PeerFailed('worker 0 failed: b')" if rank else "OSError('b')"
        assert given["not shared"] == expected
    assert list(itertools.chain(*(given["slope"] for given in found))) == [12 * n for n in range(7)]  # 2n (1 + 2 + 3)


def test_shares_are_whole_and_in_order():
    for samples, size in itertools.product(range(12), range(1, 5)):
        parts = [list(range(samples))[Group(rank, size).share(samples)] for rank in range(size)]
        assert list(itertools.chain(*parts)) == list(range(samples))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_worker_alone_exchanges_nothing():
    assert (ALONE.leads, ALONE.share(5)) == (True, slice(0, 5))
    assert ALONE.lead(lambda: 3, shared=ValueError) == ALONE.agree(3) == 3
    assert dataclasses.asdict(ALONE) == {"rank": 0, "size": 1, "exchange": None}
    assert math.isclose(float(ALONE.sum(torch.tensor(2.0))), 2)
