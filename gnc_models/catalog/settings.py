"""Checks that the settings given to a member of a family are those that its constructor reads. Knows no torch."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_GIVEN_TO_ALL = frozenset({"num_classes", "feature_dim", "normalization", "temperature", "init_norm"})


def read_settings(kind: str, name: str, constructor: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have a value; ValueError for one that the constructor does not take, or needs and lacks."""
    given = {setting: value for setting, value in settings.items() if value is not None}
    reads = {s: p.default for s, p in inspect.signature(constructor).parameters.items() if s not in _GIVEN_TO_ALL}
    for setting, value in given.items():
        if setting not in reads:
            rule = f"{setting} must be left out for {kind} {name!r}"
            raise ValueError(f"{rule}, got {value!r}. It would have no effect here.")
    for setting, default in reads.items():
        if default is inspect.Parameter.empty and setting not in given:
            raise ValueError(f"{setting} must be given for {kind} {name!r}, got None. It has no default.")
    return given


def check_at_least(least: int, **values: int | None) -> None:
    """ValueError unless every named value is given and at least `least`."""
    for name, value in values.items():
        if value is None or value < least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}.")


def check_between(name: str, value: float, low: float, high: float, cure: str = "") -> None:
    """ValueError unless low < value < high; NaN is refused."""
    if not low < value < high:
        bound = f"above {low:g}" if math.isinf(high) else f"above {low:g} and below {high:g}"
        raise ValueError(f"{name} must be {bound}, got {value!r}.{' ' + cure if cure else ''}")


def shown(items: Sequence[Any]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def check_choice(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {sorted(choices)}, got {value!r}.")
