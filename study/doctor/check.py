"""One check of `gnc doctor`: its name, what was found, and the cure if it failed. Does not know what is checked."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from study.design.errors import StudyError
from study.store.storage import FolderError

State = Literal["ok", "FAIL", "skipped"]


@dataclass(frozen=True)
class Check:
    """A check that was made, or could not be."""

    name: str
    state: State
    told: str  # what was found
    cure: str = ""  # what to do; a failed check always has one

    def line(self) -> str:
        cure = f". {self.cure}" if self.cure else ""
        return f"{self.state:<8}{self.name:<18}{' '.join(f'{self.told}{cure}'.split())}"

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def ok(name: str, told: str) -> Check:
    return Check(name, "ok", told)


def failed(name: str, told: str, cure: str) -> Check:
    return Check(name, "FAIL", told, cure)


def skipped(name: str, why: str) -> Check:
    return Check(name, "skipped", why)


def verdict(name: str, wrong: list[str], well: str, cure: str) -> Check:
    """Failed with what is wrong, cut at five; ok where nothing is."""
    if not wrong:
        return ok(name, well)
    more = f" ({len(wrong)} in all)" if len(wrong) > 5 else ""
    return failed(name, "; ".join(wrong[:5]) + more, cure)


def guarded(name: str, check: Callable[[], Check], cure: str) -> Check:
    """The check, or a failed one where it raised, as the other checks must still be made. A refusal has a cure of its own."""
    try:
        return check()
    except (StudyError, FolderError) as refusal:
        told, _, own = str(refusal).partition(". ")
        return failed(name, told, own or cure)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the machine is to be reported
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines() or [type(error).__name__]
        return failed(name, lines[-1].rstrip("."), cure)
