"""Folders named as our packages beside the user's files: `gnc` works, or says in one line which one stands in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAYS = {
    "-m gnc": ["-m", "gnc", "--version"],
    "-m gnc.cli.main": ["-m", "gnc.cli.main", "--version"],
    "import gnc": ["-c", "import gnc"],
}
BESIDE = ("study/__init__.py", "study.py", "analysis/__init__.py", "analysis.py", "gnc_models/__init__.py")


def python(folder: Path, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """In the folder; ours are found after it, as they are where they are installed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beside", BESIDE)
def test_what_hides_a_package_is_named_in_one_line(tmp_path, way, beside):
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).touch()
    done = python(tmp_path, WAYS[way])
    hiding = tmp_path / beside.removesuffix("/__init__.py")
    words = f"{hiding} stands in the way of the package {hiding.stem} of gnc-study"
    if way == "import gnc":
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"ImportError: {words}")
    else:
        assert done.returncode == 2
        assert done.stderr.startswith(words)
        assert done.stderr.count("\n") == 1


def test_a_module_that_was_imported_before_is_named_too(tmp_path):
    (tmp_path / "study.py").touch()
    done = python(tmp_path, ["-c", "import sys, study; sys.path.remove(''); import gnc"])
    assert f"{tmp_path / 'study.py'} stands in the way" in done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_said_of_folders_that_hide_nothing(tmp_path, way):
    for name in ("study", "analysis", "studies"):
        (tmp_path / name).mkdir()  # without __init__.py a folder hides no package that is found after it
    done = python(tmp_path, WAYS[way])
    assert (done.returncode, done.stderr) == (0, "")
