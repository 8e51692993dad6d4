"""What `gnc run` shows while it runs: one calm live view on a terminal, else a line per finished trial.

Knows rich; does not know Ray, the store or torch. Everything goes to stderr.
"""

import sys
import time
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SHOWN = ("train_accuracy", "test_accuracy", "gnc1_rank", "margin_min_lower")  # of a trial's last measurement
SHOWN_TRIALS = 12  # running trials listed at most


@dataclass
class _Running:
    started: float
    figures: dict[str, Any] = field(default_factory=dict)


class View:
    """Counts, progress, time left, and the figures of each running trial."""

    def __init__(self, expected: int, *, already_done: int = 0) -> None:
        """expected: trials that will run; already_done: trials that the store held."""
        self._names: dict[str, str] = {}  # what to call each trial that was started, by key
        self._expected, self._already = expected, already_done
        self._running: dict[str, _Running] = {}
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
        self._running[key] = _Running(time.monotonic())

    def restarted(self, key: str, why: str, delay: float) -> None:
        """An attempt failed or was cut off, and the trial will be started again after a delay in seconds."""
        self._running.pop(key, None)
        self._line(f"restarting {self._names[key]}{f' in {delay:.0f} s' if delay >= 0.5 else ''}: {why}")

    def progressed(self, key: str, figures: dict[str, Any]) -> None:
        """New live figures of a running trial."""
        if key in self._running:
            self._running[key].figures = figures

    def ended(self, key: str, state: str, figures: dict[str, Any]) -> None:
        """A trial ended in a state."""
        running = self._running.pop(key, None)
        if state == "interrupted":
            return
        self.ended_states[key] = state
        seconds = time.monotonic() - running.started if running else 0.0
        count = f"[{len(self.ended_states)}/{self._expected}]"
        reason = f"  {figures.get('reason')}" if state != "complete" else ""
        self._line(f"{count} {state:<9}{self._names[key]}  {_summary(figures)}  {seconds:.0f} s{reason}")

    def _line(self, text: str) -> None:
        if self._live is None:
            print(text, file=sys.stderr, flush=True)
        elif not text.startswith("[") or " complete " not in text:
            self._console.print(Text(text))  # on a terminal only what needs attention scrolls by

    def _share_done(self) -> float:
        partial = sum(r.figures.get("share_done", 0.0) for r in list(self._running.values()))
        return (len(self.ended_states) + partial) / max(1, self._expected)

    def _render(self) -> Group:
        elapsed, share = time.monotonic() - self._started, self._share_done()
        left = f"{_duration(elapsed * (1 - share) / share)} left" if share > 0.02 else "estimating time left"
        bad = sum(state not in ("complete", "stopped") for state in self.ended_states.values())
        head = Text.assemble(
            (f"{len(self.ended_states) - bad} done", "bold"),
            f"  {len(self._running)} running  ",
            (f"{bad} failed", "bold red" if bad else ""),
            f"  of {self._expected}",
            f" (+{self._already} stored)" if self._already else "",
            f"   {_duration(elapsed)}, {left}",
        )
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column, justify in (("trial", "left"), ("epoch", "right"), ("done", "right"), ("accuracy", "right"),
                                ("GNC1", "right"), ("margin", "right")):  # fmt: skip
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        running = list(self._running.items())
        for key, trial in running[:SHOWN_TRIALS]:
            f = trial.figures
            table.add_row(
                self._names[key],
                str(f.get("epoch", "")),
                f"{f['share_done']:.0%}" if "share_done" in f else "starting",
                _number(f.get("train_accuracy"), ".3f"),
                _number(f.get("gnc1_rank"), ".2e"),
                _number(f.get("margin_min_lower"), ".3f"),
            )
        if len(running) > SHOWN_TRIALS:
            table.add_row(f"and {len(running) - SHOWN_TRIALS} more")
        return Group(head, ProgressBar(total=1.0, completed=share, width=60), table)


def _summary(figures: dict[str, Any]) -> str:
    shown = (("accuracy", "train_accuracy", ".3f"), ("test", "test_accuracy", ".3f"), ("GNC1", "gnc1_rank", ".2e"),
             ("margin", "margin_min_lower", ".3f"))  # fmt: skip
    return "  ".join(f"{label} {_number(figures[name], form)}" for label, name, form in shown if name in figures)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
