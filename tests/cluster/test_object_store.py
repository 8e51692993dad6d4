"""Results on S3, as moto plays it, behind a proxy that fails some requests: every file whole, every table right."""

import json
import subprocess
import sys

import pytest

from study.store import storage as storage_module
from study.store.storage import FolderError, Storage
from study.store.store import Store, open_store
from tests.cluster.conftest import Aws
from tests.cluster.faulty_store import FAULTS, FaultyStore
from tests.conftest import SMALL_STUDY, comparable

BUCKET = "results-of-tests"
STUDY = SMALL_STUDY.format(steps=200, num_classes="[6, 12]", checkpoint_seconds=0.2, more="")
TRIALS = 4


@pytest.fixture(scope="module")
def bucket(aws) -> str:
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "made-up", "aws_secret_access_key": "made-up"}
    client = boto3.client("s3", region_name=aws.region, endpoint_url=aws.url, **keys)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.region})
    return BUCKET


@pytest.fixture
def faulty(aws):
    """A proxy that fails a share of the requests; ended with the test."""
    made = []

    def make(share: float, seed: int = 7) -> FaultyStore:
        made.append(FaultyStore(aws.url, share=share, seed=seed))
        return made[-1]

    yield make
    for proxy in made:
        proxy.end()


@pytest.fixture
def reached(aws, tmp_path, monkeypatch):
    """Sets the variables by which this process reaches the made-up AWS at an address."""

    def reach(url: str) -> None:
        for name, value in aws.environment(tmp_path, url).items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)

    return reach


def test_every_file_is_whole_however_often_a_request_fails(bucket, faulty, reached, monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES", (0.05,) * 8)
    proxy = faulty(0.0)
    reached(proxy.url)
    storage = Storage(f"s3://{bucket}/bytes")
    proxy.share = 0.3
    contents = {f"rows/{number:02}": bytes([number]) * (1 + 700 * number) for number in range(30)}
    contents["rows/large"] = bytes(range(256)) * (12 << 12)  # 12 MiB: several parts
    for name, content in contents.items():
        storage.write(name, b"older")
        storage.write(name, content)
        assert storage.read(name) == content
    listed = {entry.name: entry.size for entry in storage.entries("rows")}
    assert listed == {name.removeprefix("rows/"): len(content) for name, content in contents.items()}
    for name in list(contents)[::2]:
        storage.remove(name)
        storage.remove(name)
        assert storage.read(name) is None
    assert len(storage.entries("rows")) == len(contents) // 2
    storage.remove_folder("rows")
    storage.remove_folder("rows")
    assert storage.entries("rows") == []
    assert all(proxy.injected[fault] for fault in FAULTS), proxy.injected


def test_a_small_file_is_one_put(bucket, faulty, reached):
    proxy = faulty(0.0)
    reached(proxy.url)
    storage = Storage(f"s3://{bucket}/one")
    before = proxy.requests
    storage.write("rows/a", b"content")
    assert proxy.requests - before == 1


def test_a_store_that_stays_away_or_refuses_is_told_in_words(bucket, faulty, reached, monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES", (0.05,))
    proxy = faulty(0.0)
    reached(proxy.url)
    storage = Storage(f"s3://{bucket}/away")
    with pytest.raises(FolderError, match=r"must be writable and have room, got 's3://.*NO_SUCH_BUCKET"):
        Storage("s3://no-such-bucket/x").write("a", b"")
    proxy.share, proxy.faults = 1.0, ("busy", "refused")
    with pytest.raises(FolderError, match="Check the bucket's name, your credentials and the network"):
        storage.write("a", b"content")


def gnc(aws: Aws, url: str, home, *words: str) -> subprocess.CompletedProcess[str]:
    """`gnc` in a process of its own that reaches the made-up AWS at the address."""
    return subprocess.run(
        [sys.executable, "-m", "gnc.cli.main", *words], capture_output=True, text=True, check=False, timeout=280,
        env=aws.environment(home, url), cwd=home,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    """The study in a local folder, trial after trial."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "small.toml").write_text(STUDY)
    code = (
        "from gnc.cli.main import main; from study.design.study_file import read_study; import sys\n"
        "for config in read_study(sys.argv[1]).configs:\n"
        "    assert main(['trial', sys.argv[1], config.key, '--results', sys.argv[2]]) == 0"
    )
    words = [sys.executable, "-c", code, str(folder / "small.toml"), str(folder / "results")]
    subprocess.run(words, check=True, capture_output=True, timeout=280)
    store = open_store(folder / "results")
    store.seal()
    return store


def test_a_study_on_s3_equals_the_one_on_disk_under_injected_errors(
    aws, bucket, faulty, reached, undisturbed, tmp_path
):
    proxy, results = faulty(0.05), f"s3://{bucket}/study"
    (tmp_path / "small.toml").write_text(STUDY)
    run = gnc(aws, proxy.url, tmp_path, "run", "small.toml", results)
    assert run.returncode == 0, run.stderr
    assert sum(proxy.injected.values()) > 0
    again = gnc(aws, proxy.url, tmp_path, "run", "small.toml", results)
    assert f"0 trials to run: {TRIALS} of {TRIALS}" in again.stderr
    status = gnc(aws, proxy.url, tmp_path, "status", results, "--json")
    assert json.loads(status.stdout)["complete"] == TRIALS
    assert json.loads(status.stdout)["unreadable"] == []
    sealed = gnc(aws, proxy.url, tmp_path, "seal", results, "--compact")
    assert f"of {TRIALS} trials, 0 new" in sealed.stdout, sealed.stderr
    report = gnc(aws, proxy.url, tmp_path, "report", results)
    assert report.returncode == 0, report.stderr

    proxy.share = 0.0
    reached(proxy.url)
    store = open_store(results)
    assert comparable(store.read()) == comparable(undisturbed.read())
    assert comparable(store.read_trials()) == comparable(undisturbed.read_trials())
    assert store.fragments() == {}  # compacted: an archive has them
    assert store.read_live() == []
    assert store.read_report("report.html")
