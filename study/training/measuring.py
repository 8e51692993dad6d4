"""One measurement of a network: what its features, rows and accuracies are after an epoch, as values by column.
Knows Training, the data and the measures; does not know when a trial is measured (`trial` decides) or where rows go."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gnc_models.catalog.members import ENCODERS
from gnc_models.catalog.parts import call_part
from gnc_models.columns import choose
from gnc_models.datasets.samples.dataset import Dataset
from gnc_models.datasets.samples.streamed import in_order
from gnc_models.encoders.registry import feature_stages
from gnc_models.metrics.adversarial import attack_accuracy
from gnc_models.metrics.collapse import TOLERANCE, Collapse, measure_collapse
from gnc_models.metrics.layers import layer_columns, measure_layer
from study.design.parts import metric_names
from study.training.training import Training, derive_seed

PGD_STEPS = 20
# Of few samples of each of many classes: what takes time in proportion to the classes, and the smallest margin. At the
# trial's end also what compares all pairs of classes, once.
STATISTICS = ("variability", "sphere", "norms", "ranks", "minimum", "gnc3_uncentred", "gnc3", "gnc3_weighted")
OF_PAIRS = ("margins", "means", "energies", "duality")
STATISTICS_TOLERANCE = 1e-4  # relative, of their margins
ATTACKED_AT_ONCE = 256  # test inputs


@dataclass(frozen=True)
class Outputs:
    """The network's features of each set, [samples, dim]; None where the trial has no such set."""

    train: Tensor
    test: Tensor | None
    unseen: Tensor | None
    ood: Tensor | None
    stages: list[Tensor]  # of the training set at every stage of the network, where layers are measured


def compute_outputs(training: Training, data: Dataset, features: Tensor | None) -> Outputs:
    """The network's outputs on all sets, from which everything is measured; all workers call it together.
    features: of the training set, if they were computed already. Diverged if features or rows are not finite."""
    training.check_weights()
    measured = training.measured
    train = training.features(training.train_inputs[measured]) if features is None else features[measured]
    others = (data.test_inputs, data.unseen_inputs, data.ood_inputs)
    test, unseen, ood = (None if inputs is None else training.features(inputs) for inputs in others)
    return Outputs(train, test, unseen, ood, _stages(training))


def measure(training: Training, data: Dataset, outputs: Outputs, *, final: bool) -> tuple[Collapse, dict[str, Any]]:
    """Collapse as found, and the value of every measured column but progress, time and memory; by one worker alone.
    final: whether this is the trial's last epoch, when attacks are tried too. Diverged where the loss is not finite."""
    config, train, test = training.config, outputs.train, outputs.test
    labels, few = training.train_labels[training.measured], config.measured_samples is not None
    loss, accuracy = training.loss_and_accuracy(train, labels)
    counted = None if data.single_continuation is None else data.single_continuation.to(training.device)
    # Margins start cold each time: a resumed trial has none to start from, and its rows must be the same.
    head: dict[str, Any] = {"normalization": config.normalization, "temperature": config.temperature}
    columns = (*STATISTICS, *(OF_PAIRS if final else ())) if few else None
    asked: dict[str, Any] = {"columns": columns, "tolerance": STATISTICS_TOLERANCE if few else TOLERANCE}
    others: dict[str, Any] = {"test_features": test, "ood_features": outputs.ood}
    others["test_labels"] = None if data.test_labels is None else data.test_labels.to(training.device)
    others["class_inputs"] = None if few else training.class_inputs
    others["counted"] = None if counted is None else counted[training.measured]
    rows = training.classifier.weight.detach()
    collapse = measure_collapse(train, labels, rows, **head, **asked, **others, absent_classes=counted is not None)
    return collapse, {
        "train_loss": loss, "train_accuracy": accuracy, "label_entropy": data.label_entropy,
        "loss_above_entropy": None if data.label_entropy is None else loss - data.label_entropy,
        "test_accuracy": _accuracy(training, test, data.test_labels),
        "unseen_accuracy": _accuracy(training, outputs.unseen, data.unseen_labels), **dict.fromkeys(choose(None, ())),
        **collapse.values, **_layers(training, outputs.stages), **_attacks(training, data, final),
        "custom": _custom(training, train),
    }  # fmt: skip


def _custom(training: Training, features: Tensor) -> dict[str, float | None] | None:
    """The values of metrics of one's own by name; null where one is not finite."""
    config, classifier = training.config, training.classifier
    if config.metrics is None:
        return None
    parts, names, found = config.parts()["metrics"], metric_names(config.metrics), {}
    with torch.no_grad():
        for name, part in zip(names, parts, strict=True):
            extras = {"temperature": classifier.temperature, "normalization": classifier.normalization}
            given = (features, training.train_labels[training.measured], classifier.weight.detach())
            value = float(call_part("metrics", *part, *given, extras=extras))
            found[name] = value if math.isfinite(value) else None
    return found


def _accuracy(training: Training, features: Tensor | None, labels: Tensor | None) -> float | None:
    if features is None or labels is None:
        return None
    return training.loss_and_accuracy(features, labels)[1]


def _stages(training: Training) -> list[Tensor]:
    """Outputs at every stage, images pooled over space, sequences at the position that is read out."""
    if training.config.layers == "none":
        return []
    stages = feature_stages(training.config.encoder, training.encoder)
    outputs: list[list[Tensor]] = [[] for _ in stages]
    read_out = ENCODERS[training.config.encoder].read_out

    def keep(found: list[Tensor]) -> Any:
        return lambda module, inputs, output: found.append(_pooled(output.detach(), read_out))

    with ExitStack() as hooks:
        for (_, stage), found in zip(stages, outputs, strict=True):
            hooks.callback(stage.register_forward_hook(keep(found)).remove)
        training.features(training.train_inputs)
    share = training.group.share(len(training.train_labels))
    for (name, _), found in zip(stages, outputs, strict=True):
        if (got := sum(map(len, found))) != share.stop - share.start:
            rule = f"stage {name!r} of the encoder must be called once in a forward pass, and give [samples, ...]"
            raise ValueError(f"{rule}, got {got} outputs of {share.stop - share.start} samples. Name another module.")
    return [training.group.gather(torch.cat(parts), len(training.train_labels)) for parts in outputs]


def _layers(training: Training, stages: list[Tensor]) -> dict[str, Any]:
    if not stages:
        return {"layer_names": None, **dict.fromkeys(layer_columns([]))}
    names = [name for name, _ in feature_stages(training.config.encoder, training.encoder)]
    found = [measure_layer(stage, training.train_labels, training.config.num_classes) for stage in stages]
    return {"layer_names": names, **layer_columns(found)}


def _pooled(output: Tensor, read_out: int) -> Tensor:
    return output.mean((2, 3)) if output.ndim == 4 else output[:, read_out] if output.ndim == 3 else output


def _attacks(training: Training, data: Dataset, final: bool) -> dict[str, Any]:
    radii = training.config.attack_radii
    if not final or radii is None or data.test_inputs is None or data.test_labels is None:
        return {"fgsm_accuracy": None, "pgd_accuracy": None}
    training.encoder.eval()
    inputs, labels = data.test_inputs, data.test_labels.to(training.device)
    chunks = list(in_order(len(labels), chunk=ATTACKED_AT_ONCE))
    limits = None
    if len(inputs.shape) == 4:
        ranges = [(float(part.min()), float(part.max())) for part in training.read(inputs, chunks)]
        limits = min(low for low, _ in ranges), max(high for _, high in ranges)
    generator = torch.Generator(training.device).manual_seed(derive_seed(training.config.seed, "attack"))
    network = nn.Sequential(training.encoder, training.classifier)

    def accuracy(**given: Any) -> float:
        right = 0
        for chunk, part in zip(chunks, training.read(inputs, chunks), strict=True):
            right += round(len(part) * attack_accuracy(network, part, labels[chunk], limits=limits, **given))
        return right / len(labels)

    sizes = [float(radius) for radius in radii.split(",")]
    both = [(accuracy(radius=r), accuracy(radius=r, steps=PGD_STEPS, generator=generator)) for r in sizes]
    return {"fgsm_accuracy": [fgsm for fgsm, _ in both], "pgd_accuracy": [pgd for _, pgd in both]}
