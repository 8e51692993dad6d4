"""Every command and every piece of Python in the documents is run, or the page says why not (`tests.docs.blocks`)."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from tests.docs.blocks import PAGES, ROOT, Block, blocks_of

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
# The tutorials go on from one another.
TUTORIALS = [
    f"docs/tutorials/{name}.md"
    for name in ("first-study", "reading-a-report", "my-network", "my-loop", "my-checkpoint", "slurm")
]
ALONE = sorted({block.page for block in BLOCKS if block.is_run} - set(TUTORIALS))


def test_each_tutorial_is_in_the_walk():
    found = {str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "tutorials").glob("*.md")}
    assert found - {"docs/tutorials/index.md"} <= set(TUTORIALS)
    assert len(ALONE) >= 4


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_has_a_language_and_says_why_it_is_not_run(block: Block):
    assert block.language in ("", "text", "sh", "python", "toml"), f"{block}: nothing runs {block.language!r}"
    if block.language in ("", "text"):
        shown = [line for line in block.code.splitlines() if re.match(r"(\$ |gnc |python |make |pip )", line)]
        assert not shown, f"{block} shows {shown[0]!r} as text. Write ```sh, so that it is run."
    if block.language == "toml":
        tomllib.loads(block.code)
    if block.mark is None:
        return
    ran_by = re.fullmatch(r"run by (tests/\S+\.py)", block.mark)
    if ran_by:
        assert (ROOT / ran_by[1]).exists(), f"{block} names {ran_by[1]}"
    else:
        assert re.fullmatch(r"not run: \S.{10,}", block.mark), f"{block} says {block.mark!r}"


def test_a_block_that_fails_is_named_with_its_line(tmp_path):
    walk = "from pathlib import Path; from tests.docs import blocks; blocks.ROOT = Path(); blocks.run_pages([Path('a.md')])"
    (tmp_path / "a.md").write_text(
        'One\n\n```toml title="b.toml"\nx = 1\n```\n\n<!-- not run: it would fail if it ran -->\n```sh\nfalse\n```\n\n'
        "```python\nnumber = 1\n```\n\nTwo\n\n```sh\ngrep -q x b.toml\n```\n\n```python\nassert number == 2\n```\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", walk], check=False, cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["--- a.md:3", "--- a.md:12", "--- a.md:18", "--- a.md:22"]
    assert done.stderr.startswith("a.md:22 must run as it stands, but: AssertionError")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A folder with what the pages speak of: studies, examples, checkpoints, features, results of a first study."""
    folder = tmp_path_factory.mktemp("furnished")
    for name in ("studies", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 6, generator=draw)
    labels = torch.arange(400) % 40
    features = rows[labels] + 0.1 * torch.randn(400, 6, generator=draw)
    torch.save({"state_dict": {"fc.weight": rows, "fc.bias": torch.zeros(40)}}, folder / "last.ckpt")
    save_file({"lm_head.weight": rows}, folder / "model-00001-of-00001.safetensors")
    shards = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    np.savez(folder / "features.npz", features=features.numpy(), labels=labels.numpy())
    for name, array in {"features": features, "labels": labels}.items():
        np.save(folder / f"train_{name}.npy", array.numpy())
    np.save(folder / "labels.npy", labels.numpy())
    pq.write_table(pa.table({"features": list(features.numpy())}), folder / "features.parquet")
    np.save(folder / "head.npy", rows.numpy())
    (folder / "names.txt").write_text("".join(f"class {k}\n" for k in range(40)))
    study = (folder / "studies" / "smoke.toml").read_text()
    (folder / "first.toml").write_text(study.replace('name = "smoke"', 'name = "first"'))
    trials = [sys.executable, "-m", "tests.chaos.trials", str(folder / "first.toml"), str(folder / "results/first")]
    subprocess.run(trials, check=True, cwd=ROOT, capture_output=True)
    subprocess.run([sys.executable, "-m", "gnc", "seal", "results/first"], check=True, cwd=folder, capture_output=True)
    for name in ("quickstart", "here", "there", "before", "after"):
        shutil.copytree(folder / "results" / "first", folder / "results" / name)
    return folder


@pytest.mark.docs
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("pages", [TUTORIALS, *([page] for page in ALONE)], ids=lambda pages: pages[0])
def test_the_blocks_run(pages, furnished, tmp_path):
    folder = tmp_path / "work"
    if pages == TUTORIALS:
        folder.mkdir()  # as their reader begins
    else:
        shutil.copytree(furnished, folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.blocks", *pages],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
