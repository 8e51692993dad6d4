"""Panels to SVG: for the page (inline, restyled by CSS, ids that never collide) and as files of their own.

Knows matplotlib; text stays text, so that it can be searched, selected and set in the page's font.
"""

import html
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.figures.look import CATEGORIES, INK, MUTED, PANEL_INCHES, RAMP, RULE, use_style

# Hex colours of a figure and the CSS variable each becomes on the page.
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    **{colour: f"--ramp-{i}" for i, colour in enumerate(RAMP)},
    **{colour: f"--category-{i}" for i, colour in enumerate(CATEGORIES)},
}


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what it is called, what a reader who cannot see it is told, and what draws it."""

    title: str
    alt: str
    draw: Callable[[Axes], None]
    inches: tuple[float, float] = PANEL_INCHES


@dataclass(frozen=True)
class FigureBlock:
    """A figure of the report: panels with a heading and caption, or the sentence that stands in for it.

    rows: the rows behind it in words; trials: their keys.
    """

    name: str
    heading: str
    caption: str
    rows: str = ""
    trials: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    missing: str | None = None
    columns: int = 3


def panel_to_inline_svg(panel: Panel, prefix: str) -> str:
    """The panel as an `<svg>` element for an HTML page: no fixed size, no outside reference, ids under `prefix`."""
    with use_style():
        figure = Figure(figsize=panel.inches, layout="constrained")
        ax = figure.add_subplot()
        panel.draw(ax)
        markup = _render(figure, prefix)
    body = markup[markup.index("<svg") :]
    view_box = re.search(r'viewBox="([^"]+)"', body)
    assert view_box is not None
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # its `*` rule would reach the whole page
    body = _with_prefixed_ids(body, prefix).replace("xlink:href", "href")
    body = _with_variables(re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL))
    head = f'<svg viewBox="{view_box[1]}" role="img" aria-label="{html.escape(panel.alt, quote=True)}">'
    return head + re.sub(r"\n\s*", "\n", body).strip()


def block_to_svg_file(block: FigureBlock) -> bytes:
    """All panels of a figure in one SVG file with plain colours, for papers and slides."""
    columns = min(block.columns, len(block.panels))
    rows = math.ceil(len(block.panels) / columns)
    width, height = block.panels[0].inches
    with use_style():
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained", facecolor="white")
        for index, panel in enumerate(block.panels):
            panel.draw(figure.add_subplot(rows, columns, index + 1))
        return _render(figure, block.name).encode()


def _render(figure: Figure, salt: str) -> str:
    buffer = io.StringIO()
    # the date would make two reports of the same rows differ
    with use_style(**{"svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def _with_prefixed_ids(markup: str, prefix: str) -> str:
    markup = re.sub(r'\bid="', f'id="{prefix}-', markup)
    markup = re.sub(r"url\(#", f"url(#{prefix}-", markup)
    return re.sub(r'href="#', f'href="#{prefix}-', markup)


def _with_variables(markup: str) -> str:
    for colour, variable in VARIABLES.items():
        markup = markup.replace(f": {colour}", f": var({variable})")
    return re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 var(--sans)", markup)
