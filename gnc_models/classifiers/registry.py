"""Classifiers by name. Knows the members of the family; does not know losses, nor how the features come about."""

from collections.abc import Callable
from typing import Any

from gnc_models.catalog.members import CLASSIFIERS as MEMBERS
from gnc_models.catalog.members import load
from gnc_models.catalog.settings import check_choice, read_settings
from gnc_models.classifiers.classifier import Classifier

PACKAGE = "gnc_models.classifiers"
CLASSIFIERS: dict[str, Callable[..., Classifier]] = {name: load(PACKAGE, m.made_by) for name, m in MEMBERS.items()}


def make_classifier(
    name: str, num_classes: int, feature_dim: int, *, normalization: str, temperature: float | None, init_norm: float,
    **settings: Any,
) -> Classifier:  # fmt: skip
    """The classifier of that name; ValueError: an unknown name, a setting out of range or without effect, or a pair."""
    check_choice("classifier", name, CLASSIFIERS)
    constructor = CLASSIFIERS[name]
    head = {"normalization": normalization, "temperature": temperature, "init_norm": init_norm}
    return constructor(num_classes, feature_dim, **head, **read_settings("classifier", name, constructor, settings))
