"""The report as a PDF: its Markdown set in pages, every figure drawn again where it stands. Knows matplotlib."""

import io
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from analysis.figures.panels import FigureBlock, Panel
from analysis.figures.style import INK, MUTED, use_style

PAGE = (8.27, 11.69)  # A4, inches
MARGIN = 0.7
INSIDE = PAGE[0] - 2 * MARGIN
KEPT_BELOW = 2.0  # inches that a heading wants under it on its page
MOST_ROWS = 60  # of a table; the whole of it is in report.html
SIZES = {"#": 17.0, "##": 13.0, "###": 10.5}
TEXT, CODE, TABLE = 9.0, 7.0, 5.6
WIDTHS = {TEXT: 104, CODE: 116, TABLE: 146}  # characters a line
GAP = "  "  # between the columns of a table
TRIAL_KEYS = re.compile(r"^\*\*Trial keys \(\d+\)\*\*\n+.+$", re.MULTILINE)


@dataclass(frozen=True)
class Line:
    """One line of text: what, how large in points, and whether its columns must stand under each other."""

    text: str
    size: float
    mono: bool = False
    colour: str = INK

    @property
    def height(self) -> float:
        """Inches."""
        return self.size * 1.45 / 72


@dataclass(frozen=True)
class Row:
    """Panels beside each other, each of this width and height in inches."""

    panels: Sequence[Panel]
    width: float
    height: float


def to_pdf(markdown: str, blocks: Mapping[str, FigureBlock]) -> bytes:
    """Set the report's Markdown with its figures; the keys of the trials behind a figure are in report.html."""
    buffer = io.BytesIO()
    with (
        use_style(**{"pdf.fonttype": 42, "figure.facecolor": "white"}),
        PdfPages(buffer, metadata={"CreationDate": None}) as pages,
    ):
        parts: list[Line | Row] = []
        for part in re.split(r"^!\[([\w-]+)\]\(.*\)$", TRIAL_KEYS.sub("", markdown), flags=re.MULTILINE):
            block = blocks.get(part)
            parts += rows_of(block) if block is not None and block.missing is None else lines_of(part)
        _set(parts, pages)
    return buffer.getvalue()


def rows_of(block: FigureBlock) -> Iterator[Row]:
    """The panels of a figure, two in a row where they are not wider than half a page and a bit."""
    width, height = block.panels[0].inches
    beside = 2 if width < 0.65 * INSIDE and len(block.panels) > 1 else 1
    taken = min(width, INSIDE / beside)
    for start in range(0, len(block.panels), beside):
        yield Row(block.panels[start : start + beside], taken, height * max(taken / width, 0.9))


def lines_of(markdown: str) -> Iterator[Line]:
    """Wrapped lines of headings, paragraphs, tables and quoted files."""
    quoted, table = False, list[str]()
    for raw in [*markdown.splitlines(), ""]:
        if raw.startswith("|") and not quoted:
            table.append(raw)
            continue
        yield from table_lines(table)
        table = []
        mark, _, rest = raw.partition(" ")
        if raw.startswith("```"):
            quoted = not quoted
        elif quoted:
            yield from (Line(text, CODE, True) for text in _wrapped(raw, CODE, drop_whitespace=False))
        elif mark in SIZES:
            yield Line("", TEXT)
            yield Line(rest, SIZES[mark])
        else:
            yield from (Line(text, TEXT) for text in _wrapped(raw.replace("**", "").lstrip("> "), TEXT))


def table_lines(raw: Sequence[str]) -> Iterator[Line]:
    """A Markdown table with its columns under each other, the widest ones wrapped until it fits the page."""
    rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in raw]
    rows = [row for row in rows if any(cell.strip("-") for cell in row)]
    shown = rows[: MOST_ROWS + 1]
    if not shown:
        return
    columns = list(zip(*shown, strict=True))
    widths = [max(map(len, column)) for column in columns]
    room = WIDTHS[TABLE] - len(GAP) * (len(widths) - 1)
    words = [max((len(word) for cell in column for word in cell.split()), default=1) for column in columns]
    while sum(widths) > room and max(widths) > 1:
        # words stay whole while there is another column to narrow
        loose = [w if w > word else 0 for w, word in zip(widths, words, strict=True)]
        widest = loose.index(max(loose)) if any(loose) else widths.index(max(widths))
        widths[widest] -= 1
    for index, row in enumerate(shown):
        wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*wrapped, fillvalue=""):
            text = GAP.join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
            yield Line(text.rstrip(), TABLE, True, INK if index else MUTED)
    if len(rows) > len(shown):
        yield Line(f"... and {len(rows) - len(shown)} rows more in report.html", TABLE, True, MUTED)


def _wrapped(text: str, size: float, *, drop_whitespace: bool = True) -> list[str]:
    return textwrap.wrap(text, WIDTHS[size], drop_whitespace=drop_whitespace) or [""]


def _set(parts: Sequence[Line | Row], pages: PdfPages) -> None:
    """Fill pages from top to bottom; empty lines at the top of a page or after each other are left out."""
    figure, y, blank = Figure(figsize=PAGE), PAGE[1] - MARGIN, True
    for part in parts:
        empty = isinstance(part, Line) and not part.text.strip()
        if empty and blank:
            continue
        heading = isinstance(part, Line) and part.size in SIZES.values()
        if y - part.height - (KEPT_BELOW if heading else 0) < MARGIN:
            pages.savefig(figure)
            figure, y = Figure(figsize=PAGE), PAGE[1] - MARGIN
        y -= part.height
        if isinstance(part, Row):
            _place(figure, part, y)
        elif not empty:
            # parse_math off: a dollar sign in a failure's reason is text, not mathematics
            family = "DejaVu Sans Mono" if part.mono else "DejaVu Sans"
            figure.text(MARGIN / PAGE[0], y / PAGE[1], part.text, fontsize=part.size, family=family,
                        color=part.colour, parse_math=False)  # fmt: skip
        blank = empty
    pages.savefig(figure)


def _place(figure: Figure, row: Row, y: float) -> None:
    """Draw the panels of a row; margins keep their inches, as text keeps its points."""
    for index, panel in enumerate(row.panels):
        left, right, below, above = panel.margins
        x = MARGIN + index * row.width
        inside = (row.width - left - right, row.height - below - above)
        panel.draw(
            figure.add_axes(
                ((x + left) / PAGE[0], (y + below) / PAGE[1], inside[0] / PAGE[0], inside[1] / PAGE[1]),
                label=f"{y:.3f} {index}",
            )
        )
