"""The runs on a results folder, and which of them trains which trial. Does not know Ray, or when a run counts as silent.
A trial has a chain of claims, claims/KEY.1 and so on, each of which one process alone can create. The last one holds the
name of a run, or nothing where a run let the trial go. docs/decisions/0010-claims.md has the reasons."""

import contextlib
import json
import os
import re
import socket
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from study.store.schemas import FINAL
from study.store.storage import Entry, Part, Storage

CLAIM = re.compile(r"claims/([^/]+)\.(\d+)(/.*)?")
FREE = b""
SILENT_SECONDS = 60.0  # as long as a network folder may serve an old listing


@dataclass(frozen=True)
class Run:
    """A run as its mark names it; `boot` and `born` tell whether its process is one of this machine, and still there."""

    name: str
    host: str = ""
    process: int = 0
    boot: str = ""  # start of the machine, and the set of process numbers
    born: str = ""  # start of the process, as Linux counts it
    beat: int = 0  # changes with every writing
    study: str = ""  # file in studies/ of the study that it runs
    time: float = field(default=0.0, compare=False)  # by the clock of its machine
    written: float = field(default=0.0, compare=False)  # by the clock of whoever keeps the folder

    @property
    def is_near(self) -> bool:
        """Whether its process is or was one of this machine: it can be looked at, and its clock is this one."""
        return self.boot == _boot() != ""

    @property
    def is_gone(self) -> bool:
        """Whether its process was one of this machine and has ended."""
        return self.is_near and self.born != _process(self.process)[1]

    @property
    def is_here(self) -> bool:
        """Whether its process is one of this machine, is not paused, and keeps this mark fresh: none does so in a copy."""
        state, born = _process(self.process)
        runs = self.is_near and self.born == born != "" and state not in ("T", "t")
        return runs and abs(time.time() - self.time) <= SILENT_SECONDS


@dataclass(frozen=True)
class Claim:
    number: int
    run: str  # empty: the trial is free


class Claims(Part):
    """Marks of runs, and claims on trials by the trial's key."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._read: dict[tuple[Entry, ...], Claim | None] = {}  # what a claim said, by the files that it is made of

    def begin_run(self, run: str, beat: int = 0, study: str = "") -> None:
        """Write that this process's run is going on. A machine that does not see the mark sees another folder."""
        mark = Run(run, socket.gethostname(), os.getpid(), _boot(), _process(os.getpid())[1], beat, study, time.time())
        self.storage.write(f"live/{run}.run", json.dumps(asdict(mark)).encode(), lasts=False)

    def sees_run(self, run: str) -> bool:
        return self.storage.read(f"live/{run}.run") is not None

    def end_run(self, run: str) -> None:
        self.storage.remove(f"live/{run}.run")

    def runs(self) -> dict[str, Run]:
        """The runs that have a mark, those that were killed too. A mark that cannot be read names its run alone."""
        found = {}
        for entry in self.storage.entries("live", ".run"):
            name = entry.name.removesuffix(".run")
            own: dict[str, Any] = {"name": name, "written": entry.modified_ns / 1e9}
            try:
                found[name] = Run(**json.loads(self.storage.read(f"live/{entry.name}") or b"{}") | own)
            except (TypeError, ValueError):
                found[name] = Run(**own)
        return found

    def claims(self) -> dict[str, Claim]:
        chains = self._chains()
        now = {files for chain in chains.values() for files in chain.values()}
        found = {key: self._claim(key, *max(chain.items())) for key, chain in chains.items()}
        self._read = {files: claim for files, claim in self._read.items() if files in now}
        return {key: claim for key, claim in found.items() if claim is not None}

    def claim_of(self, key: str) -> Claim | None:
        return self.claims().get(key)

    def has_lost(self, key: str, run: str) -> bool:
        """Whether another run has claimed the trial after this one. An old listing, without its claim, says no."""
        chain = [self._claim(key, number, files) for number, files in sorted(self._chains().get(key, {}).items())]
        runs = [claim.run for claim in chain if claim is not None]
        return run in runs[:-1] and runs[-1] != run

    def take(self, key: str, run: str, *, after: int) -> bool:
        """Claim a trial whose last claim has this number, 0 for none; False if another process was first."""
        # of no use once the machine has lost power: nothing waits for the disk
        return self.storage.write_once(f"claims/{key}.{after + 1}", run.encode(), lasts=False) == run.encode()

    def let_go(self, key: str, run: str) -> None:
        """Leave a trial that is not finished to others, if this run has it."""
        claim = self.claim_of(key)
        if claim is not None and claim.run == run:
            self.storage.write_once(f"claims/{key}.{claim.number + 1}", FREE, lasts=False)

    def remove_claims(self, key: str) -> None:
        """Remove the chain of a trial that has ended."""
        for number in sorted(self._chains().get(key, {})):
            self.storage.remove_once(f"claims/{key}.{number}", lasts=False)  # at worst the trial is run again

    def sweep_claims(self, states: dict[str, str]) -> None:
        """Remove what killed runs leave: chains of trials that have ended, and marks, unless others tell by them what is free."""
        for key in self._chains():
            if states.get(key) in FINAL:
                self.remove_claims(key)
        having = {claim.run for claim in self.claims().values()}
        for run in (name for name, mark in self.runs().items() if mark.is_gone and name not in having):
            self.end_run(run)

    def _chains(self) -> dict[str, dict[int, tuple[Entry, ...]]]:
        """By key and number the files of each claim: on an object store every claimant puts one."""
        chains: dict[str, dict[int, tuple[Entry, ...]]] = {}
        for entry in self.storage.tree("claims"):
            if named := CLAIM.fullmatch(entry.name):
                chain, number = chains.setdefault(named[1], {}), int(named[2])
                chain[number] = (*chain.get(number, ()), entry)
        return chains

    def _claim(self, key: str, number: int, files: tuple[Entry, ...]) -> Claim | None:
        if files not in self._read:
            content = self.storage.read_once(f"claims/{key}.{number}")
            self._read[files] = None if content is None else Claim(number, content.decode(errors="replace"))
        return self._read[files]


@cache
def _boot() -> str:
    """This start of this machine and this set of process numbers; empty where the system does not tell."""
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _process(number: int) -> tuple[str, str]:
    """The state of a process of this machine, and when it began in ticks of its clock; empty where it has ended."""
    with contextlib.suppress(OSError):
        told = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return (told[0], told[19]) if told[0] not in ("Z", "X") else ("", "")
    return "", ""
