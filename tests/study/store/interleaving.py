"""All orders in which actors can take their steps on one results folder, a step being one operation on the storage.

What an actor does next follows from the answers that it has got so far, so it is run again with these answers. The folder
is in memory: its operations are whole, as those of `Storage` are.
"""

import functools
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from study.store.storage import Entry, Storage
from study.store.store import Store

READING = ("read", "read_mapped", "read_once", "entries", "tree", "sync")
WRITING = ("write", "write_once", "remove", "remove_once", "remove_folder")
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

    def _answer(self, name: str, *arguments: Any, **_: Any) -> Any:
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

    def tree(self, folder: str = "") -> list[Entry]:
        return [Entry(name, len(content), 0) for name, content in sorted(self.files.items()) if name.startswith(folder)]

    def sync(self, folder: str = "") -> None:
        pass

    def write(self, name: str, content: bytes) -> None:
        self.files[name] = bytes(content)

    def write_once(self, name: str, content: bytes, *, lasts: bool = True) -> bytes:
        return self.files.setdefault(name, bytes(content))

    def read_once(self, name: str) -> bytes | None:
        return self.files.get(name)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    remove_once = remove

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
