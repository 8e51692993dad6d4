"""The documents cannot drift from the code: commands parse, files exist, columns are columns."""

import re
import shlex
from pathlib import Path

import pytest

from gnc.cli.main import make_parser
from gnc_models.catalog.members import CLASSIFIERS, LOSSES
from study.store.schemas import RESULTS_SCHEMA

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PACKAGES = ("gnc_models", "study", "analysis")


def commands_in(text: str) -> list[str]:
    """Lines of fenced blocks that begin with gnc, a prompt in front or not; comments cut."""
    blocks = re.findall(r"```(?:sh|console|)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.split(" #")[0].strip() for line in lines if line.startswith("gnc ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_one_that_gnc_understands(page):
    for command in commands_in(page.read_text()):
        make_parser().parse_args(shlex.split(command)[1:])


def test_the_readme_shows_commands():
    assert len(commands_in((ROOT / "README.md").read_text())) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_test_that_a_page_names_is_there():
    # names of five words and more: test_samples_per_class is a setting
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for page in PAGES:
        for name in re.findall(r"`(test_\w+_\w+_\w+_\w+_\w+)`", page.read_text()):
            assert f"def {name}(" in written, f"{page.name} names {name}"


def test_the_architecture_names_every_module_and_no_other():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for package in PACKAGES:
        room = text.split(f"## {package}:")[1].split("\n## ")[0]
        named = set(re.findall(r"`([a-z_]+)/?`", room))
        modules = {path.stem for path in (ROOT / package).rglob("*.py")} - {"__init__"}
        folders = {path.parent.name for path in (ROOT / package).rglob("*.py")} - {package}
        if package == "analysis":
            modules -= {path.stem for path in (ROOT / "analysis" / "figures").glob("*.py")}
        assert modules - named == set(), f"ARCHITECTURE.md leaves out modules of {package}"
        assert named & {"utils", "common", "helpers", "core", "misc"} == set()
        assert folders <= named


def test_contributing_points_at_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:study|gnc_models|analysis|docs|studies|benchmarks)/[\w./]*)`", text):
        assert (ROOT / name).exists(), name


def test_columns_shown_in_the_readme_are_columns():
    table = (ROOT / "README.md").read_text().split("## The columns")[1].split("\n## ")[0]
    columns = {name for row in table.splitlines() if row.startswith("|") for name in re.findall(r"`(\w+)`", row)}
    assert columns
    assert columns <= set(RESULTS_SCHEMA.names)


def test_columns_and_settings_that_the_glossary_names_exist():
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", (ROOT / "docs" / "glossary.md").read_text()))
    assert len(named) > 10
    assert named <= {*RESULTS_SCHEMA.names, *LOSSES, *CLASSIFIERS}


def test_no_document_names_an_absolute_path():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(home|work|root|Users)/", page.read_text()), page.name
