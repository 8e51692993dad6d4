"""A page as data: sections of paragraphs, tables and figures, which `writers` writes. Knows nothing of the study."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from analysis.figures.panels import Drawn, FigureBlock
from gnc_models.progress import amount

TEXTS: dict[str, Any] = tomllib.loads((files("analysis.report") / "texts.toml").read_text("utf-8"))
Kind = Literal["", "over", "question", "studied", "answer", "open", "keys", "note", "warning"]


@dataclass(frozen=True)
class Link:
    """Text that leads to an https address or to a place on the page; with an empty target it leads nowhere."""

    text: str
    target: str


@dataclass(frozen=True)
class Code:
    """Text to be typed as it stands."""

    text: str


@dataclass(frozen=True)
class Long:
    """A table cell of prose, which may wrap."""

    text: str


@dataclass(frozen=True)
class Number:
    """A table cell aligned to the right."""

    text: object


Piece = str | Link | Code
Cell = str | Link | Long | Number


@dataclass(frozen=True)
class Paragraph:
    """Text with links in it. kind: how it is set; a note or warning stands apart."""

    text: str | Sequence[Piece]
    kind: Kind = ""


@dataclass(frozen=True)
class Heading:
    """The title of the page (level 1) or of a part of a section (level 3)."""

    text: str
    level: int = 3


@dataclass(frozen=True)
class Preformatted:
    """Text that keeps its lines, such as a file or code."""

    text: str


@dataclass(frozen=True)
class Table:
    """label: for readers who cannot see the table. anchors: a name for each row that links can lead to."""

    label: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    anchors: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """The drawn panels of a figure with its caption."""

    block: FigureBlock
    drawn: Sequence[Drawn]
    total: int  # complete trials that there are

    @property
    def caption(self) -> tuple[str, str]:
        """What the figure shows, and which rows it was drawn from."""
        drawn = len(self.block.trials)
        count = f" ({f'{drawn} of ' * (drawn < self.total)}{amount(self.total, 'trial')})" if drawn else ""
        return self.block.caption, f"Rows: {self.block.rows}{count}."


@dataclass(frozen=True)
class Leads:
    """The panels that carry the answer, side by side: the section with the whole figure, a panel, a short caption."""

    figures: Sequence[tuple[str, Drawn, str]]


@dataclass(frozen=True)
class Details:
    """Parts that open on a click. wide: as wide as the page, for tables."""

    summary: str
    parts: "Sequence[Part]"
    wide: bool = False


Part = Paragraph | Heading | Preformatted | Table | Figure | Leads | Details


@dataclass(frozen=True)
class Section:
    """A part of the page that its table of contents points at."""

    name: str
    heading: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    header: Sequence[Part]
    sections: Sequence[Section]
    footer: Paragraph


def note(text: str) -> Paragraph:
    """A sentence set apart, such as the reason why something is missing."""
    return Paragraph(text, "note")


def table(name: str, rows: Sequence[Sequence[Cell]], **names: str) -> Table:
    """The table with the label and the headers that texts.toml gives it, in which {names} are filled in."""
    known = TEXTS["tables"][name]
    return Table(known["label"].format(**names), known["headers"].format(**names).split(" | "), rows)
