"""TrialConfig: every setting of one trial in one flat frozen model, and the key that names the trial.

Knows pydantic and the catalog of names; does not know study files, Ray, torch or the disk.
"""

import hashlib
import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gnc_models.catalog import FAMILIES, max_classes

# Rises only when settings that already existed give other numbers; part of every key.
NUMBERS_VERSION = 1

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

    dataset: Literal["glyphs", "synthetic"] = _setting("", "Data set the classes come from.", "glyphs")
    num_classes: int = _setting("classes", "Number of classes, K.", ge=2)
    samples_per_class: int = _setting("samples", "Training samples of each class.", 24, ge=1)
    test_samples_per_class: int = _setting("samples", "Test samples of each class.", 8, ge=1)
    resolution: int | None = _setting("pixels", "Side of the square images.", None)
    unseen_family: Literal["sans", "mono", "serif"] | None = _setting(
        "", "Font family kept out of training and of the test set, for unseen_accuracy.", None
    )
    augmentation: Literal["none", "shift"] | None = _setting(
        "", "Random change of every training image: shift moves it by up to one pixel each way.", None
    )
    input_dim: Count | None = _setting("dimensions", "Dimension of the synthetic inputs.", None)
    noise: Positive | None = _setting(
        "distance", "Root mean square distance of a synthetic sample from its class centre on the unit sphere.", None
    )
    data_seed: int = _setting("", "Chooses classes and samples; nested in both numbers.", 0, ge=0)

    encoder: Literal["small_resnet", "mlp", "resnet18"] = _setting("", "Network before the head.", "small_resnet")
    width: Count | None = _setting("channels", "Channels of the first stage, or units of a hidden layer.", None)
    depth: Count | None = _setting("layers", "Residual blocks a stage, or hidden layers.", None)
    feature_dim: int = _setting("dimensions", "Dimension of the last-layer features, d.", ge=1)
    normalization: Literal["both", "features", "weights", "none"] = _setting(
        "", "What the head scales to unit length before the logits.", "both"
    )
    temperature: Positive | None = _setting("", "The logits are divided by it, tau.", None)
    head_init_norm: Positive = _setting("", "Norm of the head's rows at the start, on average.", 0.5)

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
    steps: Count | None = _setting("steps", "Optimiser steps, with budget steps.", None)
    epochs: Count | None = _setting("epochs", "Epochs, with budget epochs.", None)
    terminal_epochs: Count | None = _setting(
        "epochs", "Epochs after train_accuracy first reaches 0.99, with budget terminal.", None
    )
    max_epochs: Count | None = _setting("epochs", "Most epochs in all, with budget terminal.", None)

    measure: Literal["log", "every", "final"] = _setting(
        "", "Epochs that are measured: about two to each doubling and the last, every one, or the last.", "log"
    )
    precision: Literal["float32", "bfloat16", "float64"] = _setting("", "Arithmetic of the network.", "float32")
    num_threads: int = _setting("threads", "CPU threads of the trial; sums depend on it.", 1, ge=1)
    seed: int = _setting("", "Drives initialisation, order and augmentation.", 0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _settle_family_settings(cls, given: Any) -> Any:
        """Fill defaults of the chosen members; refuse settings that the chosen members do not read."""
        if not isinstance(given, dict):
            return given
        settled = {name: value for name, value in given.items() if value is not None}
        chosen = {f: settled.get(f, cls.model_fields[f].default) for f in FAMILIES}
        read: dict[str, Any] = {}
        for family, member in chosen.items():
            if isinstance(member, str) and member in FAMILIES[family]:
                read |= FAMILIES[family][member].settings
        for name in FAMILY_SETTINGS:
            if name in read:
                settled.setdefault(name, read[name])
            elif name in settled:
                readers = _readers(name)
                raise ValueError(
                    f"{name} must be left out unless {readers}, got {settled[name]!r}. It would have no effect here."
                )
        return settled

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for name, value in self:
            if isinstance(value, int) and value >= 1 << 63:  # no column of a table could hold it
                raise ValueError(f"{name} must be below 2^63, got {value!r}.")
        most = max_classes(self.dataset, self.resolution)
        if self.num_classes > most:
            at = f" at resolution {self.resolution}" if self.resolution else ""
            raise ValueError(
                f"num_classes must be at most {most}, the classes that {self.dataset} has{at}, "
                f"got {self.num_classes!r}."
            )
        gives, takes = FAMILIES["dataset"][self.dataset].takes, FAMILIES["encoder"][self.encoder].takes
        if not gives & takes:
            raise ValueError(
                f"encoder must accept {min(gives)} inputs for dataset {self.dataset!r}, got {self.encoder!r}. "
                f"Use one of {[name for name, m in FAMILIES['encoder'].items() if m.takes & gives]}."
            )
        if self.terminal_epochs and self.max_epochs and self.terminal_epochs > self.max_epochs:
            raise ValueError(
                f"terminal_epochs must be at most max_epochs ({self.max_epochs}), got {self.terminal_epochs!r}."
            )
        samples = self.num_classes * self.samples_per_class
        if self.batch_size > samples:
            raise ValueError(f"batch_size must be at most the {samples} training samples, got {self.batch_size!r}.")
        if samples // -(-samples // self.batch_size) < 2:  # batch normalization has nothing to average over
            raise ValueError(f"batch_size must leave no batch of one of {samples} samples, got {self.batch_size!r}.")
        return self

    @property
    def key(self) -> str:
        """First 16 hex digits of SHA-256 over the settings and NUMBERS_VERSION: the trial's name for good."""
        return self._digest()

    @property
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
        payload = canonical_json({**hashed, "numbers_version": NUMBERS_VERSION})
        return hashlib.sha256(payload.encode()).hexdigest()[:16]


FAMILY_SETTINGS = frozenset(
    name for family in FAMILIES.values() for member in family.values() for name in member.settings
)
# Settings that say what a data set's samples are, beside its name, sizes and data_seed; augmentation comes after.
DATASET_SETTINGS = tuple(
    sorted({name for member in FAMILIES["dataset"].values() for name in member.settings} - {"augmentation"})
)
# Settings added after a release, with the value that reproduces the old behaviour: left out of the key at that value,
# so that no stored result changes its name.
LATER_SETTINGS: dict[str, Any] = {}


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
