"""Bytes at a results URI: whole or not at all."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from study.store.storage import CONTESTED, FolderError, Storage

FULL_DISK = """
import sys
from study.store.storage import Storage
storage = Storage(sys.argv[1])
storage.write("rows/a", b"small")
for name in ("write", "probe"):
    try:
        storage.write("rows/b", bytes(4 << 20)) if name == "write" else storage.check_writable()
    except OSError as error:
        print(name, error)
print("left", [e.name for e in storage.entries("rows")], len(__import__("os").listdir(sys.argv[1] + "/rows")))
"""


def test_what_is_written_is_read_and_listed(tmp_path):
    storage = Storage(tmp_path / "results")
    assert not storage.exists()
    assert storage.read("rows/a") is None
    assert storage.entries("rows") == []
    storage.write("rows/b", b"two")
    storage.write("rows/a", b"one")
    storage.write("rows/a", b"1")
    assert storage.exists()
    assert storage.read("rows/a") == b"1"
    assert [(entry.name, entry.size) for entry in storage.entries("rows")] == [("a", 1), ("b", 3)]
    storage.remove("rows/a")
    storage.remove("rows/a")
    storage.remove_folder("rows")
    storage.remove_folder("rows")
    assert storage.entries("rows") == []


def test_a_uri_reaches_the_same_files_as_a_path(tmp_path):
    Storage(tmp_path).write("rows/a", b"one")
    assert Storage(f"file://{tmp_path}").read("rows/a") == b"one"


def test_a_failed_write_leaves_the_old_content_and_no_temporary(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    storage.write("a", b"old")

    def refuse(*_: object) -> None:
        raise OSError("no rename today")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FolderError, match=r"must be writable and have room, got .* no rename today"):
        storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_leftover_temporary_is_not_listed(tmp_path):
    storage = Storage(tmp_path)
    storage.write("rows/a.parquet", b"one")
    (tmp_path / "rows" / ".b.parquet.1.dead.tmp").write_bytes(b"torn")
    assert [entry.name for entry in storage.entries("rows")] == ["a.parquet"]


def test_a_file_where_the_folder_should_be_is_refused_in_words(tmp_path):
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(OSError, match="results folder must be a folder, got the file"):
        Storage(tmp_path / "results")


def test_a_full_disk_is_told_and_tears_nothing(tmp_path):
    """A tmpfs of 1 MiB in a mount namespace of its own, so that the disk is really full."""
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    inside = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1" {tmp_path}', sys.executable, FULL_DISK]
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace needs root, which this machine does not give")
    done = subprocess.run(inside, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert "No space left on device" in done.stdout, done.stderr
    assert "probe results folder must be writable and have room" in done.stdout
    assert "left ['a'] 1" in done.stdout


def test_a_read_only_folder_is_told(tmp_path):
    """A read-only bind mount in a mount namespace of its own, since permissions do not stop root."""
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace needs root, which this machine does not give")
    code = "import sys; from study.store.storage import Storage; Storage(sys.argv[1]).check_writable()"
    inside = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1" {tmp_path}', sys.executable, code]
    done = subprocess.run(inside, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert "FolderError: results folder must be writable" in done.stderr.splitlines()[-1]
    assert "Read-only file system" in done.stderr.splitlines()[-1]


def test_writing_into_a_folder_that_another_process_removes_succeeds(tmp_path):
    """Two processes ran one trial: the one that finished removes the checkpoints while the other writes its own."""
    storage, stop = Storage(tmp_path), threading.Event()
    folder, removed = tmp_path / "checkpoints" / "KEY", []

    def remove_some_times() -> None:
        while len(removed) < CONTESTED // 4 and not stop.is_set():
            if folder.exists() and any(folder.iterdir()):
                storage.remove_folder("checkpoints/KEY")
                removed.append(1)

    remover = threading.Thread(target=remove_some_times)
    remover.start()
    try:
        for number in range(100):
            storage.write(f"checkpoints/KEY/{number}", b"content")
    finally:
        stop.set()
        remover.join()
    assert removed
    assert storage.read("checkpoints/KEY/99") in (b"content", None)
    storage.remove_folder("checkpoints/KEY")
    storage.remove_folder("checkpoints/KEY")
    assert not folder.exists()


def test_a_scheme_without_a_bucket_is_refused():
    with pytest.raises(FolderError, match="RESULTS must name a bucket after the scheme"):
        Storage("s3://")
