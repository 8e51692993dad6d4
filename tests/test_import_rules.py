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
        (
            "import gnc.cli.main, gnc.cli.folder_commands, gnc.cli.run_commands, gnc.cli.doctor_commands",
            (*HEAVY, "boto3"),
        ),
        ("import study.store.store, study.design.study_file, study.store.schemas", HEAVY),
        ("import gnc_models.catalog.members", (*HEAVY, "numpy", "pyarrow")),
        ("import gnc_models.references.margin", (*HEAVY, "scipy", "pyarrow")),
        ("import analysis.report.report", ("torch", "ray", "optuna", "torchvision")),
        ("import study.execution.attempt, study.training.trial", ("ray", "optuna", "matplotlib")),
        (
            "import gnc_models.datasets, gnc_models.metrics, gnc_models.codes.best_code",
            ("ray", "pyarrow", "matplotlib", "study"),
        ),
        ("import study.scheduling.suggestions, study.design.search", ("torch", "ray", "optuna")),
        ("import study.tuning.experiment", ("optuna", "matplotlib", "torchvision")),
    ],
)
def test_importing_loads_nothing_heavy(code, absent):
    assert not loaded_by(code) & set(absent)


def test_checking_and_watching_a_study_need_neither_torch_nor_ray(tmp_path):
    calls = [
        ["check", str(ROOT / "studies" / "smoke.toml"), str(tmp_path)],
        ["status", str(tmp_path)],
        ["seal", str(tmp_path)],
        ["compare", str(tmp_path), str(tmp_path)],
        ["prune", str(tmp_path)],
        ["merge", str(tmp_path), str(tmp_path / "into")],
        ["best", str(tmp_path), "--metric", "train_loss", "--by", "num_classes", "--all"],
    ]
    for call in calls:
        assert not loaded_by(f"from gnc.cli.main import main; assert main({call!r}) == 0") & set(HEAVY)


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
        ("gnc/cli/folder_commands.py", "import ray"),
        ("gnc/cli/tensor_files.py", "import ray"),
        ("study/store/store.py", "import analysis.rows.frames"),
        ("study/design/study_file.py", "import torch"),
        ("gnc_models/codes/best_code.py", "import study.design.config"),
        ("analysis/rows/frames.py", "import study.training.trial"),
        ("study/training/trial.py", "import gnc.cli.folder_commands"),
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
