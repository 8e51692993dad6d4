"""What may know what: heavy packages are loaded only where they are needed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "ray", "optuna", "matplotlib", "torchvision")


def loaded_by(code: str) -> set[str]:
    """Top-level modules in sys.modules after the code ran in a fresh interpreter."""
    program = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import study.cli, study.commands, study.run_commands", HEAVY),
        ("import study.store, study.spec, study.records", HEAVY),
        ("import gnc_models.catalog", (*HEAVY, "numpy", "pyarrow")),
        ("import gnc_models.bounds", (*HEAVY, "scipy", "pyarrow")),
        ("import analysis.report", ("torch", "ray", "optuna", "torchvision")),
        ("import study.execution, study.trial", ("ray", "optuna", "matplotlib")),
        ("import gnc_models.datasets, gnc_models.metrics, gnc_models.codes", ("ray", "pyarrow", "matplotlib", "study")),
        ("import study.suggestions, study.search", ("torch", "ray", "optuna")),
        ("import study.tuning", ("optuna", "matplotlib", "torchvision")),
    ],
)
def test_importing_loads_nothing_heavy(code, absent):
    assert not loaded_by(code) & set(absent)


def test_checking_and_watching_a_study_need_neither_torch_nor_ray(tmp_path):
    calls = [
        ["check", str(ROOT / "studies" / "smoke.toml"), str(tmp_path)],
        ["status", str(tmp_path)],
        ["seal", str(tmp_path)],
    ]
    for call in calls:
        assert not loaded_by(f"from study.cli import main; assert main({call!r}) == 0") & set(HEAVY)


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(root)}
    command = ["lint-imports", "--no-cache"]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=root, env=environment)


def test_the_import_linter_agrees():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("study/commands.py", "import ray"),
        ("study/matrix_files.py", "import ray"),
        ("study/store.py", "import analysis.frames"),
        ("study/spec.py", "import torch"),
        ("gnc_models/codes.py", "import study.config"),
        ("analysis/frames.py", "import study.trial"),
        ("study/trial.py", "import study.commands"),
    ],
)
def test_a_planted_import_breaks_a_contract(tmp_path, module, line):
    for package in ("study", "gnc_models", "analysis"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    (tmp_path / module).write_text((tmp_path / module).read_text() + f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "1 broken" in done.stdout or "2 broken" in done.stdout
