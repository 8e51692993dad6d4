"""Names of every data set, encoder, classifier and loss, with the settings each one reads and the classes it can give.

Knows no torch, numpy or disk, so that a study can be checked in an instant. A contract test equates these names with
the dicts of constructors in `datasets`, `encoders`, `classifiers` and `losses`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


class _Required:
    """Stands for a setting that has no default: whoever chooses the member must give it."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Member:
    """One member of a family: the settings that only some members read, each with its default."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    max_classes: Mapping[int, int] | int | None = None  # by resolution where there is one; None: only the disk knows
    takes: frozenset[str] = frozenset({"image", "vector"})  # what an encoder accepts, or what a data set gives
    idle: frozenset[str] = frozenset()  # settings of other members that have no effect beside this one


def _family(**members: Member) -> Mapping[str, Member]:
    return MappingProxyType(members)


IMAGE, INDEX, TOKENS, VECTOR = (frozenset({kind}) for kind in ("image", "index", "tokens", "vector"))

_TESTED = {"test_samples_per_class": 8}
_PICTURES = {**_TESTED, "augmentation": "none", "ood_classes": 0}
DATASETS = _family(
    glyphs=Member(
        settings={**_PICTURES, "resolution": 16, "unseen_family": "serif"},
        max_classes=MappingProxyType({16: 1397, 32: 1611}),
        takes=IMAGE,
    ),
    synthetic=Member(
        settings={**_TESTED, "input_dim": 32, "noise": 0.1, "ood_classes": 0}, max_classes=1_000_000, takes=VECTOR
    ),
    cifar10=Member(settings=_PICTURES, max_classes=10, takes=IMAGE),
    cifar100=Member(settings=_PICTURES, max_classes=100, takes=IMAGE),
    mnist=Member(settings=_PICTURES, max_classes=10, takes=IMAGE),
    fashion_mnist=Member(settings=_PICTURES, max_classes=10, takes=IMAGE),
    emnist=Member(settings=_PICTURES, max_classes=47, takes=IMAGE),
    image_folder=Member(settings={**_PICTURES, "folder": REQUIRED, "resolution": 32}, takes=IMAGE),
    text=Member(settings={**_TESTED, "context_length": 8}, max_classes=20_000, takes=TOKENS),
    indices=Member(max_classes=1_000_000, takes=INDEX),
)

_NORM = {"norm_layer": "batch"}
ENCODERS = _family(
    small_resnet=Member(settings={"width": 16, "depth": 1, **_NORM}, takes=IMAGE),
    mlp=Member(settings={"width": 128, "depth": 2, **_NORM}),
    resnet18=Member(settings=_NORM, takes=IMAGE),
    resnet34=Member(settings=_NORM, takes=IMAGE),
    resnet50=Member(settings=_NORM, takes=IMAGE),
    resnext50=Member(settings=_NORM, takes=IMAGE),
    densenet121=Member(settings=_NORM, takes=IMAGE),
    mobilenet_v2=Member(settings=_NORM, takes=IMAGE),
    vit=Member(settings={"width": 64, "depth": 4}, takes=IMAGE),
    transformer=Member(settings={"width": 64, "depth": 2}, takes=TOKENS),
    unconstrained=Member(takes=INDEX),
)

_SCALED = {"temperature": 0.1, "temperature_schedule": "constant"}
NORMALIZATIONS = _family(
    both=Member(settings={**_SCALED, "decay_normalised": False}),
    features=Member(settings=_SCALED),
    weights=Member(settings={**_SCALED, "decay_normalised": False}),
    none=Member(),
)

TEMPERATURE_SCHEDULES = _family(constant=Member(), annealed=Member(settings={"temperature_start": 1.0}))

# Rows that no gradient reaches are not decayed either.
_FROZEN = frozenset({"decay_normalised"})
CLASSIFIERS = _family(
    linear=Member(),
    class_mean=Member(settings={"class_mean_form": "sum", "class_mean_momentum": 0.9}, idle=_FROZEN),
    fixed=Member(settings={"code": "best", "assignment": "random"}, idle=_FROZEN),
)

_HUG = {"inter_weight": 0.15, "intra_weight": 0.015}
LOSSES = _family(
    cross_entropy=Member(settings={"cross_entropy": "dense"}),
    log_cross_entropy=Member(),
    hardmax=Member(),
    label_smoothing=Member(settings={"label_smoothing": 0.1}),
    focal=Member(settings={"focal_gamma": 2.0}),
    mse=Member(),
    hug_mhe=Member(settings=_HUG),
    hug_mhs=Member(settings=_HUG),
    hug_mgd=Member(settings={"inter_weight": 0.15, "intra_weight": 0.03, "kernel_width": 1.0, "logdet_eps": REQUIRED}),
    cosface=Member(settings={"margin_penalty": 0.35}),
    arcface=Member(settings={"margin_penalty": 0.5}),
    supervised_contrastive=Member(),
)

IMBALANCES = _family(
    none=Member(),
    exponential=Member(settings={"imbalance_ratio": 100.0}),
    step=Member(settings={"imbalance_ratio": 10.0}),
)

OPTIMIZERS = _family(sgd=Member(settings={"momentum": 0.9}), adamw=Member())

BUDGETS = _family(
    steps=Member(settings={"steps": 1500}),
    epochs=Member(settings={"epochs": 20}),
    terminal=Member(settings={"terminal_epochs": 20, "max_epochs": 200}),
)

# The families a setting may choose from: its own name is the family's selector in TrialConfig. A selector that other
# members read (temperature_schedule) comes after them.
FAMILIES: Mapping[str, Mapping[str, Member]] = MappingProxyType(
    {
        "dataset": DATASETS,
        "imbalance": IMBALANCES,
        "encoder": ENCODERS,
        "classifier": CLASSIFIERS,
        "loss": LOSSES,
        "normalization": NORMALIZATIONS,
        "temperature_schedule": TEMPERATURE_SCHEDULES,
        "optimizer": OPTIMIZERS,
        "budget": BUDGETS,
    }
)


def max_classes(dataset: str, resolution: int | None) -> int | None:
    """The most classes a data set can give, None where only its folder knows; ValueError for an unknown resolution."""
    known = DATASETS[dataset].max_classes
    if known is None or isinstance(known, int):
        return known
    if resolution is None or resolution not in known:
        raise ValueError(f"resolution must be one of {sorted(known)} for {dataset}, got {resolution!r}.")
    return known[resolution]
