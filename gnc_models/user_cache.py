"""The user's cache folder, for arrays that are slow to make: what cannot be read is made again.
A file is a compressed .npz without pickle, written under another name and renamed: readers see all of it or none."""

import contextlib
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

_log = logging.getLogger(__name__)
_Picked = TypeVar("_Picked")
# what a torn, truncated or foreign file can raise while it is opened or read
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def cache_folder() -> Path:
    """`$GNC_CACHE`, else `gnc-study` in `$XDG_CACHE_HOME`, else in `~/.cache`; it need not exist."""
    if given := os.environ.get("GNC_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "gnc-study"


def read_or_make(
    name: str, *, make: Callable[[], dict[str, np.ndarray]], pick: Callable[[Mapping[str, np.ndarray]], _Picked]
) -> _Picked:
    """What `pick` takes from the cached arrays of that name; where they are absent or unreadable, `make` makes them.
    The name must change whenever `make` would give other arrays. `pick` sees the file lazily, so that only the members
    that it asks for are read; it raises ValueError or KeyError where they are not what `make` gives."""
    if (held := read(name, pick=pick)) is not None:
        return held
    arrays, path = make(), cache_folder() / f"{name}.npz"
    try:
        _write(path, arrays)
    except OSError as error:
        _log.warning("%s cannot be written (%s); going on without it", path, error)
    return pick(arrays)


def read(name: str, *, pick: Callable[[Mapping[str, np.ndarray]], _Picked]) -> _Picked | None:
    """What `pick` takes from the cached arrays of that name; None where they are absent or unreadable."""
    path = cache_folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return pick(arrays)
    except FileNotFoundError:
        _log.info("there is no %s yet", path)
    except (*_UNREADABLE, TypeError, AttributeError) as error:  # the last two: a .npy under our name is no archive
        _log.warning("%s cannot be used (%s) and is made again", path, error)
    return None


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            # numpy's own savez_compressed has no level; level 1 is several times faster and nearly as small here
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for member, array in arrays.items():
                    with archive.open(f"{member}.npy", "w") as stream:
                        np.lib.format.write_array(stream, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
