"""What settings have for types, and one spelling for one meaning.
Knows pydantic and the catalog; does not know which settings there are."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from gnc_models.catalog.members import FAMILIES, OWN_FAMILIES, is_reference
from study.design.columns import fields_of

OPTIONS = tuple(f"{family}_options" for family in OWN_FAMILIES)
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """What a study file holds under one head: what it does not know is refused. columns.csv says what each entry is."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for name, _, known in fields_of(cls.__name__):
            cls.model_fields[name].description = known.metadata["meaning"]


@dataclass(frozen=True)
class OneOf:
    """An annotation: the value is a name of one family of the catalog."""

    family: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        named = core_schema.literal_schema(list(FAMILIES[self.family]))
        if self.family not in OWN_FAMILIES:
            return named
        return core_schema.no_info_wrap_validator_function(
            lambda value, check: value if is_reference(value) else check(value), named
        )


def canonical_radii(text: str) -> str:
    """'0.01, 0.03' for every way to write these numbers, so that they are one trial however they are written.
    The order stays: it is that of the entries of fgsm_accuracy and pgd_accuracy."""
    try:
        radii = [float(part) for part in text.split(",")]
    except ValueError:
        radii = [math.nan]
    if not all(0 <= radius < math.inf for radius in radii):
        raise ValueError(f"attack_radii must be numbers separated by commas, got {text!r}. Write '0.01, 0.03'.")
    return ", ".join(repr(radius + 0.0).removesuffix(".0").replace("e+", "e") for radius in radii)


def canonical_folder(text: str) -> str:
    """'a/b' for 'a/b/', './a/b' and 'a//b'; one slash in front of a full path."""
    return PurePosixPath(f"/{text.lstrip('/')}" if text.startswith("/") else text).as_posix() if text else text


def canonical_fonts(text: str) -> str:
    """Names without repeats, in the order of the alphabet, with one space behind each comma."""
    return ", ".join(sorted({canonical_folder(name.strip()) for name in text.split(",")}))


def canonical_samples(given: Any) -> Any:
    """0 for 'all'; anything else as it is."""
    return 0 if given == "all" else given


def canonical_options(given: Any) -> str | None:
    """One JSON text for a table of options, however it is written; None for an empty one."""
    table = _table(given)
    try:
        text = json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):  # a date, or a number that is not finite
        table = None
    if table is None or any("." in name for name in _names(table)):
        rule = "options must be a table of numbers, strings, true, false and lists of them, under names without a dot"
        raise ValueError(f"{rule}, got {given!r}. Write width = 32 under [fixed.encoder_options].")
    return text if table else None


def _table(given: Any) -> dict[str, Any] | None:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return None
    return {} if given is None else given if isinstance(given, dict) else None


def _names(table: dict[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield name
        yield from _names(value) if isinstance(value, dict) else ()


def is_option(name: str) -> bool:
    """Whether this names one option of a part of one's own, such as `encoder_options.width`."""
    return "." in name and name.partition(".")[0] in OPTIONS


def with_flat_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every option under a name of its own, so that it can be fixed, gridded and searched as any setting."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        table = _table(value) if name.partition(".")[0] in OPTIONS and isinstance(value, (str, dict)) else None
        if table and not any("." in option for option in table):
            flat |= with_flat_options({f"{name}.{option}": inner for option, inner in table.items()})
        else:
            flat[name] = _hashable(value) if is_option(name) else value
    return flat


def with_joined_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of each family as one table; the inverse of `with_flat_options`."""
    if "." not in "".join(settings):  # no option: a hundred thousand trials of the package's own parts come here
        return dict(settings)
    joined = {name: value for name, value in settings.items() if not is_option(name)}
    tables = {name: _table(joined.get(name)) for name in {n.partition(".")[0] for n in settings if is_option(n)}}
    for name, value in settings.items():
        if is_option(name) and (table := tables[name.partition(".")[0]]) is not None:
            _, *path, last = name.split(".")
            for step in path:
                table = table.setdefault(step, {})
            table[last] = value
    return joined | {name: table for name, table in tables.items() if table is not None}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def canonical_list(given: str | list[str]) -> str:
    """'a.py:f, b.py:g' for a list of references."""
    names = given.split(",") if isinstance(given, str) else given
    return ", ".join(str(name).strip() for name in names)


Samples = Annotated[int, Field(ge=0), BeforeValidator(canonical_samples)]
Options = Annotated[str | None, BeforeValidator(canonical_options)]
Folder = Annotated[str, AfterValidator(canonical_folder)]
Fonts = Annotated[str, AfterValidator(canonical_fonts)]
Radii = Annotated[str, AfterValidator(canonical_radii)]
References = Annotated[str, AfterValidator(canonical_list)]


def schema_of(field: FieldInfo) -> dict[str, Any]:
    """The JSON schema of a field's values other than null: type, enum, bounds."""
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    schema = TypeAdapter(annotation).json_schema()
    return next((one for one in schema.get("anyOf", ()) if one["type"] != "null"), schema)


# Settings that can be written in several ways.
SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "attack_radii": canonical_radii, "folder": canonical_folder, "fonts": canonical_fonts, "metrics": canonical_list,
    "samples_per_class": canonical_samples, **dict.fromkeys(OPTIONS, canonical_options),
}  # fmt: skip


def canonical(name: str, value: Any) -> Any:
    """A value as TrialConfig holds it, where it can be written in several ways; one that is refused there as it is."""
    if name not in SPELLINGS or not isinstance(value, (str, dict, list)):
        return value
    try:
        return SPELLINGS[name](value)
    except (ValueError, AttributeError):
        return value
