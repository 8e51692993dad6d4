"""Which settings go together: every rule that concerns two or more of them; single settings have theirs in study.design.config.
Knows the catalog; does not know torch, TrialConfig or the disk."""

from collections.abc import Iterator, Mapping
from typing import Any

from gnc_models.catalog.members import ANY, BUILT_IN_FONTS, DATASETS, ENCODERS, OWN_FAMILIES, is_reference, max_classes
from gnc_models.catalog.settings import check_pairing, class_counts


def check_together(settings: Mapping[str, Any]) -> None:
    """ValueError, with the rule, the value and what to do, for settings that are valid alone but not together."""
    faults = list[str]()
    for check in _CHECKS:
        try:
            faults += check(settings)
        except ValueError as fault:
            faults.append(str(fault))
    if faults:
        raise ValueError("\n".join(faults))


def _check_own_parts(settings: Mapping[str, Any]) -> Iterator[str]:
    for family in (*OWN_FAMILIES, "metrics"):
        is_own, found = is_reference(settings[family]), "gnc finds it for [fixed] and [grid]."
        if is_own and not settings[f"{family}_source"]:
            yield f"{family}_source must be given with {settings[family]!r}, got None. {found}"
        for name in (f"{family}_source", f"{family}_options"):
            if not is_own and settings.get(name) is not None:
                rule = f"{name} must be left out unless {family} is a part of your own"
                yield f"{rule}, got {settings[name]!r}."
    fonts, source = settings["fonts"], settings["fonts_source"]
    if (fonts in (None, BUILT_IN_FONTS)) == (source is not None):
        rule = "be left out with fonts that are built in" if source else f"be given with fonts {fonts!r}"
        yield f"fonts_source must {rule}, got {source!r}. gnc finds it for [fixed] and [grid]."


def _check_sizes(settings: Mapping[str, Any]) -> Iterator[str]:
    dataset, resolution, num_classes = (settings[name] for name in ("dataset", "resolution", "num_classes"))
    most, kept_out = max_classes(dataset, resolution, settings["fonts"]), settings["ood_classes"] or 0
    if most is not None and num_classes + kept_out > most:
        beside = f" beside {kept_out} ood_classes" if kept_out else ""
        has = f"{dataset} has{f' at resolution {resolution}' if resolution else ''}"
        rule = f"num_classes must be at most {most - kept_out}{beside}, the classes that {has}"
        yield f"{rule}, got {num_classes!r}."
    if settings["terminal_epochs"] and settings["max_epochs"] < settings["terminal_epochs"]:
        rule = f"terminal_epochs must be at most max_epochs ({settings['max_epochs']})"
        yield f"{rule}, got {settings['terminal_epochs']!r}."


def _check_pairing(settings: Mapping[str, Any]) -> Iterator[str]:
    names = ("loss", "classifier", "normalization", "num_classes", "feature_dim", "code")
    check_pairing(**{name: settings[name] for name in names})
    for name in sorted(DATASETS[settings["dataset"]].refuses):
        if settings[name] not in (None, 0, "none"):
            rule = f"{name} must be left out for dataset {settings['dataset']!r}"
            yield f"{rule}, got {settings[name]!r}. This data set cannot be changed in that way."
    if settings["temperature_schedule"] == "annealed" and settings["budget"] in ("terminal", "stationary"):
        rule = f"temperature_schedule must be 'constant' with budget {settings['budget']!r}"
        cure = "Annealing is timed by the end of training, which is not known there."
        yield f"{rule}, got 'annealed'. {cure}"


def _check_inputs(settings: Mapping[str, Any]) -> Iterator[str]:
    gives, encoder = DATASETS[settings["dataset"]].gives, ENCODERS[settings["encoder"]]
    if gives not in encoder.takes and gives != ANY:
        accepting = [name for name, member in ENCODERS.items() if gives in member.takes]
        rule = f"encoder must accept {gives} inputs for dataset {settings['dataset']!r}"
        yield f"{rule}, got {settings['encoder']!r}. Use one of {accepting}."
    is_continuous = gives in ("image", "vector", ANY)
    if settings["attack_radii"] and not is_continuous:
        rule = f"attack_radii must be left out for dataset {settings['dataset']!r}, got {settings['attack_radii']!r}"
        cure = f"Attacks change inputs a little, which cannot be done to whole numbers such as {gives} inputs."
        yield f"{rule}. {cure}"
    if settings["assignment"] == "similarity" and not is_continuous:
        rule = f"assignment must be 'random' for dataset {settings['dataset']!r}"
        yield f"{rule}, got 'similarity'. The similarity of {gives} inputs is not defined."
    if settings["layers"] == "all" and not encoder.stages and not is_reference(settings["encoder"]):
        yield f"layers must be 'none' with encoder {settings['encoder']!r}, got 'all'. It has no layers."


def _check_samples(settings: Mapping[str, Any]) -> Iterator[str]:
    names = ("num_classes", "samples_per_class", "imbalance", "imbalance_ratio")
    if settings["samples_per_class"]:
        samples = sum(class_counts(**{name: settings[name] for name in names}))
        check_batches(samples, settings["batch_size"], settings["workers"])
        return
    if not DATASETS[settings["dataset"]].is_stored:
        rule = f"samples_per_class must be at least 1 for dataset {settings['dataset']!r}"
        yield f"{rule}, got 'all' (or 0). Only sets that lie on the disk have an end."
    if settings["imbalance"] != "none":
        rule = "imbalance must be 'none' where samples_per_class is 'all'"
        yield f"{rule}, got {settings['imbalance']!r}. The classes have the sizes that they have."


def check_batches(samples: int, batch_size: int, workers: int) -> None:
    """ValueError where so many training samples cannot be put into batches that every worker has a part of."""
    if batch_size > samples:
        raise ValueError(f"batch_size must be at most the {samples} training samples, got {batch_size!r}.")
    smallest = samples // -(-samples // batch_size)
    if smallest < 2:  # batch normalization has nothing to average over
        raise ValueError(f"batch_size must leave no batch of one of {samples} samples, got {batch_size!r}.")
    if workers > smallest:
        rule = f"workers must be at most {smallest}, the samples of the smallest batch"
        raise ValueError(f"{rule}, got {workers!r}. A worker without a sample would only wait.")


_CHECKS = (_check_own_parts, _check_sizes, _check_pairing, _check_inputs, _check_samples)
