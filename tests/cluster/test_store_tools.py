"""status, compare, merge, prune and best on S3, as moto plays it: what they say of folders holds of an object store."""

import json

import pytest

from gnc.cli.main import main
from study.design.study_file import parse_study
from study.store.schemas import MARGINS_SCHEMA, fragment_table
from study.store.store import open_store
from tests.cluster.conftest import Aws
from tests.conftest import SMALL_STUDY, comparable
from tests.study.conftest import finish, made_up_config

BUCKET = "folders-of-tests"
STUDY = SMALL_STUDY.format(steps=200, num_classes="[6, 12]", checkpoint_seconds=0.2, more="")


@pytest.fixture
def bucket(aws: Aws, tmp_path, monkeypatch) -> str:
    boto3 = pytest.importorskip("boto3")
    for name, value in aws.environment(tmp_path).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name=aws.region, endpoint_url=aws.url)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.region})
    return BUCKET


def test_the_tools_work_on_an_object_store(bucket, tmp_path, capsys):
    configs = parse_study(STUDY).configs
    one, other = open_store(f"s3://{bucket}/one"), open_store(tmp_path / "other")
    into = f"s3://{bucket}/into"
    one.write_study(STUDY)
    for store, trials in ((one, configs[:3]), (other, configs[2:])):
        for config in trials:
            finish(store, config)
            store.write_margins(config.key, MARGINS_SCHEMA.empty_table())
    one.seal(compact=True)
    assert main(["merge", one.uri, other.uri, into]) == 0
    assert "1 taken, 1 the same" in capsys.readouterr().out
    merged = open_store(into)
    assert set(merged.states()) == {config.key for config in configs}
    assert all(merged.read_margins(config.key) is not None for config in configs)
    assert main(["merge", other.uri, into]) == 0

    assert main(["compare", one.uri, into]) == 1
    assert "1 only in B" in capsys.readouterr().out
    back = open_store(tmp_path / "back")
    assert main(["merge", into, back.uri]) == 0
    capsys.readouterr()
    assert comparable(back.read()) == comparable(merged.read())
    assert main(["compare", into, back.uri]) == 0

    capsys.readouterr()
    assert main(["status", into, "--watch", "0.1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["complete"], facts["over"], facts["disk"]["rows"]["files"]) == (4, True, 4)

    foreign = made_up_config(seed=7)
    merged.write_checkpoint(foreign.key, 1, b"left")
    merged.write_live(configs[0].key, 1, fragment_table(configs[0], []))
    assert main(["prune", into, "--yes", "--json"]) == 0
    gone = {file["file"] for file in json.loads(capsys.readouterr().out)["files"]}
    assert gone == {f"checkpoints/{foreign.key}/00000001.checkpoint", f"live/{configs[0].key}.1.parquet"}
    assert main(["prune", into]) == 0
    assert "nothing to delete" in capsys.readouterr().out

    path = tmp_path / "next.toml"
    assert (
        main(["best", into, "--metric", "train_loss", "--mode", "min", "--by", "num_classes", "--write", str(path)])
        == 0
    )
    assert main(["check", str(path), into, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["missing"] == []
