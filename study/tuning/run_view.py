"""What `gnc run` shows while it runs: one live view on a terminal, else a line per finished trial and one a minute.
Knows rich; does not know Ray, the store or torch. Everything goes to stderr."""

import sys
import time
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from study.execution.progress_view import Pace, duration, figures_line, progress_view

APART_SECONDS = 60.0  # between lines about trials that run, where there is no terminal


@dataclass
class _Running:
    """A trial in progress: when it began, its last figures, the share done and the time left in words, and its pace."""

    began: float
    figures: dict[str, Any] = field(default_factory=dict)
    how_far: str = "starting"
    pace: Pace = field(default_factory=Pace)


class View:
    """Counts, progress, time left, and the figures of each running trial."""

    def __init__(self, expected: int, *, already_done: int = 0) -> None:
        """expected: trials that will run; already_done: trials that the store held."""
        self._names: dict[str, str] = {}  # of each trial that was started, by key
        self._expected, self._already = expected, already_done
        self._running: dict[str, _Running] = {}
        self.ended_states: dict[str, str] = {}
        self._started = self._spoke = time.monotonic()
        self._pace = Pace()
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
        self._names[key] = name
        self._running[key] = _Running(time.monotonic())

    def restarted(self, key: str, why: str, delay: float) -> None:
        """An attempt failed or was cut off, and the trial will be started again after a delay in seconds."""
        self._running.pop(key, None)
        self._line(f"restarting {self._names[key]}{f' in {delay:.0f} s' if delay >= 0.5 else ''}: {why}")

    def progressed(self, key: str, figures: dict[str, Any]) -> None:
        trial, now = self._running.get(key), time.monotonic()
        if trial is None:
            return
        trial.figures = figures
        if (done := figures.get("share_done")) is not None:
            trial.how_far = f"{done:.0%} done, {trial.pace.left(done)}".removesuffix(", ")
        self._left()
        if self._live is None and now - self._spoke >= APART_SECONDS:
            told = f"running  {self._names[key]}  {figures_line(figures)}  {trial.how_far}"
            self._line(f"[{len(self.ended_states)}/{self._expected}] {told}")

    def ended(self, key: str, state: str, figures: dict[str, Any]) -> None:
        now = time.monotonic()
        began = self._running.pop(key, _Running(now)).began
        if state == "interrupted":
            return
        self.ended_states[key] = state
        count = f"[{len(self.ended_states)}/{self._expected}]"
        reason = f"  {figures.get('reason')}" if state != "complete" else ""
        took = f"{now - began:.0f} s{reason}{f'; {self._left()}' if len(self.ended_states) < self._expected else ''}"
        line = f"{count} {state:<9}{self._names[key]}  {figures_line(figures)}  {took}"
        if state != "complete" or self._live is None:  # a terminal prints only the trials that need attention
            self._line(line)

    def ended_elsewhere(self, key: str) -> None:
        """Another run on the folder ended a trial that this one would have run."""
        self._expected -= 1
        self._already += 1

    def _done(self) -> float:
        return len(self.ended_states) + sum(r.figures.get("share_done", 0.0) for r in self._running.values())

    def _left(self) -> str:
        return self._pace.left(self._done(), self._expected)

    def _line(self, text: str) -> None:
        self._spoke = time.monotonic()
        if self._live is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._console.print(Text(text))

    def _render(self) -> Group:
        running = list(self._running.items())
        bad = sum(state not in ("complete", "stopped") for state in self.ended_states.values())
        head = Text.assemble(
            (f"{len(self.ended_states) - bad} done", "bold"), f"  {len(running)} running  ",
            (f"{bad} failed", "bold red" if bad else ""), f"  of {self._expected}",
            f" (+{self._already} stored)" if self._already else "",
            f"   {duration(time.monotonic() - self._started)}, {self._left()}".removesuffix(", "),
        )  # fmt: skip
        trials = [(self._names[key], trial.figures, trial.how_far) for key, trial in running]
        return progress_view(head, self._done() / max(1, self._expected), trials)
