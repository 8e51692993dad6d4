"""`gnc run` with loggers: every row is logged once, the table is that of a run without, a lost server ends nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from study.design.study_file import read_study
from study.store.store import open_store
from tests.conftest import comparable, run_gnc
from tests.study.tuning.test_loggers import read_events

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

LOG = '[log]\ncallbacks = ["tensorboard", "mlflow"]\n'


def test_a_logged_run_gives_the_table_of_one_without(study_file, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: pip install 'gnc-study[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    logged, plain = open_store(tmp_path / "logged"), open_store(tmp_path / "plain")
    study = study_file()
    calls = [["trial", str(study), config.key, "--results", plain.uri] for config in read_study(study).configs]
    code = f"from gnc.cli.main import main\nfor call in json.loads({json.dumps(calls)!r}):\n    assert main(call) == 0"
    subprocess.run([sys.executable, "-c", f"import json\n{code}"], check=True, capture_output=True)

    done = run_gnc("run", study_file(extra=LOG), logged.uri)
    assert done.stderr.count("warning: mlflow cannot log every trial; the run continues") == 1
    assert comparable(logged.read()) == comparable(plain.read())
    rows = logged.read().to_pylist()
    for key in logged.states():
        losses = read_events(Path(logged.uri) / "callbacks" / "tensorboard" / key)["train_loss"]
        expected = sorted((row["step"], pytest.approx(row["train_loss"])) for row in rows if row["trial"] == key)
        assert sorted(losses) == expected
