"""Keeps the mark of a run fresh in the results folder for as long as the run goes on.
Knows the store; does not know Ray or what the run does."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from study.store.store import Store, study_file

BEAT_SECONDS = 5.0


def new_run() -> str:
    """A name that no other run has."""
    return f"run-{secrets.token_hex(4)}"


@contextmanager
def under_way(store: Store, run: str, *, study: str = "", seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Mark the run as under way, and write the mark again every so many seconds: other runs leave its trials alone.
    study: the text of the study that it runs."""
    name = study_file(study) if study else ""
    store.begin_run(run, study=name)
    over = threading.Event()

    def beat() -> None:
        number = 0
        while not over.wait(seconds):
            number += 1
            with suppress(OSError):  # a folder that is full or away for a moment
                if store.sees_run(run):  # else another folder lies at its path by now, or someone ended the run
                    store.begin_run(run, number, name)

    beating = threading.Thread(target=beat, name="run mark", daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with suppress(OSError):
            store.end_run(run)
