"""Every data set, encoder, classifier and loss by name, with all that is known of it before it is built.

The registries build their dicts from it, `TrialConfig` takes the names, the rules ask the members. Knows no torch or
numpy.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar


class _Required:
    """Marks a setting that has no default: a study that chooses the member must give it."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Member:
    """One member of a family.

    made_by: module and name of its constructor, below the family's package. settings: those that only some members of
    the family read, with this member's defaults. idle: settings of other members that have no effect beside this one.
    """

    made_by: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DataSet(Member):
    """gives: the kind of its inputs. max_classes: by resolution where there is one; None where only the disk knows.

    refuses: settings that would reshape the set in a way that it cannot take.
    """

    gives: str = "image"
    max_classes: Mapping[int, int] | int | None = None
    refuses: frozenset[str] = frozenset()

    @property
    def is_stored(self) -> bool:
        """Whether it lies on the disk, so that its classes have an end."""
        return self.made_by.startswith("stored.")

    @property
    def is_balanced(self) -> bool:
        """Whether every class has as many samples unless an imbalance is asked for."""
        return "imbalance" not in self.refuses


ANY = "any"  # kind of the inputs of a data set of one's own: only its tensors say it
ANY_NORM = ("batch", "group", "layer", "none")


@dataclass(frozen=True)
class Encoder(Member):
    """takes: the kinds of inputs it accepts. norm_layers: those it can have, its own first; a setting where it has several.

    stages: module and name of the function that lists its layers, "" where it has none. read_out: the position of a
    sequence that the features are read from.
    """

    takes: frozenset[str] = frozenset({"image"})
    norm_layers: tuple[str, ...] = ANY_NORM
    stages: str = ""
    read_out: int = 0

    def __post_init__(self) -> None:
        if len(self.norm_layers) > 1:
            object.__setattr__(self, "settings", {**self.settings, "norm_layer": self.norm_layers[0]})


@dataclass(frozen=True)
class Loss(Member):
    """across_samples: it is no mean over single samples, so workers must bring the features of a batch together.

    only_both: why normalization must be "both"; "" where any will do. moves_rows: whether classifier rows get a
    gradient.
    has_temperature: whether its value depends on the temperature; accuracy and the measured cross-entropy always do.
    """

    across_samples: bool = False
    only_both: str = ""
    moves_rows: bool = True
    has_temperature: bool = True


AnyMember = TypeVar("AnyMember", bound=Member)


class _Family(dict[str, AnyMember]):
    """A family by name. `own` stands for every part of one's own, whose name is a reference such as nets.py:make_net."""

    def __init__(self, own: AnyMember, members: Mapping[str, AnyMember]) -> None:
        super().__init__(members)
        self.own = own

    def __missing__(self, name: str) -> AnyMember:
        if is_reference(name):
            return self.own
        raise KeyError(name)


def is_reference(name: Any) -> bool:
    """Whether this names a part of one's own: `file.py:name` or `package.module:name`."""
    return isinstance(name, str) and ":" in name


BUILT_IN_FONTS = (
    "dejavu"  # in a wheel that is always installed; how many classes other fonts have only their files know
)

_TESTED = {"test_samples_per_class": 8}
_PICTURES = {**_TESTED, "augmentation": "none", "ood_classes": 0}
# Text already has a long tail, and the tokens outside a vocabulary are not classes of another set.
_TEXT_REFUSES = frozenset({"imbalance", "imbalance_ratio", "ood_classes"})
# An index has no content, so that no label of it can be wrong.
_INDICES_REFUSE = frozenset({"label_noise", "ood_classes"})
_DATASETS = {
    "glyphs": DataSet(
        "made.glyphs:make_glyphs",
        {**_PICTURES, "resolution": 16, "unseen_family": "serif", "fonts": BUILT_IN_FONTS},
        max_classes={16: 1397, 32: 1611},
    ),
    "synthetic": DataSet(
        "made.synthetic:make_synthetic",
        {**_TESTED, "input_dim": 32, "noise": 0.1, "ood_classes": 0},
        gives="vector",
        max_classes=1_000_000,
    ),
    "cifar10": DataSet("stored.images:make_cifar10", _PICTURES, max_classes=10),
    "cifar100": DataSet("stored.images:make_cifar100", _PICTURES, max_classes=100),
    "mnist": DataSet("stored.images:make_mnist", _PICTURES, max_classes=10),
    "fashion_mnist": DataSet("stored.images:make_fashion_mnist", _PICTURES, max_classes=10),
    "emnist": DataSet("stored.images:make_emnist", _PICTURES, max_classes=47),
    "image_folder": DataSet(
        "stored.image_folder:make_image_folder", {**_PICTURES, "folder": REQUIRED, "resolution": 32}
    ),
    "text": DataSet(
        "made.text:make_text",
        {**_TESTED, "context_length": 8},
        gives="tokens",
        max_classes=20_000,
        refuses=_TEXT_REFUSES,
    ),
    "indices": DataSet("made.indices:make_indices", gives="index", max_classes=1_000_000, refuses=_INDICES_REFUSE),
}
DATASETS: Mapping[str, DataSet] = _Family(DataSet(settings=_PICTURES, gives=ANY), _DATASETS)

_LAYER_NORM = ("layer",)  # what defines a transformer
_RESNET_STAGES = "stages:resnet"
_ENCODERS = {
    "small_resnet": Encoder("small:make_small_resnet", {"width": 16, "depth": 1}, stages="stages:small_resnet"),
    "mlp": Encoder(
        "small:make_mlp", {"width": 128, "depth": 2}, takes=frozenset({"image", "vector"}), stages="stages:mlp"
    ),
    "resnet18": Encoder("torchvision_networks:make_resnet18", stages=_RESNET_STAGES),
    "resnet34": Encoder("torchvision_networks:make_resnet34", stages=_RESNET_STAGES),
    "resnet50": Encoder("torchvision_networks:make_resnet50", stages=_RESNET_STAGES),
    "resnext50": Encoder("torchvision_networks:make_resnext50", stages=_RESNET_STAGES),
    "densenet121": Encoder("torchvision_networks:make_densenet121", stages="stages:densenet"),
    "mobilenet_v2": Encoder("torchvision_networks:make_mobilenet_v2", stages="stages:mobilenet"),
    "vit": Encoder("transformers:make_vit", {"width": 64, "depth": 4}, norm_layers=_LAYER_NORM, stages="stages:vit"),
    "transformer": Encoder(
        "transformers:make_transformer",
        {"width": 64, "depth": 2},
        takes=frozenset({"tokens"}),
        norm_layers=_LAYER_NORM,
        stages="stages:transformer",
        read_out=-1,
    ),
    "unconstrained": Encoder("free_features:make_unconstrained", takes=frozenset({"index"}), norm_layers=()),
}
_ALL_KINDS = frozenset({"image", "vector", "tokens", "index", ANY})
ENCODERS: Mapping[str, Encoder] = _Family(Encoder(takes=_ALL_KINDS, norm_layers=()), _ENCODERS)

_SCALED = {"temperature": 0.1, "temperature_schedule": "constant"}
NORMALIZATIONS: Mapping[str, Member] = {
    "both": Member(settings={**_SCALED, "decay_normalised": False}),
    "features": Member(settings=_SCALED),
    "weights": Member(settings={**_SCALED, "decay_normalised": False}),
    "none": Member(),
}

TEMPERATURE_SCHEDULES: Mapping[str, Member] = {
    "constant": Member(),
    "annealed": Member(settings={"temperature_start": 1.0}),
}

# Rows that no gradient reaches are not decayed either.
_FROZEN = frozenset({"decay_normalised"})
CLASSIFIERS: Mapping[str, Member] = {
    "linear": Member(),
    "class_mean": Member(
        settings={"class_mean_form": "sum", "class_mean_momentum": 0.9, "class_mean_update": "before"}, idle=_FROZEN
    ),
    "fixed": Member(settings={"code": "best", "assignment": "random"}, idle=_FROZEN),
}

SCALES_ITSELF = "The loss scales features and rows to unit length itself."  # another normalization would have no effect
_HUG: dict[str, Any] = {"across_samples": True, "only_both": SCALES_ITSELF, "has_temperature": False}
_HUG_WEIGHTS = {"inter_weight": 0.15, "intra_weight": 0.015}
_LOSSES = {
    "cross_entropy": Loss("cross_entropy:CrossEntropy", {"cross_entropy": "dense"}),
    "log_cross_entropy": Loss("cross_entropy:LogCrossEntropy", across_samples=True),
    "hardmax": Loss(
        "cross_entropy:HardMax",
        across_samples=True,
        only_both="It would fall without bound as norms grow.",
        has_temperature=False,
    ),
    "label_smoothing": Loss("baselines:LabelSmoothing", {"label_smoothing": 0.1}),
    "focal": Loss("baselines:Focal", {"focal_gamma": 2.0}),
    "mse": Loss("baselines:SquaredError"),
    "hug_mhe": Loss("uniformity:HypersphereEnergy", _HUG_WEIGHTS, **_HUG),
    "hug_mhs": Loss("uniformity:HypersphereSeparation", _HUG_WEIGHTS, **_HUG),
    "hug_mgd": Loss(
        "uniformity:GramDeterminant",
        {"inter_weight": 0.15, "intra_weight": 0.03, "kernel_width": 1.0, "logdet_eps": REQUIRED},
        **_HUG,
    ),
    "cosface": Loss("large_margin:CosFace", {"margin_penalty": 0.35}, only_both=SCALES_ITSELF),
    "arcface": Loss("large_margin:ArcFace", {"margin_penalty": 0.5}, only_both=SCALES_ITSELF),
    "supervised_contrastive": Loss(
        "contrastive:SupervisedContrastive", across_samples=True, only_both=SCALES_ITSELF, moves_rows=False
    ),
}
# A loss of one's own may look at the whole batch, so that workers bring their features together.
LOSSES: Mapping[str, Loss] = _Family(Loss(across_samples=True), _LOSSES)

IMBALANCES: Mapping[str, Member] = {
    "none": Member(),
    "exponential": Member(settings={"imbalance_ratio": 100.0}),
    "step": Member(settings={"imbalance_ratio": 10.0}),
}

OPTIMIZERS: Mapping[str, Member] = {"sgd": Member(settings={"momentum": 0.9}), "adamw": Member()}

BUDGETS: Mapping[str, Member] = {
    "steps": Member(settings={"steps": 1500}),
    "epochs": Member(settings={"epochs": 20}),
    "terminal": Member(settings={"terminal_epochs": 20, "max_epochs": 200}),
    "stationary": Member(settings={"stationary_tolerance": 0.01, "max_steps": 15000}),
}

# The families by the setting that chooses a member. A setting that other members read (temperature_schedule) comes
# after them.
FAMILIES: Mapping[str, Mapping[str, Member]] = {
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
OWN_FAMILIES = ("dataset", "encoder", "loss")  # whose members can be one's own, with FAMILY_source and FAMILY_options


def settings_of(family: str) -> frozenset[str]:
    """The settings that only some members of a family read, and those read by what these choose in turn."""
    own = {name for member in FAMILIES[family].values() for name in member.settings}
    own |= {f"{family}_source", f"{family}_options"} if family in OWN_FAMILIES else set()
    return frozenset(own).union(*(settings_of(name) for name in own & FAMILIES.keys() - {family}))


def max_classes(dataset: str, resolution: int | None, fonts: str | None = None) -> int | None:
    """The most classes a data set can give, None where only its files know; ValueError for an unknown resolution."""
    known = DATASETS[dataset].max_classes
    if known is None or isinstance(known, int):
        return known
    if resolution is None or resolution not in known:
        raise ValueError(f"resolution must be one of {sorted(known)} for {dataset}, got {resolution!r}.")
    return known[resolution] if fonts in (None, BUILT_IN_FONTS) else None


def load(package: str, place: str) -> Callable[..., Any]:
    """The function or class that a member's `module:name` names, below the package of its family."""
    module, _, name = place.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(f"{package}.{module}"), name)
    return loaded
