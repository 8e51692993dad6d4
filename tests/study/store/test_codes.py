"""Rows of a best code are computed once for a results folder, and the same for everybody."""

import threading

import numpy as np
import pytest
from pyarrow import fs

from study.execution.attempt import Execution
from study.store import storage as storage_module
from study.store.optima import code_digest, shared_code
from study.store.storage import FolderError, Storage
from study.store.store import open_store
from tests.study.conftest import made_up_config, remove_rows


@pytest.fixture(params=["disk", "object store"])
def storage(request, tmp_path, monkeypatch) -> Storage:
    monkeypatch.setattr(storage_module, "TIMES_APART", 0.05)
    found = Storage(tmp_path)
    if request.param == "object store":  # Arrow's file systems on a disk, as they are used for s3://
        (tmp_path / "codes" / "3-2-v.npy").mkdir(parents=True)  # which no object store needs
        found._fs, found.is_local = fs.SubTreeFileSystem("/", fs.LocalFileSystem()), False
    return found


def test_of_processes_that_compute_a_code_at_once_all_get_the_first_ones_rows(storage):
    ready, found = threading.Barrier(4), []

    def make(value: float) -> np.ndarray:
        ready.wait()
        return np.full((3, 2), value)

    threads = [
        threading.Thread(target=lambda v=v: found.append(shared_code(storage, (3, 2), "v", lambda: make(v))))
        for v in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    later = shared_code(storage, (3, 2), "v", lambda: pytest.fail("it is there"))
    assert all(np.array_equal(rows, later) for rows in found)
    assert len(found) == 4


def test_a_file_that_holds_no_such_code_is_refused(storage):
    storage.write_once("codes/3-2-v.npy", b"torn")
    with pytest.raises(FolderError, match=r"must hold a code of 3 classes in 2 dimensions"):
        shared_code(storage, (3, 2), "v", lambda: np.zeros((3, 2)))


def test_trials_use_the_rows_that_lie_in_the_folder_and_say_which(tmp_path, monkeypatch):
    config = made_up_config(
        dataset="synthetic",
        encoder="mlp",
        width=8,
        depth=1,
        samples_per_class=4,
        batch_size=8,
        classifier="fixed",
        code="best",
        num_classes=5,
        budget="steps",
        steps=2,
    )
    digests, heads = [], []
    for angle in (0.0, 0.3):  # as machines whose optimisers end elsewhere
        turned = np.array([[np.cos(a), np.sin(a), 0.0] for a in angle + 2 * np.pi * np.arange(5) / 5])
        monkeypatch.setattr("study.execution.attempt.best_code", lambda *_, rows=turned: _Code(rows))
        store = open_store(tmp_path / "shared")
        remove_rows(store, config.key)
        execution = Execution(config, store, attempt=1)
        assert execution.run() == "complete", execution.reason
        digests.append(store.read_fragment(config.key).record.code_digest)
        heads.append(store.read_head(config.key)["weights"])
    assert digests[0] == digests[1] == code_digest(np.load(next((tmp_path / "shared" / "codes").iterdir())))
    assert np.array_equal(*heads)
    assert store.read_trials().column("code_digest").to_pylist() == digests[:1]


class _Code:
    def __init__(self, rows: np.ndarray) -> None:
        import torch

        self.points = torch.from_numpy(rows)
