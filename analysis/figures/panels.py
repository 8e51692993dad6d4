"""Panels drawn as SVG for the page, and as SVG, PDF or PNG files for papers and slides.

Ids have a prefix, so that no two panels of a page share one. Text stays text, so that it can be searched, selected and
shown in the page's font. Knows matplotlib.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.figures.style import BETWEEN, MUTED, PANEL_INCHES, PANEL_MARGINS, POINTS, TITLES, use_style
from analysis.rows.wording import NAME_FOLLOWS

SUFFIXES = (".svg", ".pdf", ".png")
DPI = 150  # of a PNG


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what a reader who cannot see it is told, and what draws it.

    margins: inches left, right, below and above the axes; the same for all panels of a figure, so that axes line up.
    """

    alt: str
    draw: Callable[[Axes], None]
    inches: tuple[float, float] = PANEL_INCHES
    margins: tuple[float, float, float, float] = PANEL_MARGINS


def panels_of(
    found: Sequence[Any],
    alt: Callable[[Any], str],
    draw: Callable[[Axes, Any], None],
    inches: tuple[float, float] = PANEL_INCHES,
    margins: tuple[float, float, float, float] = PANEL_MARGINS,
) -> tuple[Panel, ...]:
    """One panel for each entry of numbers that a figure has found."""

    def drawer(numbers: Any) -> Callable[[Axes], None]:
        return lambda ax: draw(ax, numbers)

    return tuple(Panel(alt(n), drawer(n), inches, margins) for n in found)


@dataclass(frozen=True)
class FigureBlock:
    """A figure of the report: panels with a heading and caption, or the sentence that stands in for it.

    rows: the rows behind it in words; trials: their keys. lead: the panel that stands for the figure at the top of a page.
    """

    name: str
    heading: str
    caption: str
    rows: str = ""
    trials: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    missing: str | None = None
    columns: int = 3
    lead: int = 0


@dataclass(frozen=True)
class Drawn:
    """A drawn panel: the inside of its `<svg>` element with ids under a prefix, its size in points, its alt text."""

    body: str
    width: float
    height: float
    alt: str


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def render(block: FigureBlock) -> list[Drawn]:
    """Draw every panel of a figure once, for the page and the file alike."""
    return [render_panel(panel, f"{block.name}-{index}") for index, panel in enumerate(block.panels)]


def render_panel(panel: Panel, prefix: str) -> Drawn:
    """Draw a panel; the same panel and prefix give the same bytes."""
    width, height = panel.inches
    buffer = io.StringIO()
    with use_style(**{"svg.hashsalt": prefix}):
        FigureCanvasSVG(side_by_side([panel], 1)).print_svg(buffer, metadata={"Date": None})
    markup = buffer.getvalue()
    inside = markup[markup.index(">", markup.index("<svg")) + 1 : markup.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<style[^>]*>.*?</style>", "", inside, flags=re.DOTALL)  # its `*` rule would reach the whole page
    inside = _with_titles(_with_small_names(re.sub(r"\n\s*", "\n", inside).strip()))
    return Drawn(_with_prefixed_ids(inside, prefix), POINTS * width, POINTS * height, panel.alt)


def svg_file(drawn: Sequence[Drawn], columns: int) -> bytes:
    """All panels of a figure in one SVG file with plain colours on white, for papers and slides."""
    columns = min(columns, len(drawn))
    width, height = drawn[0].width, drawn[0].height
    total = f"{columns * width:g} {math.ceil(len(drawn) / columns) * height:g}"
    size = 'width="{}pt" height="{}pt"'.format(*total.split())
    places = [(i % columns * width, i // columns * height) for i in range(len(drawn))]
    groups = [f'<g transform="translate({x:g} {y:g})">{d.body}</g>' for d, (x, y) in zip(drawn, places, strict=True)]
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" {size} viewBox="0 0 {total}">\n'
        "<style>*{stroke-linejoin: round; stroke-linecap: butt}</style>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n{"".join(groups)}\n</svg>\n'
    ).encode()


def _with_small_names(markup: str) -> str:
    """The name of a column that follows its words, small and muted."""
    small = f'<tspan style="font-size: 82%; fill: {MUTED}"> \\1</tspan>'
    return re.sub(f"{NAME_FOLLOWS}([^<]+)", small, markup)


def _with_titles(markup: str) -> str:
    """A `<title>` in every mark of an artist that `name_marks` has named; the titles stand in the id of its group."""
    pieces = re.split(f'<g id="{TITLES}([^"]*)">', markup)
    named = [_titled(body, titles.split(BETWEEN)) for titles, body in zip(pieces[1::2], pieces[2::2], strict=True)]
    return pieces[0] + "".join(named)


def _titled(body: str, titles: Sequence[str]) -> str:
    if len(titles) == 1:
        return f"<g><title>{titles[0]}</title>{body}"
    left = iter(titles)
    return "<g>" + re.sub(
        r"(<use [^>]*)/>", lambda found: f"{found[1]}><title>{next(left)}</title></use>", body, count=len(titles)
    )


def _with_prefixed_ids(markup: str, prefix: str) -> str:
    markup = re.sub(r'\bid="', f'id="{prefix}-', markup)
    markup = re.sub(r"url\(#", f"url(#{prefix}-", markup)
    return re.sub(r'href="#', f'href="#{prefix}-', markup)


def figure_file(name: str, panels: Sequence[Panel], columns: int, suffix: str) -> bytes:
    """Panels of one size in rows of `columns`, as the bytes of one file.

    Args:
        name: prefix of ids inside an SVG. suffix: one of SUFFIXES.
    Raises:
        ValueError: another suffix, or no panels.
    """
    if suffix not in SUFFIXES:
        raise ValueError(f"suffix must be one of {', '.join(SUFFIXES)}, got {suffix!r}.")
    if not panels:
        raise ValueError("panels must not be empty, got none. There is nothing to draw.")
    if suffix == ".svg":
        return svg_file([render_panel(panel, f"{name}-{i}") for i, panel in enumerate(panels)], columns)
    # Type 42 keeps text as text, and journals refuse the default Type 3
    with use_style(**{"pdf.fonttype": 42, "figure.facecolor": "white"}):
        figure = side_by_side(panels, columns)
        buffer = io.BytesIO()
        if suffix == ".pdf":
            FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
        else:
            figure.set_dpi(DPI)
            FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def side_by_side(panels: Sequence[Panel], columns: int, make: Callable[..., Figure] = Figure) -> Figure:
    """One matplotlib figure with every panel in its place; to be called inside `use_style`. make: what makes the figure."""
    columns = min(columns, len(panels))
    width, height = panels[0].inches
    total_width, total_height = columns * width, math.ceil(len(panels) / columns) * height
    figure = make(figsize=(total_width, total_height))
    for index, panel in enumerate(panels):
        left, right, below, above = panel.margins
        x, y = index % columns * width, total_height - (index // columns + 1) * height
        ax = figure.add_axes(
            ((x + left) / total_width, (y + below) / total_height, width / total_width - (left + right) / total_width,
             height / total_height - (below + above) / total_height)
        )  # fmt: skip
        panel.draw(ax)
    return figure
