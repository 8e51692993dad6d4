"""Writes a page as one HTML file that fetches nothing, or as Markdown. All text that comes from data is escaped here. Knows
the parts of a page; does not know what the study was about."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from string import Template

from analysis.figures.panels import Drawn
from analysis.figures.style import CATEGORIES, INK, MUTED, RAMP, RULE
from analysis.report import page
from analysis.rows.wording import ABSENT, NAME_FOLLOWS

# Hex colours of a figure and the CSS variable each becomes on the page.
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    **{colour: f"--ramp-{i}" for i, colour in enumerate(RAMP)},
    **{colour: f"--category-{i}" for i, colour in enumerate(CATEGORIES)},
}


def to_html(whole: page.Page) -> str:
    """The whole page: its head in view, its sections folded, scripts only of its own."""
    held = files("analysis.report")
    page_file, css, script = ((held / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    links = "".join(f'<li><a href="#{_escape(s.name)}">{_escape(s.heading)}</a></li>' for s in whole.sections)
    # a section's anchor lies inside it, so that a link to it opens it
    sections = "\n".join(
        f'<details class="section"><summary><h2>{_text(section.heading)}</h2></summary>\n'
        f'<div id="{_escape(section.name)}">\n{_parts(section.parts)}\n</div>\n</details>'
        for section in whole.sections
    )
    parts = {"title": _escape(whole.title), "header": _parts(whole.header), "footer": _part(whole.footer)}
    return Template(page_file).substitute(parts, css=css, links=links, sections=sections, script=script)


def inline_svg(drawn: Drawn) -> str:
    """A drawn panel as an element of the page: no fixed size, no outside reference, colours and font from its CSS."""
    body = drawn.body.replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        body = body.replace(f": {colour}", f": var({variable})")
    body = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 var(--sans)", body)  # before matplotlib 3.11
    body = re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", body)
    size = f"{drawn.width:g} {drawn.height:g}"
    return f'<svg viewBox="0 0 {size}" role="img" aria-label="{_escape(drawn.alt)}">{body}</svg>'


def _parts(parts: Sequence[page.Part]) -> str:
    return "\n".join(map(_part, parts))


def _part(part: page.Part) -> str:
    match part:
        case page.Paragraph(text, kind):
            return f"<p{_class('note warn' if kind == 'warning' else kind)}>{_inline(text)}</p>"
        case page.Heading(text, level):
            return f"<h{level}>{_text(text)}</h{level}>"
        case page.Preformatted(text):
            return f'<pre tabindex="0"><code>{_escape(text)}</code></pre>'
        case page.Table():
            return _table(part)
        case page.Figure(block, drawn):
            panels = "\n".join(f'<div class="panel">{inline_svg(panel)}</div>' for panel in drawn)
            few = " few" if len(block.panels) < block.columns else ""
            shown, rows = map(_escape, part.caption)
            return (
                f'<figure id="figure-{_escape(block.name)}">\n<div class="panels columns-{block.columns}{few}">\n{panels}\n'
                f'</div>\n<figcaption>{shown}<span class="rows">{rows}</span></figcaption></figure>'
            )
        case page.Leads(figures):
            leads = (
                f'<figure class="lead">{inline_svg(drawn)}<figcaption>{_escape(caption)} '
                f'<a href="#{_escape(name)}">More</a></figcaption></figure>'
                for name, drawn, caption in figures
            )
            return f'<div class="leads">{"".join(leads)}</div>'
        case page.Details(summary, parts, wide):
            opened = f"<details{_class('wide' if wide else '')}><summary>{_escape(summary)}</summary>"
            return f"{opened}\n{_parts(parts)}\n</details>"


def _table(table: page.Table) -> str:
    columns = range(len(table.headers))
    numeric = [bool(table.rows) and all(isinstance(row[i], page.Number) for row in table.rows) for i in columns]
    kinds = [_class("number" if n else "") for n in numeric]
    head = "".join(f'<th scope="col"{k}>{_text(text)}</th>' for text, k in zip(table.headers, kinds, strict=True))
    ids = [f' id="{_escape(anchor)}"' for anchor in table.anchors] or [""] * len(table.rows)
    rows = zip(ids, table.rows, strict=True)
    body = "\n".join(f"<tr{place}>{''.join(map(_cell, row))}</tr>" for place, row in rows)
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{_escape(table.label)}">'
    return f"{box}<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"


def _cell(cell: page.Cell) -> str:
    match cell:
        case page.Long(text) | page.Number(text):
            return f'<td class="{"long" if isinstance(cell, page.Long) else "number"}">{_text(text) or ABSENT}</td>'
        case _:
            return f"<td>{_inline((cell,)) or ABSENT}</td>"


def _inline(text: str | Sequence[page.Piece]) -> str:
    return _text(text) if isinstance(text, str) else "".join(map(_piece, text))


def _piece(piece: page.Piece) -> str:
    if isinstance(piece, str):
        return _text(piece)
    if isinstance(piece, page.Code):
        return f"<code>{_escape(piece.text)}</code>"
    text, target = _escape(piece.text), _escape(piece.target)
    if piece.target.startswith("https://"):
        return f'<a href="{target}">{text}</a>'
    return f'<a class="key" href="#{target}">{text}</a>' if target else f'<span class="key">{text}</span>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _text(text: object) -> str:
    """Text as HTML, the name of a column that follows its words small."""
    shown, _, name = _escape(text).partition(NAME_FOLLOWS)
    return f'{shown} <small class="column">{name}</small>' if name else shown


def _escape(text: object) -> str:
    """Text as HTML, safe in attributes too."""
    return html.escape(str(text), quote=True)


def to_markdown(whole: page.Page) -> str:
    """The whole page as Markdown: the same sentences and tables, figures as links to their files."""
    parts: list[page.Part] = [*whole.header]
    for section in whole.sections:
        parts += [page.Heading(section.heading, 2), *section.parts]
    return parts_to_markdown([*parts, whole.footer])


def parts_to_markdown(parts: Iterable[page.Part]) -> str:
    """Some parts of a page, a blank line between them; figures become links to figures/NAME.svg."""
    text = "\n\n".join(text for part in parts for text in _blocks(part)) + "\n"
    return re.sub(f"{NAME_FOLLOWS}([^|\\n]+?)(?= ?[|\\n])", r" (\1)", text)


def _blocks(part: page.Part) -> Iterator[str]:
    match part:
        case page.Paragraph(text, kind):
            told = text if isinstance(text, str) else "".join(map(_marked, text))
            yield ("> " if kind in ("note", "warning") else "") + " ".join(told.split(" "))
        case page.Heading(text, level):
            yield "#" * level + " " + text
        case page.Preformatted(text):
            yield f"```\n{text.rstrip()}\n```"
        case page.Table(_, headers, rows):
            yield "\n".join([_row(headers), "|---" * len(headers) + "|", *map(_row, rows)])
        case page.Figure(block):
            yield f"![{block.name}](figures/{block.name}.svg)"
            yield " ".join(part.caption)
        case page.Leads():
            return  # each stands with its figure below
        case page.Details(summary, parts):
            yield f"**{summary}**"
            for inner in parts:
                yield from _blocks(inner)


def _row(cells: Iterable[object]) -> str:
    texts = [str(getattr(cell, "text", cell)).replace("|", "\\|").replace("\n", " ") for cell in cells]
    return "| " + " | ".join(texts) + " |"


def _marked(piece: page.Piece) -> str:
    match piece:
        case page.Code(text):
            return f"`{text}`"
        case page.Link(text, target):
            return f"[{text}]({target})" if target.startswith("https://") else text
        case _:
            return piece
