"""What MkDocs calls while it builds the site (`hooks` in mkdocs.yml); the text is made in `tools.site.pages`."""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

from tools.site.assets import shipped_files
from tools.site.pages import ROOT_PAGES, gallery, helps, linked_paths, page_of, stands_at, with_links_of_the_site

ROOT = Path(__file__).parents[2]
_origins: dict[str, str] = {}  # page of the site -> file of the repository, where that is not docs/ and the same path
_external: dict[str, set[str]] = {}


def on_config(config: Any) -> Any:
    """Write out each `folder/*` of the navigation: all pages of the folder that are not named."""
    docs = Path(config.docs_dir)

    def written_out(items: list[Any]) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if isinstance(item, str) and item.endswith("/*"):
                pages = sorted(docs.glob(item[:-1] + "*.md"))
                found += [str(page.relative_to(docs)) for page in pages if page.name not in ("README.md", "index.md")]
            elif isinstance(item, dict):
                found.append({k: written_out(v) if isinstance(v, list) else v for k, v in item.items()})
            else:
                found.append(item)
        return found

    config.nav = written_out(config.nav)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository's root, those of files outside docs/ that some page links to, and the scripts."""
    _origins.clear()
    _external.clear()
    for path in ROOT_PAGES:
        _add(path, files, config, InclusionLevel.INCLUDED)
    waiting = [f"docs/{file.src_uri}" for file in files if file.is_documentation_page() and file.generated_by is None]
    waiting += ROOT_PAGES
    while waiting:
        origin = waiting.pop()
        for path in linked_paths(page_of(origin, ROOT), origin):
            page = stands_at(path, ROOT)
            if files.get_file_from_path(page) is None and (ROOT / path).exists():
                level = InclusionLevel.INCLUDED if page == "decisions/index.md" else InclusionLevel.NOT_IN_NAV
                waiting.append(_add(path, files, config, level))
    try:
        scripts = shipped_files(ROOT)
    except RuntimeError as error:
        raise PluginError(str(error)) from None
    for path, held in scripts.items():
        files.append(File.generated(config, path, content=held))
    return files


def _add(path: str, files: Files, config: Any, level: InclusionLevel) -> str:
    page = stands_at(path, ROOT)
    if (ROOT / path).is_dir():
        path = f"{path}/README.md" if (ROOT / path / "README.md").exists() else f"{path}/index.md"
    _origins[page] = path
    files.append(File.generated(config, page, content=page_of(path, ROOT), inclusion=level))
    return path


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where their targets stand; show the help of the commands, and the findings as cards."""
    path = page.file.src_uri
    if page.file.generated_by and path not in _origins:
        return markdown
    markdown = markdown.replace("<!-- the help of every command -->", helps())
    markdown = with_links_of_the_site(markdown, _origins.get(path, f"docs/{path}"), path, ROOT)
    if path == "findings/README.md":
        page.meta["hide"] = ["toc"]  # the cards need the room
        folder = ROOT / "docs/findings"
        markdown = gallery(markdown, lambda name: (folder / name).read_text(encoding="utf-8"))
    return markdown


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Note the links that lead away: they are listed, and not fetched."""
    for target in re.findall(r'href="(https?://[^"]+)"', html):
        _external.setdefault(target, set()).add(page.file.src_uri)
    return html


def on_post_build(config: Any) -> None:
    """List the links that lead away, each with its pages, beside the site."""
    path = Path(config.site_dir).parent / "external-links.txt"
    lines = [f"{target}  {', '.join(sorted(pages))}\n" for target, pages in sorted(_external.items())]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} links lead away from the site; they are listed in {path} and were not fetched")
