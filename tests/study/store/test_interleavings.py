"""Seals, compactions and endings of trials at the same time, stopped anywhere: no row is lost and none is there twice.

All orders in which two or three actors can take their steps are tried, a step being one operation on the storage. What
an actor does next follows from what it has seen so far, so it is run again with the answers it got until it asks for
something new; that operation is done on a real copy of the folder. In every folder that comes about, everything is
"killed", the folder is sealed once more, and every trial that ended must be there once, with all its rows.
"""

import functools
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from study.design.config import TrialConfig
from study.store.storage import Storage
from study.store.store import Store
from tests.study.conftest import compact_as_before, finish, made_up_config

READING, WRITING = ("read", "read_mapped", "entries", "sync"), ("write", "remove", "remove_folder")
A, B = made_up_config(seed=0), made_up_config(seed=1)
Act = Callable[[Store], Any]


class Step(NamedTuple):
    """One operation on the storage."""

    name: str
    arguments: tuple[Any, ...]


class Asks(Exception):
    """The actor needs the answer of a step that was not taken yet."""


class Replayed(Storage):
    """A storage that gives the answers of steps taken before, then stops its actor."""

    def __init__(self, answers: tuple[Any, ...]) -> None:
        super().__init__(".")
        self._answers = iter(answers)

    def _answer(self, name: str, *arguments: Any) -> Any:
        for answer in self._answers:
            return answer
        raise Asks(Step(name, arguments))


for _name in (*READING, *WRITING):
    setattr(Replayed, _name, functools.partialmethod(Replayed._answer, _name))


class Exploration:
    """All orders of the actors' steps from one beginning."""

    def __init__(self, folder: Path, acts: list[Act], begin: Act) -> None:
        self.folder, self.acts = folder, acts
        begun = folder / "begun"
        begin(Store(Storage(begun)))
        self.begun = self._keep(begun)

    def run(self, check: Callable[[Store, list[bool]], None]) -> int:
        """Try every order; gives how many states of folder and actors there are."""
        begin = (self.begun, ((),) * len(self.acts))
        waiting, met, checked = [begin], {begin}, set()
        while waiting:
            folder, seen = waiting.pop()
            steps = [self._next(index, of_actor) for index, of_actor in enumerate(seen)]
            done = tuple(step is None for step in steps)
            if (folder, done) not in checked:
                checked.add((folder, done))
                copy = self.folder / "checked"
                shutil.copytree(self.folder / folder, copy)
                check(Store(Storage(copy)), list(done))
                shutil.rmtree(copy)
            for index, step in enumerate(steps):
                if step is not None:
                    after, answer = self._take(folder, step)
                    state = (after, (*seen[:index], (*seen[index], answer), *seen[index + 1 :]))
                    if state not in met:
                        met.add(state)
                        waiting.append(state)
        return len(met)

    @functools.cache  # noqa: B019  # it lives as long as the test
    def _next(self, actor: int, seen: tuple[Any, ...]) -> Step | None:
        """What the actor does after it has seen these answers; None once it is done."""
        try:
            self.acts[actor](Store(Replayed(tuple(_thawed(answer) for answer in seen))))
        except Asks as asks:
            return asks.args[0]
        return None

    @functools.cache  # noqa: B019
    def _take(self, folder: str, step: Step) -> tuple[str, Any]:
        """The folder after a step, and what the step gives."""
        if step.name in READING:
            answer = getattr(Storage(self.folder / folder), step.name)(*step.arguments)
            return folder, _frozen(answer)
        after = self.folder / "after"
        shutil.copytree(self.folder / folder, after)
        answer = getattr(Storage(after), step.name)(*step.arguments)
        return self._keep(after), answer

    def _keep(self, folder: Path) -> str:
        """The folder under a name that says what it holds; a file's time is its content's."""
        found = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                os.utime(path, ns=(0, 1_000_000_000 * (1_600_000_000 + zlib.crc32(content) % 10**8)))
                found.update(str(path.relative_to(folder)).encode() + content)
        kept = self.folder / found.hexdigest()
        if kept.exists():
            shutil.rmtree(folder)
        else:
            folder.rename(kept)
        return kept.name


class Mapped(bytes):
    """What `read_mapped` gave."""


def _frozen(answer: Any) -> Any:
    """An answer as something that can be compared and kept."""
    if isinstance(answer, pa.Buffer):
        return Mapped(answer)
    return tuple(answer) if isinstance(answer, list) else answer


def _thawed(answer: Any) -> Any:
    if isinstance(answer, Mapped):
        return pa.py_buffer(bytes(answer))
    return list(answer) if isinstance(answer, tuple) else answer


def expect(ended: dict[str, list[tuple[str, int]]]) -> Callable[[Store, list[bool]], None]:
    """A check that each of these trials is in the tables once, in one of these states with so many rows."""

    def check(store: Store, done: list[bool]) -> None:
        store.seal()
        states, rows = store.states(), store.read()
        sealed = rows.column("trial").to_pylist()
        for key, ends in ended.items():
            assert (states[key], sealed.count(key)) in ends
        pairs = list(zip(sealed, rows.column("epoch").to_pylist(), strict=True))
        assert len(pairs) == len(set(pairs))
        if all(done) and len(ended) == len(states):
            assert store.seal().fresh == 0

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


def begin_stopped(store: Store) -> None:
    finish(store, A, epochs=2, state="stopped")
    store.seal()


def begin_compacted_before(store: Store) -> None:
    finish(store, A)
    compact_as_before(store)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


ONE = {A.key: [("complete", 3)]}
WENT_ON = {A.key: [("stopped", 2), ("complete", 3)]}


@pytest.mark.parametrize(
    ("begin", "acts", "ended"),
    [
        (begin_sealed, [seal, compact], ONE),
        (begin_with_files, [compact, compact], ONE),
        (begin_compacted_before, [seal, seal], ONE),
        (begin_stopped, [compact, ending(A)], WENT_ON),
        (begin_stopped, [compact, ending(A, epochs=1, state="stopped")], {A.key: [("stopped", 2)]}),
        (begin_sealed, [compact, ending(A), ending(B)], ONE),
    ],
)
def test_no_order_of_steps_and_kills_loses_a_row(tmp_path, begin, acts, ended):
    explored = Exploration(tmp_path, acts, begin)
    assert explored.run(expect(ended)) > 100


def test_what_a_process_saw_as_complete_stays_so(tmp_path):
    explored = Exploration(tmp_path, [compact, ending(A)], begin_stopped)

    def check(store: Store, done: list[bool]) -> None:
        store.seal()
        assert store.states()[A.key] == ("complete" if done[1] else store.states()[A.key])

    explored.run(check)
