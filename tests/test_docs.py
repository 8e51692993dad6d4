"""The documents cannot drift from the code: commands parse, files exist, columns are columns."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gnc.cli.main import make_parser
from gnc_models.catalog.members import CLASSIFIERS, LOSSES
from study.design.study_file import parse_study
from study.store.schemas import RESULTS_SCHEMA
from tests.docs.blocks import PAGES, ROOT, blocks_of

PACKAGES = ("gnc", "study", "gnc_models", "analysis")


def commands_in(page: Path) -> list[str]:
    """Lines of blocks of commands that begin with gnc, also of those that are not run; comments cut."""
    blocks = [block.code for block in blocks_of(page) if block.language == "sh"]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.split(r" #| > \w+\.sbatch", line)[0].strip() for line in lines if line.startswith("gnc ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_one_that_gnc_understands(page):
    for command in commands_in(page):
        make_parser().parse_args(shlex.split(command)[1:])


def test_the_readme_shows_commands():
    assert len(commands_in(ROOT / "README.md")) >= 5


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


def test_the_architecture_has_a_card_for_each_folder_that_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(text.splitlines()) <= 120
    cards = dict(re.findall(r"^\| `([\w/]+)` \|(.*)$", text, flags=re.MULTILINE))
    found: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        if not path.stem.startswith("__"):
            found.setdefault(str(path.parent.relative_to(ROOT)), set()).add(path.stem)
    named = {folder: set(re.findall(r"`(\w+)`", card.rsplit("|", 2)[1])) for folder, card in cards.items()}
    assert named == found
    walk = text.split("## A setting's walk")[1].split("\n## ")[0]
    for name in re.findall(r"`((?:study|gnc_models|analysis)/[\w./]+)`", walk):
        assert (ROOT / name).exists(), name


def test_each_folder_has_one_subject_and_a_card_of_its_own():
    for folder in {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}:
        modules = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
        assert len(modules) <= 12, f"{folder} holds {len(modules)} modules"
        assert not {*modules, folder.name} & {"utils", "common", "helpers", "core", "misc"}
        assert (folder / "__init__.py").read_text().startswith('"""'), f"{folder} has no card"


def test_contributing_points_at_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:gnc|study|gnc_models|analysis|docs|studies|benchmarks|tools)/[\w./]*)`", text):
        assert (ROOT / name).exists(), name


def test_columns_shown_are_columns():
    table = (ROOT / "docs" / "results.md").read_text().split("## The columns")[1].split("\n## ")[0]
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


def test_the_readme_is_short_and_its_library_example_runs():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 170
    example = next(code for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "torch" in code)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True, cwd=ROOT)
    assert len(done.stdout.split()) == 3  # variability, margin and duality


def test_the_examples_of_the_library_run():
    """Those of the frameworks run in the tests of their adapters."""
    text = (ROOT / "docs" / "library.md").read_text()
    examples = [code for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "adapters" not in code]
    assert len(examples) == 2
    code = "\n".join(examples)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert len(done.stdout.splitlines()) == 6


def test_the_study_that_the_readme_shows_is_one(tmp_path):
    for page in ("README.md", "docs/studies.md"):
        for text in re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL):
            if text.startswith("name"):
                assert parse_study(text).num_planned == 24
