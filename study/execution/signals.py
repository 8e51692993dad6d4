"""Whether this process was asked to end: by SIGTERM, by Ctrl-C where it runs one trial by itself, or by what it polls.
A request does not end a running trial at once: the trial writes a checkpoint at the end of its epoch and stops there.
Knows signals; does not know Ray, the store or what a trial is."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from gnc_models.processes import ASKS

LINGER_SECONDS = 5.0  # between the trial's stop and the process's end, in which the driver gets the trial's answer


def is_ignored(number: int) -> bool:
    """Whether this process was started so that a closed terminal does not end it (nohup)."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def act_as_ctrl_c() -> None:
    """From here on each of them raises KeyboardInterrupt in the main thread, as Ctrl-C does."""
    for number in ASKS:
        if not is_ignored(number):
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Within this context a request waits for its end, and then is a Ctrl-C.
    KeyboardInterrupt while torch is being loaded would abort the process: its C++ code lets no exception through."""
    asked: list[int] = []
    before = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in ASKS if not is_ignored(n)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


class Preempted(RuntimeError):
    """A trial stopped with a checkpoint because its process or machine is being taken away. It did not fail."""


class Requests:
    """Requests to end that this process was sent. One instance per process, which listens from its main thread."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}  # handlers that act where no trial is running
        self._is_deferring = False
        self.reason = ""  # of the request, empty until there was one

    def listen(self, *numbers: int) -> None:
        """Handle these signals; call it from the main thread. While no trial runs they act as before."""
        for number in numbers:
            if signal.getsignal(number) != self._receive and not is_ignored(number):
                self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_deferring and not self.reason:
            self.reason = f"the process received {signal.Signals(number).name}"
            return
        before = self._before[number]  # no trial to wait for, or asked a second time: at once
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context a request waits for the trial to look at `reason`."""
        self._is_deferring = True
        try:
            yield
        finally:
            self._is_deferring = False

    def end_soon(self) -> None:
        """End the process by the deferred request, after a delay in which the driver receives the trial's result."""
        for number in list(self._before)[:1]:
            # to the process: a signal that this thread raised would not wake a main thread that waits
            timer = threading.Timer(LINGER_SECONDS, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()


REQUESTS = Requests()


class Polled:
    """The answer to a question that is asked at most once in so many seconds, and no longer once it is true."""

    def __init__(self, ask: Callable[[], str | bool], seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self._asked = -seconds
        self._answer: str | bool = False

    def __call__(self) -> str | bool:
        now = time.monotonic()
        if not self._answer and now - self._asked >= self._seconds:
            self._asked, self._answer = now, self._ask()
        return self._answer
