"""Whether the tasks of a SLURM array share the results folder: each names its folder in its log, and reads the others'.
Knows the store; does not know Ray. The logs lie where the array was submitted, which all its tasks see."""

import contextlib
import glob
import os
import re
import socket
import sys
from pathlib import Path

from study.store.storage import FolderError
from study.store.store import Store

VARIABLE = "GNC_TASK_LOGS"  # set by the script of `gnc slurm`: how the paths of all its tasks' logs begin
NAMED = re.compile(r"^results folder (\S+) of (\S+) is ([0-9a-f]{16})$", re.MULTILINE)
HEAD_BYTES = 1 << 16  # of a log, in which a task that has begun names its folder


def check_tasks_share(store: Store) -> None:
    """Name this task's folder; FolderError where a task before this one named another. Outside an array: nothing."""
    start = os.environ.get(VARIABLE)
    if not start or not store.storage.is_local:  # an object store is the same from everywhere
        return
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
