"""TrialConfig: every setting of one trial in one flat frozen model, and the key that names the trial.

Knows pydantic and the catalog of names; does not know study files, Ray, torch or the disk.
"""

import hashlib
import json
import math
from functools import cached_property
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gnc_models.catalog.members import FAMILIES, REQUIRED
from gnc_models.references.tables import best_code_version
from study.design.compatibility import check_together
from study.design.setting import NEW, Count, OneOf, Positive, Role, canonical_folder, canonical_radii, setting

# Part of every key. It rises only if unchanged settings would give other numbers.
NUMBERS_VERSION = 1


class TrialConfig(BaseModel):
    """Every setting that decides the numbers of a trial. A setting without effect is None, and is refused if given.

    Settings that belong to one member of a family (`resolution` to glyphs, `temperature` to heads that use it) take
    the catalog's default when their member is chosen and are None otherwise.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    dataset: Annotated[str, OneOf("dataset")] = setting("", "Where the classes come from.", "glyphs", role="data speed")
    num_classes: int = setting("classes", "Number of classes, K.", ge=2, role="size axis", short="K")
    samples_per_class: int = setting(
        "samples", "Training samples per class (of the largest, or text's average).", 24, ge=1, role="size", short="n"
    )
    test_samples_per_class: Count | None = setting(
        "samples", "Test samples of a class; on average with text.", None, role="size"
    )
    imbalance: Annotated[str, OneOf("imbalance")] = setting(
        "", "How samples fall over classes: not, geometrically, or for half of them.", "none", role="data", since="none"
    )
    imbalance_ratio: float | None = setting("", "Largest class's samples over the smallest's.", None, ge=1, role="data")
    label_noise: float = setting(
        "share", "Training labels that are changed; 1: all labels are random.", 0.0, ge=0, le=1, role="data", since=0.0
    )
    ood_classes: int | None = setting(
        "classes", "Classes beyond num_classes not trained on, for ood_deviation.", None, ge=0, role="data", since=0
    )
    resolution: int | None = setting("pixels", "Side of the square images.", None, role="data speed")
    unseen_family: Literal["sans", "mono", "serif"] | None = setting(
        "", "Font family kept out of training and of the test set, for unseen_accuracy.", None, role="data"
    )
    augmentation: Literal["none", "shift", "crop_flip"] | None = setting(
        "", "Random change of training images: shift moves by one pixel, crop_flip by an eighth and mirrors half.", None
    )
    folder: Annotated[str, AfterValidator(canonical_folder)] | None = setting(
        "", "Folder of images below the data folder, one folder per class.", None, role="data"
    )
    context_length: Count | None = setting("tokens", "Tokens that predict the next one.", None, role="data speed")
    input_dim: Count | None = setting("dimensions", "Dimension of the synthetic inputs.", None, role="data speed")
    noise: Positive | None = setting(
        "distance", "Root mean square distance of a synthetic sample from its unit class centre.", None, role="data"
    )
    data_seed: int = setting("", "Chooses classes and samples; nested in both numbers.", 0, ge=0, role="data listed")

    encoder: Annotated[str, OneOf("encoder")] = setting("", "Network before the head.", "small_resnet", role="speed")
    width: Count | None = setting("channels", "Channels of the first stage, or hidden units.", None, role="speed")
    depth: Count | None = setting("layers", "Residual blocks per stage, hidden layers, or blocks.", None, role="speed")
    norm_layer: Literal["batch", "group", "layer", "none"] | None = setting(
        "", "Normalization layers inside the network.", None, role="speed", since="batch"
    )
    feature_dim: int = setting("dimensions", "Dimension of the last-layer features, d.", ge=1, role="axis", short="d")
    classifier: Annotated[str, OneOf("classifier")] = setting(
        "", "Origin of the classifier's rows: training, class means or a code.", "linear", role="speed", since="linear"
    )
    class_mean_form: Literal["sum", "mean"] | None = setting("", "Whether class_mean adds a class's sum or mean.", None)
    class_mean_momentum: float | None = setting("", "Weight of the old row in class_mean, beta.", None, ge=0, lt=1)
    code: Literal["simplex", "best", "random"] | None = setting("", "Code whose points are the fixed rows.", None)
    assignment: Literal["random", "similarity"] | None = setting(
        "", "Which class gets which point of the code: drawn, or similar inputs to near points.", None
    )
    normalization: Annotated[str, OneOf("normalization")] = setting(
        "", "What the head scales to unit length before the logits.", "both", role="axis", short="norm"
    )
    temperature: Positive | None = setting("", "The logits are divided by it, tau.", None, role="axis", short="tau")
    temperature_schedule: Annotated[str, OneOf("temperature_schedule")] | None = setting(
        "", "Whether temperature is held, or reached by falling over the first four fifths.", None, since="constant"
    )
    temperature_start: Positive | None = setting("", "Temperature that annealing starts from.", None)
    head_init_norm: Positive = setting("", "Norm of the head's rows at the start, on average.", 0.5)

    loss: Annotated[str, OneOf("loss")] = setting(
        "", "What training minimises.", "cross_entropy", role="speed", since="cross_entropy"
    )
    cross_entropy: Literal["dense", "chunked"] | None = setting(
        "", "Whether a batch's logits are held at once, or a few classes at a time.", None, role="speed", since="dense"
    )
    label_smoothing: float | None = setting("share", "Share of the label spread over all classes.", None, gt=0, lt=1)
    focal_gamma: float | None = setting("", "Exponent of the focal loss; 0 is cross-entropy.", None, ge=0)
    margin_penalty: float | None = setting(
        "", "Margin: subtracted from the cosine (cosface) or added to the angle in radians (arcface).", None, ge=0
    )
    inter_weight: float | None = setting("", "Weight of HUG's term between classes, alpha.", None, ge=0)
    intra_weight: float | None = setting("", "Weight of HUG's term within classes, beta.", None, ge=0)
    kernel_width: Positive | None = setting("distance", "Width of hug_mgd's Gaussian kernel.", None)
    logdet_eps: Positive | None = setting("", "Multiple of the identity added in hug_mgd's determinants.", None)

    optimizer: Annotated[str, OneOf("optimizer")] = setting("", "SGD with Nesterov momentum, or AdamW.", "sgd")
    learning_rate: Positive = setting("", "Peak learning rate.", 0.2, le=1e38)
    momentum: float | None = setting("", "Nesterov momentum of SGD.", None, ge=0, lt=1)
    weight_decay: float = setting("", "Weight decay, L2 in SGD and decoupled in AdamW.", 5e-4, ge=0)
    decay_normalised: bool | None = setting("", "Whether head rows normalised before use are decayed too.", None)
    schedule: Literal["cosine", "one_cycle"] = setting("", "Course of the learning rate.", "one_cycle")
    batch_size: int = setting(
        "samples", "Most samples in a training batch; an epoch's batches differ by at most one.", 64, ge=2, role="speed"
    )
    budget: Annotated[str, OneOf("budget")] = setting("", "What ends training.", "steps")
    steps: Annotated[int, Field(ge=0)] | None = setting("steps", "Optimiser steps; 0: the untrained network.", None)
    epochs: Count | None = setting("epochs", "Epochs.", None)
    terminal_epochs: Count | None = setting("epochs", "Epochs after train_accuracy first reaches 0.99.", None)
    max_epochs: Count | None = setting("epochs", "Most epochs in all.", None)

    measure: Literal["log", "every", "final"] = setting(
        "", "Epochs that are measured: about two to each doubling and the last, every one, or the last.", "log"
    )
    layers: Literal["none", "all"] = setting(
        "", "Whether collapse is also measured at every stage of the network: layer_ columns.", "none", since="none"
    )
    attack_radii: Annotated[str, AfterValidator(canonical_radii)] | None = setting(
        "input", "Radii of l-inf attacks on test inputs, such as '0.01, 0.03', for fgsm_ and pgd_accuracy.", None
    )
    precision: Literal["float32", "bfloat16", "float64"] = setting("", "Network arithmetic.", "float32", role="speed")
    num_threads: int = setting("threads", "CPU threads of the trial; sums depend on it.", 1, ge=1, role="speed")
    workers: int = setting(
        "workers", "Processes that share every batch; sums depend on it.", 1, ge=1, role="speed listed", since=1
    )
    seed: int = setting("", "Drives initialisation, order and augmentation.", 0, ge=0, role="listed")

    @model_validator(mode="before")
    @classmethod
    def _settle_family_settings(cls, given: Any) -> Any:
        """Fill in the defaults of the chosen members, and refuse settings that these do not read."""
        if not isinstance(given, dict):
            return given
        settled = cls.settle(given)
        for name in FAMILY_SETTINGS:
            value = given.get(name)
            if value is not None and settled[name] is None:
                rule = f"{name} must be left out unless {_readers(name)}"
                raise ValueError(f"{rule}, got {value!r}. It would have no effect here.")
            if settled[name] is REQUIRED:
                meaning = cls.model_fields[name].description
                raise ValueError(f"{name} must be given where {_readers(name)}. It is: {meaning}")
        return {name: value for name, value in settled.items() if value is not None}

    @classmethod
    def settle(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The given settings, with defaults for those that the chosen members read and None for those that none reads."""
        settled = {name: value for name, value in given.items() if value is not None}
        read = cls._read_settings(settled)
        return settled | {n: settled.get(n, read[n]) if n in read else None for n in FAMILY_SETTINGS}

    @classmethod
    def _read_settings(cls, settled: dict[str, Any]) -> dict[str, Any]:
        """Settings that the chosen members read, with their defaults."""
        read, idle = dict[str, Any](), set[str]()
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
        """The name of the trial, which never changes: 16 hex digits of SHA-256 over the settings and NUMBERS_VERSION."""
        return self._digest()

    @cached_property
    def cell(self) -> str:
        """As the key, without the seed: trials that differ in the seed alone share it, and statistics cluster on it."""
        return self._digest(without="seed")

    def settings(self) -> dict[str, Any]:
        """Every setting by name, None where it has no effect."""
        return self.model_dump()

    def values_with(self, *roles: Role) -> tuple[Any, ...]:
        """The values of the settings that have one of the roles."""
        return tuple(getattr(self, name) for name in settings_with(*roles))

    def _digest(self, without: str = "") -> str:
        given = {name: value for name, value in self.settings().items() if value is not None and name != without}
        hashed = {name: value for name, value in given.items() if LATER_SETTINGS.get(name, NEW) != value}
        if self.code == "best":  # a better table of codes gives other rows, and so other trials
            hashed["best_code_version"] = best_code_version()
        payload = canonical_json({**hashed, "numbers_version": NUMBERS_VERSION})
        return hashlib.sha256(payload.encode()).hexdigest()[:16]


_KNOWN = {name: cast(dict[str, Any], field.json_schema_extra) for name, field in TrialConfig.model_fields.items()}
LATER_SETTINGS: dict[str, Any] = {n: known["since"] for n, known in _KNOWN.items() if known["since"] is not NEW}
SHORT: dict[str, str] = {name: known["short"] or name for name, known in _KNOWN.items()}
MEMBERS = [(family, name, member) for family, known in FAMILIES.items() for name, member in known.items()]
FAMILY_SETTINGS = frozenset(setting for _, _, member in MEMBERS for setting in member.settings)


def settings_with(*roles: Role) -> tuple[str, ...]:
    """The settings that have one of the roles, in their order."""
    return tuple(name for name, known in _KNOWN.items() if not known["roles"].isdisjoint(roles))


def _readers(name: str) -> str:
    return " or ".join(f"{family} is {member!r}" for family, member, info in MEMBERS if name in info.settings)


def canonical_json(settings: dict[str, Any]) -> str:
    """Sorted names, floats by repr(float(x)) with -0.0 as 0.0; ValueError for NaN and infinity."""
    return json.dumps({k: _canonical(v) for k, v in settings.items()}, sort_keys=True, separators=(",", ":"))


def _canonical(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a setting must be finite, got {value!r}.")
        return repr(value + 0.0)
    return value
