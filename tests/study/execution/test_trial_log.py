"""The log of an attempt: every line at once, what the trial printed, a bounded size, the stack of a crash."""

import logging
import signal
import subprocess
import sys
import threading
from typing import Self

import pytest
from pyarrow import fs

from study.execution.attempt import Execution
from study.execution.trial_log import MOST_BYTES, TrialLog
from study.store.store import Store, open_store
from tests.study.conftest import made_up_config

KEY = "0123456789abcdef"


def lines(store: Store, attempt: int = 1) -> list[str]:
    """The log without its times."""
    return [line.partition(" ")[2] for line in store.last_log_lines(KEY, attempt, count=10**6)]


def test_what_is_printed_or_logged_comes_into_the_log_and_where_it_went_before(store, capsys, caplog):
    log = TrialLog(store, KEY, 1)
    with log.capture():
        print("printed")
        assert lines(store) == ["| printed"]  # at once, not at the end
        print("complained", file=sys.stderr)
        print("half a ", end="")
        logging.getLogger("library").warning("logged")
        print("line, and no end", end="")
    print("outside")
    said = ["| printed", "| complained", "| WARNING library: logged", "| half a line, and no end"]
    assert lines(store) == said
    shown = capsys.readouterr()
    assert shown.out == "printed\nhalf a line, and no endoutside\n"
    assert shown.err == "complained\n"
    assert [record.getMessage() for record in caplog.records] == ["logged"]


class SlowText(str):
    """Text that is being joined to the line so far while another thread prints, or tries to."""

    def __new__(cls, text: str, meanwhile: threading.Thread) -> Self:
        slow = super().__new__(cls, text)
        slow.meanwhile = meanwhile
        return slow

    def __radd__(self, line: str) -> str:
        self.meanwhile.start()
        self.meanwhile.join(0.5)  # where the line is not locked, the other thread is done by then
        return line + str(self)


def test_what_two_threads_print_at_once_is_all_in_the_log(store):
    log = TrialLog(store, KEY, 1)
    with log.capture():
        other = threading.Thread(target=lambda: print("half a line", end=""))
        sys.stdout.write(SlowText("of this thread\n", other))
        other.join()
    assert lines(store) == ["| of this thread", "| half a line"]


def run_python(store: Store, body: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: pytest keeps warnings and crashes to itself."""
    code = (
        "import os, warnings; from study.store.store import open_store; from study.execution.trial_log import TrialLog\n"
        f"logs = [TrialLog(open_store({store.uri!r}), {KEY!r}, attempt) for attempt in (1, 2)]\n{body}"
    )
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)


def test_a_warning_is_in_the_log_of_every_trial_of_a_reused_process(store):
    body = "for log in logs:\n    with log.capture():\n        warnings.warn('twice', RuntimeWarning)\n"
    done = run_python(store, body)
    assert done.stderr.count("RuntimeWarning: twice") == 2
    for attempt in (1, 2):
        assert any("RuntimeWarning: twice" in line for line in lines(store, attempt))


def test_a_full_log_keeps_only_the_end(store):
    log = TrialLog(store, KEY, 1)
    for _ in range(3 * MOST_BYTES // 1000):
        log.write("x" * 1000)
    log.write("end: complete", always=True)
    assert len(store.storage.read(f"logs/{KEY}.1.log")) < 1.01 * MOST_BYTES
    assert "the log is full" in lines(store)[-2]
    assert lines(store)[-1] == "end: complete"


def test_a_log_that_cannot_be_written_stops_nothing(store, capsys):
    store.storage.write("logs", b"a file where the folder should be")
    config = made_up_config(dataset="synthetic", encoder="mlp", width=4, depth=1, steps=1, num_classes=4)
    assert Execution(config, store, attempt=1).run(on_progress=lambda _: print("said")) == "complete"
    assert store.states() == {config.key: "complete"}
    assert capsys.readouterr().out == "said\n" * 2  # the untrained network, and an epoch
    assert store.storage.read("logs") == b"a file where the folder should be"


def test_an_attempt_whose_log_cannot_begin_is_a_failure_with_a_traceback(store, monkeypatch):
    def unknown() -> str:
        raise RuntimeError("no such processor")

    monkeypatch.setattr("study.execution.attempt.cpu_model", unknown)
    execution = Execution(made_up_config(), store, attempt=1)
    assert execution.run() == "failed"
    (failure,) = store.failures()[execution.config.key]
    assert failure["reason"] == execution.reason == "RuntimeError: no such processor"
    assert "in _log_start" in failure["traceback"]
    assert store.last_log_lines(execution.config.key, 1)[-1].endswith("end: failed: RuntimeError: no such processor")


def test_in_an_object_store_the_log_is_put_whole_at_each_flush(tmp_path):
    store = open_store(tmp_path)
    store.storage._fs, store.storage.is_local = fs.SubTreeFileSystem("/", fs.LocalFileSystem()), False
    (tmp_path / "logs").mkdir()
    log = TrialLog(store, KEY, 1)
    log.write("one")
    assert store.storage.read(f"logs/{KEY}.1.log") is None
    log.flush()
    log.write("two")
    log.flush()
    log.flush()
    assert lines(store) == ["one", "two"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_of_the_process_leaves_its_stack(store, number):
    body = (
        "logs[0].write('begins')\n"
        "def falls():\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "with logs[0].capture():\n"
        "    falls()\n"
    )
    done = run_python(store, body)
    assert done.returncode == -number
    content = store.storage.read(f"logs/{KEY}.1.log").decode()
    assert "Fatal Python error" in content
    assert "in falls" in content
