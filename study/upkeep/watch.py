"""`gnc status --watch`: the status again and again until the study's end; a live view on a terminal, else a line a change.

Knows rich and the status; looks at the results folder alone, so that any machine that sees it can watch.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from study.store.disk_use import disk_sentence
from study.upkeep.status import Status, counts_line, failure_lines, live_line, status_facts

SHOWN_TRIALS = 12  # trials in progress listed at most
FAILED_READS = 5  # in a row before a folder counts as lost: a network folder may be away for a moment


def watch(read: Callable[[], Status], *, seconds: float, as_json: bool = False) -> Status:
    """Show the status every so many seconds until nothing more will run; the last one is returned."""
    console = Console()
    if as_json or not console.is_terminal:
        return _follow(read, seconds, _print_facts if as_json else _Lines(sys.stdout))
    pace = _Pace(time.monotonic())
    with Live(console=console, auto_refresh=False) as live:
        return _follow(read, seconds, lambda status: live.update(_view(status, pace), refresh=True))


def _follow(read: Callable[[], Status], seconds: float, show: Callable[[Status], None]) -> Status:
    failed_reads = 0
    while True:
        try:
            status = read()
        except OSError as error:
            failed_reads += 1
            if failed_reads >= FAILED_READS:
                raise
            print(f"the results folder cannot be read now, looking again: {error}", file=sys.stderr)
        else:
            failed_reads = 0
            show(status)
            if status.is_over:
                return status
        time.sleep(seconds)


def _print_facts(status: Status) -> None:
    print(json.dumps(status_facts(status)), flush=True)


class _Lines:
    """A line whenever the counts or what runs has changed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, ""

    def __call__(self, status: Status) -> None:
        running = len(status.running)
        line = f"{status.name}: {counts_line(status.counts)}{f'; {running} running' if running else ''}"
        if line != self._last:
            self._last = line
            now = time.strftime("%H:%M:%S")
            print(f"{now} {line}; {disk_sentence(status.disk)}", file=self._stream, flush=True)


@dataclass
class _Pace:
    """How fast trials end while one looks on."""

    started: float
    first_ended: int | None = None

    def sentence(self, status: Status) -> str:
        ended = status.counts.total() - status.counts["missing"]
        self.first_ended = ended if self.first_ended is None else self.first_ended
        seconds, seen = time.monotonic() - self.started, ended - self.first_ended
        if not seen:
            return f"watched for {seconds:.0f} s"
        left = status.counts["missing"] * seconds / seen
        return f"{60 * seen / seconds:.3g} trials a minute, about {left / 60:.0f} min left"


def _view(status: Status, pace: _Pace) -> Group:
    ended = status.counts.total() - status.counts["missing"]
    lines = [
        Text(line.strip(), overflow="ellipsis", no_wrap=True) for line in map(live_line, status.live[:SHOWN_TRIALS])
    ]
    if len(status.live) > SHOWN_TRIALS:
        lines.append(Text(f"and {len(status.live) - SHOWN_TRIALS} more"))
    return Group(
        Text.assemble((status.name, "bold"), f" in {status.uri}: {counts_line(status.counts)}"),
        ProgressBar(total=max(1, status.counts.total()), completed=ended, width=60),
        Text(f"{len(status.running)} running; {pace.sentence(status)}"),
        *lines,
        *(Text(line.strip(), style="red") for line in failure_lines(status)),
        Text(disk_sentence(status.disk), style="dim"),
    )
