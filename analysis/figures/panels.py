"""Figures as panels, drawn as SVG for the page and as SVG, PDF or PNG files. Text stays text, so that it can be searched
and shown in the page's font; ids have a prefix, so that no two panels of a page share one. Their words: captions.toml."""

import io
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.figures.style import BETWEEN, MUTED, POINTS, TITLES, use_style
from analysis.rows.wording import NAME_FOLLOWS

SUFFIXES = (".svg", ".pdf", ".png")
DPI = 150  # of a PNG
# Inches of a panel, and of the margins left, right, below and above its axes.
Room = tuple[tuple[float, float], tuple[float, float, float, float]]
USUAL_ROOM: Room = ((3.95, 3.1), (0.58, 0.8, 0.52, 0.36))
BROAD_ROOM: Room = ((4.6, 3.4), (0.75, 0.3, 0.52, 0.4))
CAPTIONS: dict[str, dict[str, Any]] = tomllib.loads((files("analysis.figures") / "captions.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what a reader who cannot see it is told, and what draws it. One room for all of a figure."""

    alt: str
    draw: Callable[[Axes], None]
    room: Room = USUAL_ROOM


@dataclass(frozen=True)
class FigureBlock:
    """A figure of the report: panels with a heading and caption, or in `missing` the sentence that stands in for it.
    rows: the rows behind it in words; trials: their keys. lead: the panel that stands for the figure at the top of a page;
    lead_note: what must be known of that panel there."""

    name: str
    heading: str
    caption: str
    rows: str = ""
    trials: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    missing: str | None = None
    columns: int = 3
    lead: int = 0
    lead_note: str = ""


def block_of(
    name: str, found: Sequence[Any], alt: Callable[[Any], str], draw: Callable[[Axes, Any], None],
    room: Room = USUAL_ROOM, *, trials: Sequence[str] = (), notes: Sequence[str] = (), missing: str | None = None,
    lead: Callable[[int], Any] = lambda index: 0, lead_note: Callable[[int], str] = lambda index: "",
    kind: str | None = None, **words: Any,
) -> FigureBlock:  # fmt: skip
    """A panel for each entry that a figure has found, with the words of captions.toml.
    Args:
        notes: sentences that follow the caption. missing: why there is nothing, if not for the usual reason.
        lead, lead_note: by a panel's index, how well it stands for the figure, and what must be known of it then.
        kind: the entry of captions.toml, if not the name."""
    text = CAPTIONS[kind or name]
    first = max(range(len(found)), key=lead, default=None)
    return FigureBlock(
        name=name, heading=text["heading"].format(**words), rows=text["rows"].format(**words), trials=tuple(trials),
        caption=" ".join([text["caption"].format(**words), *filter(None, notes)]),
        panels=tuple(Panel(alt(one), lambda ax, one=one: draw(ax, one), room) for one in found),  # type: ignore[misc]
        missing=None if found else missing or text["missing"].format(**words),
        columns=text.get("columns", 3), lead=first or 0, lead_note="" if first is None else lead_note(first),
    )  # fmt: skip


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
    (width, height), _ = panel.room
    buffer = io.StringIO()
    with use_style(**{"svg.hashsalt": prefix}):
        FigureCanvasSVG(side_by_side([panel], 1)).print_svg(buffer, metadata={"Date": None})
    markup = buffer.getvalue()
    inside = markup[markup.index(">", markup.index("<svg")) + 1 : markup.rindex("</svg>")]
    # the `*` rule of a style element would reach the whole page
    inside = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style[^>]*>.*?</style>", "", inside, flags=re.DOTALL)
    inside = re.sub(r"\n\s*", "\n", inside).strip()
    small = f'<tspan style="font-size: 82%; fill: {MUTED}"> \\1</tspan>'  # the name of a column after its words
    inside = _with_titles(re.sub(f"{NAME_FOLLOWS}([^<]+)", small, inside))
    inside = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", inside)
    return Drawn(inside, POINTS * width, POINTS * height, panel.alt)


def _with_titles(markup: str) -> str:
    """A `<title>` in every mark of an artist that `name_marks` has named; the titles stand in the id of its group."""
    whole, *pieces = re.split(f'<g id="{TITLES}([^"]*)">', markup)
    mark = re.compile(r"(<use [^>]*)/>")
    for joined, body in zip(pieces[::2], pieces[1::2], strict=True):
        titles = joined.split(BETWEEN)
        left = iter(titles)
        if len(titles) == 1:
            whole += f"<g><title>{joined}</title>{body}"
        else:
            titled = mark.sub(
                lambda one, left=left: f"{one[1]}><title>{next(left)}</title></use>", body, count=len(titles)
            )
            whole += f"<g>{titled}"
    return whole


def svg_file(drawn: Sequence[Drawn], columns: int) -> bytes:
    """All panels of a figure in one SVG file with plain colours on white, for papers and slides."""
    columns = min(columns, len(drawn))
    width, height = drawn[0].width, drawn[0].height
    across, down = f"{columns * width:g}", f"{math.ceil(len(drawn) / columns) * height:g}"
    places = [(i % columns * width, i // columns * height) for i in range(len(drawn))]
    groups = [f'<g transform="translate({x:g} {y:g})">{d.body}</g>' for d, (x, y) in zip(drawn, places, strict=True)]
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" width="{across}pt" height="{down}pt" viewBox="0 0 {across} {down}">\n'
        "<style>*{stroke-linejoin: round; stroke-linecap: butt}</style>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n{"".join(groups)}\n</svg>\n'
    ).encode()


def figure_file(block: FigureBlock, suffix: str) -> bytes:
    """A figure as the bytes of one file. suffix: one of SUFFIXES; ValueError for another."""
    if suffix not in SUFFIXES:
        raise ValueError(f"suffix must be one of {', '.join(SUFFIXES)}, got {suffix!r}.")
    if suffix == ".svg":
        return svg_file(render(block), block.columns)
    buffer = io.BytesIO()
    # Type 42 keeps text as text, and journals refuse the default Type 3
    with use_style(**{"pdf.fonttype": 42, "figure.facecolor": "white"}):
        figure = side_by_side(block.panels, block.columns)
        if suffix == ".pdf":
            FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
        else:
            figure.set_dpi(DPI)
            FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def side_by_side(panels: Sequence[Panel], columns: int, make: Callable[..., Figure] = Figure) -> Figure:
    """One matplotlib figure with every panel in its place; to be called inside `use_style`. make: what makes the figure."""
    columns = min(columns, len(panels))
    (width, height), _ = panels[0].room
    total_width, total_height = columns * width, math.ceil(len(panels) / columns) * height
    figure = make(figsize=(total_width, total_height))
    for index, panel in enumerate(panels):
        left, right, below, above = panel.room[1]
        x, y = index % columns * width, total_height - (index // columns + 1) * height
        ax = figure.add_axes(
            ((x + left) / total_width, (y + below) / total_height, width / total_width - (left + right) / total_width,
             height / total_height - (below + above) / total_height)
        )  # fmt: skip
        panel.draw(ax)
    return figure
