"""Shares the trials of a folder between runs: claims the next trial, leaves alone what a live run has, takes over the rest.
A run is silent when its mark has not changed for a minute of this machine's own time, so clocks that differ do not
matter; a run of this machine whose process has ended is silent at once. Knows the store; does not know Ray."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from study.design.config import TrialConfig
from study.design.search import Scheduler
from study.store.claims import SILENT_SECONDS, Claim, Run
from study.store.schemas import FINAL
from study.store.store import Store

LOOK_SECONDS = 1.0  # between looks at what other runs do
TAKEN, ELSEWHERE = "taken", "elsewhere"


class Trials(Protocol):
    """Where the next trial comes from: a list, or a search that looks at the results of the last ones."""

    sharing: "Sharing | None"  # what is known of the other runs on the folder; set before the first trial is asked for

    @property
    def waits(self) -> bool:
        """Whether a trial may come later, although there was none."""

    def next(self) -> TrialConfig | None:
        """The next trial to run, None when there is none now."""

    def ended(self, key: str, state: str) -> None:
        """Told of each trial's end once its rows are in the store."""


class ListedTrials:
    """Trials that are all known before the run."""

    waits = False
    sharing: "Sharing | None" = None

    def __init__(self, configs: Iterable[TrialConfig]) -> None:
        self._waiting = deque(configs)

    def next(self) -> TrialConfig | None:
        return self._waiting.popleft() if self._waiting else None

    def ended(self, key: str, state: str) -> None:
        pass


@dataclass
class _Seen:
    """The last mark of a run, since when it has been the same, and whether it was ever seen to change."""

    mark: Run | None
    since: float
    is_beating: bool = False


@dataclass
class Sharing:
    """What one run knows of the others on its folder."""

    store: Store
    run: str
    rule: Scheduler  # the study's; a trial that it stopped is done
    attempts: int | None = None  # failures after which a trial is done; None: a trial that failed is tried again
    silent_seconds: float = SILENT_SECONDS
    clock: Callable[[], float] = time.monotonic
    _claims: dict[str, Claim] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _looked: float = float("-inf")

    def take(self, key: str) -> str:
        """Claim a trial for this run: TAKEN, ELSEWHERE if a run has it that may be alive, else the state it ended in."""
        self.look()
        if self._is_held(self._claims.get(key)):  # as it was a second ago, without a look at the disk for each trial
            return ELSEWHERE
        if state := self.end_of(key):
            return state
        self._claims = self.store.claims()
        claim = self._claims.get(key)
        if self._is_held(claim):
            return ELSEWHERE
        number, is_own = (claim.number, claim.run == self.run) if claim else (0, False)
        with contextlib.suppress(OSError):  # a full disk takes no claim: at worst another run trains the trial too
            if not is_own and not self.store.take(key, self.run, after=number):
                return ELSEWHERE
        if state := self.end_of(key):  # it ended between the first look and the claim
            self.store.remove_claims(key)
            return state
        return TAKEN

    def leave(self, key: str, *, is_done: bool) -> None:
        """Give up the claim on a trial, which has ended or is left to others."""
        if is_done and self.end_of(key) in FINAL:
            self.store.remove_claims(key)
        else:
            with contextlib.suppress(OSError):  # others take it once this run has ended
                self.store.let_go(key, self.run)

    def end_of(self, key: str) -> str:
        """The state that a trial ended in for this study; empty where it is still to run."""
        if (final := self.store.read_final(key)) is not None:
            return final.record.state
        if self.rule.name != "none":  # a trial that a rule stopped may be done
            stored = self.store.read_fragment(key)
            if stored is not None and self.rule.stopped(stored.record.stopped_by):
                return stored.record.state
        if self.attempts is not None and self.store.failed_starts(key).get(key, 0) >= self.attempts:
            return "failed"
        return ""

    def left_to(self, key: str) -> str:
        """The run that has this trial and is known to be alive, so that it can be left to it; empty where there is none."""
        self.look()
        claim = self._claims.get(key)
        if claim is None or not self._is_held(claim):
            return ""
        seen = self._seen[claim.run]
        is_alive = seen.mark is not None and (seen.mark.is_here if seen.mark.is_near else seen.is_beating)
        return claim.run if is_alive else ""

    @property
    def has_company(self) -> bool:
        self.look()
        return bool(self._seen.keys() - {self.run})

    def _is_held(self, claim: Claim | None) -> bool:
        if claim is None or not claim.run or claim.run == self.run:
            return False
        seen = self._seen.setdefault(claim.run, _Seen(None, self.clock()))
        return not (seen.mark is not None and seen.mark.is_gone) and self.clock() - seen.since < self.silent_seconds

    def look(self) -> None:
        """Note which marks have changed and who has which trial, at most once a second."""
        now = self.clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked, self._claims, marks = now, self.store.claims(), self.store.runs()
        for name in marks.keys() | self._seen.keys():
            mark, seen = marks.get(name), self._seen.get(name)
            if seen is None:
                self._seen[name] = _Seen(mark, now)
            elif mark != seen.mark:
                self._seen[name] = _Seen(mark, now, is_beating=mark is not None)


class SharedTrials:
    """The trials of a source that this run could claim; what another run has is looked at again and again."""

    sharing: Sharing | None

    def __init__(self, trials: Trials, sharing: Sharing, on_elsewhere: Callable[[str], None] = lambda _: None) -> None:
        """on_elsewhere: is told the key of each trial that ended in another run."""
        self._trials, self._on_elsewhere = trials, on_elsewhere
        trials.sharing = self.sharing = self._sharing = sharing
        self._own: dict[str, TrialConfig] = {}
        self._elsewhere: dict[str, TrialConfig] = {}
        self._looked = float("-inf")

    def next(self) -> TrialConfig | None:
        while (config := self._trials.next()) is not None:
            if self._is_taken(config):
                return config
        now = self._sharing.clock()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        return next(filter(self._is_taken, list(self._elsewhere.values())), None)

    def _is_taken(self, config: TrialConfig) -> bool:
        self._elsewhere.pop(config.key, None)
        found = self._sharing.take(config.key)
        if found == TAKEN:
            self._own[config.key] = config
        elif found == ELSEWHERE:
            self._elsewhere[config.key] = config
        else:
            self._trials.ended(config.key, found)
            self._on_elsewhere(config.key)
        return found == TAKEN

    @property
    def waits(self) -> bool:
        """Whether a trial may still come: the source has none now, or it is not known yet whether a run is alive."""
        return self._trials.waits or any(not self._sharing.left_to(key) for key in self._elsewhere)

    def ended(self, key: str, state: str) -> None:
        """A trial that was interrupted goes back: another run has taken it over, or this run is about to end."""
        config = self._own.pop(key)
        self._sharing.leave(key, is_done=state != "interrupted")
        if state == "interrupted":
            self._elsewhere[key] = config
        else:
            self._trials.ended(key, state)

    def close(self) -> None:
        """Leave to others what this run has claimed and will not run."""
        for key in self._own:
            self._sharing.leave(key, is_done=False)
        self._own.clear()
