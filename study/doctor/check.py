"""One line of `gnc doctor`: what was looked at, how it is, and the cure where it is not well.

Knows nothing of what is checked.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "FAIL", "skipped"]


@dataclass(frozen=True)
class Check:
    """A check that was made, or could not be."""

    name: str
    state: State
    told: str  # what was found
    cure: str = ""  # what to do; of a failed check always there

    def line(self) -> str:
        """The check in one line."""
        cure = f". {self.cure}" if self.cure else ""
        return f"{self.state:<8}{self.name:<18}{' '.join(f'{self.told}{cure}'.split())}"

    def facts(self) -> dict[str, Any]:
        """The check for a program."""
        return asdict(self)


def ok(name: str, told: str) -> Check:
    """All is well."""
    return Check(name, "ok", told)


def failed(name: str, told: str, cure: str) -> Check:
    """It must be mended first."""
    return Check(name, "FAIL", told, cure)


def skipped(name: str, why: str) -> Check:
    """It could not be looked at, or there is nothing to look at."""
    return Check(name, "skipped", why)


def verdict(name: str, wrong: list[str], well: str, cure: str) -> Check:
    """Failed with what is wrong, cut at five; ok where nothing is."""
    if not wrong:
        return ok(name, well)
    more = f" ({len(wrong)} in all)" if len(wrong) > 5 else ""
    return failed(name, "; ".join(wrong[:5]) + more, cure)


def guarded(name: str, check: Callable[[], Check], cure: str) -> Check:
    """The check, failed with the error's last line where it raised one: a doctor must get to the end of its list."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the machine is what we are here to tell
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return failed(name, lines[-1].rstrip("."), cure)
