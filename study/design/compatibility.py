"""Which settings go together: every rule that concerns two or more of them.

Knows the catalog; does not know torch, TrialConfig or the disk. Rules about a single setting are in study.design.config.
"""

from collections.abc import Mapping
from typing import Any

from gnc_models.catalog.members import DATASETS, ENCODERS, max_classes
from gnc_models.catalog.pairings import check_pairing
from gnc_models.datasets.samples.class_counts import class_counts


def check_together(settings: Mapping[str, Any]) -> None:
    """ValueError, with the rule, the value and what to do, for settings that are valid alone but not together."""
    for name, value in settings.items():
        if isinstance(value, int) and value >= 1 << 63:  # no column of a table could hold it
            raise ValueError(f"{name} must be below 2^63, got {value!r}.")
    _check_classes(settings)
    _check_pairing(settings)
    _check_inputs(settings)
    _check_batches(settings)
    if settings["terminal_epochs"] and settings["max_epochs"] < settings["terminal_epochs"]:
        rule = f"terminal_epochs must be at most max_epochs ({settings['max_epochs']})"
        raise ValueError(f"{rule}, got {settings['terminal_epochs']!r}.")


def _check_classes(settings: Mapping[str, Any]) -> None:
    dataset, resolution, num_classes = (settings[name] for name in ("dataset", "resolution", "num_classes"))
    most, kept_out = max_classes(dataset, resolution), settings["ood_classes"] or 0
    if most is not None and num_classes + kept_out > most:
        beside = f" beside {kept_out} ood_classes" if kept_out else ""
        has = f"{dataset} has{f' at resolution {resolution}' if resolution else ''}"
        raise ValueError(
            f"num_classes must be at most {most - kept_out}{beside}, the classes that {has}, got {num_classes!r}."
        )


def _check_pairing(settings: Mapping[str, Any]) -> None:
    names = ("loss", "classifier", "normalization", "num_classes", "feature_dim", "code")
    check_pairing(**{name: settings[name] for name in names})
    for name in sorted(DATASETS[settings["dataset"]].refuses):
        if settings[name] not in (None, 0, "none"):
            rule = f"{name} must be left out for dataset {settings['dataset']!r}"
            raise ValueError(f"{rule}, got {settings[name]!r}. This data set cannot be changed in that way.")
    if settings["temperature_schedule"] == "annealed" and settings["budget"] == "terminal":
        raise ValueError(
            "temperature_schedule must be 'constant' with budget 'terminal', got 'annealed'. "
            "Annealing is timed by the end of training, which is not known there."
        )


def _check_inputs(settings: Mapping[str, Any]) -> None:
    gives, encoder = DATASETS[settings["dataset"]].gives, ENCODERS[settings["encoder"]]
    if gives not in encoder.takes:
        accepting = [name for name, member in ENCODERS.items() if gives in member.takes]
        rule = f"encoder must accept {gives} inputs for dataset {settings['dataset']!r}"
        raise ValueError(f"{rule}, got {settings['encoder']!r}. Use one of {accepting}.")
    is_continuous = gives in ("image", "vector")
    if settings["attack_radii"] and not is_continuous:
        raise ValueError(
            f"attack_radii must be left out for dataset {settings['dataset']!r}, got {settings['attack_radii']!r}. "
            f"Attacks change inputs a little, which cannot be done to whole numbers such as {gives} inputs."
        )
    if settings["assignment"] == "similarity" and not is_continuous:
        rule = f"assignment must be 'random' for dataset {settings['dataset']!r}"
        raise ValueError(f"{rule}, got 'similarity'. The similarity of {gives} inputs is not defined.")
    if settings["layers"] == "all" and not encoder.stages:
        raise ValueError(f"layers must be 'none' with encoder {settings['encoder']!r}, got 'all'. It has no layers.")


def _check_batches(settings: Mapping[str, Any]) -> None:
    names = ("num_classes", "samples_per_class", "imbalance", "imbalance_ratio")
    samples, batch_size = sum(class_counts(**{name: settings[name] for name in names})), settings["batch_size"]
    if batch_size > samples:
        raise ValueError(f"batch_size must be at most the {samples} training samples, got {batch_size!r}.")
    smallest = samples // -(-samples // batch_size)
    if smallest < 2:  # batch normalization has nothing to average over
        raise ValueError(f"batch_size must leave no batch of one of {samples} samples, got {batch_size!r}.")
    if settings["workers"] > smallest:
        rule = f"workers must be at most {smallest}, the samples of the smallest batch"
        raise ValueError(f"{rule}, got {settings['workers']!r}. A worker without a sample would only wait.")
