"""Prints what a command found, as text or as JSON; the ends of intervals are rounded outward.

Does not know what the names mean, except that `_lower` and `_upper` are the ends of an interval.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from typing import Any

DIGITS = 10
ROUNDINGS = {"lower": ROUND_FLOOR, "upper": ROUND_CEILING}


def say(sentence: object) -> None:
    """Print a sentence on stderr, apart from the data."""
    print(sentence, file=sys.stderr)


def show(options: argparse.Namespace, facts: Any, lines: Iterable[str]) -> None:
    """The facts as JSON on one line where --json asks for it, else the lines; infinity and NaN are null in JSON."""
    for line in [json.dumps(_plain(facts), allow_nan=False)] if options.json else lines:
        print(line)


def shown(name: str, value: object) -> str:
    """A value in ten digits; the lower end of an interval is rounded down, the upper end up, so that both stay true."""
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    if not math.isfinite(value):
        return str(value)
    rounding = ROUNDINGS.get(name.rpartition("_")[2], ROUND_HALF_EVEN)
    return f"{float(Context(prec=DIGITS, rounding=rounding).create_decimal_from_float(value)):.{DIGITS}g}"


def fact_lines(facts: Mapping[str, object]) -> list[str]:
    """A line for each name."""
    width = max(map(len, facts))
    return [f"{name:<{width}}  {shown(name, value)}" for name, value in facts.items()]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
