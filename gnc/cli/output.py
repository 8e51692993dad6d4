"""Prints what a command found, as text or as JSON, and how far its work is; interval ends are rounded outward. Does not know
what the names mean, except that `_lower` and `_upper` are the ends of an interval."""

import argparse
import contextlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from types import FrameType
from typing import Any, Self

from pydantic_core import to_json

from gnc_models.progress import LOOPS, Loop, share_done

DIGITS = 10
ROUNDINGS = {"lower": ROUND_FLOOR, "upper": ROUND_CEILING}
QUIET, APART, LIVE = 2.0, 10.0, 0.5  # seconds before the first line, between lines, and on a terminal


def say(sentence: object) -> None:
    """Print a sentence on stderr, apart from the data."""
    with Watch.hidden():
        print(sentence, file=sys.stderr)


def put(text: object) -> None:
    """Print data on stdout."""
    with Watch.hidden():
        print(text)


def show(options: argparse.Namespace, facts: Any, lines: Iterable[str]) -> None:
    """The facts as JSON on one line where --json asks for it, else the lines; infinity and NaN are null in JSON."""
    for line in [json.dumps(json.loads(to_json(facts, inf_nan_mode="null")))] if options.json else lines:
        put(line)


def shown(name: str, value: object) -> str:
    """A value in ten digits; the lower end of an interval is rounded down, the upper end up, so that both stay true."""
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    if not math.isfinite(value):
        return str(value)
    rounding = ROUNDINGS.get(name.rpartition("_")[2], ROUND_HALF_EVEN)
    return f"{float(Context(prec=DIGITS, rounding=rounding).create_decimal_from_float(value)):.{DIGITS}g}"


def fact_lines(facts: Mapping[str, object]) -> list[str]:
    """A line for each name."""
    width = max(map(len, facts))
    return [f"{name:<{width}}  {shown(name, value)}" for name, value in facts.items()]


def note_lines(notes: Iterable[str]) -> list[str]:
    """A line for each thing that was assumed or left out."""
    return [f"note  {note}" for note in notes]


class Watch:
    """While a command works: how far it is, on stderr, after two seconds and then now and again; on a terminal in one line."""

    words = ""  # what the command itself says of how far it is
    _live: Any = None
    _writing = threading.Lock()

    def __init__(self, command: str) -> None:
        self._command = command

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        Watch.words = ""
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        started, wait = time.monotonic(), QUIET
        while not self._ended.wait(wait):
            line = f"{self._command}: {Watch.words or loops_line(list(LOOPS), time.monotonic() - started)}"
            with Watch._writing:
                if sys.stderr is None or not sys.stderr.isatty():
                    print(line, file=sys.stderr)
                    wait = APART
                else:
                    self._show_live(line)
                    wait = LIVE
        with Watch.hidden():
            pass

    def _show_live(self, line: str) -> None:
        from rich.console import Console

        if Watch._live is None:
            Watch._live = Console(stderr=True).status(line)
            Watch._live.start()
        Watch._live.update(line)

    @classmethod
    @contextlib.contextmanager
    def hidden(cls) -> Iterator[None]:
        """The line is off the terminal while something else is printed; it comes back if the work goes on."""
        with cls._writing:
            if cls._live is not None:
                cls._live.stop()
                cls._live = None
            yield


def loops_line(loops: Sequence[Loop], seconds: float) -> str:
    """How far the loops under way are, and how long the outermost is expected to take; without any, the time so far."""
    from study.execution.progress_view import duration  # loads rich

    parts = [f"{loop.what} {loop.done} of {loop.total}" for loop in loops] + [f"{duration(seconds)} so far"]
    share = share_done(loops)
    if share:
        left = duration((time.monotonic() - loops[0].began) * (1 - share) / share)
        parts.append(f"{left} left" if left.startswith("less") else f"about {left} left")
    return ", ".join(parts)


class MarginWatch:
    """Told after each batch of classes; says when the user has asked to stop."""

    def __init__(self) -> None:
        self.stopped = False
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        self.former: Any = None
        if threading.current_thread() is threading.main_thread():
            self.former = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self.former is not None:
            signal.signal(signal.SIGINT, self.former)
        Watch.words = ""

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def __call__(self, certified: int, count: int, minimum: tuple[float, float]) -> bool:
        """Say how far the search is; whether to stop."""
        Watch.words = progress_line(certified, count, minimum, time.monotonic() - self.started)
        return self.stopped


def progress_line(certified: int, count: int, minimum: tuple[float, float], seconds: float) -> str:
    """The state in one line; the time left is in proportion to the classes certified so far."""
    left = f", about {seconds * (count - certified) / certified:.0f} s left" if certified else ""
    upper = f" to {minimum[1]:.6g}" if minimum[1] < float("inf") else " or more"
    return f"{certified} of {count} classes certified in {seconds:.0f} s{left}; smallest margin {minimum[0]:.6g}{upper}"
