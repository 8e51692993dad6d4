"""Pages of the site: links led to where their targets stand, cards of findings, scripts that are what npm publishes."""

import tarfile

import pytest
import yaml

from gnc.cli.main import COMMANDS
from tests.docs.blocks import ROOT
from tools.site import assets
from tools.site.pages import ROOT_PAGES, gallery, helps, linked_paths, page_of, stands_at, with_links_of_the_site

FINDING = "# One\n\n## The claim\nIt holds\nfor all K.\n\nMore.\n\n## What was measured\n\n![Both](one.svg)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("docs/metrics.md", "metrics.md"),
        ("docs/findings/README.md", "findings/README.md"),
        ("docs/findings", "findings/README.md"),
        ("docs/decisions", "decisions/index.md"),
        ("README.md", "project/readme.md"),
        ("examples", "source/examples/README.md"),
        ("cluster.yaml", "source/cluster.yaml.md"),
    ],
)
def test_each_file_stands_at_one_place(path, page):
    assert stands_at(path, ROOT) == page


def test_links_lead_to_where_their_targets_stand_and_bear_their_titles():
    text = (
        "[rows.md](rows.md#identity), [the file](../cluster.yaml), [far](https://a.b/c.md), [here](#x)\n"
        "```sh\ncat [a](rows.md)\n```\n* a list\n  * in a list, ![figure](images/codes.svg)\n"
    )
    assert with_links_of_the_site(text, "docs/metrics.md", "metrics.md", ROOT) == (
        "[The columns](rows.md#identity), [the file](source/cluster.yaml.md), [far](https://a.b/c.md), [here](#x)\n"
        "```sh\ncat [a](rows.md)\n```\n* a list\n    * in a list, ![figure](images/codes.svg)\n"
    )
    readme = with_links_of_the_site("[a](docs/rows.md) [b](examples)", "README.md", "project/readme.md", ROOT)
    assert readme == "[a](../rows.md) [b](../source/examples/README.md)"
    assert list(linked_paths(text, "docs/metrics.md")) == ["docs/rows.md", "cluster.yaml", "docs/images/codes.svg"]


def test_a_file_outside_docs_is_shown_whole_and_a_folder_by_its_titles():
    shown = page_of("examples/convnext.toml", ROOT)
    assert shown.startswith("# examples/convnext.toml\n\n````toml\n")
    assert (ROOT / "examples/convnext.toml").read_text().rstrip() in shown
    listed = page_of("docs/decisions/index.md", ROOT)
    assert listed.count("\n* [") == len(list((ROOT / "docs/decisions").glob("*.md")))
    assert "(0001-the-store-is-the-only-state.md)" in listed


def test_a_card_has_title_verdicts_figure_claim_and_verdict_in_this_order():
    index = "# Findings\n\nWords.\n\n| question | verdict |\n|---|---|\n| [one thing](one.md) | first: agrees; second: disagrees |\n\nEnd.\n"
    page = gallery(index, {"one.md": FINDING}.__getitem__)
    assert page.startswith("# Findings\n\nWords.\n\n<div")
    assert page.endswith("</div>\n\nEnd.\n")
    parts = ["### [One thing](one.md)", ">agrees<", ">disagrees<", "[![Both](one.svg)](one.md)"]
    parts += ["It holds for all K.\n{.claim}", "**Verdict:** first: agrees; second: disagrees\n{.verdict}"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert "More." not in page
    without = gallery(index.replace("second: disagrees", "x"), {"one.md": FINDING.replace("![", "[")}.__getitem__)
    assert "| 1 | 2 |" in without
    assert ">disagrees<" not in without


def test_a_finding_without_a_claim_and_an_index_without_a_table_are_refused():
    index = "| question | verdict |\n|---|---|\n| [one](one.md) | agrees |\n"
    with pytest.raises(ValueError, match=r"one\.md must have a section `## The claim`"):
        gallery(index, lambda name: "# One\n")
    with pytest.raises(ValueError, match="must have a table"):
        gallery("# Findings\n", lambda name: FINDING)


def test_every_command_has_its_help():
    text = helps()
    for name in COMMANDS:
        assert f"## gnc {name}\n\n```text\nusage: gnc {name} " in text


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path):
    cache = tmp_path / assets.CACHE
    cache.mkdir(parents=True)
    for package in assets.PACKAGES:
        with tarfile.open(cache / (package.replace("@", "-") + ".tgz"), "w:gz"):
            pass
    with pytest.raises(RuntimeError, match=r"katex-.*\.tgz must have the SHA-512 .*, got .*Delete it and build again"):
        assets.shipped_files(tmp_path)


def test_without_npm_the_cure_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        RuntimeError, match=r"npm must fetch katex@.* once, but: .*Install npm, or put katex-.*\.tgz into"
    ):
        assets.shipped_files(tmp_path)


def test_every_page_of_the_documents_has_its_place_in_the_navigation():
    def places(item):
        if isinstance(item, str):
            return [item]
        return [found for part in (item.values() if isinstance(item, dict) else item) for found in places(part)]

    named = places(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(named) == len(set(named))
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs")
        assert str(path) in named or f"{path.parent}/*" in named, f"docs/{path} must be in `nav` of mkdocs.yml"
    made = {"decisions/index.md", *(f"project/{name.lower()}" for name in ROOT_PAGES)}
    for path in named:
        assert path.endswith("/*") or path in made or (ROOT / "docs" / path).exists(), path
