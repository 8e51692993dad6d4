"""TrialConfig: every setting of one trial in one flat frozen model, and the key that names the trial.

Knows pydantic and the catalog of names; does not know study files, Ray, torch or the disk.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from functools import cache, cached_property, lru_cache
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gnc_models.catalog.members import BUDGETS, FAMILIES, OWN_FAMILIES, REQUIRED, is_reference
from gnc_models.references.tables import best_code_version
from study.design.compatibility import check_together
from study.design.setting import (
    NEW,
    Count,
    OneOf,
    Positive,
    Role,
    canonical_folder,
    canonical_fonts,
    canonical_list,
    canonical_options,
    canonical_radii,
    canonical_samples,
    setting,
)

# Part of every key. It rises only if unchanged settings would give other numbers.
NUMBERS_VERSION = 1


class TrialConfig(BaseModel):
    """Every setting that decides the numbers of a trial. A setting without effect is None, and is refused if given.

    Settings that belong to one member of a family (`resolution` to glyphs, `temperature` to heads that use it) take
    the catalog's default when their member is chosen and are None otherwise.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    dataset: Annotated[str, OneOf("dataset")] = setting("", "Where the classes come from.", "glyphs", role="data speed")
    dataset_source: str | None = setting(
        "", "Digest of the code of a data set of one's own; null for one of the package.", None, role="data"
    )
    dataset_options: Annotated[str | None, BeforeValidator(canonical_options)] = setting(
        "", "Options of a data set of one's own, as JSON.", None, role="data"
    )
    num_classes: int = setting("classes", "Number of classes, K.", ge=2, role="size axis", short="K")
    samples_per_class: Annotated[int, BeforeValidator(canonical_samples)] = setting(
        "samples",
        "Training samples per class (of the largest, or text's average); 0, written as 'all': what each class has.",
        24,
        ge=0,
        role="size",
        short="n",
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
    fonts: Annotated[str, AfterValidator(canonical_fonts)] | None = setting(
        "",
        "What characters are drawn in: dejavu, or Debian packages and folders of fonts.",
        None,
        role="data",
        since="dejavu",
    )
    fonts_source: str | None = setting("", "Digest of the files of fonts that are not built in.", None, role="data")
    unseen_family: Literal["sans", "mono", "serif", "none"] | None = setting(
        "", "Font family kept out of training and of the test set, for unseen_accuracy.", None, role="data"
    )
    augmentation: Literal["none", "shift", "crop_flip"] | None = setting(
        "", "Random change of training images: shift moves by one pixel, crop_flip by an eighth and mirrors half.", None
    )
    folder: Annotated[str, AfterValidator(canonical_folder)] | None = setting(
        "", "Folder of images, below the data folder or a full path; one folder per class.", None, role="data"
    )
    context_length: Count | None = setting("tokens", "Tokens that predict the next one.", None, role="data speed")
    input_dim: Count | None = setting("dimensions", "Dimension of the synthetic inputs.", None, role="data speed")
    noise: Positive | None = setting(
        "distance", "Root mean square distance of a synthetic sample from its unit class centre.", None, role="data"
    )
    data_seed: int = setting("", "Chooses classes and samples; nested in both numbers.", 0, ge=0, role="data listed")

    encoder: Annotated[str, OneOf("encoder")] = setting("", "Network before the head.", "small_resnet", role="speed")
    encoder_source: str | None = setting(
        "", "Digest of the code of a network of one's own; null for one of the package.", None, role="speed"
    )
    encoder_options: Annotated[str | None, BeforeValidator(canonical_options)] = setting(
        "", "Options of a network of one's own, as JSON.", None, role="speed"
    )
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
    class_mean_update: Literal["before", "after"] | None = setting(
        "", "Whether a batch moves class_mean's rows before its loss or after the step.", None, since="after"
    )
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
    loss_source: str | None = setting(
        "", "Digest of the code of a loss of one's own; null for one of the package.", None, role="speed"
    )
    loss_options: Annotated[str | None, BeforeValidator(canonical_options)] = setting(
        "", "Options of a loss of one's own, as JSON.", None, role="speed"
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
    stationary_tolerance: float | None = setting(
        "share", "Most change of margin and tau x log loss between two quarters of training at rest.", None, gt=0, lt=1
    )
    max_steps: Annotated[int, Field(ge=3)] | None = setting("steps", "Most optimiser steps in all.", None)

    measure: Literal["log", "every", "final"] = setting(
        "", "Epochs that are measured: about two to each doubling and the last, every one, or the last.", "log"
    )
    measured_samples: Count | None = setting(
        "samples",
        "First samples of each class that are measured, by class statistics alone; null: all, and all columns.",
        None,
    )
    layers: Literal["none", "all"] = setting(
        "", "Whether collapse is also measured at every stage of the network: layer_ columns.", "none", since="none"
    )
    attack_radii: Annotated[str, AfterValidator(canonical_radii)] | None = setting(
        "input", "Radii of l-inf attacks on test inputs, such as '0.01, 0.03', for fgsm_ and pgd_accuracy.", None
    )
    metrics: Annotated[str, AfterValidator(canonical_list)] | None = setting(
        "", "Metrics of one's own that are measured too, into the column custom.", None
    )
    metrics_source: str | None = setting("", "Digests of the code of these metrics, in their order.", None)
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
        settled, faults = cls.settle_given(given)
        if faults:
            raise ValueError("\n".join(faults.values()))
        return settled

    @classmethod
    def settle_given(cls, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """The settings as a trial is made of them, with every default that its members have; why any cannot be, by name."""
        settled = {name: value for name, value in given.items() if value is not None}
        # no column of a table could hold a larger number
        large = {n: v for n, v in settled.items() if type(v) is int and v >= 1 << 63}
        faults = {name: f"{name} must be below 2^63, got {value!r}." for name, value in large.items()}
        if "budget" not in settled:
            chosen = {name: BUDGET_OF[name] for name in settled if name in BUDGET_OF}
            if len(set(chosen.values())) > 1:
                got = " and ".join(f"{name} = {settled[name]!r}" for name in chosen)
                return settled, faults | dict.fromkeys(
                    chosen,
                    f"one budget must be chosen, got {got}. Keep one of them, or name a budget: {', '.join(BUDGETS)}.",
                )
            if chosen:
                settled["budget"] = next(iter(chosen.values()))
        read = _settings_read(*(_text(settled.get(family)) for family in FAMILIES))
        for name in settled.keys() & FAMILY_SETTINGS - read.keys():
            rule = f"{name} must be left out unless {readers(name)}"
            faults[name] = f"{rule}, got {settled[name]!r}. It would have no effect here."
        settled = read | settled
        for name in read:
            if settled[name] is REQUIRED:
                meaning = cls.model_fields[name].description
                faults[name] = f"{name} must be given where {readers(name)}. It is: {meaning}"
        return {name: value for name, value in settled.items() if value is not None}, faults

    @classmethod
    def settle(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The given settings, with defaults for those that the chosen members read and None for those that none reads."""
        settled = {name: value for name, value in given.items() if value is not None}
        read = _settings_read(*(_text(settled.get(family)) for family in FAMILIES))
        return settled | {n: settled.get(n, read[n]) if n in read else None for n in FAMILY_SETTINGS}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_together(self.settings())
        return self

    @cached_property
    def key(self) -> str:
        """The name of the trial, which never changes: 16 hex digits of SHA-256 over the settings and NUMBERS_VERSION."""
        before, after = self._hashed
        return _digest(f"{before},{_entry('seed', 'int', self.seed)},{after}")

    @cached_property
    def cell(self) -> str:
        """As the key, without the seed: trials that differ in the seed alone share it, and statistics cluster on it."""
        return _digest(",".join(self._hashed))

    def with_seed(self, seed: int) -> Self:
        """The same trial with another seed, which must be valid: no rule ties the seed to another setting."""
        other = self.model_copy(update={"seed": seed})
        other.__dict__["cell"] = self.cell
        other.__dict__.pop("key", None)
        return other

    def settings(self) -> dict[str, Any]:
        """Every setting by name, None where it has no effect."""
        settings = dict(self.__dict__)  # a copy, for speed: studies have up to 100,000 trials
        for name in ("key", "cell", "_hashed"):  # kept beside the settings once they were asked for
            settings.pop(name, None)
        return settings

    def options_of(self, family: str) -> dict[str, Any]:
        """The options of a part of one's own, by name."""
        options: dict[str, Any] = json.loads(getattr(self, f"{family}_options") or "{}")
        return options

    def parts(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """The parts of one's own that the trial is made of: reference and source of each, by family."""
        own: dict[str, tuple[tuple[str, str], ...]] = {}
        for family in OWN_FAMILIES:
            if is_reference(name := getattr(self, family)):
                own[family] = ((name, getattr(self, f"{family}_source")),)
        if self.metrics is not None:
            own["metrics"] = tuple(zip(self.metrics.split(", "), (self.metrics_source or "").split(", "), strict=False))
        return own

    def values_with(self, *roles: Role) -> tuple[Any, ...]:
        """The values of the settings that have one of the roles."""
        return tuple(map(self.__dict__.__getitem__, settings_with(*roles)))

    @cached_property
    def _hashed(self) -> tuple[str, str]:
        """The text that the key is a digest of, before and after the seed."""
        hashed = {n: v for n, v in self.settings().items() if v is not None and LATER_SETTINGS.get(n, NEW) != v}
        hashed["numbers_version"] = NUMBERS_VERSION
        if self.code == "best":  # a better table of codes gives other rows, and so other trials
            hashed["best_code_version"] = best_code_version()
        before, after = (
            {n: v for n, v in hashed.items() if (n > "seed") == is_after and n != "seed"} for is_after in (0, 1)
        )
        return canonical_json(before)[:-1], canonical_json(after)[1:]


def one_of_each_cell(configs: Iterable[TrialConfig]) -> tuple[TrialConfig, ...]:
    """The last trial of each cell, for what does not depend on the seed: studies have up to 100,000 trials."""
    return tuple({config.cell: config for config in configs}.values())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_KNOWN = {name: cast(dict[str, Any], field.json_schema_extra) for name, field in TrialConfig.model_fields.items()}
LATER_SETTINGS: dict[str, Any] = {n: known["since"] for n, known in _KNOWN.items() if known["since"] is not NEW}
SHORT: dict[str, str] = {name: known["short"] or name for name, known in _KNOWN.items()}
# What others call a setting, which refusals and gnc settings understand; in small letters, with the short names.
ALIASES = {known["short"].lower(): name for name, known in _KNOWN.items() if known["short"]} | {
    "classes": "num_classes", "dim": "feature_dim", "t": "temperature", "data": "dataset", "model": "encoder",
    "network": "encoder", "backbone": "encoder", "architecture": "encoder", "lr": "learning_rate", "wd": "weight_decay",
    "bs": "batch_size", "batch": "batch_size", "optim": "optimizer", "scheduler": "schedule", "num_epochs": "epochs",
    "num_steps": "steps", "iterations": "steps", "dtype": "precision", "threads": "num_threads",
}  # fmt: skip
MEMBERS = [(family, name, member) for family, known in FAMILIES.items() for name, member in known.items()]
BUDGET_OF = {name: budget for budget, member in BUDGETS.items() for name in member.settings}
FAMILY_SETTINGS = frozenset(setting for _, _, member in MEMBERS for setting in member.settings)


@cache
def settings_with(*roles: Role) -> tuple[str, ...]:
    """The settings that have one of the roles, in their order."""
    return tuple(name for name, known in _KNOWN.items() if not known["roles"].isdisjoint(roles))


@lru_cache
def _settings_read(*chosen: str | None) -> dict[str, Any]:
    """Settings that the members read which are chosen from the families, in their order, with their defaults."""
    read, idle = dict[str, Any](), set[str]()
    for (family, known), named in zip(FAMILIES.items(), chosen, strict=True):
        member = read.get(family, TrialConfig.model_fields[family].default) if named is None else named
        if member in known or (family in OWN_FAMILIES and is_reference(member)):
            read |= known[member].settings
            idle |= known[member].idle
    return {name: value for name, value in read.items() if name not in idle}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else ""  # refused elsewhere, and perhaps without a hash


def readers(name: str) -> str:
    """The members that read a setting, in words; empty for one that every trial reads."""
    return " or ".join(f"{family} is {member!r}" for family, member, info in MEMBERS if name in info.settings)


def canonical_json(settings: dict[str, Any]) -> str:
    """Sorted names, floats by repr(float(x)) with -0.0 as 0.0; ValueError for NaN and infinity."""
    return "{" + ",".join(_entry(name, type(value).__name__, value) for name, value in sorted(settings.items())) + "}"


@lru_cache(1 << 14)  # a hundred thousand trials share most of their settings
def _entry(name: str, kind: str, value: Any) -> str:
    """kind: as 1, 1.0 and True are one key of a cache."""
    if kind == "float":
        if not math.isfinite(value):
            raise ValueError(f"a setting must be finite, got {value!r}.")
        value = repr(value + 0.0)
    return f"{json.dumps(name)}:{json.dumps(value)}"
