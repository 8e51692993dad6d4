"""Numbers, columns and settings in words, as pages, figures and commands show them. Knows the schema's columns."""

import math
from collections.abc import Callable
from typing import Any

from analysis.rows.frames import COLUMNS

ABSENT = "\N{EN DASH}"
LETTERS = {"num_classes": "K", "feature_dim": "d", "temperature": "\N{GREEK SMALL LETTER TAU}"}


def axis_label(name: str) -> str:
    """The column's name as in the study file and the tables, with its letter or unit."""
    unit = COLUMNS[name].unit if name in COLUMNS else ""  # an entry of a list column is its own label
    letter = LETTERS.get(name)
    return name + (f", {letter}" if letter else f" ({unit})" if unit else "")


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
    """A share in percent."""
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
