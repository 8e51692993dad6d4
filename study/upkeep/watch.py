"""`gnc status --watch`: shows the status until the study ends, in a live view on a terminal, else one line per change.
Knows rich and the status. Reads the results folder alone, so that any machine that sees the folder can watch."""

import json
import sys
import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from study.execution.progress_view import Pace, duration, progress_view
from study.store.disk_use import disk_sentence
from study.upkeep.status import Status, counts_line, failure_lines, last_row, live_note, run_line, status_facts

FAILED_READS = 5  # in a row before a folder counts as lost, since a network folder may be away for a moment


def watch(read: Callable[[], Status], *, seconds: float, as_json: bool = False) -> Status:
    """Show the status every so many seconds until nothing more will run. Gives the last one."""
    console = Console()
    if as_json:
        return _follow(read, seconds, lambda status: print(json.dumps(status_facts(status)), flush=True))
    if not console.is_terminal:
        return _follow(read, seconds, _Lines())
    view = _View()
    with Live(console=console, auto_refresh=False) as live:
        return _follow(read, seconds, lambda status: live.update(view(status), refresh=True))


def _follow(read: Callable[[], Status], seconds: float, show: Callable[[Status], None]) -> Status:
    failed_reads = 0
    while True:
        try:
            status = read()
        except OSError as error:
            failed_reads += 1
            if failed_reads >= FAILED_READS:
                raise
            print(f"the results folder cannot be read now; trying again: {error}", file=sys.stderr)
        else:
            failed_reads = 0
            show(status)
            if status.is_over:
                return status
        time.sleep(seconds)


class _Lines:
    """Prints a line whenever the counts or the number of running trials has changed."""

    _last = ""

    def __call__(self, status: Status) -> None:
        line = f"{status.name}: {counts_line(status.counts, status.live)}"
        if line != self._last:
            self._last = line
            print(f"{time.strftime('%H:%M:%S')} {line}; {disk_sentence(status.disk)}", flush=True)


class _View:
    """The status for a terminal, with the time left as estimated since the view was opened."""

    def __init__(self) -> None:
        self._started, self._pace = time.monotonic(), Pace()

    def __call__(self, status: Status) -> Group:
        seconds, missing, total = time.monotonic() - self._started, status.counts["missing"], status.counts.total()
        ended = total - missing
        head = Text.assemble(
            (status.name, "bold"),
            f" in {status.uri}: {counts_line(status.counts, status.live)}\n",
            f"watched for {duration(seconds)}, {self._pace.left(ended, total)}".removesuffix(", "),
        )
        failures = (Text(line.strip(), style="red") for line in failure_lines(status))
        runs = (Text(run_line(run).strip(), style="dim") for run in status.runs)
        trials = [(trial.key, last_row(trial), live_note(trial)) for trial in status.live]
        notes = [*runs, *failures, Text(disk_sentence(status.disk), "dim")]
        return progress_view(head, ended / max(1, total), trials, notes)
