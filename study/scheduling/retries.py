"""Decides which trial starts next, which failed trial starts again and after which delay, and which one is given up.
A failed trial waits without occupying a machine. Knows the store; does not know Ray."""

import hashlib
import heapq
import itertools
import time
from collections import Counter

from study.design.config import TrialConfig
from study.design.study_file import Resources
from study.scheduling.sharing import Trials
from study.store.store import Store

LONGEST_DELAY = 60.0  # seconds


def delay_before(key: str, failures: int, backoff_seconds: float) -> float:
    """Seconds to wait after so many failures: doubled each time from backoff_seconds, at most 60, plus or minus a quarter."""
    share = int.from_bytes(hashlib.sha256(f"{key}:{failures}".encode()).digest()[:4]) / 2**32
    return min(LONGEST_DELAY, backoff_seconds * 2.0 ** min(failures - 1, 30)) * (0.75 + 0.5 * share)


class Retries:
    """The trials of a run. A failed trial is started again until its attempts are used up."""

    def __init__(self, trials: Trials, store: Store, resources: Resources, *, forgive: bool = False) -> None:
        """forgive: failures before this run do not count against a trial."""
        self._trials, self._store, self._resources = trials, store, resources
        self._before = store.failed_starts() if forgive else {}
        self._charged: Counter[str] = Counter()  # in this run: a lost folder may not store its failures
        self._cut_off: Counter[str] = Counter()
        self._never_began: Counter[str] = Counter()
        self._furthest: dict[str, int] = {}
        self._waiting: list[tuple[float, int, TrialConfig]] = []  # by when they are due
        self.in_flight: dict[str, TrialConfig] = {}  # by key
        self._order = itertools.count()  # of two that are due at once, the first comes first

    def next(self) -> TrialConfig | None:
        """The trial to start now: one whose delay is over, else a new one; None where there is none at present."""
        is_due = bool(self._waiting) and self._waiting[0][0] <= time.monotonic()
        config = heapq.heappop(self._waiting)[2] if is_due else self._trials.next()
        if config is not None:
            self.in_flight[config.key] = config
        return config

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight, waits to be started again or may still come."""
        return not self._waiting and not self.in_flight and not self._trials.waits

    def ended(self, key: str, state: str) -> None:
        """Note that a trial came to an end that is not a failure."""
        self.in_flight.pop(key, None)
        self._trials.ended(key, state)

    def is_charged(self, key: str, epoch: int, *, began: bool = True) -> bool:
        """Whether the death of a process counts against its trial: not if it got further than every attempt before.
        What killed a process is unknown. But a trial that kills its own process does so at the same place again, while
        one that gets further each time will end. The first death before the trial began does not count."""
        if not began:
            self._never_began[key] += 1
            return self._never_began[key] > 1
        earlier = [-1 if f.get("epoch") is None else f["epoch"] for f in self._store.failures(key).get(key, [])]
        furthest = max([*earlier, self._furthest.get(key, -1)])
        self._furthest[key] = max(epoch, furthest)
        return epoch <= furthest

    def failed(self, key: str, *, charged: bool = True) -> float | None:
        """Note a failed attempt. Seconds until the trial is started again, or None: it is set aside."""
        config = self.in_flight.pop(key)
        (self._charged if charged else self._cut_off)[key] += 1
        stored = self._store.failed_starts(key).get(key, 0) - self._before.get(key, 0)
        failures = max(self._charged[key], stored) if charged else self._cut_off[key]
        if charged and failures >= self._resources.attempts:
            self._trials.ended(key, "failed")
            return None
        is_new = not charged and failures == 1  # cut off for the first time: it can start at once
        delay = 0.0 if is_new else delay_before(key, failures, self._resources.backoff_seconds)
        heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._order), config))
        return delay
