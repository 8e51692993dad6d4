"""What `gnc run` shows while it runs: one live view on a terminal, else one line per finished trial.

Knows rich; does not know Ray, the store or torch. Everything goes to stderr.
"""

import sys
import time
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from study.execution.progress_view import duration, figures_line, progress_view, time_left


class View:
    """Counts, progress, time left, and the figures of each running trial."""

    def __init__(self, expected: int, *, already_done: int = 0) -> None:
        """expected: trials that will run; already_done: trials that the store held."""
        self._names: dict[str, str] = {}  # of each trial that was started, by key
        self._expected, self._already = expected, already_done
        self._running: dict[str, tuple[float, dict[str, Any]]] = {}  # when each began, and its last figures
        self.ended_states: dict[str, str] = {}
        self._started = time.monotonic()
        self._console = Console(stderr=True)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def started(self, key: str, name: str) -> None:
        """A trial began."""
        self._names[key] = name
        self._running[key] = time.monotonic(), {}

    def restarted(self, key: str, why: str, delay: float) -> None:
        """An attempt failed or was cut off, and the trial will be started again after a delay in seconds."""
        self._running.pop(key, None)
        self._line(f"restarting {self._names[key]}{f' in {delay:.0f} s' if delay >= 0.5 else ''}: {why}")

    def progressed(self, key: str, figures: dict[str, Any]) -> None:
        """New live figures of a running trial."""
        if key in self._running:
            self._running[key] = self._running[key][0], figures

    def ended(self, key: str, state: str, figures: dict[str, Any]) -> None:
        """A trial ended in a state."""
        now = time.monotonic()
        began, _ = self._running.pop(key, (now, {}))
        if state == "interrupted":
            return
        self.ended_states[key] = state
        count = f"[{len(self.ended_states)}/{self._expected}]"
        reason = f"  {figures.get('reason')}" if state != "complete" else ""
        line = f"{count} {state:<9}{self._names[key]}  {figures_line(figures)}  {now - began:.0f} s{reason}"
        if state != "complete" or self._live is None:  # a terminal prints only the trials that need attention
            self._line(line)

    def _line(self, text: str) -> None:
        if self._live is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._console.print(Text(text))

    def _render(self) -> Group:
        elapsed, running = time.monotonic() - self._started, list(self._running.items())
        done = len(self.ended_states) + sum(figures.get("share_done", 0.0) for _, (_, figures) in running)
        bad = sum(state not in ("complete", "stopped") for state in self.ended_states.values())
        head = Text.assemble(
            (f"{len(self.ended_states) - bad} done", "bold"),
            f"  {len(running)} running  ",
            (f"{bad} failed", "bold red" if bad else ""),
            f"  of {self._expected}",
            f" (+{self._already} stored)" if self._already else "",
            f"   {duration(elapsed)}, {time_left(elapsed, done, self._expected - done)}",
        )
        trials = [
            (self._names[key], figures, f"{figures['share_done']:.0%} done" if "share_done" in figures else "starting")
            for key, (_, figures) in running
        ]
        return progress_view(head, done / max(1, self._expected), trials)
