"""The fenced blocks of the pages, and how they are run: in a page's order, in one folder, in one Python process.

    python -m tests.docs.blocks PAGE...     in the folder where they are to run

A comment before a block says why it is not run (`<!-- not run: REASON -->`) or which test runs it with what it needs
(`<!-- run by tests/PATH.py -->`). A block with a title (```` ```toml title="first.toml" ````) is written to that file. Commands run as
bash runs them, with `-e`; Python blocks of a page share their names.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])

_BLOCK = re.compile(
    r"""(?:<!--[ ](?P<mark>[^>]*?)[ ]-->\s*\n)?   # what is said of the block
        ^```(?P<language>\w*)(?:[ ]title="(?P<title>[^"]+)")?[ ]*\n
        (?P<code>.*?)^```[ ]*$""",
    flags=re.DOTALL | re.MULTILINE | re.VERBOSE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and what the page says of running it."""

    page: str
    line: int
    language: str
    title: str | None
    mark: str | None
    code: str

    @property
    def is_run(self) -> bool:
        """Whether the walk through the page runs it or writes it to a file."""
        return self.mark is None and (self.language in ("sh", "python") or self.title is not None)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=str(page.relative_to(ROOT)),
            line=text[: found.start("code")].count("\n"),
            language=found["language"],
            title=found["title"],
            mark=found["mark"],
            code=found["code"],
        )
        for found in _BLOCK.finditer(text)
    ]


def run_pages(pages: list[Path]) -> None:
    """Run the pages' blocks in the working directory.

    Raises:
        SystemExit: a block failed; the message says which and what to do.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for page in pages:
        names: dict[str, object] = {"__name__": "__main__"}
        for block in (block for block in blocks_of(page) if block.is_run):
            print(f"--- {block}", flush=True)
            try:
                if block.title is not None:
                    Path(block.title).write_text(block.code, encoding="utf-8")
                elif block.language == "python":
                    exec(compile(block.code, str(block), "exec"), names)  # noqa: S102 - the page's own
                else:
                    script = ["bash", "-euo", "pipefail", "-c", block.code]
                    subprocess.run(script, check=True, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL)
            except Exception as error:
                raise SystemExit(
                    f"{block} must run as it stands, but: {type(error).__name__}: {error}\n"
                    "Mend it, or say before it why it is not run: <!-- not run: REASON -->"
                ) from error


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    run_pages([ROOT / page for page in sys.argv[1:]])
