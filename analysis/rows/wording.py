"""Numbers, columns and settings in words, as pages, figures and commands show them. Knows the schema's columns."""

import json
import math
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import pyarrow as pa

from analysis.rows.frames import COLUMNS, settings_of_rows, varied_settings

ABSENT = "\N{EN DASH}"
LETTERS = {"num_classes": "K", "feature_dim": "d", "temperature": "\N{GREEK SMALL LETTER TAU}"}
# Between a quantity in words and its column's name, which pictures and pages set small: an en space.
NAME_FOLLOWS = "\N{EN SPACE}"
WORDS: dict[str, str] = json.loads((files("analysis.rows") / "words.json").read_text("utf-8"))  # columns in words
IMPLIED = frozenset({"distance", "squared distance", "share", "cosine", "classes", "dimensions"})  # units of no choice


def words(name: str) -> str:
    """A column in words; one without words of its own by its name, spaced."""
    return WORDS.get(name, name.replace("_", " "))


def unit_of(name: str) -> str:
    """A column's unit; an entry of a list column has none of its own."""
    return COLUMNS[name].unit if name in COLUMNS else ""


def axis_label(name: str) -> str:
    """What a column holds in words, then its name as in the study file and the tables, with its unit."""
    lettered = f"{words(name)}, {LETTERS[name]}" if name in LETTERS else words(name)
    if words(name) == name:
        return lettered
    unit = unit_of(name)
    return f"{lettered}{NAME_FOLLOWS}{name}" + f", {unit}" * (unit not in ("", *IMPLIED, words(name).split()[-1]))


def size_label(feature_dim: int, num_classes: int) -> str:
    """`d = 3, K = 12`."""
    return f"d = {feature_dim:.0f}, K = {num_classes:.0f}"


def trial_titles(rows: pa.Table, among: pa.Table | None = None) -> list[str]:
    """For each row its trial's key and what tells it from the others, as a dot says when the pointer is on it.
    among: the others, where the rows are a few of them."""
    varied = [name for name in varied_settings(rows if among is None else among) if not name.endswith("_source")]
    shown = list(dict.fromkeys(("feature_dim", "num_classes", "temperature", *varied)))
    texts = (assignments(dict(zip(shown, row, strict=True))) for row in settings_of_rows(rows, shown))
    return [f"{key}: {text}" for key, text in zip(rows["trial"].to_pylist(), texts, strict=True)]


def assignments(settings: Mapping[str, Any]) -> str:
    """`d = 3, K = 12`: the settings that have an effect, with their values."""
    effective = {name: value for name, value in settings.items() if value is not None}
    return ", ".join(f"{LETTERS.get(name, name)} = {shown_value(value)}" for name, value in effective.items())


def number(value: float) -> str:
    """A number for people: three significant digits, powers of ten beyond four places."""
    if not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 5:
        digits = max(2 - exponent, 0)
        return _trimmed(f"{value:.{digits}f}").replace("-", "\N{MINUS SIGN}")
    mantissa = _trimmed(f"{value / 10**exponent:.2f}")
    return (mantissa + "\N{MULTIPLICATION SIGN}" + power_of_ten(exponent)).replace("-", "\N{MINUS SIGN}")


def power_of_ten(exponent: int) -> str:
    """10 with a raised exponent in plain characters, which need no mathematics font."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    return f"{number(100 * float(share))} %"


def bracketed(estimate: float, low: float | None, high: float | None, show: Callable[[float], str] = number) -> str:
    """`estimate [low, high]`; without the ends where they were refused."""
    return show(estimate) if low is None or high is None else f"{show(estimate)} [{show(low)}, {show(high)}]"


def shown_value(value: Any) -> str:
    """A setting's value; null, the setting without effect, is named."""
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def shown(value: Any) -> str:
    """An entry of a table; a dash for null."""
    return ABSENT if value is None else number(value) if isinstance(value, float) else str(value)
