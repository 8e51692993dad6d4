"""Which failures count, when a failed trial is started again, and when it is set aside."""

import time
from collections import deque

import pytest

from study.design.config import TrialConfig
from study.design.study_file import Resources
from study.scheduling.retries import LONGEST_DELAY, Retries, delay_before
from study.store.schemas import identity_and_settings
from study.store.store import Store
from tests.study.conftest import made_up_config


class Listed:
    """Trials in order, and what is told of their ends."""

    waits = False

    def __init__(self, configs: list[TrialConfig]) -> None:
        self.waiting, self.ends = deque(configs), {}

    def next(self) -> TrialConfig | None:
        return self.waiting.popleft() if self.waiting else None

    def ended(self, key: str, state: str) -> None:
        self.ends[key] = state


CONFIGS = [made_up_config(seed=seed) for seed in range(3)]
ONE = CONFIGS[0].key


def make_retries(store: Store, *, attempts: int = 3, backoff_seconds: float = 0.0, forgive: bool = False):
    listed = Listed(CONFIGS)
    resources = Resources(attempts=attempts, backoff_seconds=backoff_seconds)
    return Retries(listed, store, resources, forgive=forgive), listed


def keep_failure(store: Store, attempt: int, **circumstances) -> None:
    failure = {"attempt": attempt, "state": "failed", "reason": "no", "settings": identity_and_settings(CONFIGS[0])}
    store.write_failure(ONE, attempt, {**failure, **circumstances})


def test_delays_double_up_to_a_minute_and_differ_between_trials():
    delays = [delay_before(ONE, failures, 1.0) for failures in range(1, 12)]
    assert delays == [delay_before(ONE, failures, 1.0) for failures in range(1, 12)]
    for failures, delay in enumerate(delays, 1):
        assert 0.75 <= delay / min(LONGEST_DELAY, 2.0 ** (failures - 1)) <= 1.25
    assert len({delay_before(config.key, 1, 1.0) for config in CONFIGS}) == 3
    assert delay_before(ONE, 5000, 1.0) <= 1.25 * LONGEST_DELAY
    assert delay_before(ONE, 4, 0.0) == 0.0


def test_other_trials_run_while_one_waits_and_nothing_is_over_before_it_ran_again(store):
    retries, listed = make_retries(store, backoff_seconds=0.2)
    first = retries.next()
    delay = retries.failed(first.key)
    assert 0.15 <= delay <= 0.25
    assert [retries.next(), retries.next()] == CONFIGS[1:]
    for config in CONFIGS[1:]:
        retries.ended(config.key, "complete")
    deadline = time.monotonic() + 30
    while (again := retries.next()) is None:
        assert not retries.is_over
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert again == first
    assert not retries.is_over
    retries.ended(first.key, "complete")
    assert retries.is_over
    assert set(listed.ends.values()) == {"complete"}


def test_a_trial_is_set_aside_once_its_attempts_are_used_up(store):
    retries, listed = make_retries(store, attempts=2)
    retries.next()
    assert retries.failed(ONE) == 0.0
    assert retries.next() == CONFIGS[0]
    assert retries.failed(ONE) is None
    assert listed.ends == {ONE: "failed"}
    assert retries.is_over


def test_failures_of_earlier_runs_count_unless_forgiven(store):
    keep_failure(store, 1)
    keep_failure(store, 2, charged=False)
    retries, _ = make_retries(store, attempts=2)
    retries.next()
    keep_failure(store, 3)
    assert retries.failed(ONE) is None

    forgiving, _ = make_retries(store, attempts=2, forgive=True)
    forgiving.next()
    keep_failure(store, 4)
    assert forgiving.failed(ONE) is not None


def test_being_cut_off_is_never_charged_and_delayed_only_when_it_goes_on(store):
    retries, listed = make_retries(store, attempts=1, backoff_seconds=0.001)
    retries.next()
    assert retries.failed(ONE, charged=False) == 0.0
    delays = []
    for _ in range(5):
        deadline = time.monotonic() + 30
        while ONE not in retries.in_flight and time.monotonic() < deadline:
            retries.next()
        delays.append(retries.failed(ONE, charged=False))
    assert all(delay > 0 for delay in delays)
    assert listed.ends == {}


def test_a_process_that_died_counts_only_where_it_came_no_further_than_before(store):
    retries, _ = make_retries(store)
    assert not retries.is_charged(ONE, 5)
    assert retries.is_charged(ONE, 5)
    assert retries.is_charged(ONE, 3)
    assert not retries.is_charged(ONE, 6)
    assert retries.is_charged(CONFIGS[1].key, -1)  # it died before its first epoch
    assert not retries.is_charged(CONFIGS[2].key, -1, began=False)  # an idle process had died, say
    assert retries.is_charged(CONFIGS[2].key, -1, began=False)

    keep_failure(store, 1, charged=False, epoch=8)
    continued, _ = make_retries(store)
    assert continued.is_charged(ONE, 8)
    assert not continued.is_charged(ONE, 9)


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_folder_that_keeps_no_failure_still_ends_the_retries(store, attempts):
    retries, listed = make_retries(store, attempts=attempts)
    retries.next()
    for _ in range(attempts - 1):
        assert retries.failed(ONE) == 0.0
        assert retries.next() == CONFIGS[0]
    assert retries.failed(ONE) is None
    assert listed.ends == {ONE: "failed"}
