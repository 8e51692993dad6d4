"""Seals, compactions and endings of trials at the same time, stopped anywhere: no row is lost and none is there twice.

Every actor is a thread that stands still before each operation on the storage. All orders in which two or three actors
can take their steps are tried, up to orders after which folder and actors are the same; after each step everything is
"killed", the folder is sealed once more, and every trial that ended must be there once, with all its rows. Operations
are real ones on a real folder; an object store is stood for by a storage that does not know that its disk is one.
"""

import hashlib
import os
import shutil
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from study.design.config import TrialConfig
from study.store.storage import Storage
from study.store.store import Store
from tests.study.conftest import compact_as_before, finish, made_up_config

OPERATIONS = ("write", "read", "read_mapped", "remove", "remove_folder", "entries", "sync")
A, B = made_up_config(seed=0), made_up_config(seed=1)
Act = Callable[[Store], Any]


class Killed(BaseException):
    """Ends an actor before its next operation."""


class Steps(Storage):
    """A storage that asks before every operation and notes what its actor got to see."""

    def __init__(self, root: Path, *, is_local: bool) -> None:
        super().__init__(root)
        if not is_local:
            self._fs, self.is_local = fs.SubTreeFileSystem("/", fs.LocalFileSystem()), False
        self.before: Callable[[], None] = lambda: None
        self.seen = hashlib.sha256()


def _step(name: str) -> Callable:
    plain = getattr(Storage, name)

    def operation(self: Steps, *arguments: Any) -> Any:
        self.before()
        before, self.before = self.before, lambda: None  # an operation within another one is no step of its own
        try:
            answer = plain(self, *arguments)
        finally:
            self.before = before
        if name == "write":  # a file's time is its content's, so that orders of steps can be compared
            path, content = self._path(arguments[0]), arguments[1]
            os.utime(path, ns=(0, 1_000_000_000 * (1_600_000_000 + zlib.crc32(content) % 10**8)))
        seen = answer
        self.seen.update(repr((name, arguments, bytes(seen) if hasattr(seen, "address") else seen)).encode())
        return answer

    return operation


for _name in OPERATIONS:
    setattr(Steps, _name, _step(_name))


class Actor:
    """One process: a thread that takes a step whenever it is told to."""

    def __init__(self, act: Act, root: Path, *, is_local: bool) -> None:
        storage = Steps(root, is_local=is_local)
        storage.before = self._stand
        self.storage, self.is_done, self.error = storage, False, None
        self._go, self._stands, self._is_killed = threading.Semaphore(0), threading.Semaphore(0), False
        self._thread = threading.Thread(target=self._run, args=(act,))
        self._thread.start()
        self._stands.acquire()

    def _run(self, act: Act) -> None:
        try:
            act(Store(self.storage))
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.is_done = True
        self._stands.release()

    def _stand(self) -> None:
        self._stands.release()
        self._go.acquire()
        if self._is_killed:
            raise Killed

    def step(self) -> None:
        self._go.release()
        self._stands.acquire()
        if self.error:
            raise self.error

    def kill(self) -> None:
        self._is_killed = True
        if not self.is_done:
            self._go.release()
        self._thread.join()


class Exploration:
    """All orders of the actors' steps from one beginning."""

    def __init__(self, tmp_path: Path, acts: list[Act], begin: Act, *, is_local: bool) -> None:
        self.begun, self.root, self.copy = (tmp_path / name for name in ("begun", "root", "copy"))
        begin(Store(Storage(self.begun)))
        self.acts, self.is_local = acts, is_local
        self.states: set[tuple[str, ...]] = set()
        self.folders: set[tuple[Any, ...]] = set()

    def run(self, check: Callable[[Store, list[bool]], None]) -> int:
        """Try every order; gives how many states of folder and actors there are."""
        waiting: list[tuple[int, ...]] = [()]
        while waiting:
            order = waiting.pop()
            following = self._follow(order, check)
            waiting += [(*order, actor) for actor in following]
        return len(self.states)

    def _follow(self, order: tuple[int, ...], check: Callable[[Store, list[bool]], None]) -> list[int]:
        """Take these steps in a fresh folder; the actors that can go on, none where that was tried from here."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.begun, self.root)
        actors = [Actor(act, self.root, is_local=self.is_local) for act in self.acts]
        try:
            for index in order:
                actors[index].step()
            folder, done = self._digest(), [actor.is_done for actor in actors]
            state = (folder, *(actor.storage.seen.hexdigest() for actor in actors))
            if state in self.states:
                return []
            self.states.add(state)
            if (folder, *done) not in self.folders:
                self.folders.add((folder, *done))
                shutil.rmtree(self.copy, ignore_errors=True)
                shutil.copytree(self.root, self.copy)
                check(Store(Storage(self.copy)), done)
            return [index for index, actor in enumerate(actors) if not actor.is_done]
        except BaseException as error:
            error.add_note(f"order {order}")
            raise
        finally:
            for actor in actors:
                actor.kill()

    def _digest(self) -> str:
        found = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            found.update(str(path.relative_to(self.root)).encode())
            found.update(path.read_bytes() if path.is_file() else b"")
        return found.hexdigest()


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


@pytest.mark.parametrize("is_local", [True, False])
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
def test_no_order_of_steps_and_kills_loses_a_row(tmp_path, begin, acts, ended, is_local):
    explored = Exploration(tmp_path, acts, begin, is_local=is_local)
    assert explored.run(expect(ended)) > 100


def test_what_a_process_saw_as_complete_stays_so(tmp_path):
    explored = Exploration(tmp_path, [compact, ending(A)], begin_stopped, is_local=True)

    def check(store: Store, done: list[bool]) -> None:
        store.seal()
        assert store.states()[A.key] == ("complete" if done[1] else store.states()[A.key])

    explored.run(check)
