"""Seals, compactions and endings of trials at the same time, stopped anywhere: no row is lost and none is there twice.

All orders of the actors' steps are tried (interleaving). In every folder that comes about, all actors are "killed", the
folder is sealed once more, and every trial that ended must be there once, with all its rows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from study.design.config import TrialConfig
from study.store.storage import Storage
from study.store.store import Store
from tests.study.conftest import compact_as_before, finish, made_up_config
from tests.study.store.interleaving import Act, Exploration, Folder, InMemory

A, B = made_up_config(seed=0), made_up_config(seed=1)


class Found(NamedTuple):
    """A folder as it reads after everything was killed and it was sealed once more."""

    states: dict[str, str]
    rows: list[tuple[str, int]]  # trial and epoch
    storage: Storage


@functools.cache
def sealed_again(folder: Folder) -> Found:
    """Kill all actors and seal."""
    store = Store(InMemory(folder))
    store.seal()
    rows = store.read(["trial", "epoch"])
    pairs = zip(rows.column("trial").to_pylist(), rows.column("epoch").to_pylist(), strict=True)
    return Found(store.states(), list(pairs), store.storage)


def expect(ended: dict[str, list[tuple[str, int]]]) -> Callable[[Folder, tuple[bool, ...]], None]:
    """A check that each of these trials is in the tables once, in one of these states with so many rows."""

    def check(folder: Folder, done: tuple[bool, ...]) -> None:
        found = sealed_again(folder)
        for key, ends in ended.items():
            assert (found.states[key], sum(trial == key for trial, _ in found.rows)) in ends
        assert len(found.rows) == len(set(found.rows))
        if all(done) and len(ended) == len(found.states):
            assert Store(found.storage).seal().fresh == 0

    return check


def seal(store: Store) -> None:
    store.seal()


def compact(store: Store) -> None:
    store.seal(compact=True)


def ending(config: TrialConfig, **record: Any) -> Act:
    return lambda store: finish(store, config, **record)


def begin_with_files(store: Store) -> None:
    finish(store, A)


def begin_sealed(store: Store) -> None:
    finish(store, A)
    store.seal()


def begin_rewritten(store: Store) -> None:
    begin_sealed(store)
    finish(store, A, seconds=3.0)


def begin_stopped(store: Store) -> None:
    finish(store, A, epochs=2, state="stopped")
    store.seal()


def begin_compacted_before(store: Store) -> None:
    finish(store, A)
    compact_as_before(store)


ONE = {A.key: [("complete", 3)]}
WENT_ON = {A.key: [("stopped", 2), ("complete", 3)]}


@pytest.mark.parametrize(
    ("begin", "acts", "ended"),
    [
        (begin_sealed, [seal, compact], ONE),
        (begin_rewritten, [seal, compact], ONE),
        (begin_with_files, [compact, compact], ONE),
        (begin_compacted_before, [seal, seal], ONE),
        (begin_stopped, [compact, ending(A)], WENT_ON),
        (begin_stopped, [compact, ending(A, epochs=1, state="stopped")], {A.key: [("stopped", 2)]}),
        (begin_sealed, [compact, ending(A), ending(B)], ONE),
    ],
)
def test_no_order_of_steps_and_kills_loses_a_row(begin, acts, ended):
    assert Exploration(acts, begin).run(expect(ended)) > 100


def test_what_a_process_saw_as_complete_stays_so():
    def check(folder: Folder, done: tuple[bool, ...]) -> None:
        assert not done[1] or sealed_again(folder).states[A.key] == "complete"

    Exploration([compact, ending(A)], begin_stopped).run(check)
