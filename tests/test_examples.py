"""Every example trains: one trial of each study, with few steps, by `gnc trial` and with its parts checked first."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.kept_gradient import kept_share
from examples.prototype_losses import nonl, ntce
from gnc.testing import check_encoder
from study.design.study_file import read_study
from study.store.store import open_store

EXAMPLES = Path(__file__).parents[1] / "examples"
STUDIES = sorted(path.stem for path in EXAMPLES.glob("*.toml"))


def test_each_example_trains(tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install -e '.[test-examples]'")
    draw = np.random.default_rng(0)
    pictures = list(draw.integers(0, 255, (72, 16, 16)).astype("uint8"))
    labels = datasets.ClassLabel(names=[f"kind {k}" for k in range(6)])
    features = datasets.Features({"label": labels, "picture": datasets.Image()})
    part = datasets.Dataset.from_dict({"label": list(range(6)) * 12, "picture": pictures}, features=features)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "data" / "my_set")

    calls = []
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, tmp_path)
    for name in STUDIES:
        text = (EXAMPLES / f"{name}.toml").read_text()
        lines = [line for line in text.splitlines() if not line.startswith("steps = ")]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines).replace("[fixed]", '[fixed]\nsteps = 4\nmeasure = "final"'))
        key = read_study(path).configs[-1].key
        calls.append(["trial", str(path), key, "--results", str(tmp_path / name)])
    code = f"from gnc.cli.main import main\nfor call in {calls!r}:\n    assert main(call) == 0, call"
    environment = {"GNC_DATA": str(tmp_path / "data"), "HF_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = {name: open_store(tmp_path / name).read(["trial", "custom"]).to_pylist() for name in STUDIES}
    assert all(len(found) == 1 for found in rows.values())
    [(metric, share)] = rows["kept_gradient"][0]["custom"]
    assert metric == "kept_share"
    assert 0 < share < 1


def test_a_network_of_timm_keeps_to_the_contract():
    pytest.importorskip("timm")
    from examples.convnext import make_timm

    check_encoder(make_timm, inputs=torch.randn(4, 1, 32, 32), feature_dim=5)


def test_the_losses_are_their_formulas():
    draw = torch.Generator().manual_seed(3)
    features, weights = (torch.randn(size, 4, generator=draw, dtype=torch.float64) for size in (7, 3))
    labels = torch.tensor([0, 1, 2, 0, 1, 1, 2])
    cosine = torch.nn.functional.cosine_similarity
    found = {ntce: [], nonl: []}
    for i, label in enumerate(labels):
        near = [torch.exp(cosine(weights[label], other, dim=0) / 0.2) for other in features]
        found[ntce].append(-torch.log(near[i] / sum(near)))
        found[nonl].append(-torch.log(near[i] / sum(e for e, y in zip(near, labels, strict=True) if y != label)))
    for loss, values in found.items():
        torch.testing.assert_close(loss(features, labels, weights, 0.2), torch.stack(values).mean())


def test_the_kept_share_is_all_with_as_many_dimensions_as_classes_and_d_over_k_for_a_random_head():
    draw = torch.Generator().manual_seed(3)
    labels = torch.arange(64).repeat(8)
    features, weights = (torch.randn(size, 64, generator=draw) for size in (512, 64))
    assert kept_share(features, labels, weights, 1.0, "none") == pytest.approx(1, abs=1e-5)
    # features that know nothing of the rows: the gradient has no direction of its own
    thin = torch.randn(64, 16, generator=draw)
    share = kept_share(torch.zeros(512, 16), labels, thin, 1.0, "none")
    assert share == pytest.approx(16 / 64, abs=0.03)
