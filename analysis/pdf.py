"""The report as a PDF: its Markdown set in pages, every figure drawn again in its place. Knows matplotlib."""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from analysis.figures.files import side_by_side
from analysis.figures.look import INK, MUTED, use_style
from analysis.figures.svg import FigureBlock

PAGE = (8.27, 11.69)  # A4, inches
MARGIN = 0.7
MOST_ROWS = 60  # of a table; the whole of it is in report.html
SIZES = {"#": 17.0, "##": 13.0, "###": 10.5}
TEXT, TABLE = 9.0, 5.6
WIDTHS = {TEXT: 104, TABLE: 168}  # characters a line


@dataclass(frozen=True)
class Line:
    """One line of text: what, how large in points, and whether its columns must stand under each other."""

    text: str
    size: float
    mono: bool = False
    colour: str = INK


def to_pdf(markdown: str, blocks: Mapping[str, FigureBlock]) -> bytes:
    """Set the report's Markdown; figures go on pages of their own, after the text that leads to them."""
    buffer = io.BytesIO()
    with (
        use_style(**{"pdf.fonttype": 42, "figure.facecolor": "white"}),
        PdfPages(buffer, metadata={"CreationDate": None}) as pages,
    ):
        waiting: list[Line] = []
        for part in re.split(r"^!\[([\w-]+)\]\(.*\)$", markdown, flags=re.MULTILINE):
            block = blocks.get(part)
            if block is None or block.missing is not None:
                waiting += lines_of(part)
                continue
            _set(waiting, pages)
            waiting = []
            pages.savefig(_figure_page(block))
        _set(waiting, pages)
    return buffer.getvalue()


def lines_of(markdown: str) -> Iterator[Line]:
    """Wrapped lines of headings, paragraphs and tables."""
    rows = 0
    for raw in markdown.splitlines():
        mark, _, rest = raw.partition(" ")
        rows = rows + 1 if raw.startswith("|") else 0
        if mark in SIZES:
            yield Line("", TEXT)
            yield Line(rest, SIZES[mark])
        elif raw.startswith("|"):
            if rows > MOST_ROWS + 2:
                continue
            text = "..." if rows == MOST_ROWS + 2 else raw.strip("| ").replace(" | ", "   ")
            if not set(raw) <= {"|", "-"}:
                yield from (Line(x, TABLE, True, INK if rows > 1 else MUTED) for x in _wrapped(text, TABLE, "    "))
        elif not raw.startswith("```"):
            yield from (Line(x, TEXT) for x in _wrapped(raw.replace("**", "").lstrip("> "), TEXT, ""))


def _wrapped(text: str, size: float, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTHS[size], subsequent_indent=indent) or [""]


def _set(lines: list[Line], pages: PdfPages) -> None:
    """Fill pages with lines from top to bottom."""
    if not any(line.text.strip() for line in lines):
        return
    figure, y = Figure(figsize=PAGE), PAGE[1] - MARGIN
    for line in lines:
        height = line.size * 1.45 / 72
        if y - height < MARGIN:
            pages.savefig(figure)
            figure, y = Figure(figsize=PAGE), PAGE[1] - MARGIN
        y -= height
        family = "DejaVu Sans Mono" if line.mono else "DejaVu Sans"
        # parse_math off: a dollar sign in a failure's reason is text, not mathematics
        figure.text(
            MARGIN / PAGE[0],
            y / PAGE[1],
            line.text,
            fontsize=line.size,
            family=family,
            color=line.colour,
            parse_math=False,
        )
    pages.savefig(figure)


def _figure_page(block: FigureBlock) -> Figure:
    return side_by_side(block.panels, block.columns)
