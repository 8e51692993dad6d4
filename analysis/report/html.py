"""HTML pieces of the report: sections, figures, tables, notes. Everything that comes from data is escaped here.

Knows HTML and panels; does not know what the study was about.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from analysis.figures.panels import Drawn, FigureBlock, inline_svg

MOST_KEYS = 40
ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class Link:
    """A table cell that leads to a place on the page."""

    text: str
    target: str


@dataclass(frozen=True)
class Long:
    """A table cell of prose, which may wrap."""

    text: str


@dataclass(frozen=True)
class Number:
    """A table cell aligned to the right."""

    text: str


Cell = str | Link | Long | Number


def escape(text: object) -> str:
    """Text as HTML, safe in attributes too."""
    return html.escape(str(text), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def note(text: str, *, warning: bool = False) -> str:
    """A sentence set apart: something missing, or to be careful about."""
    return f'<p class="note{" warn" if warning else ""}">{escape(text)}</p>'


def section(name: str, heading: str, *parts: str) -> str:
    """A section that the table of contents can point at."""
    return f'<section id="{escape(name)}">\n<h2>{escape(heading)}</h2>\n' + "\n".join(parts) + "\n</section>"


def details(summary: str, body: str, *, wide: bool = False) -> str:
    """A part that opens on a click, without script."""
    return f"<details{_class('wide' if wide else '')}><summary>{escape(summary)}</summary>\n{body}\n</details>"


def preformatted(text: str) -> str:
    """Text as it is, in a box that scrolls by itself."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def table(
    label: str, headers: Sequence[str], rows: Iterable[Sequence[Cell]], anchors: Sequence[str] | None = None
) -> str:
    """A table in a box that scrolls by itself; anchors gives each row an id."""
    body, numeric = [], [True] * len(headers)
    for index, row in enumerate(rows):
        numeric = [n and isinstance(cell, Number) for n, cell in zip(numeric, row, strict=True)]
        anchor = f' id="{escape(anchors[index])}"' if anchors is not None else ""
        body.append(f"<tr{anchor}>" + "".join(map(_cell, row)) + "</tr>")
    kinds = [_class("number" if n and body else "") for n in numeric]
    head = "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(headers, kinds, strict=True))
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
    return f"{box}<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"


def figure(block: FigureBlock, drawn: Sequence[Drawn], listed: frozenset[str]) -> str:
    """A figure with its caption and rows, or the sentence in its place; listed: trials the page has a row of."""
    if block.missing is not None:
        return note(block.missing)
    panels = [f'<div class="panel">{inline_svg(panel)}</div>' for panel in drawn]
    few = " few" if len(block.panels) < block.columns else ""
    count = f" ({len(block.trials)} trials)" if block.trials else ""
    caption = f'{escape(block.caption)}<span class="rows">Rows: {escape(block.rows)}{count}.</span>'
    return (
        f'<figure id="figure-{escape(block.name)}">\n<div class="panels columns-{block.columns}{few}">\n'
        + "\n".join(panels)
        + f"\n</div>\n<figcaption>{caption}</figcaption>\n{trial_links(block.trials, listed)}</figure>"
    )


def trial_links(trials: Sequence[str], listed: frozenset[str]) -> str:
    """The keys of the trials behind something, each a link where the page lists the trial."""
    if not trials:
        return ""
    shown = [
        f'<a class="key" href="#trial-{escape(t)}">{escape(t)}</a>'
        if t in listed
        else f'<span class="key">{escape(t)}</span>'
        for t in trials[:MOST_KEYS]
    ]
    more = f" and {len(trials) - MOST_KEYS} more in the table" if len(trials) > MOST_KEYS else ""
    return details(f"Trial keys ({len(trials)})", f'<p class="keys">{" ".join(shown)}{more}</p>')


def document(title: str, header: str, contents: Sequence[tuple[str, str]], sections: Sequence[str], footer: str) -> str:
    """The whole page: one file, no script, nothing fetched."""
    css = (files("analysis.report") / "report.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{escape(name)}">{escape(text)}</a></li>' for name, text in contents)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)}</title>\n'
        f"<style>\n{css}</style>\n</head>\n"
        f'<body>\n<header>\n{header}\n</header>\n<nav aria-label="Contents"><ul>{links}</ul></nav>\n<main>\n'
        + "\n".join(sections)
        + f"\n</main>\n<footer>{footer}</footer>\n</body>\n</html>\n"
    )


def _cell(cell: Cell) -> str:
    match cell:
        case Link(text, target):
            return f'<td><a class="key" href="#{escape(target)}">{escape(text)}</a></td>'
        case Long(text):
            return f'<td class="long">{escape(text)}</td>'
        case Number(text):
            return f'<td class="number">{escape(text)}</td>'
        case _:
            return f"<td>{escape(cell)}</td>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
