"""TrialConfig: every setting of one trial in one flat frozen model, and the key that names the trial.

Knows pydantic and the catalog of names; does not know study files, Ray, torch or the disk.
"""

import hashlib
import json
import math
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gnc_models.catalog.members import FAMILIES, REQUIRED
from gnc_models.references.tables import best_code_version
from study.design.compatibility import check_together

# Rises only when settings that already existed give other numbers; part of every key.
NUMBERS_VERSION = 1

RADII = r"^\s*\d*\.?\d+(e-?\d+)?(\s*,\s*\d*\.?\d+(e-?\d+)?)*\s*$"  # numbers parted by commas

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def _setting(unit: str, meaning: str, default: Any = ..., **rules: Any) -> Any:
    """A field whose unit and meaning become Parquet metadata, docs/rows.md and axis labels."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **rules)


class TrialConfig(BaseModel):
    """All that decides a trial's numbers. A setting without effect is None, and refused if given.

    Settings that belong to one member of a family (`resolution` to glyphs, `temperature` to heads that use it) take
    the catalog's default when their member is chosen and are None otherwise.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    dataset: Literal[
        "glyphs",
        "synthetic",
        "cifar10",
        "cifar100",
        "mnist",
        "fashion_mnist",
        "emnist",
        "image_folder",
        "text",
        "indices",
    ] = _setting("", "Data set the classes come from.", "glyphs")
    num_classes: int = _setting("classes", "Number of classes, K.", ge=2)
    samples_per_class: int = _setting(
        "samples", "Training samples of each class; of the largest with imbalance, on average with text.", 24, ge=1
    )
    test_samples_per_class: Count | None = _setting(
        "samples", "Test samples of each class; on average with text.", None
    )
    imbalance: Literal["none", "exponential", "step"] = _setting(
        "",
        "How training samples fall from class to class: all equal, geometrically, or half the classes with fewer.",
        "none",
    )
    imbalance_ratio: float | None = _setting("", "Training samples of the largest class over the smallest.", None, ge=1)
    label_noise: float = _setting(
        "share", "Training labels changed to another class; 1: all labels drawn at random.", 0.0, ge=0, le=1
    )
    ood_classes: int | None = _setting(
        "classes", "Classes beyond num_classes kept out of training, for ood_deviation.", None, ge=0
    )
    resolution: int | None = _setting("pixels", "Side of the square images.", None)
    unseen_family: Literal["sans", "mono", "serif"] | None = _setting(
        "", "Font family kept out of training and of the test set, for unseen_accuracy.", None
    )
    augmentation: Literal["none", "shift", "crop_flip"] | None = _setting(
        "",
        "Random change of every training image: shift moves it by up to one pixel each way, crop_flip by up to an "
        "eighth of its side and mirrors half of them.",
        None,
    )
    folder: str | None = _setting("", "Folder of images below the data folder, one folder a class.", None)
    context_length: Count | None = _setting("tokens", "Tokens that the next one is predicted from.", None)
    input_dim: Count | None = _setting("dimensions", "Dimension of the synthetic inputs.", None)
    noise: Positive | None = _setting(
        "distance", "Root mean square distance of a synthetic sample from its class centre on the unit sphere.", None
    )
    data_seed: int = _setting("", "Chooses classes and samples; nested in both numbers.", 0, ge=0)

    encoder: Literal[
        "small_resnet",
        "mlp",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnext50",
        "densenet121",
        "mobilenet_v2",
        "vit",
        "transformer",
        "unconstrained",
    ] = _setting("", "Network before the head.", "small_resnet")
    width: Count | None = _setting("channels", "Channels of the first stage, or units of a hidden layer.", None)
    depth: Count | None = _setting("layers", "Residual blocks a stage, hidden layers, or transformer blocks.", None)
    norm_layer: Literal["batch", "group", "layer", "none"] | None = _setting(
        "", "Normalization layers inside the network.", None
    )
    feature_dim: int = _setting("dimensions", "Dimension of the last-layer features, d.", ge=1)
    classifier: Literal["linear", "class_mean", "fixed"] = _setting(
        "", "Where the classifier's rows come from: trained, moving class means (CMF), or a fixed code.", "linear"
    )
    class_mean_form: Literal["sum", "mean"] | None = _setting(
        "", "Whether class_mean adds a class's sum or mean over the batch.", None
    )
    class_mean_momentum: float | None = _setting("", "Weight of the old row in class_mean, beta.", None, ge=0, lt=1)
    code: Literal["simplex", "best", "random"] | None = _setting("", "Code whose points are the fixed rows.", None)
    assignment: Literal["random", "similarity"] | None = _setting(
        "", "Which class gets which point of the code: drawn, or similar inputs to near points.", None
    )
    normalization: Literal["both", "features", "weights", "none"] = _setting(
        "", "What the head scales to unit length before the logits.", "both"
    )
    temperature: Positive | None = _setting("", "The logits are divided by it, tau.", None)
    temperature_schedule: Literal["constant", "annealed"] | None = _setting(
        "", "Whether training holds the temperature or falls to it geometrically over the first four fifths.", None
    )
    temperature_start: Positive | None = _setting("", "Temperature that annealing starts from.", None)
    head_init_norm: Positive = _setting("", "Norm of the head's rows at the start, on average.", 0.5)

    loss: Literal[
        "cross_entropy",
        "log_cross_entropy",
        "hardmax",
        "label_smoothing",
        "focal",
        "mse",
        "hug_mhe",
        "hug_mhs",
        "hug_mgd",
        "cosface",
        "arcface",
        "supervised_contrastive",
    ] = _setting("", "What training minimises.", "cross_entropy")
    cross_entropy: Literal["dense", "chunked"] | None = _setting(
        "", "Whether all logits of a batch are held at once, or a few classes' at a time.", None
    )
    label_smoothing: float | None = _setting("share", "Share of the label spread over all classes.", None, gt=0, lt=1)
    focal_gamma: float | None = _setting("", "Exponent of the focal loss; 0 is cross-entropy.", None, ge=0)
    margin_penalty: float | None = _setting(
        "",
        "Margin of the loss: subtracted from the cosine (cosface) or added to the angle in radians (arcface).",
        None,
        ge=0,
    )
    inter_weight: float | None = _setting("", "Weight of HUG's term between classes, alpha.", None, ge=0)
    intra_weight: float | None = _setting("", "Weight of HUG's term within classes, beta.", None, ge=0)
    kernel_width: Positive | None = _setting("distance", "Width of hug_mgd's Gaussian kernel.", None)
    logdet_eps: Positive | None = _setting("", "Multiple of the identity added in hug_mgd's determinants.", None)

    optimizer: Literal["sgd", "adamw"] = _setting("", "SGD with Nesterov momentum, or AdamW.", "sgd")
    learning_rate: Positive = _setting("", "Peak learning rate.", 0.2, le=1e38)
    momentum: float | None = _setting("", "Nesterov momentum of SGD.", None, ge=0, lt=1)
    weight_decay: float = _setting("", "Weight decay, L2 in SGD and decoupled in AdamW.", 5e-4, ge=0)
    decay_normalised: bool | None = _setting(
        "", "Whether weight decay also acts on head rows that are normalised before use.", None
    )
    schedule: Literal["cosine", "one_cycle"] = _setting("", "Course of the learning rate.", "one_cycle")
    batch_size: int = _setting(
        "samples", "Most samples in a training batch; an epoch's batches are equal but for one sample.", 64, ge=2
    )
    budget: Literal["steps", "epochs", "terminal"] = _setting("", "What ends training.", "steps")
    steps: Annotated[int, Field(ge=0)] | None = _setting(
        "steps", "Optimiser steps, with budget steps; 0 measures the untrained network.", None
    )
    epochs: Count | None = _setting("epochs", "Epochs, with budget epochs.", None)
    terminal_epochs: Count | None = _setting(
        "epochs", "Epochs after train_accuracy first reaches 0.99, with budget terminal.", None
    )
    max_epochs: Count | None = _setting("epochs", "Most epochs in all, with budget terminal.", None)

    measure: Literal["log", "every", "final"] = _setting(
        "", "Epochs that are measured: about two to each doubling and the last, every one, or the last.", "log"
    )
    layers: Literal["none", "all"] = _setting(
        "", "Whether collapse is also measured at every stage of the network, for the layer_ columns.", "none"
    )
    attack_radii: Annotated[str, Field(pattern=RADII)] | None = _setting(
        "input",
        "Radii of l-inf attacks on test inputs after the last epoch, as '0.01, 0.03', for fgsm_ and pgd_accuracy.",
        None,
    )
    precision: Literal["float32", "bfloat16", "float64"] = _setting("", "Arithmetic of the network.", "float32")
    num_threads: int = _setting("threads", "CPU threads of the trial; sums depend on it.", 1, ge=1)
    workers: int = _setting(
        "workers", "Processes that share every training batch, each with num_threads; sums depend on it.", 1, ge=1
    )
    seed: int = _setting("", "Drives initialisation, order and augmentation.", 0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _settle_family_settings(cls, given: Any) -> Any:
        """Fill defaults of the chosen members; refuse settings that the chosen members do not read."""
        if not isinstance(given, dict):
            return given
        settled = cls.settle(given)
        for name in FAMILY_SETTINGS:
            value = given.get(name)
            if value is not None and settled[name] is None:
                raise ValueError(
                    f"{name} must be left out unless {_readers(name)}, got {value!r}. It would have no effect here."
                )
            if settled[name] is REQUIRED:
                raise ValueError(
                    f"{name} must be given where {_readers(name)}. It is: {cls.model_fields[name].description}"
                )
        return {name: value for name, value in settled.items() if value is not None}

    @classmethod
    def settle(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The settings given, with the defaults of those that the chosen members read and None for those they do not."""
        settled = {name: value for name, value in given.items() if value is not None}
        read = cls._read_settings(settled)
        return settled | {n: settled.get(n, read[n]) if n in read else None for n in FAMILY_SETTINGS}

    @classmethod
    def _read_settings(cls, settled: dict[str, Any]) -> dict[str, Any]:
        """Settings that the chosen members read, with their defaults."""
        read: dict[str, Any] = {}
        idle: set[str] = set()
        for family, known in FAMILIES.items():
            chosen = settled.get(family, read.get(family, cls.model_fields[family].default))
            if isinstance(chosen, str) and chosen in known:
                read |= known[chosen].settings
                idle |= known[chosen].idle
        return {name: value for name, value in read.items() if name not in idle}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_together(self.settings())
        return self

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of SHA-256 over the settings and NUMBERS_VERSION: the trial's name for good."""
        return self._digest()

    @cached_property
    def cell(self) -> str:
        """The key without the seed: trials that differ in nothing else share it; statistics cluster on it."""
        return self._digest(without="seed")

    def settings(self) -> dict[str, Any]:
        """Every setting by name, None where it has no effect."""
        return self.model_dump()

    def _digest(self, without: str = "") -> str:
        hashed = {
            name: value
            for name, value in self.settings().items()
            if value is not None and name != without and not (name in LATER_SETTINGS and value == LATER_SETTINGS[name])
        }
        if self.code == "best":  # other rows are other numbers, so that a better table gives new trials
            hashed["best_code_version"] = best_code_version()
        payload = canonical_json({**hashed, "numbers_version": NUMBERS_VERSION})
        return hashlib.sha256(payload.encode()).hexdigest()[:16]


FAMILY_SETTINGS = frozenset(
    name for family in FAMILIES.values() for member in family.values() for name in member.settings
)
# Settings that say what a data set's samples are, beside its name, sizes and data_seed; augmentation comes after.
DATASET_SETTINGS = (
    *sorted(
        {name for member in FAMILIES["dataset"].values() for name in member.settings}
        - {"augmentation", "test_samples_per_class"}
    ),
    "imbalance",
    "imbalance_ratio",
    "label_noise",
)
# Settings added after a release, with the value that reproduces the old behaviour: left out of the key at that value,
# so that no stored result changes its name.
LATER_SETTINGS: dict[str, Any] = {
    "imbalance": "none",
    "label_noise": 0.0,
    "ood_classes": 0,
    "norm_layer": "batch",
    "classifier": "linear",
    "temperature_schedule": "constant",
    "loss": "cross_entropy",
    "cross_entropy": "dense",
    "layers": "none",
    "workers": 1,
}


def _readers(name: str) -> str:
    members = [
        f"{family} is {member!r}"
        for family, known in FAMILIES.items()
        for member, info in known.items()
        if name in info.settings
    ]
    return " or ".join(members)


def canonical_json(settings: dict[str, Any]) -> str:
    """Sorted names, floats by repr(float(x)) with -0.0 as 0.0; ValueError for NaN and infinity."""
    return json.dumps({k: _canonical(v) for k, v in settings.items()}, sort_keys=True, separators=(",", ":"))


def _canonical(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a setting must be finite, got {value!r}.")
        return repr(value + 0.0)
    return value
