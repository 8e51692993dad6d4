"""The site that MkDocs builds from the documents: it loads nothing from elsewhere, its links lead somewhere, formulas are drawn.

Each run builds a site of its own, in a temporary folder.
"""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import gnc
from gnc.cli.main import COMMANDS
from tests.docs.blocks import ROOT

pytestmark = [pytest.mark.docs, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def pages_of(site: Path) -> dict[Path, str]:
    return {page: page.read_text() for page in site.rglob("*.html") if page.name != "404.html"}


def opened(page: Path, profile: Path, query: str = "", width: int = 1280) -> str:
    """The page's elements after its scripts have run in headless Chromium, opened from the disk."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine: the site was not opened in a browser")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    flags += ["--virtual-time-budget=10000", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run(
        [chromium, *flags, page.as_uri() + query], check=True, capture_output=True, text=True, timeout=200
    )
    return done.stdout


def test_nothing_is_loaded_from_elsewhere(site):
    for page, text in pages_of(site).items():
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link\b[^>]*\brel=\"(?:stylesheet|icon|preload)\"[^>]*\bhref=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"([^\"]+)\"[^>]*\brel=\"(?:stylesheet|icon|preload)\"", text)
        assert len(loaded) >= 4
        for target in loaded:
            assert not re.match(r"(\w+:)?//", target), f"{page} loads {target}"
            assert (page.parent / unquote(target.partition("?")[0])).exists(), f"{page} loads {target}"
    for sheet in site.rglob("*.css"):
        for target in re.findall(r"url\(([^)]+)\)", sheet.read_text()):
            target = target.strip("\"'")
            if target.startswith(("data:", "#")):
                continue
            assert not re.match(r"(\w+:)?//", target), f"{sheet} loads {target}"
            if target.endswith(".woff2"):  # browsers take the first format that they know
                assert (sheet.parent / target).exists(), f"{sheet} loads {target}"


def test_every_link_leads_to_a_page_and_a_place_in_it(site):
    pages = pages_of(site)
    places = {
        page: {html.unescape(name) for name in re.findall(r"\bid=\"([^\"]+)\"", text)} for page, text in pages.items()
    }
    count = 0
    for page, text in pages.items():
        for link in re.findall(r"<a\b[^>]*\bhref=\"([^\"]+)\"", text):
            if re.match(r"https?:|mailto:", link):
                continue
            target, place = urldefrag(html.unescape(link))
            found = (page.parent / unquote(target)).resolve() if target else page
            assert found.exists(), f"{page.relative_to(site)} links to {link}"
            if place and found in places and place != "__skip":
                assert unquote(place) in places[found], f"{page.relative_to(site)} links to {link}"
            count += 1
    assert count > 1000


def test_the_reference_has_every_public_name_and_every_command(site):
    text = (site / "reference" / "gnc.html").read_text()
    assert set(gnc.__all__) <= set(re.findall(r'id="gnc\.(\w+)"', text))
    checks = (site / "reference" / "testing.html").read_text()
    assert {"check_encoder", "check_dataset", "check_loss", "check_metric"} <= set(
        re.findall(r'id="gnc\.testing\.(\w+)"', checks)
    )
    adapters = (site / "reference" / "adapters.html").read_text()
    for name in ("lightning.CollapseCallback", "transformers.CollapseCallback", "torchmetrics.CollapseMetric"):
        assert f'id="gnc.adapters.{name}"' in adapters
    commands = (site / "reference" / "commands.html").read_text()
    for name in COMMANDS:
        assert f'id="gnc-{name}"' in commands
        assert f"usage: gnc {name} " in commands


def test_the_gallery_has_a_card_with_claim_figure_and_verdict_for_each_finding(site):
    text = (site / "findings" / "index.html").read_text()
    cards = re.findall(r'<article class="card">(.*?)</article>', text, flags=re.DOTALL)
    names = {page.stem for page in (ROOT / "docs" / "findings").glob("*.md")} - {"README"}
    assert {re.findall(r'href="([\w-]+)\.html"', card)[0] for card in cards} == names
    for card in cards:
        assert "<img" in card or "<table" in card
        assert '<p class="claim">' in card
        assert '<p class="verdict"><strong>Verdict:</strong>' in card


@pytest.mark.chromium
@pytest.mark.parametrize("name", ["metrics.html", "margins.html"])
def test_formulas_are_drawn(site, tmp_path, name):
    written = len(re.findall(r'class="arithmatex"', (site / name).read_text()))
    shown = opened(site / name, tmp_path)
    assert written > 30
    assert len(re.findall(r'class="arithmatex"><span class="katex', shown)) == written
    assert "katex-error" not in shown


@pytest.mark.chromium
def test_search_finds_a_column_from_the_disk(site, tmp_path):
    shown = opened(site / "index.html", tmp_path, "?q=rattler_count")
    results = re.findall(r'<a href="([^"]+)" class="md-search-result__link"', shown)
    assert any("metrics.html" in found for found in results), results
    assert any("glossary.html" in found for found in results), results


@pytest.mark.chromium
@pytest.mark.parametrize("name", ["index.html", "tutorials/first-study.html", "findings/index.html", "metrics.html"])
def test_no_page_is_wider_than_a_phone(site, tmp_path, name):
    probe = (
        "<script>addEventListener('load', () => {"
        "document.title = `window ${innerWidth} page ${document.documentElement.scrollWidth}`; })</script>"
    )
    page = (site / name).with_suffix(".probe.html")
    page.write_text((site / name).read_text().replace("</body>", probe + "</body>"))
    try:
        shown = opened(page, tmp_path, width=390)
    finally:
        page.unlink()
    (window, wide) = re.findall(r"<title>window (\d+) page (\d+)</title>", shown)[0]
    assert int(wide) <= int(window)
