"""Pages of the site that no file of docs/ is, and links that lead out of docs/: pure text, without MkDocs.

Paths are relative to the repository and have slashes. A page "stands" on the site at the path that MkDocs knows it by.
"""

import argparse
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from gnc.cli.main import COMMANDS, make_parser

ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".sh": "sh"}
VERDICTS = ("agrees", "disagrees", "no difference", "not shown", "cannot tell", "not tested", "missed")

_FENCED = re.compile(r"^((?:`{3,}).*?^`{3,}[ \t]*$)", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
_NAMED_BY_FILE = re.compile(r"\[[\w/.-]+\.md\]\(([\w/.-]+\.md)(#[\w-]+)?\)")


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """The text with what is not in a fenced block changed."""
    return "".join(part if part.startswith("```") else change(part) for part in _FENCED.split(text))


def linked_paths(text: str, origin: str) -> Iterator[str]:
    """Where the relative links of a page lead, as paths of the repository; `origin` is the page's own."""
    for part in _FENCED.split(text):
        if not part.startswith("```"):
            for target in _LINK.findall(part):
                yield posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))


def stands_at(path: str, root: Path) -> str:
    """Where a file or folder of the repository stands on the site."""
    if (root / path).is_dir():
        if (root / path / "README.md").exists():
            return stands_at(f"{path}/README.md", root)
        return stands_at(f"{path}/index.md", root)
    if path in ROOT_PAGES:
        return f"project/{path.lower()}"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def with_links_of_the_site(text: str, origin: str, page: str, root: Path) -> str:
    """The page's text with each relative link led to where its target stands, and named by its title rather than its file.

    Args:
        text: Markdown, as it is in the repository.
        origin: the file it is from.
        page: where that stands on the site.
        root: the repository.
    """

    def path_of(target: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))

    def title(match: re.Match[str]) -> str:
        return f"[{_title(root / path_of(match[1]))}]({match[1]}{match[2] or ''})"

    def lead(match: re.Match[str]) -> str:
        return posixpath.relpath(stands_at(path_of(match[1]), root), posixpath.dirname(page) or ".")

    def change(part: str) -> str:
        # Python-Markdown wants four spaces before an item of a list in a list, where GitHub is content with two.
        part = re.sub(r"^  (?=[*-] )", "    ", part, flags=re.MULTILINE)
        return _LINK.sub(lead, _NAMED_BY_FILE.sub(title, part))

    return outside_fences(text, change)


def page_of(path: str, root: Path) -> str:
    """What the site shows of a file or folder outside docs/, as Markdown whose links are those of the repository."""
    whole = root / path
    if path.endswith("/index.md") and not whole.exists():
        folder = whole.parent
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(("_", ".")))
        listed = [f"* [{_title(folder / name)}]({name})" for name in names if (folder / name).is_file()]
        return f"# {folder.name.capitalize()}\n\n" + "\n".join(listed) + "\n"
    text = whole.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n````{LANGUAGES.get(whole.suffix, 'text')}\n{text.rstrip()}\n````\n"


def _title(path: Path) -> str:
    if path.suffix != ".md" or not path.exists():  # MkDocs says which link leads nowhere
        return path.name
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def helps() -> str:
    """Every command's help, from its parser."""
    os.environ["COLUMNS"] = "80"  # argparse fills lines up to it
    commands = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    return "\n".join(f"## gnc {name}\n\n```text\n{commands[name].format_help().rstrip()}\n```\n" for name in COMMANDS)


def gallery(index: str, read: Callable[[str], str]) -> str:
    """The page of findings with its table of questions and verdicts turned into cards.

    Args:
        index: the Markdown of the page.
        read: gives the Markdown of a page that the table links to.
    Raises:
        ValueError: no table, or a finding without a claim.
    """
    table = re.search(r"^\| question \| verdict \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", index, flags=re.MULTILINE)
    if table is None:
        raise ValueError("The page of findings must have a table `| question | verdict |`, but has none.")
    cards = []
    for row in table[1].splitlines():
        link, verdict = (cell.strip() for cell in row.strip("|").split(" | ", 1))
        target = re.findall(r"\]\(([^)]+)\)", link)[0]
        cards.append(_card(link, verdict, read(target), target))
    return (
        index[: table.start()]
        + '<div class="cards" markdown>\n'
        + "\n".join(cards)
        + "\n</div>\n"
        + index[table.end() :]
    )


def _card(link: str, verdict: str, page: str, name: str) -> str:
    claim = re.search(r"^## The (?:claim|question)\n+(.*?)\n(?:\n|##)", page, flags=re.DOTALL | re.MULTILINE)
    if claim is None:
        raise ValueError(f"{name} must have a section `## The claim` or `## The question`, but has none.")
    figure = re.search(r"^!\[.*\]\(.*\)$", page, flags=re.MULTILINE)
    table = re.search(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)  # shown where there is no figure
    shown = f"[{figure[0]}]({name})" if figure else table[0].strip() if table else ""
    badges = "".join(
        f'<span class="badge {kind.replace(" ", "-")}">{kind}</span>'
        for kind in VERDICTS
        if re.search(rf"\b{kind}\b", verdict)
    )
    parts = [f"### {link[:1]}{link[1:2].upper()}{link[2:]}", badges and f"{badges}\n{{.badges}}", shown]
    parts += [" ".join(claim[1].split()) + "\n{.claim}", f"**Verdict:** {verdict}\n{{.verdict}}"]
    return '<article class="card" markdown>\n\n' + "\n\n".join(part for part in parts if part) + "\n\n</article>\n"
