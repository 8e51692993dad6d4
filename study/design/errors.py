"""Why a study or a setting is refused, in words: the rule, the value, the cure.

Knows pydantic's errors and TrialConfig's fields; does not read files.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from study.design.config import TrialConfig

SHOWN = 5  # a list of refusals is cut here, with the total


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
    try:
        return TrialConfig(**settings)
    except ValidationError as error:
        raise StudyError(" ".join(_sentence(item) for item in error.errors())) from None


def _sentence(item: dict[str, Any] | Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{name!r} is no setting. {nearest(name, TrialConfig.model_fields)}"
    if kind == "missing":
        return f"{name} must be given: {TrialConfig.model_fields[name].description}"
    if kind == "value_error":
        return str(context["error"])
    rule = _RULES.get(kind, item["msg"][0].lower() + item["msg"][1:]).format(**context)
    return f"{name} must {rule}, got {value!r}. {_meaning(name)}"


def _meaning(name: str) -> str:
    field = TrialConfig.model_fields.get(name)
    return f"It is: {field.description}" if field else ""


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
    "literal_error": "be {expected}",
    "string_pattern_mismatch": "be numbers parted by commas",
}


def summarize(messages: list[str]) -> str:
    """The first few of the distinct messages, and how many there are in all."""
    distinct = list(dict.fromkeys(messages))
    shown = "\n".join(f"  {message}" for message in distinct[:SHOWN])
    more = f"\n  ... {len(distinct)} in all." if len(distinct) > SHOWN else ""
    return shown + more
