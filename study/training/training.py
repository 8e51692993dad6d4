"""One network in training: how it is built, one epoch of it, its features, its tensors to save and load.
Knows PyTorch and gnc_models; does not know when an epoch is measured, what a row is, Ray or the disk."""

import functools
import hashlib
import inspect
import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from gnc_models.catalog.members import CLASSIFIERS, ENCODERS, LOSSES
from gnc_models.classifiers.classifier import Classifier, make_classifier
from gnc_models.classifiers.fixed import class_mean_inputs, input_similarity
from gnc_models.datasets.samples.dataset import Dataset
from gnc_models.datasets.samples.shaping import augment
from gnc_models.datasets.samples.streamed import Streamed, in_order, read_batches
from gnc_models.encoders.registry import make_encoder
from gnc_models.encoders.synchronised_batch_norm import synchronise_batch_norms
from gnc_models.losses.loss import Loss, make_loss
from study.design.config import TrialConfig
from study.training.schedules import Pace
from study.training.worker_group import ALONE, Group

EVALUATION_BATCH = 512


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite; the message becomes the row's reason."""


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as (seed, "order", epoch). No generator state is stored: the seed is the same whoever asks."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Training:
    """Encoder, classifier, loss and optimiser of one trial on one device, with the data beside them.
    Of several workers each holds all of this and trains on its share of every batch; weights stay alike on all."""

    def __init__(
        self, config: TrialConfig, dataset: Dataset, device: torch.device,
        group: Group = ALONE, code_rows: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.config, self.device, self.group = config, device, group
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        inputs = dataset.train_inputs
        self.train_inputs = inputs if isinstance(inputs, Streamed) else self._as_inputs(inputs)
        self.train_labels = dataset.train_labels.to(device)
        self._input_scale = dataset.input_scale
        self.measured = _first_of_each(self.train_labels, config.measured_samples)
        self.objective: float | None = None  # mean over the last epoch's steps of what training minimises
        torch.manual_seed(derive_seed(config.seed, "initialisation"))
        encoder = make_encoder(
            config.encoder, input_shape=tuple(dataset.train_inputs.shape[1:]),
            **_settings_of(config, ("feature_dim", "width", "depth", "norm_layer")),
            num_samples=len(dataset.train_labels) if "index" in ENCODERS[config.encoder].takes else None,
            vocabulary=dataset.vocabulary, source=config.encoder_source, options=config.options_of("encoder"),
        )  # fmt: skip
        self.classifier = _make_classifier(config, dataset, code_rows).to(device, self.dtype)
        self.encoder = encoder.to(device, self.dtype)
        if group.size > 1:
            synchronise_batch_norms(self.encoder, group.exchange)
        own = {"source": config.loss_source, "options": config.options_of("loss")} if config.loss_source else {}
        read: dict[str, Any] = own | _settings_of(config, ("num_classes", "feature_dim", *LOSSES[config.loss].settings))
        self.loss = make_loss(config.loss, **read).to(device)
        self._objective = _make_objective(self.encoder, self.classifier, self.loss, config, group)
        self.optimizer = _make_optimizer(config, self.encoder, self.classifier)
        self.steps_per_epoch = math.ceil(len(self.train_labels) / config.batch_size)

    def train_epoch(self, epoch: int, pace: list[Pace]) -> int:
        """Train over the epoch's batches, at most as many as there are paces; the steps taken.
        Raises Diverged when the epoch's loss is not finite."""
        self.encoder.train()
        # Dropout and the like draw from the global generator: seeded here, it needs no place in a checkpoint.
        torch.manual_seed(derive_seed(self.config.seed, "network", epoch))
        total = torch.zeros((), device=self.device)
        augmentation = torch.Generator(self.device).manual_seed(derive_seed(self.config.seed, "augmentation", epoch))
        batches = list(itertools.islice(self.batches(epoch), len(pace)))
        own = self.read(self.train_inputs, [batch[self.group.share(len(batch))] for batch in batches])
        for step, batch, inputs in zip(pace, batches, own, strict=False):
            total += self.step(batch, step, augmentation, inputs)
        self.group.sum(total)
        if not bool(torch.isfinite(total)):
            raise Diverged(f"training loss was {total.item()} in epoch {epoch}.")
        taken = min(len(pace), self.steps_per_epoch)
        self.objective = total.item() / taken if taken else None
        return taken

    def step(self, batch: Tensor, pace: Pace, augmentation: torch.Generator, inputs: Tensor | None = None) -> Tensor:
        """One optimiser step on this worker's share of a batch, and its part of the batch's loss before the step.
        inputs: of this share, if they were read already. The parts of all workers add up to the loss."""
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = pace.learning_rate
        share, labels = self.group.share(len(batch)), self.train_labels[batch]
        inputs = next(self.read(self.train_inputs, [batch[share]])) if inputs is None else inputs
        inputs = augment(inputs, self.config.augmentation, augmentation, start=share.start, batch_size=len(batch))
        with self._autocast():
            part, features = self._objective(inputs, labels, pace.temperature)
        self.optimizer.zero_grad(set_to_none=True)
        # Workers' gradients are averaged, not added.
        (part * self.group.size if self.group.size > 1 else part).backward()
        self.optimizer.step()
        if not self.classifier.observes_before_loss:
            _observe(self.classifier, features, labels[share], self.group)
        return part.detach()

    @functools.cached_property
    def class_inputs(self) -> Tensor | None:
        """Mean training input of each class [classes, input_dim], float64, to a factor; None for indices and tokens."""
        if not self.train_inputs.is_floating_point() and self._input_scale is None:
            return None
        return class_mean_inputs(self.train_inputs, self.train_labels, self.config.num_classes)

    def read(self, inputs: Tensor | Streamed, batches: Iterable[Any]) -> Iterator[Tensor]:
        """The inputs of each batch in turn, as the network takes them; a batch is a slice or the places of samples."""
        return map(self.as_numbers, read_batches(inputs, batches))

    def _as_inputs(self, inputs: Tensor) -> Tensor:
        """On the device; numbers in the trial's precision, indices and tokens as they are."""
        return inputs.to(self.device, self.dtype) if inputs.is_floating_point() else inputs.to(self.device)

    def as_numbers(self, inputs: Tensor) -> Tensor:
        """As the network takes them: bytes only now become numbers, four times as large."""
        inputs = self._as_inputs(inputs)
        return inputs if self._input_scale is None else inputs.to(self.dtype) * self._input_scale

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Every sample once, in this epoch's order; batch sizes differ by at most one, so none is left over."""
        order = torch.Generator().manual_seed(derive_seed(self.config.seed, "order", epoch))
        permutation = torch.randperm(len(self.train_labels), generator=order).to(self.device)
        yield from torch.tensor_split(permutation, self.steps_per_epoch)

    @torch.no_grad()
    def features(self, inputs: Tensor | Streamed) -> Tensor:
        """Features [samples, feature_dim] of un-augmented inputs, evaluation mode, before any normalization.
        All workers call it together, compute a share each and get all features."""
        self.encoder.eval()
        share, parts = self.group.share(len(inputs)), []
        for batch in self.read(inputs, in_order(share.stop, start=share.start, chunk=EVALUATION_BATCH)):
            with self._autocast():
                parts.append(self.encoder(batch).to(self.dtype))
        features = self.group.gather(torch.cat(parts), len(inputs))
        # Squares too: features whose norm overflows normalise to zero and would give a loss of ln K, not a divergence.
        if not self.group.agree(bool(torch.isfinite(features.square().sum(1)).all())):
            raise Diverged("features of the network are not finite, or too large to be normalised.")
        return features

    @torch.no_grad()
    def loss_and_accuracy(self, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy of the head on given features.
        In float64, but in the trial's precision where few samples are measured since the classes are many."""
        loss, correct = 0.0, 0
        dtype = torch.float64 if self.config.measured_samples is None else self.dtype
        for part, truth in zip(features.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
            logits = self.classifier(part).to(dtype)
            truth = truth.to(self.device)
            loss += cross_entropy(logits, truth, reduction="sum").item()
            correct += int((logits.argmax(1) == truth).sum())
        if not math.isfinite(loss):
            raise Diverged(f"loss in evaluation was {loss}.")
        return loss / len(labels), correct / len(labels)

    def check_weights(self) -> None:
        """Diverged unless every classifier row is finite and can be normalised."""
        if not bool(torch.isfinite(self.classifier.weight.square().sum(1)).all()):
            raise Diverged("classifier rows are not finite, or too large to be normalised.")

    def _autocast(self) -> AbstractContextManager[object]:
        if self.config.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that training goes on from: parameters, buffers, optimiser state."""
        tensors = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        tensors |= {f"head.{name}": value for name, value in self.classifier.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
        # Clones: two names may share storage, which safetensors refuses.
        return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from tensors(); the inverse, bit for bit on CPU."""
        self.encoder.load_state_dict(_under("encoder.", tensors))
        self.classifier.load_state_dict(_under("head.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, _, field = name.partition(".")
            state.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


class _Objective(nn.Module):
    """A worker's part of a batch's loss; the parts of all workers add up to it."""

    def __init__(self, encoder: nn.Module, classifier: Classifier, loss: Loss, group: Group, *, across: bool) -> None:
        super().__init__()
        self.encoder, self.classifier, self.loss = encoder, classifier, loss
        self._group, self._across = group, across

    def forward(self, inputs: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """inputs: this worker's share; labels: of the whole batch. The part, and the share's features."""
        features, size = self.encoder(inputs), self._group.size
        if self.classifier.observes_before_loss:
            _observe(self.classifier, features, labels[self._group.share(len(labels))], self._group)
        if size == 1:
            return self.loss(features, labels, self.classifier, temperature), features
        if self._across:  # every worker computes the whole batch's loss, on the features of all
            every = self._group.gather(features.to(self.classifier.weight.dtype), len(labels))
            return self.loss(every, labels, self.classifier, temperature) / size, features
        own = labels[self._group.share(len(labels))]
        return self.loss(features, own, self.classifier, temperature) * (len(own) / len(labels)), features


def _first_of_each(labels: Tensor, samples: int | None) -> Tensor | slice:
    """Places of the first samples of each class, labels being sorted; None: of all."""
    if samples is None:
        return slice(None)
    counts = torch.bincount(labels)
    place = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels]
    return (place < samples).nonzero()[:, 0]


def _observe(classifier: Classifier, features: Tensor, labels: Tensor, group: Group) -> None:
    classifier.observe(features.detach().to(classifier.weight.dtype), labels, sum_over_workers=group.sum)


def _make_classifier(config: TrialConfig, dataset: Dataset, code_rows: Tensor | None) -> Classifier:
    read = _settings_of(config, ("normalization", "temperature", *CLASSIFIERS[config.classifier].settings))
    if config.assignment == "similarity":
        means = class_mean_inputs(dataset.train_inputs, dataset.train_labels, config.num_classes)
        read["similarity"] = input_similarity(means)
    if code_rows is not None:
        read["points"] = code_rows
    sizes = config.num_classes, config.feature_dim
    return make_classifier(config.classifier, *sizes, init_norm=config.head_init_norm, **read)


def _make_objective(
    encoder: nn.Module, classifier: Classifier, loss: Loss, config: TrialConfig, group: Group
) -> nn.Module:
    objective = _Objective(encoder, classifier, loss, group, across=LOSSES[config.loss].across_samples)
    if group.size == 1:
        return objective
    # Buffers are alike already: running statistics are of the whole batch, and so are class means. torch 2.13 renamed it.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    buffers: dict[str, Any] = {name: False}
    return DistributedDataParallel(objective, process_group=group.exchange, **buffers)


def _settings_of(config: TrialConfig, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _make_optimizer(config: TrialConfig, encoder: nn.Module, classifier: Classifier) -> torch.optim.Optimizer:
    """The head's rows are decayed unless they are normalised before use (decay then only slows their turning)."""
    head_decay = config.weight_decay if config.decay_normalised in (None, True) else 0.0
    decayed = ((encoder, config.weight_decay), (classifier, head_decay))
    groups = [{"params": list(part.parameters()), "weight_decay": decay} for part, decay in decayed]
    if config.optimizer == "sgd":
        momentum = config.momentum or 0.0
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=momentum, nesterov=bool(momentum))
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
