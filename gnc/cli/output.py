"""What a command found, for people or as JSON: sentences, names and values; interval ends rounded outward.

Knows nothing of what the names mean, but that `_lower` and `_upper` end an interval.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from typing import Any

DIGITS = 10
ROUNDINGS = {"lower": ROUND_FLOOR, "upper": ROUND_CEILING}


def say(sentence: object) -> None:
    """A sentence on stderr, beside the data."""
    print(sentence, file=sys.stderr)


def show(options: argparse.Namespace, facts: Any, lines: Iterable[str]) -> None:
    """The facts as one line of JSON where --json asks for it, else the lines."""
    if options.json:
        print(json.dumps(facts))
        return
    for line in lines:
        print(line)


def shown(name: str, value: object) -> str:
    """A value in ten digits; the lower end of an interval is rounded down and the upper end up, so that it still holds."""
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    if not math.isfinite(value):
        return str(value)
    rounding = ROUNDINGS.get(name.rpartition("_")[2], ROUND_HALF_EVEN)
    return f"{float(Context(prec=DIGITS, rounding=rounding).create_decimal_from_float(value)):.{DIGITS}g}"


def print_facts(facts: Mapping[str, object]) -> None:
    """A line for each name."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {shown(name, value)}")


def print_json(found: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """One JSON value on one line; numbers that JSON does not have (infinity, NaN) are null."""
    print(json.dumps(_plain(found), allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
