"""One measurement of a network: what its features, rows and accuracies are after an epoch, as values by column.

Knows Training, the data and the measures of gnc_models; does not know when a trial is measured (`trial` decides) or where rows go.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from gnc_models.catalog.members import ENCODERS
from gnc_models.datasets.registry import Dataset
from gnc_models.encoders.registry import feature_stages
from gnc_models.metrics.adversarial import attack_accuracy
from gnc_models.metrics.collapse import Collapse, Normalization, measure_collapse
from gnc_models.metrics.layers import layer_columns, measure_layer
from study.training.seeds import derive_seed
from study.training.training import Training

PGD_STEPS = 20


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

    Args:
        training: the network as it stands.
        data: what it was trained on.
        features: of the training set, if the caller has computed them already.
    Raises:
        Diverged: features or rows are not finite.
    """
    training.check_weights()

    def of(inputs: Tensor | None) -> Tensor | None:
        return None if inputs is None else training.features(inputs)

    return Outputs(
        train=training.features(training.train_inputs) if features is None else features,
        test=of(data.test_inputs),
        unseen=of(data.unseen_inputs),
        ood=of(data.ood_inputs),
        stages=_stages(training),
    )


def measure(training: Training, data: Dataset, outputs: Outputs, *, final: bool) -> tuple[Collapse, dict[str, Any]]:
    """Collapse as found, and the value of every measured column but progress, time and memory.

    Args:
        training: the network as it stands; one worker alone may call this.
        data: what it was trained on.
        outputs: of the network as it stands.
        final: whether this is the trial's last epoch, when attacks are tried too.
    Raises:
        Diverged: the loss is not finite.
    """
    config, train, test = training.config, outputs.train, outputs.test
    loss, accuracy = training.loss_and_accuracy(train, training.train_labels)
    # Margins start cold each time: a resumed trial has none to start from, and its rows must be the same.
    collapse = measure_collapse(
        train,
        training.train_labels,
        training.classifier.weight.detach(),
        normalization=cast(Normalization, config.normalization),
        temperature=config.temperature,
        test_features=test,
        test_labels=None if data.test_labels is None else data.test_labels.to(training.device),
        ood_features=outputs.ood,
        class_inputs=training.class_inputs,
        counted=None if data.single_continuation is None else data.single_continuation.to(training.device),
        absent_classes=data.single_continuation is not None,
    )
    return collapse, {
        "train_loss": loss,
        "train_accuracy": accuracy,
        "label_entropy": data.label_entropy,
        "loss_above_entropy": None if data.label_entropy is None else loss - data.label_entropy,
        "test_accuracy": _accuracy(training, test, data.test_labels),
        "unseen_accuracy": _accuracy(training, outputs.unseen, data.unseen_labels),
        **collapse.values,
        **_layers(training, outputs.stages),
        **_attacks(training, data, final),
    }


def _accuracy(training: Training, features: Tensor | None, labels: Tensor | None) -> float | None:
    if features is None or labels is None:
        return None
    return training.loss_and_accuracy(features, labels)[1]


def _stages(training: Training) -> list[Tensor]:
    """Outputs at every stage, images pooled over space, sequences at the position that is read out."""
    if training.config.layers == "none":
        return []
    stages = [stage for _, stage in feature_stages(training.config.encoder, training.encoder)]
    outputs: list[list[Tensor]] = [[] for _ in stages]
    read_out = ENCODERS[training.config.encoder].read_out

    def keep(place: int) -> Any:
        return lambda module, inputs, output: outputs[place].append(_pooled(output, read_out))

    hooks = [stage.register_forward_hook(keep(place)) for place, stage in enumerate(stages)]
    try:
        training.features(training.train_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [training.group.gather(torch.cat(parts), len(training.train_labels)) for parts in outputs]


def _layers(training: Training, stages: list[Tensor]) -> dict[str, Any]:
    """Collapse at every stage of the network."""
    if not stages:
        return {"layer_names": None, **dict.fromkeys(layer_columns([]))}
    names = [name for name, _ in feature_stages(training.config.encoder, training.encoder)]
    found = [measure_layer(stage, training.train_labels, training.config.num_classes) for stage in stages]
    return {"layer_names": names, **layer_columns(found)}


def _pooled(output: Tensor, read_out: int) -> Tensor:
    output = output.detach()
    if output.ndim == 4:
        return output.mean((2, 3))
    return output[:, read_out] if output.ndim == 3 else output


def _attacks(training: Training, data: Dataset, final: bool) -> dict[str, Any]:
    radii = training.config.attack_radii
    if not final or radii is None or data.test_inputs is None or data.test_labels is None:
        return {"fgsm_accuracy": None, "pgd_accuracy": None}
    training.encoder.eval()
    inputs = data.test_inputs.to(training.device, training.dtype)
    labels = data.test_labels.to(training.device)
    limits = (float(inputs.min()), float(inputs.max())) if inputs.ndim == 4 else None
    generator = torch.Generator(training.device).manual_seed(derive_seed(training.config.seed, "attack"))
    network = nn.Sequential(training.encoder, training.classifier)
    accuracies: dict[str, Any] = {"fgsm_accuracy": [], "pgd_accuracy": []}
    for radius in map(float, radii.split(",")):
        attack = partial(attack_accuracy, network, inputs, labels, radius=radius, limits=limits)
        accuracies["fgsm_accuracy"].append(attack())
        accuracies["pgd_accuracy"].append(attack(steps=PGD_STEPS, generator=generator))
    return accuracies
