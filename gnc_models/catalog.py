"""Names of every data set, encoder and head form, with the settings each one reads and the classes it can give.

Knows no torch, numpy or disk, so that a study can be checked in an instant. A contract test equates these names with
the dicts of constructors in `datasets`, `encoders` and `heads`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Member:
    """One member of a family: the settings that only some members read, each with its default."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    max_classes: Mapping[int, int] | int | None = None  # by resolution where there is one; None: not a data set
    takes: frozenset[str] = frozenset({"image", "vector"})  # what an encoder accepts, or what a data set gives


def _family(**members: Member) -> Mapping[str, Member]:
    return MappingProxyType(members)


DATASETS = _family(
    glyphs=Member(
        settings={"resolution": 16, "unseen_family": "serif", "augmentation": "none"},
        max_classes=MappingProxyType({16: 1397, 32: 1611}),
        takes=frozenset({"image"}),
    ),
    synthetic=Member(settings={"input_dim": 32, "noise": 0.1}, max_classes=1_000_000, takes=frozenset({"vector"})),
)

ENCODERS = _family(
    small_resnet=Member(settings={"width": 16, "depth": 1}, takes=frozenset({"image"})),
    mlp=Member(settings={"width": 128, "depth": 2}),
    resnet18=Member(takes=frozenset({"image"})),
)

NORMALIZATIONS = _family(
    both=Member(settings={"temperature": 0.1, "decay_normalised": False}),
    features=Member(settings={"temperature": 0.1}),
    weights=Member(settings={"temperature": 0.1, "decay_normalised": False}),
    none=Member(),
)

OPTIMIZERS = _family(sgd=Member(settings={"momentum": 0.9}), adamw=Member())

BUDGETS = _family(
    steps=Member(settings={"steps": 1500}),
    epochs=Member(settings={"epochs": 20}),
    terminal=Member(settings={"terminal_epochs": 20, "max_epochs": 200}),
)

# The families a setting may choose from: its own name is the family's selector in TrialConfig.
FAMILIES: Mapping[str, Mapping[str, Member]] = MappingProxyType(
    {
        "dataset": DATASETS,
        "encoder": ENCODERS,
        "normalization": NORMALIZATIONS,
        "optimizer": OPTIMIZERS,
        "budget": BUDGETS,
    }
)


def max_classes(dataset: str, resolution: int | None) -> int:
    """The number of classes a data set can give at most; ValueError for an unknown resolution."""
    known = DATASETS[dataset].max_classes
    if isinstance(known, int):
        return known
    if known is None or resolution is None or resolution not in known:
        sizes = sorted(known or ())
        raise ValueError(f"resolution must be one of {sizes} for {dataset}, got {resolution!r}.")
    return known[resolution]
