"""The report's page as Markdown: the same sentences and tables, figures as links to their files. Knows HTML only."""

import re
from html.parser import HTMLParser

DROPPED = frozenset({"style", "title", "nav", "svg"})


def to_markdown(page: str) -> str:
    """Translate the page's own small vocabulary of HTML; figures become links to figures/NAME.svg."""
    translator = _Translator()
    translator.feed(page)
    translator.close()
    text = "\n".join(line.rstrip() for line in "".join(translator.out).splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


class _Translator(HTMLParser):
    """Writes Markdown as it meets the tags; what lies inside DROPPED is passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.out: list[str] = []
        self.dropped = 0
        self.row: list[str] | None = None
        self.in_cell = self.in_pre = False
        self.head = False
        self.link: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in DROPPED:
            self.dropped += 1
        elif tag in ("h1", "h2", "h3"):
            self.out.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag == "p":
            self.out.append("\n\n> " if "note" in (given.get("class") or "") else "\n\n")
        elif tag in ("figcaption", "details", "table"):
            self.out.append("\n\n")
        elif tag == "summary":
            self.out.append("**")
        elif tag == "span" and not self.in_cell:  # set apart by its style alone in the page
            self.out.append(" ")
        elif tag == "figure":
            name = (given.get("id") or "").removeprefix("figure-")
            self.out.append(f"\n\n![{name}](figures/{name}.svg)\n")
        elif tag == "pre":
            self.in_pre = True
            self.out.append("\n\n```\n")
        elif tag == "tr":
            self.row = []
        elif tag in ("td", "th"):
            self.head = tag == "th"
            self.in_cell = True
            assert self.row is not None
            self.row.append("")
        elif tag == "a" and (given.get("href") or "").startswith("https://"):
            self.link = given["href"]
            self.out.append("[")

    def handle_endtag(self, tag: str) -> None:
        if tag in DROPPED:
            self.dropped -= 1
        elif tag == "summary":
            self.out.append("**\n")
        elif tag == "pre":
            self.in_pre = False
            self.out.append("\n```\n")
        elif tag in ("td", "th"):
            self.in_cell = False
        elif tag == "tr" and self.row is not None:
            self.out.append("| " + " | ".join(self.row) + " |\n")
            if self.head:
                self.out.append("|---" * len(self.row) + "|\n")
            self.row = None
        elif tag == "a" and self.link is not None:
            self.out.append(f"]({self.link})")
            self.link = None

    def handle_data(self, data: str) -> None:
        if self.dropped:
            return
        if self.in_cell and self.row is not None:
            self.row[-1] += data.replace("|", "\\|").replace("\n", " ")
        elif self.in_pre:
            self.out.append(data)
        elif data.strip() or not "".join(self.out[-1:]).endswith(("\n", " ")):
            self.out.append(re.sub(r"\s+", " ", data))
