"""How much disk space a results folder takes, by kind of file.
Knows the names in the results folder; does not know what the files hold."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from study.store.storage import Entry

SEALED = ("results.parquet", "trials.parquet", "compacted")
FOLDERS = (
    *("rows", "archive", "heads", "margins", "checkpoints", "live", "failures", "logs"),
    *("suggestions", "claims", "studies", "callbacks", "code", "codes", "optima", "report"),
)
# What a writer leaves that was killed before its rename, and the probes by which a folder is tried out.
TEMPORARY = re.compile(r"(.*/)?\..*\.\d+\.[0-9a-f]{8}\.tmp|probe-[0-9a-f]{16}")
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True)
class DiskUse:
    files: int
    bytes: int


def kind_of(name: str) -> str:
    if TEMPORARY.fullmatch(name):
        return "temporary"
    folder = name.partition("/")[0]
    return "sealed" if name in SEALED else folder if folder in FOLDERS and folder != name else "other"


def measure_disk_use(entries: Iterable[Entry]) -> dict[str, DiskUse]:
    """Files and bytes of each kind that there is, the largest first."""
    found: dict[str, DiskUse] = {}
    for entry in entries:
        before = found.get(kind := kind_of(entry.name), DiskUse(0, 0))
        found[kind] = DiskUse(before.files + 1, before.bytes + entry.size)
    return dict(sorted(found.items(), key=lambda item: -item[1].bytes))


def disk_sentence(use: dict[str, DiskUse]) -> str:
    total = sum(kind.bytes for kind in use.values())
    parts = ", ".join(f"{name} {in_words(kind.bytes)}" for name, kind in use.items())
    return f"{in_words(total)} on disk{f': {parts}' if parts else ''}"


def in_words(count: float) -> str:
    """Bytes with a unit, three digits."""
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} {UNITS[-1]}"
