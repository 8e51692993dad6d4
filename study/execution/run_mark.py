"""What runs on one results folder tell each other: each keeps its mark fresh for as long as it goes on, and the tasks of a
SLURM array compare their folders through their logs, which lie where the array was submitted and all its tasks see.
Knows the store; does not know Ray or what a run does."""

import contextlib
import glob
import os
import re
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from study.store.storage import FolderError
from study.store.store import Store, study_file

VARIABLE = "GNC_TASK_LOGS"  # set by the script of `gnc slurm`: how the paths of all its tasks' logs begin
NAMED = re.compile(r"^results folder (\S+) of (\S+) is ([0-9a-f]{16})$", re.MULTILINE)
HEAD_BYTES = 1 << 16  # of a log, in which a task that has begun names its folder
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


def check_tasks_share(store: Store) -> str:
    """Name this task's folder; FolderError where a task before this one named another. Gives why none can tell."""
    start = os.environ.get(VARIABLE)
    if not start or not store.storage.is_local:  # an object store is the same from everywhere
        return ""
    mine, path = store.folder_id(), str(store.storage.local_path(""))
    print(f"results folder {path.replace(' ', '_')} of {socket.gethostname()} is {mine}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, ValueError):
        os.fsync(sys.stderr.fileno())  # on a network folder another machine sees it only then
    # Of two tasks, the one that wrote its line later reads the other's.
    for log in sorted(Path(start).parent.glob(f"{glob.escape(Path(start).name)}*.log")):
        with log.open("rb") as stream:  # logs grow, and lie on a network folder
            head = stream.read(HEAD_BYTES).decode(errors="replace")
        if (named := NAMED.search(head)) and named[3] != mine:
            got = f"got {store.uri!r}, which is another on {named[2]} ({log.name})"
            cure = "Name a network folder or an object store that every node sees."
            raise FolderError(f"results folder must be shared by all tasks of the array, {got}. {cure}")
    own = f"{start}{os.environ.get('SLURM_ARRAY_TASK_ID', '')}.log"
    unseen = f"{own} is not seen here, so nobody can tell whether the tasks share {store.uri}"
    return "" if Path(own).exists() else unseen
