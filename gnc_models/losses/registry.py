"""Losses by name: a scalar from features, labels and a classifier. Knows torch; does not know networks or data."""

from collections.abc import Callable
from typing import Any

from gnc_models.catalog.members import LOSSES as MEMBERS
from gnc_models.catalog.members import is_reference, load
from gnc_models.catalog.settings import check_choice, read_settings
from gnc_models.losses.chunked import chunked_cross_entropy
from gnc_models.losses.loss import Loss, OwnLoss

__all__ = ["LOSSES", "Loss", "chunked_cross_entropy", "make_loss"]

LOSSES: dict[str, Callable[..., Loss]] = {name: load("gnc_models.losses", m.made_by) for name, m in MEMBERS.items()}


def make_loss(name: str, *, num_classes: int, feature_dim: int, **settings: Any) -> Loss:
    """The loss of that name, or of one's own by `source` and `options`; ValueError where a setting is wrong."""
    if is_reference(name):
        return OwnLoss(name, num_classes=num_classes, feature_dim=feature_dim, **settings)
    check_choice("loss", name, LOSSES)
    constructor = LOSSES[name]
    given = read_settings("loss", name, constructor, settings)
    return constructor(num_classes=num_classes, feature_dim=feature_dim, **given)
