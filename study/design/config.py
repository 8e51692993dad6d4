"""TrialConfig: every setting of one trial in one flat frozen model, and the key that names the trial.
Knows pydantic and the catalog of names; does not know study files, Ray, torch or the disk."""

import hashlib
import json
import math
import operator
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gnc_models.catalog.members import BUDGETS, FAMILIES, OWN_FAMILIES, REQUIRED, is_reference
from gnc_models.references.tables import best_code_version
from study.design.columns import columns_with, fields_of
from study.design.compatibility import check_together
from study.design.setting import Count, Folder, Fonts, OneOf, Options, Positive, Radii, References, Samples, Table

# Part of every key. It rises only if unchanged settings would give other numbers.
NUMBERS_VERSION = 1


class TrialConfig(Table):
    """Every setting that decides the numbers of a trial; columns.csv has what each means, its unit and its roles.
    A setting without effect is None, and is refused if given. Settings that belong to one member of a family
    (`resolution` to glyphs) take the catalog's default when their member is chosen and are None otherwise."""

    dataset: Annotated[str, OneOf("dataset")] = "glyphs"
    dataset_source: str | None = None
    dataset_options: Options = None
    num_classes: int = Field(ge=2)
    samples_per_class: Samples = 24
    test_samples_per_class: Count | None = None
    imbalance: Annotated[str, OneOf("imbalance")] = "none"
    imbalance_ratio: float | None = Field(default=None, ge=1)
    label_noise: float = Field(default=0.0, ge=0, le=1)
    ood_classes: int | None = Field(default=None, ge=0)
    resolution: int | None = None
    fonts: Fonts | None = None
    fonts_source: str | None = None
    unseen_family: Literal["sans", "mono", "serif", "none"] | None = None
    augmentation: Literal["none", "shift", "crop_flip"] | None = None
    folder: Folder | None = None
    context_length: Count | None = None
    input_dim: Count | None = None
    noise: Positive | None = None
    data_seed: int = Field(default=0, ge=0)

    encoder: Annotated[str, OneOf("encoder")] = "small_resnet"
    encoder_source: str | None = None
    encoder_options: Options = None
    width: Count | None = None
    depth: Count | None = None
    norm_layer: Literal["batch", "group", "layer", "none"] | None = None
    feature_dim: int = Field(ge=1)
    classifier: Annotated[str, OneOf("classifier")] = "linear"
    class_mean_form: Literal["sum", "mean"] | None = None
    class_mean_momentum: float | None = Field(default=None, ge=0, lt=1)
    class_mean_update: Literal["before", "after"] | None = None
    code: Literal["simplex", "best", "random"] | None = None
    assignment: Literal["random", "similarity"] | None = None
    normalization: Annotated[str, OneOf("normalization")] = "both"
    temperature: Positive | None = None
    temperature_schedule: Annotated[str, OneOf("temperature_schedule")] | None = None
    temperature_start: Positive | None = None
    head_init_norm: Positive = 0.5

    loss: Annotated[str, OneOf("loss")] = "cross_entropy"
    loss_source: str | None = None
    loss_options: Options = None
    cross_entropy: Literal["dense", "chunked"] | None = None
    label_smoothing: float | None = Field(default=None, gt=0, lt=1)
    focal_gamma: float | None = Field(default=None, ge=0)
    margin_penalty: float | None = Field(default=None, ge=0)
    inter_weight: float | None = Field(default=None, ge=0)
    intra_weight: float | None = Field(default=None, ge=0)
    kernel_width: Positive | None = None
    logdet_eps: Positive | None = None

    optimizer: Annotated[str, OneOf("optimizer")] = "sgd"
    learning_rate: Positive = Field(default=0.2, le=1e38)
    momentum: float | None = Field(default=None, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    decay_normalised: bool | None = None
    schedule: Literal["cosine", "one_cycle"] = "one_cycle"
    batch_size: int = Field(default=64, ge=2)
    budget: Annotated[str, OneOf("budget")] = "steps"
    steps: Annotated[int, Field(ge=0)] | None = None
    epochs: Count | None = None
    terminal_epochs: Count | None = None
    max_epochs: Count | None = None
    stationary_tolerance: float | None = Field(default=None, gt=0, lt=1)
    max_steps: Annotated[int, Field(ge=3)] | None = None

    measure: Literal["log", "every", "final"] = "log"
    measured_samples: Count | None = None
    layers: Literal["none", "all"] = "none"
    attack_radii: Radii | None = None
    metrics: References | None = None
    metrics_source: str | None = None
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    num_threads: int = Field(default=1, ge=1)
    workers: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _settle_family_settings(cls, given: dict[str, Any]) -> dict[str, Any]:
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
                cure = f"Keep one of them, or name a budget: {', '.join(BUDGETS)}."
                return settled, faults | dict.fromkeys(chosen, f"one budget must be chosen, got {got}. {cure}")
            if chosen:
                settled["budget"] = next(iter(chosen.values()))
        read = _settings_read(settled)
        for name in settled.keys() & FAMILY_SETTINGS - read.keys():
            rule = f"{name} must be left out unless {readers(name)}"
            faults[name] = f"{rule}, got {settled[name]!r}. It would have no effect here."
        settled = read | settled
        for name in read:
            if settled[name] is REQUIRED:
                faults[name] = f"{name} must be given where {readers(name)}. It is: {KNOWN[name]['meaning']}"
        return {name: value for name, value in settled.items() if value is not None}, faults

    @classmethod
    def settle(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The given settings, with defaults for those that the chosen members read and None for those that none reads."""
        settled = {name: value for name, value in given.items() if value is not None}
        read = _settings_read(settled)
        return settled | {n: settled.get(n, read[n]) if n in read else None for n in FAMILY_SETTINGS}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_together(self.settings())
        return self

    @cached_property
    def key(self) -> str:
        """The name of the trial, which never changes: 16 hex digits of SHA-256 over the settings and NUMBERS_VERSION."""
        before, after = self._hashed
        return short_digest(f"{before},{_entry('seed', 'int', self.seed)},{after}")

    @cached_property
    def cell(self) -> str:
        """As the key, without the seed: trials that differ in the seed alone share it, and statistics cluster on it."""
        return short_digest(",".join(self._hashed))

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
        return dict(json.loads(getattr(self, f"{family}_options") or "{}"))

    def parts(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """The parts of one's own that the trial is made of: reference and source of each, by family."""
        named = {family: getattr(self, family) for family in OWN_FAMILIES}
        own: dict[str, tuple[tuple[str, str], ...]]
        own = {f: ((name, getattr(self, f"{f}_source")),) for f, name in named.items() if is_reference(name)}
        if self.metrics is not None:
            own["metrics"] = tuple(zip(self.metrics.split(", "), (self.metrics_source or "").split(", "), strict=False))
        return own

    def values_with(self, *roles: str) -> tuple[Any, ...]:
        """The values of the settings that have one of the roles."""
        return tuple(map(self.__dict__.__getitem__, columns_with(*roles)))

    @cached_property
    def _hashed(self) -> tuple[str, str]:
        """The text that the key is a digest of, before and after the seed."""
        hashed = {n: v for n, v in self.settings().items() if v is not None and LATER_SETTINGS.get(n) != v}
        hashed["numbers_version"] = NUMBERS_VERSION
        if self.code == "best":  # a better table of codes gives other rows, and so other trials
            hashed["best_code_version"] = best_code_version()
        parts = (operator.lt, operator.gt)
        before, after = ({n: v for n, v in hashed.items() if is_part(n, "seed")} for is_part in parts)
        return canonical_json(before)[:-1], canonical_json(after)[1:]


def one_of_each_cell(configs: Iterable[TrialConfig]) -> tuple[TrialConfig, ...]:
    """The last trial of each cell, for what does not depend on the seed: studies have up to 100,000 trials."""
    return tuple({config.cell: config for config in configs}.values())


def short_digest(text: str) -> str:
    """16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _value(text: str) -> Any:
    return json.loads(text) if text[0].isdecimal() else text


# What is known of each setting beside its type, rule and default: unit, meaning, and what it is for elsewhere.
KNOWN: dict[str, dict[str, str]] = {name: field.metadata for name, _, field in fields_of("TrialConfig")}
assert list(KNOWN) == list(TrialConfig.model_fields)
# since: of a setting that came after a release, the value that reproduces what was done before. At that value it is left
# out of the key, so that no stored result changes its name.
LATER_SETTINGS: dict[str, Any] = {name: _value(known["since"]) for name, known in KNOWN.items() if known["since"]}
SHORT = {name: known["short"] or name for name, known in KNOWN.items()}  # names in one-line descriptions of trials
# What others call a setting, which refusals and gnc settings understand; in small letters.
ALIASES = {known["short"].lower(): name for name, known in KNOWN.items() if known["short"]}
ALIASES |= {other: name for name, known in KNOWN.items() for other in known["others say"].split()}
settings_with = columns_with  # data, size, speed, axis and listed are roles of settings alone
MEMBERS = [(family, name, member) for family, known in FAMILIES.items() for name, member in known.items()]
BUDGET_OF = {name: budget for budget, member in BUDGETS.items() for name in member.settings}
FAMILY_SETTINGS = frozenset(setting for _, _, member in MEMBERS for setting in member.settings)


def _settings_read(settled: dict[str, Any]) -> dict[str, Any]:
    """Settings that the members read which are chosen from the families, in their order, with their defaults."""
    chosen = (settled.get(family) for family in FAMILIES)
    # what is no text is refused elsewhere, and perhaps has no hash
    return _settings_read_by(*(name if name is None or isinstance(name, str) else "" for name in chosen))


@lru_cache
def _settings_read_by(*chosen: str | None) -> dict[str, Any]:
    read, idle = dict[str, Any](), set[str]()
    for (family, known), named in zip(FAMILIES.items(), chosen, strict=True):
        member = read.get(family, TrialConfig.model_fields[family].default) if named is None else named
        if member in known or (family in OWN_FAMILIES and is_reference(member)):
            read |= known[member].settings
            idle |= known[member].idle
    return {name: value for name, value in read.items() if name not in idle}


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
