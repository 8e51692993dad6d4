"""Panels as files for papers and slides: SVG as on the page, PDF and PNG drawn side by side. Knows matplotlib."""

import io
import math
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from analysis.figures.panels import Panel, render_panel, svg_file
from analysis.figures.style import use_style

SUFFIXES = (".svg", ".pdf", ".png")
DPI = 150  # of a PNG


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


def side_by_side(panels: Sequence[Panel], columns: int) -> Figure:
    """One matplotlib figure with every panel in its place; to be called inside `use_style`."""
    columns = min(columns, len(panels))
    width, height = panels[0].inches
    total_width, total_height = columns * width, math.ceil(len(panels) / columns) * height
    figure = Figure(figsize=(total_width, total_height))
    for index, panel in enumerate(panels):
        left, right, below, above = panel.margins
        x, y = index % columns * width, total_height - (index // columns + 1) * height
        ax = figure.add_axes(
            ((x + left) / total_width, (y + below) / total_height, (width - left - right) / total_width,
             (height - below - above) / total_height)
        )  # fmt: skip
        panel.draw(ax)
    return figure
