"""The study files: all are understood, open with what a reader needs, and have their small forms and findings."""

from pathlib import Path

import pytest

from study.design.study_file import read_study

ROOT = Path(__file__).parents[3]
STUDIES = sorted((ROOT / "studies").rglob("*.toml"))
ASKED = ("temperature", "dimension", "architectures", "class-mean", "assignment", "normalization", "hardmax",
         "unconstrained", "exponents", "prediction", "hug", "text", "controls", "large-k")  # fmt: skip


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(ROOT / "studies")))
def test_every_study_is_understood_and_opens_with_its_command_and_cost(path):
    study = read_study(path)
    lines = path.read_text().splitlines()
    assert lines[0] == f"# gnc run {path.relative_to(ROOT)}"
    assert any(line.startswith("# Cost: ") for line in lines[:4])
    assert study.name == path.stem + ("-small" if path.parent.name == "small" else "")


@pytest.mark.parametrize("name", ASKED)
def test_every_question_of_the_papers_has_a_study_that_ran_and_its_finding(name):
    assert (ROOT / "studies" / f"{name}.toml").exists()
    page = (ROOT / "docs" / "findings" / f"{name}.md").read_text()
    for part in ("## The claim", "## What was measured", "## Verdict"):
        assert part in page
    small = ROOT / "studies" / "small" / f"{name}.toml"
    ran = small if small.exists() else ROOT / "studies" / f"{name}.toml"
    assert f"gnc run {ran.relative_to(ROOT)}" in page
