"""Distributions that a search draws settings from, as a study file writes them under [search]: functions of a number in [0, 1).
Does not know Optuna, the store or which trial a draw is for."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from study.design.errors import StudyError, check_known
from study.design.setting import canonical

DIGITS = 6  # significant digits of a drawn number, so that what is printed is the number itself


@dataclass(frozen=True)
class Distribution:
    """One setting's distribution. kind: a name of KINDS; values: its bounds [low, high], or the choices."""

    kind: str
    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value below which a share in [0, 1) of the distribution lies, rounded to six significant digits."""
        if self.kind == "choice":
            return self.values[int(share * len(self.values))]
        low, high = self.values
        if self.kind == "int_uniform":
            return low + int(share * (high - low + 1))
        if self.kind == "log_int_uniform":
            # Half a step beyond both ends, so that the ends are as likely as their neighbours.
            below, above = math.log(low - 0.5), math.log(high + 0.5)
            return min(high, max(low, round(math.exp(below + share * (above - below)))))
        if self.kind == "log_uniform":
            return rounded(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        return rounded(low + share * (high - low))

    def holds(self, value: Any) -> bool:
        """Whether a setting's value could have been drawn."""
        if self.kind == "choice":
            return any(value == choice and type(value) is type(choice) for choice in self.values)
        return value is not None and self.values[0] <= value <= self.values[1]


KINDS = {
    "uniform": "two numbers, the lower first",
    "log_uniform": "two numbers above 0, the lower first",
    "int_uniform": "two whole numbers, the lower first",
    "log_int_uniform": "two whole numbers above 0, the lower first",
    "choice": "at least two different values",
}


def make_distribution(name: str, given: Any) -> Distribution:
    """The distribution that a study file gives a setting as { kind = values }; StudyError says what is wrong."""
    if not isinstance(given, dict) or len(given) != 1:
        cure = f"Write {name} = {{ log_uniform = [0.01, 0.5] }}; kinds: {', '.join(KINDS)}."
        raise StudyError(f"{name} in [search] must be a table with one distribution, got {given!r}. {cure}")
    check_known(given, KINDS, f"{name} in [search]")
    [(kind, values)] = given.items()
    values = [canonical(name, value) for value in values] if isinstance(values, list) else values
    if not isinstance(values, list) or not _is_right(kind, values):
        raise StudyError(f"{kind} of {name} in [search] must be {KINDS[kind]}, got {values!r}.")
    if kind in ("uniform", "log_uniform"):
        values = [rounded(float(value)) for value in values]
    return Distribution(kind, tuple(values))


def _is_right(kind: str, values: list[Any]) -> bool:
    if kind == "choice":
        return len(values) > 1 and all(value not in values[:index] for index, value in enumerate(values))
    if len(values) != 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return False
    if "int" in kind and not all(isinstance(value, int) for value in values):
        return False
    low, high = values
    return math.isfinite(low) and math.isfinite(high) and low < high and (not kind.startswith("log") or low > 0)


def rounded(value: float) -> float:
    """The number to six significant digits."""
    return float(f"{value:.{DIGITS}g}")


def random_share(search_seed: int, name: str, index: int) -> float:
    """A number in [0, 1) that depends on these three alone: more draws or more settings change no earlier one."""
    digest = hashlib.sha256(f"{search_seed}/{name}/{index}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
