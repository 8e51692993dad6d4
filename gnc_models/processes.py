"""What processes that this project starts beside a trial have in common: they end with it, and no Ctrl-C is theirs."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What asks a command to leave off: Ctrl-C, a scheduler's end, a closed terminal, SLURM's warning before its time limit.
ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def kept_from_children(*numbers: int) -> Iterator[None]:
    """Processes started here never get these signals, which a terminal sends to all; this process gets them later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(_worker: int = 0) -> None:
    """End this process, which `multiprocessing` spawned, as soon as the one that started it is gone, killed or not."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
