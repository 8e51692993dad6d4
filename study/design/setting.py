"""What the project knows of one setting beside its type: unit, meaning, roles, and one spelling for one meaning.

Knows pydantic and the catalog; does not know which settings there are.
"""

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gnc_models.catalog.members import FAMILIES

# What a setting is for elsewhere in the project, said on the setting itself and nowhere else.
#   data: what the samples of a data set are.            size: how many of them; data sets are nested in these.
#   speed: the time of a trial per sample depends on it. axis: the report has figures of its own for it.
#   listed: a search never draws it, [grid] lists it.
Role = Literal["data", "size", "speed", "axis", "listed"]
NEW = object()  # of a setting as old as the first release

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class OneOf:
    """An annotation: the value is a name of one family of the catalog."""

    family: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(FAMILIES[self.family]))


def canonical_radii(text: str) -> str:
    """'0.01, 0.03' for every way to write these numbers, so that they are one trial however they are written.

    The order stays: it is that of the entries of fgsm_accuracy and pgd_accuracy.
    """
    try:
        radii = [float(part) for part in text.split(",")]
    except ValueError:
        radii = [math.nan]
    if not all(0 <= radius < math.inf for radius in radii):
        raise ValueError(f"attack_radii must be numbers separated by commas, got {text!r}. Write '0.01, 0.03'.")
    return ", ".join(repr(radius + 0.0).removesuffix(".0").replace("e+", "e") for radius in radii)


def canonical_folder(text: str) -> str:
    """'a/b' for 'a/b/', './a/b' and 'a//b'."""
    return PurePosixPath(text).as_posix() if text else text


# Settings that can be written in several ways.
SPELLINGS = {"attack_radii": canonical_radii, "folder": canonical_folder}


def canonical(name: str, value: Any) -> Any:
    """A value as TrialConfig holds it, where it can be written in several ways; one that is refused there as it is."""
    if name not in SPELLINGS or not isinstance(value, str):
        return value
    try:
        return SPELLINGS[name](value)
    except ValueError:
        return value


def setting(
    unit: str, meaning: str, default: Any = ..., *, role: str = "", since: Any = NEW, short: str = "", **rules: Any
) -> Any:
    """A field of TrialConfig, and all that the rest of the project knows of the setting.

    unit, meaning: become Parquet metadata, docs/rows.md and axis labels. role: one or several of `Role`, separated by
    spaces. since: of a setting that came after a release, the value that reproduces what was done before: at that value
    it is left out of the key, so that no stored result changes its name. short: its name in
    one-line descriptions of trials.
    """
    roles = frozenset(role.split())
    assert roles <= set(get_args(Role)), role
    known = {"unit": unit, "roles": roles, "since": since, "short": short}
    return Field(default, description=meaning, json_schema_extra=known, **rules)
