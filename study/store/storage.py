"""Bytes at a results URI: written whole or not at all, listed, read, removed.
Knows the local disk and pyarrow's file systems (s3://, gs://); does not know what the bytes mean."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from study.design.errors import StudyError

Answer = TypeVar("Answer")
Place = Callable[[str, str], None]  # gives a file, by its name, another name
Tell = Callable[[str], object]  # is told the name of each file that a reader could not read and passed over

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before an object store is asked again, its client's own attempts aside
# Errors, in Arrow's words, that asking again would not mend; any other error of an object store may pass.
LASTING = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "HTTP status 403",
           "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN", "not found")  # fmt: skip

FEW, READERS = 20, 8  # fewer files than FEW are read one after the other; else up to READERS at a time
TRIED = 4  # files read first, to see how long one takes
QUICK = 1e-3  # seconds; a faster reading is not worth a thread (a footer on a disk takes a tenth of that)
TRIES = 5  # times a folder is listed that changes meanwhile
TIMES_APART = 3.0  # seconds after which an object store dates a new file later than one of before; S3 counts seconds
CONTESTED = 20  # tries of writing into a folder that another process removes, or of removing one it writes into


def ignore(_: str) -> None:
    """For callers that do not ask which files could not be read."""


class FolderError(OSError):
    """The results folder cannot be used as it is; the message says why and what to do."""


@dataclass(frozen=True, order=True)
class Entry:
    """One file of a listing; size and modification time tell whether it is the one seen before."""

    name: str
    size: int
    modified_ns: int


def at_once(read: Callable[[str], Answer], names: Sequence[str]) -> Iterator[Answer]:
    """The function's answer for each name, in order; where one reading takes long, several names are read at a time.
    Reading from an object store is mostly waiting. Quick readings from a disk would only be slowed down by threads."""
    if len(names) < FEW:
        yield from map(read, names)
        return
    took = []
    for name in names[:TRIED]:
        started = time.perf_counter()
        answer = read(name)
        took.append(time.perf_counter() - started)
        yield answer
    if min(took) < QUICK:  # the first of all may be slow for reasons of its own
        yield from map(read, names[TRIED:])
        return
    with ThreadPoolExecutor(READERS) as readers:
        yield from readers.map(read, names[TRIED:])


class Storage:
    """A folder on any file system. Readers never see half a file: temporary name and rename, or one put."""

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        if "://" in self.uri:
            try:
                self._fs, self._root = _persist(lambda: fs.FileSystem.from_uri(_one_put(self.uri)))
            except (ValueError, OSError) as error:
                rule = "RESULTS must be a folder or a URI such as s3://bucket/x"
                raise FolderError(f"{rule}, got {uri!r}: {error}") from None
            if not self._root:
                raise FolderError(f"RESULTS must name a bucket after the scheme, such as s3://bucket/x, got {uri!r}.")
        else:
            self._fs, self._root = fs.LocalFileSystem(), str(Path(uri).absolute())
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        self._unsynced: set[str] = set()  # folders on a disk whose entries may not have reached it yet
        if self._type() == fs.FileType.File:
            raise FolderError(f"results folder must be a folder, got the file {self.uri!r}. Name another.")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def local_path(self, name: str) -> Path | None:
        """The path of a file on this machine's disk, None on an object store."""
        return Path(self._path(name)) if self.is_local else None

    def write(self, name: str, content: bytes, *, lasts: bool = True) -> None:
        """Put the whole content under the name, replacing what was there; FolderError when it cannot.
        lasts: whether it must outlast a loss of power."""
        try:
            self._write(self._path(name), content, lasts=lasts)
        except OSError as error:
            on_disk = "Free space, change its permissions, or name another folder."
            away = "Check the bucket's name, your credentials and the network; then run it again."
            got = f"got {self.uri!r}: {error.strerror or error}. {on_disk if self.is_local else away}"
            raise FolderError(f"results folder must be writable and have room, {got}") from error

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a file on this machine's disk; what was added before survives any kill of the process."""
        path = self._path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab") as stream:
            stream.write(content)

    def _ask(self, operation: Callable[[], Answer]) -> Answer:
        return operation() if self.is_local else _persist(operation)

    def _write(self, path: str, content: bytes, place: Place | None = None, *, lasts: bool = True) -> None:
        if not self.is_local:
            return self._ask(lambda: self._put(path, content))
        # another process that finished the same trial may remove the folder meanwhile
        try_again(lambda: _write_whole(path, content, place or os.replace, lasts=lasts), CONTESTED, FileNotFoundError)
        if lasts:
            self._unsynced.add(os.path.dirname(path))

    def write_once(self, name: str, content: bytes, *, lasts: bool = True) -> bytes:
        """Put the content under the name unless something lies there; gives what `read_once` gives every process then.
        An object store refuses no second put. There every writer puts a file of its own and the oldest one counts; a
        writer waits until no other can be given the time of its own file. lasts: as `write` takes it."""
        if self.is_local:
            with contextlib.suppress(FileExistsError):
                self._write(self._path(name), content, os.link, lasts=lasts)
        else:
            self.write(f"{name}/{digest_of(content)}", content)
            time.sleep(TIMES_APART)
        held = self.read_once(name)
        return content if held is None else held

    def read_once(self, name: str) -> bytes | None:
        """What `write_once` put under the name first; None where nothing was."""
        if self.is_local:
            return self.read(name)
        oldest = min(self.entries(name), key=lambda entry: (entry.modified_ns, entry.name), default=None)
        return None if oldest is None else self.read(f"{name}/{oldest.name}")

    def remove_once(self, name: str, *, lasts: bool = True) -> None:
        """Remove what `write_once` put under the name; lasts: as `remove` takes it."""
        if self.is_local:
            self.remove(name, lasts=lasts)
        else:
            self.remove_folder(name)

    def sync(self, folder: str = "") -> None:
        """Wait until the entries of this folder and of every folder written to have reached the disk."""
        if not self.is_local:
            return
        written, self._unsynced = self._unsynced, set()
        top = Path(self._root).parent  # of a folder that is new, the entry in the one above has to last too
        for path in (*written, self._path(folder)):
            written |= {str(p) for p in (Path(path), *Path(path).parents) if p.is_relative_to(top)}
        for path in written:
            _sync_folder(path)

    def _put(self, path: str, content: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def read(self, name: str) -> bytes | None:
        try:
            return self._ask(lambda: self._get(self._path(name)))
        except FileNotFoundError:
            return None

    def read_mapped(self, name: str) -> pa.Buffer | None:
        """As `read`; a file on this machine's disk is mapped, not copied, and only what is looked at is read.
        For files that are replaced, never changed: a map stays what it was."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_local:
                return pa.memory_map(self._path(name)).read_buffer()
            return None if (content := self.read(name)) is None else pa.py_buffer(content)
        return None

    def read_as(
        self, name: str, parse: Callable[[Any], Answer], on_unreadable: Tell, *, is_mapped: bool = False
    ) -> Answer | None:
        """What the file says; None where it is absent, and where it is torn, which `on_unreadable` is told."""
        content = self.read_mapped(name) if is_mapped else self.read(name)
        try:
            return None if content is None else parse(content)
        except StudyError:  # it is whole, but of a version that this one does not know
            raise
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
            on_unreadable(name)
            return None

    def _get(self, path: str) -> bytes:
        if self.is_local:
            return Path(path).read_bytes()  # Arrow's streams of many small files take twice as long with threads
        with self._fs.open_input_stream(path, compression=None) as stream:
            return bytes(stream.readall())

    def remove(self, name: str, *, lasts: bool = True) -> None:
        """Delete one file; no error where it is gone already.
        lasts: first wait until all that was written here is safe; else a loss of power may take both."""
        if self._unsynced and lasts:
            self.sync()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._ask(lambda: self._fs.delete_file(self._path(name)))

    def remove_folder(self, name: str) -> None:
        """Delete a folder and all in it, once all that was written here is safe; no error where it is gone already."""
        if self._unsynced:
            self.sync()
        for left in reversed(range(CONTESTED)):
            try:
                self._ask(lambda: self._fs.delete_dir(self._path(name)))
                return
            except FileNotFoundError:
                if self._type(name) == fs.FileType.NotFound:
                    return
            except OSError:  # another process writes into it
                if not left or not self.is_local:
                    raise

    def entries(self, folder: str, suffix: str = "") -> list[Entry]:
        """Files directly in the folder, by name; temporary and foreign files left out."""
        files = ((info.base_name, info) for info in self._infos(folder) if info.type == fs.FileType.File)
        kept = ((name, info) for name, info in files if name.endswith(suffix) and name[0] != ".")
        return sorted(Entry(name, info.size, info.mtime_ns or 0) for name, info in kept)

    def tree(self, folder: str = "") -> list[Entry]:
        """Every file in the folder and the folders in it by its path from here, temporary and foreign ones too."""
        start = len(self._path("")) + 1
        # a folder may be removed while it is looked through
        infos = try_again(lambda: self._infos(folder, recursive=True), TRIES, FileNotFoundError)
        files = (info for info in infos if info.type == fs.FileType.File)
        return sorted(Entry(info.path[start:], info.size, info.mtime_ns or 0) for info in files)

    def _infos(self, folder: str, *, recursive: bool = False) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=recursive)
        return self._ask(lambda: self._fs.get_file_info(selector))

    def _type(self, name: str = "") -> fs.FileType:
        return self._ask(lambda: self._fs.get_file_info(self._path(name))).type

    def is_empty(self) -> bool:
        return not self._infos("")

    def exists(self) -> bool:
        return bool(self._type() != fs.FileType.NotFound)

    def read_as_columns(self) -> str:
        """What in the path readers of Parquet would take for a column and its value, in a sentence; empty where nothing is."""
        path = str(self.local_path("") or self.uri.partition("?")[0])
        named = [part for part in path.split("/") if re.fullmatch(r"[^/=]+=[^/]*", part)]
        read = "is read as a column by DuckDB and other readers, in place of the real one"
        return f"{named[0]} in the path of the results {read}" if named else ""

    def check_writable(self, size: int = 1 << 20) -> float:  # larger than any directory slack
        """Write and remove a file; its time in seconds by the clock of the folder's machine. FolderError says what is wrong."""
        name = f"probe-{secrets.token_hex(8)}"
        try:
            self.write(name, bytes(size), lasts=size > 0)
            return {entry.name: entry.modified_ns for entry in self.entries("")}[name] / 1e9
        finally:
            with contextlib.suppress(OSError):  # where nothing could be written
                self.remove(name)


def try_again(operation: Callable[[], Answer], times: int, passing: type[Exception]) -> Answer:
    for _ in range(times - 1):
        with contextlib.suppress(passing):
            return operation()
    return operation()


class Part:
    """Some of the store's functions, over its storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage


def _write_whole(path: str, content: bytes, place: Place, *, lasts: bool) -> None:
    folder, leaf = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    # The dot keeps a torn temporary out of every listing; the random part keeps two writers apart.
    temporary = f"{folder}/.{leaf}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            if lasts:
                stream.flush()
                os.fsync(stream.fileno())
        place(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync_folder(path: str) -> None:
    """Entries of a folder are safe against a loss of power only once the folder itself is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # some network folders know no such thing
            raise
    finally:
        os.close(handle)


def digest_of(content: bytes) -> str:
    """SHA-256, its first 32 hex digits: what a file that never changes is named by."""
    return hashlib.sha256(content).hexdigest()[:32]


def _persist(operation: Callable[[], Answer]) -> Answer:
    """What the operation gives, tried again while an object store fails for a reason that may pass.
    Every operation here may run twice: a put or a deletion whose answer was lost leaves what it left before."""
    for pause in PAUSES:
        try:
            return operation()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
            raise
        except OSError as error:
            if any(word in str(error) for word in LASTING):
                raise
        time.sleep(pause)
    return operation()


def _one_put(uri: str) -> str:
    """The URI with which Arrow puts a small file on S3 in one request; without it, every file takes three."""
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true" if uri.startswith("s3://") else uri
