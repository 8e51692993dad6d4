"""Seals, compactions and endings of trials at the same time, stopped anywhere: no row is lost and none is there twice.

All orders in which two or three actors can take their steps are tried, a step being one operation on the storage. What
an actor does next follows from the answers that it has got so far, so it is run again with these answers. The folder is
in memory: its operations are whole, as those of `Storage` are. In every folder that comes about, all actors are
"killed", the folder is sealed once more, and every trial that ended must be there once, with all its rows.
"""

import functools
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from study.design.config import TrialConfig
from study.store.storage import Entry, Storage
from study.store.store import Store
from tests.study.conftest import compact_as_before, finish, made_up_config

READING, WRITING = ("read", "read_mapped", "entries", "sync"), ("write", "remove", "remove_folder")
A, B = made_up_config(seed=0), made_up_config(seed=1)
Act = Callable[[Store], Any]
Folder = frozenset[tuple[str, bytes]]  # names and contents


class Step(NamedTuple):
    """One operation on the storage."""

    name: str
    arguments: tuple[Any, ...]


class Replayed(Storage):
    """A storage that gives an actor the answers that it got before, and has each later step taken."""

    def __init__(self, answers: Iterable[Any], take: Callable[[Step], Any]) -> None:
        super().__init__(".")
        self._answers, self._take = iter(answers), take

    def _answer(self, name: str, *arguments: Any) -> Any:
        for answer in self._answers:
            return _thawed(answer)
        return _thawed(self._take(Step(name, arguments)))


for _name in (*READING, *WRITING):
    setattr(Replayed, _name, functools.partialmethod(Replayed._answer, _name))


class InMemory(Storage):
    """A results folder without a disk. A file's time follows from its content."""

    def __init__(self, files: Folder = frozenset()) -> None:
        super().__init__(".")
        self.files = dict(files)

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def read_mapped(self, name: str) -> pa.Buffer | None:
        return None if name not in self.files else pa.py_buffer(self.files[name])

    def entries(self, folder: str, suffix: str = "") -> list[Entry]:
        found = [(name.rpartition("/"), content) for name, content in sorted(self.files.items())]
        return [
            Entry(name, len(content), 1_000_000_000 * (1_600_000_000 + zlib.crc32(content) % 10**8))
            for (above, _, name), content in found
            if above == folder and name.endswith(suffix)
        ]

    def sync(self, folder: str = "") -> None:
        pass

    def write(self, name: str, content: bytes) -> None:
        self.files[name] = bytes(content)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def remove_folder(self, name: str) -> None:
        self.files = {file: content for file, content in self.files.items() if not file.startswith(f"{name}/")}


class Exploration:
    """All orders of the actors' steps from one beginning.

    A state is a folder and, for each actor, the number of the history of answers that it got. Equal states are
    explored once.
    """

    def __init__(self, acts: list[Act], begin: Act) -> None:
        storage = InMemory()
        begin(Store(storage))
        self.begun = frozenset(storage.files.items())
        self.acts = acts
        self._histories: list[tuple[Any, ...]] = [()]
        self._numbers: dict[tuple[int, Any], int] = {}  # of a history, by the one before and the last answer
        self._steps: dict[tuple[Act, int], Step | None] = {}  # after a history; None: the actor is done

    def run(self, check: Callable[[Folder, tuple[bool, ...]], None]) -> int:
        """Try every order; gives how many states of folder and actors there are."""
        begin = (self.begun, (0,) * len(self.acts))
        waiting, met, checked = [begin], {begin}, set()
        while waiting:
            folder, histories = waiting.pop()
            steps = [self._next(act, history, folder) for act, history in zip(self.acts, histories, strict=True)]
            done = tuple(step is None for step in steps)
            if (folder, done) not in checked:
                checked.add((folder, done))
                check(folder, done)
            for actor, step in enumerate(steps):
                if step is not None:
                    after, answer = self._take(folder, step)
                    number = self._extend(histories[actor], answer)
                    state = (after, (*histories[:actor], number, *histories[actor + 1 :]))
                    if state not in met:
                        met.add(state)
                        waiting.append(state)
        return len(met)

    def _extend(self, history: int, answer: Any) -> int:
        """The number of the history that ends with this answer."""
        number = self._numbers.setdefault((history, answer), len(self._histories))
        if number == len(self._histories):
            self._histories.append((*self._histories[history], answer))
        return number

    def _next(self, act: Act, history: int, folder: Folder) -> Step | None:
        """What the actor does after it has got these answers; None once it is done.

        An actor that has not been here before is run to its end as if it were alone in the folder, so that the steps
        after many histories come from one run.
        """
        start = act, history

        def take(step: Step) -> Any:
            nonlocal history, folder
            self._steps[act, history] = step
            folder, answer = self._take(folder, step)
            history = self._extend(history, answer)
            return answer

        if start not in self._steps:
            act(Store(Replayed(self._histories[history], take)))
            self._steps[act, history] = None
        return self._steps[start]

    @functools.cache  # noqa: B019  # it lives as long as the test
    def _take(self, folder: Folder, step: Step) -> tuple[Folder, Any]:
        """The folder after a step, and what the step gives."""
        storage = InMemory(folder)
        answer = _frozen(getattr(storage, step.name)(*step.arguments))
        return (folder if step.name in READING else frozenset(storage.files.items())), answer


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
