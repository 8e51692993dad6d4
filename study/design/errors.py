"""Why a study or a setting is refused, in words: the rule, the value, the cure.

Knows pydantic's errors and the fields of the model that refused; does not read files.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from study.design.config import TrialConfig

SHOWN = 5  # a list of refusals is cut here, with the total
Model = TypeVar("Model", bound=BaseModel)


TABLE = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)  # of every table of a study file


class StudyError(ValueError):
    """The user's study cannot be run as it stands; the message and notes say why and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known name, or all of them when none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def check_known(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """StudyError for the first name that is not known, with its nearest neighbour."""
    known = list(known)
    for name in names:
        if name not in known:
            raise StudyError(f"{where} must hold known keys only, got {name!r}. {nearest(name, known)}")


def make_config(settings: dict[str, Any]) -> TrialConfig:
    """The TrialConfig of the settings; StudyError with every refusal in words."""
    return make_model(TrialConfig, settings)


def make_model(model: type[Model], given: dict[str, Any]) -> Model:
    """The model made of what is given; StudyError with every refusal in words."""
    try:
        return model(**given)
    except ValidationError as error:
        raise StudyError(" ".join(_sentence(model, item) for item in error.errors())) from None


def _sentence(model: type[BaseModel], item: dict[str, Any] | Any) -> str:
    """Of one refusal; a field of a model inside the model is named as a study file does, `[tune] metric`."""
    *tables, name = (str(part) for part in item["loc"] if isinstance(part, str)) if item["loc"] else ("",)
    for table in tables:
        annotation: Any = model.model_fields[table].annotation if table in model.model_fields else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else model
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    shown = f"[{tables[0]}] {name}" if tables else name
    if kind == "extra_forbidden":
        where = f"[{tables[0]}]" if tables else "study file"
        if model is TrialConfig:
            return f"{name!r} is no setting. {nearest(name, model.model_fields)}"
        return f"{where} must hold known keys only, got {name!r}. {nearest(name, model.model_fields)}"
    meaning = model.model_fields[name].description if name in model.model_fields else None
    if kind == "missing":
        return f"{shown} must be given: {meaning}"
    if kind == "value_error":
        return str(context["error"])
    rule = _RULES.get(kind, item["msg"][0].lower() + item["msg"][1:]).format(**context)
    return f"{shown} must {rule}, got {value!r}.{f' It is: {meaning}' if meaning else ''}"


_RULES = {
    "greater_than": "be greater than {gt:g}",
    "greater_than_equal": "be at least {ge:g}",
    "less_than": "be less than {lt:g}",
    "less_than_equal": "be at most {le:g}",
    "finite_number": "be finite",
    "int_type": "be an integer",
    "float_type": "be a number",
    "bool_type": "be true or false",
    "string_type": "be a string",
    "list_type": "be a list",
    "tuple_type": "be a list",
    "dict_type": "be a table",
    "model_type": "be a table",
    "literal_error": "be {expected}",
}


def check_distinct(what: str, values: Sequence[Any]) -> None:
    """StudyError for the first value that stands there twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise StudyError(f"{what} must be distinct, got {value!r} twice. Remove one.")


def summarize(messages: list[str]) -> str:
    """The first few of the distinct messages, and how many there are in all."""
    distinct = list(dict.fromkeys(messages))
    shown = "\n".join(f"  {message}" for message in distinct[:SHOWN])
    more = f"\n  ... {len(distinct)} in all." if len(distinct) > SHOWN else ""
    return shown + more
