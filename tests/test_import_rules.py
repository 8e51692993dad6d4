"""What may know what: heavy packages are loaded only where they are needed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gnc", "study", "gnc_models", "analysis")
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
            "import gnc_models.datasets.registry, gnc_models.metrics.collapse, gnc_models.codes.best_code",
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
        ["settings", "encoder"],
        ["seal", str(tmp_path)],
        ["compare", str(tmp_path), str(tmp_path)],
        ["prune", str(tmp_path)],
        ["merge", str(tmp_path), str(tmp_path / "into")],
        ["best", str(tmp_path), "--metric", "train_loss", "--by", "num_classes", "--all"],
    ]
    for call in calls:
        outcome = int(call[0] == "best")  # an empty folder has none
        assert not loaded_by(f"from gnc.cli.main import main; assert main({call!r}) == {outcome}") & set(HEAVY)


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(root)}
    command = ["lint-imports", "--no-cache"]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=root, env=environment)


def test_the_import_linter_agrees():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def copy_of_the_packages(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("gnc/cli/folder_commands.py", "import ray"),
        ("study/store/store.py", "import analysis.rows.frames"),
        ("study/store/store.py", "import study.training.trial"),
        ("study/design/study_file.py", "import torch"),
        ("study/design/config.py", "def hidden():\n    import study.design.study_file"),
        ("study/upkeep/status.py", "import study.tuning.experiment"),
        ("gnc_models/codes/search.py", "import study.design.config"),
        ("gnc_models/geometry/hull.py", "if TYPE_CHECKING:\n    import gnc_models.geometry.margins"),
        ("analysis/rows/frames.py", "import analysis.figures.margin"),
        ("gnc_models/somewhere/new.py", "import gnc_models.geometry.hull"),
    ],
)
def test_a_planted_import_breaks_a_contract(copy_of_the_packages, module, line):
    planted = copy_of_the_packages / module
    before = planted.read_text() if planted.exists() else None
    planted.parent.mkdir(exist_ok=True)
    (planted.parent / "__init__.py").touch()
    planted.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint_imports(copy_of_the_packages)
    finally:
        planted.write_text(before) if before is not None else shutil.rmtree(planted.parent)
    assert done.returncode == 1
    assert "1 broken" in done.stdout or "2 broken" in done.stdout
