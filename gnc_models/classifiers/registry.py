"""Classifiers by name. Knows the members of the family; does not know losses, nor how the features come about."""

from collections.abc import Callable
from typing import Any

from gnc_models.catalog.settings import check_choice, read_settings
from gnc_models.classifiers.class_mean import ClassMeanClassifier
from gnc_models.classifiers.classifier import Classifier, LinearClassifier
from gnc_models.classifiers.fixed import FixedClassifier

CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "linear": LinearClassifier,
    "class_mean": ClassMeanClassifier,
    "fixed": FixedClassifier,
}


def make_classifier(
    name: str,
    num_classes: int,
    feature_dim: int,
    *,
    normalization: str,
    temperature: float | None,
    init_norm: float,
    **settings: Any,
) -> Classifier:
    """The classifier of that name; ValueError: an unknown name, a setting out of range or without effect, or a pair."""
    check_choice("classifier", name, CLASSIFIERS)
    constructor = CLASSIFIERS[name]
    head = {"normalization": normalization, "temperature": temperature, "init_norm": init_norm}
    return constructor(num_classes, feature_dim, **head, **read_settings("classifier", name, constructor, settings))
