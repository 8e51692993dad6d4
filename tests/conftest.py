"""What every test may use: a small study file, the real command in a process of its own, tables to compare."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from study.store.attempts import Live
from study.store.schemas import CIRCUMSTANCES
from study.store.store import Store

# Settings of a study whose trials last a second, for modules that write their own file.
TINY = """\
dataset = "synthetic"
encoder = "mlp"
width = 32
depth = 1
samples_per_class = 16
test_samples_per_class = 4
"""

SMALL_STUDY = """
name = "small"
[fixed]
samples_per_class = 16
test_samples_per_class = 4
batch_size = 32
learning_rate = 0.1
steps = {steps}
feature_dim = 3
[[grid]]
dataset = ["synthetic"]
encoder = ["mlp"]
width = [32]
depth = [1]
num_classes = {num_classes}
seed = [0, 1]
{more}
[resources]
checkpoint_seconds = {checkpoint_seconds}
"""


# One deep network on images beside the small ones, so that what holds for these holds for it.
IMAGES = """
[[grid]]
dataset = ["glyphs"]
encoder = ["small_resnet"]
augmentation = ["shift"]
width = [4]
num_classes = [6]
seed = [0]
"""


def pytest_configure() -> None:
    """Under nohup or `&` the commands would inherit that these signals are ignored, and would heed that, as they should."""
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def run_gnc(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`gnc` in its own process, output captured."""
    done = subprocess.run(
        [sys.executable, "-m", "gnc.cli.main", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,  # a test has less, unless it says otherwise
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def start_gnc(*arguments: str | Path) -> subprocess.Popen[str]:
    """`gnc` in its own process and session, still running."""
    return subprocess.Popen(
        [sys.executable, "-m", "gnc.cli.main", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120) -> Any:
    """The condition's first true answer; the test fails when it does not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen within {seconds} s")


def halted(store: Store, *, line: str = "", passed_over: Collection[tuple[str, int]] = ()) -> Live | None:
    """A trial in progress, its process halted so that it cannot end before the test acts; None where there is none yet.

    Args:
        store: where it runs.
        line: words of its log, for which to wait.
        passed_over: keys and attempts that are not meant.
    """
    for trial in store.read_live():
        is_meant = not trial.interrupted and (trial.key, trial.attempt) not in passed_over
        if not is_meant or not any(
            line in told for told in store.last_log_lines(trial.key, trial.attempt, count=10**6)
        ):
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(trial.process, signal.SIGSTOP)
            still = {(live.key, live.attempt) for live in store.read_live() if not live.interrupted}
            if (trial.key, trial.attempt) in still and trial.key not in store.fragments():
                return trial
            os.kill(trial.process, signal.SIGCONT)  # it had ended before it was halted
    return None


def let_go(trial: Live, *numbers: int) -> None:
    """Send signals to a halted trial's process, and let it go on."""
    with contextlib.suppress(ProcessLookupError):  # it may have died with its driver
        for number in (*numbers, signal.SIGCONT):
            os.kill(trial.process, number)


def comparable(table: pa.Table) -> list[dict]:
    """Rows without the columns in which two correct runs may differ: time, host, memory and attempt."""
    return table.drop_columns([name for name in table.column_names if name in CIRCUMSTANCES]).to_pylist()


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small study, with other steps, classes or extra text where asked."""

    def write(*, extra: str = "", **values: object) -> Path:
        path = tmp_path / "small.toml"
        defaults = {"steps": 40, "num_classes": "[6, 12]", "checkpoint_seconds": 30, "more": ""}
        text = SMALL_STUDY.format(**{**defaults, **values})
        path.write_text(text + extra)
        return path

    return write


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")
    monkeypatch.setattr("gnc.cli.output.QUIET", 1e6)  # what is printed does not depend on how fast the machine is
