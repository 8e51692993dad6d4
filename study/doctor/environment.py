"""What surrounds a run on this machine: variables, limits, folders of the user, other Rays. For `gnc doctor`.
Imports neither torch nor Ray. Most checks cannot fail: they say what a run makes of what it finds."""

import contextlib
import os
import re
import resource
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gnc_models.user_cache import cache_folder
from study.doctor.check import Check, guarded, ok, verdict
from study.execution import granted
from study.store.store import Store

OPEN_FILES = 1024  # a run on two processors gets by with as many
PROCESSES = 1000  # and threads: a Ray on two processors has some 400, and more for each further one
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
RAY_PROXY = "RAY_grpc_enable_http_proxy"
READ_AS_COLUMN = re.compile(r"[^/=]+=[^/]*")  # a folder that readers of Parquet take for a column and its value


def check_environment(store: Store) -> Iterator[Check]:
    yield guarded("temporary", check_temporary, "Set RAY_TMPDIR.")
    yield from check_user()
    yield guarded("limits", check_limits, "Look at ulimit -a.")
    yield from check_network()
    yield guarded("other Rays", check_other_rays, "Look at ps aux.")
    told = read_as_columns(store)
    yield verdict("path", [told] if told else [], f"{store.uri} holds no =", "Name the folder without =.")


def check_temporary() -> Check:
    base, note = granted.temporary_base()
    return ok("temporary", note or f"{base}")


def check_user() -> Iterator[Check]:
    """What the user's home and umask mean for a run."""
    folder = cache_folder()
    told = f"{folder} cannot be written: codes that take long are computed anew by each run (GNC_CACHE moves it)"
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=next(p for p in folder.parents if p.exists())):
        told = f"{folder} is writable"
    yield ok("home", told)
    os.umask(mask := os.umask(0o77))
    wrong = [f"{mask:03o} takes away your own rights to what you write"] if mask & 0o700 else []
    shared = "others can read the results" if not mask & 0o044 else "others cannot read the results (022 lets them)"
    yield verdict("umask", wrong, f"{mask:03o}: {shared}", "Say umask 022.")


def check_limits() -> Check:
    """Open files and processes that this user may have; root may start as many as the machine holds."""
    (_, files), (processes, _) = map(resource.getrlimit, (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    limits = ((files, OPEN_FILES, "open files"), (processes if os.getuid() else -1, PROCESSES, "processes and threads"))
    wrong = [f"at most {held} {what}, of at least {least}" for held, least, what in limits if 0 <= held < least]
    told = f"{files} open files, {processes} processes and threads (-1: any number of them)"
    return verdict("limits", wrong, told, "Raise them with ulimit -n and ulimit -u, or ask who runs the machine.")


def check_network() -> Iterator[Check]:
    """Addresses of this machine, and proxies, which Ray's own connections pass by unless it was told otherwise."""
    told = "no IPv6; Ray uses IPv4"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as tried:
        tried.bind(("::1", 0))
        told = "IPv4 and IPv6"
    yield ok("loopback", told)
    named = ", ".join(name for name in PROXIES if os.environ.get(name))
    to_ray = [f"{named} and {RAY_PROXY}"] if named and os.environ.get(RAY_PROXY, "0") != "0" else []
    told = f"{named}: object stores and downloads go through it, Ray does not" if named else "none"
    yield verdict("proxies", to_ray, told, f"Unset {RAY_PROXY}: Ray's processes would meet at the proxy.")


def check_other_rays() -> Check:
    users: Counter[str] = Counter()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (folder / "comm").read_text() == "gcs_server\n":
                users["yours" if folder.stat().st_uid == os.getuid() else "of others"] += 1
    told = ", ".join(f"{count} {whose}" for whose, count in users.items()) or "none"
    return ok("other Rays", f"{told}; gnc run starts one of its own, with its own folder and ports")


def read_as_columns(store: Store) -> str:
    """What in the path of the results readers of Parquet would take for a column, in a sentence; empty where nothing is."""
    path = str(store.storage.local_path("") or store.uri.partition("?")[0])
    named = [part for part in path.split("/") if READ_AS_COLUMN.fullmatch(part)]
    read = "is read as a column by DuckDB and other readers, in place of the real one"
    return f"{named[0]} in the path of the results {read}" if named else ""
