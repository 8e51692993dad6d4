"""How far long loops are, for whoever wants to show it, as the command line does; and counts in words."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(eq=False)
class Loop:
    """A loop under way: what it goes over, how many are done, and since when."""

    what: str
    total: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)


LOOPS: list[Loop] = []  # under way in this process, those outside first


@contextmanager
def under_way(what: str, total: int) -> Iterator[Loop]:
    """A loop that `LOOPS` holds meanwhile; whoever goes through it says how many are done."""
    loop = Loop(what, total)
    LOOPS.append(loop)
    try:
        yield loop
    finally:
        LOOPS.remove(loop)


def counted(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, one after another, while `LOOPS` tells how many of the total are done."""
    with under_way(what, total) as loop:
        for item in items:
            yield item
            loop.done += 1


def amount(count: int, one: str, several: str = "") -> str:
    """`1 trial is`, `2 trials are`: a count and what it counts; several: where that is not `one` and an s."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def share_done(loops: Iterable[Loop]) -> float:
    """How much of the outermost loop is done, an inner one counting as a part of the outer one's next step."""
    share, width = 0.0, 1.0
    for loop in loops:
        width /= max(loop.total, 1)
        share += width * loop.done
    return min(share, 1.0)
