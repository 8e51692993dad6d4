"""Writes the page as Markdown: the same sentences and tables, figures as links to their files. Knows the page's parts."""

from collections.abc import Iterable, Iterator

from analysis.report.page import Details, Figure, Heading, Link, Page, Paragraph, Part, Preformatted, Table


def to_markdown(page: Page) -> str:
    """The whole page."""
    parts: list[Part] = [*page.header]
    for section in page.sections:
        parts += [Heading(section.heading, 2), *section.parts]
    return parts_to_markdown([*parts, page.footer])


def parts_to_markdown(parts: Iterable[Part]) -> str:
    """Some parts of a page, a blank line between them; figures become links to figures/NAME.svg."""
    return "\n\n".join(text for part in parts for text in _blocks(part)) + "\n"


def _blocks(part: Part) -> Iterator[str]:
    match part:
        case Paragraph(text, kind):
            told = text if isinstance(text, str) else "".join(map(_piece, text))
            yield ("> " if kind in ("note", "warning") else "") + " ".join(told.split())
        case Heading(text, level):
            yield "#" * level + " " + text
        case Preformatted(text):
            yield f"```\n{text.rstrip()}\n```"
        case Table(_, headers, rows):
            yield "\n".join([_row(headers), "|---" * len(headers) + "|", *map(_row, rows)])
        case Figure(block):
            yield f"![{block.name}](figures/{block.name}.svg)"
            yield " ".join(part.caption)
        case Details(summary, parts):
            yield f"**{summary}**"
            for inner in parts:
                yield from _blocks(inner)


def _row(cells: Iterable[object]) -> str:
    texts = [str(getattr(cell, "text", cell)).replace("|", "\\|").replace("\n", " ") for cell in cells]
    return "| " + " | ".join(texts) + " |"


def _piece(piece: str | Link) -> str:
    if isinstance(piece, str):
        return piece
    return f"[{piece.text}]({piece.target})" if piece.target.startswith("https://") else piece.text
