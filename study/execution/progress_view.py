"""What `gnc run` and `gnc status` show of trials in progress: their figures in a line or a table, a bar, the time left.
Knows rich; does not know Ray, the store or torch."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SHOWN_TRIALS = 12  # of those in progress
FIGURES = (  # label, column and format of what is shown of a trial's last measurement
    ("accuracy", "train_accuracy", ".3f"), ("test", "test_accuracy", ".3f"),
    ("GNC1", "gnc1_rank", ".2e"), ("margin", "margin_min_lower", ".3f"),
)  # fmt: skip
Shown = tuple[str, Mapping[str, Any], str]  # a trial's name, its figures, and a note such as where it runs


def figures_line(figures: Mapping[str, Any]) -> str:
    """The figures with their labels in one line; those that are missing or null are left out."""
    values = ((label, figures.get(name), form) for label, name, form in FIGURES)
    return "  ".join(f"{label} {value:{form}}" for label, value, form in values if value is not None)


def progress_view(head: Text, share: float, trials: Sequence[Shown], notes: Iterable[RenderableType] = ()) -> Group:
    """A head line, a bar filled to this share, a table of trials in progress, and notes below."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for label, justify in (("trial", "left"), ("epoch", "right"), *((label, "right") for label, _, _ in FIGURES)):
        table.add_column(label, justify=justify)  # type: ignore[arg-type]
    table.add_column(overflow="ellipsis", no_wrap=True)
    for name, figures, note in trials[:SHOWN_TRIALS]:
        values = [(figures.get(column), form) for _, column, form in (("", "epoch", "d"), *FIGURES)]
        table.add_row(name, *("" if value is None else format(value, form) for value, form in values), note)
    if len(trials) > SHOWN_TRIALS:
        table.add_row(f"and {len(trials) - SHOWN_TRIALS} more")
    bar = Padding(ProgressBar(total=1.0, completed=share, width=60), 0)  # a bar alone ends no line
    return Group(head, bar, table, *notes)


class Pace:
    """How long the rest of a work takes at its pace since anything of it was done: starting up is not repeated."""

    _begun: tuple[float, float] | None = None

    def left(self, done: float, total: float = 1.0) -> str:
        """The time left in words, with so much done now; the first call with something done sets the beginning."""
        now = time.monotonic()
        if self._begun is None and done:
            self._begun = now, done
        since, before = self._begun or (now, done)
        since_then, rest = done - before, total - done
        known = since_then > 0.02 * (since_then + rest)
        words = f"{duration((now - since) * rest / since_then)} left" if known else "estimating time left"
        return words if rest > 0 else ""


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest of them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    few = f"{minutes} min {rest:02d} s" if minutes else f"{rest} s" if rest else "less than 1 s"
    return f"{hours} h {minutes:02d} min" if hours else few
