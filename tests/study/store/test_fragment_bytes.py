"""Footers: what a trial's file says of itself is what reading it in full says, and a changed byte is seen."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.store import schemas as footers
from study.store.finished_trials import FinishedTrials
from study.store.schemas import to_parquet
from study.store.store import Store
from tests.study.conftest import finish, made_up_config, made_up_measurement, made_up_record


def content_of(store: Store, config) -> bytes:
    return store.storage.read(f"rows/{config.key}.parquet")


def test_entries_are_those_that_parquet_gives(store):
    config = made_up_config()
    finish(store, config, reason="a reason with \x18\x06record\x18 and ünïcode")
    content = content_of(store, config)
    metadata = pq.ParquetFile(pa.BufferReader(content)).schema_arrow.metadata
    for name in (b"settings", b"record", b"schema_version"):
        assert footers.read_entry(content, name) == metadata[name]
    assert footers.read_entry(content, b"absent") is None
    whole, end = store.read_fragment(config.key), FinishedTrials(store.storage).read_end(f"{config.key}.parquet")
    assert (end.record, end.settings, end.rows.num_rows) == (whole.record, whole.settings, 0)


@pytest.mark.parametrize("seed", range(5))
def test_any_changed_byte_is_seen(store, seed):
    config = made_up_config()
    finish(store, config)
    content = content_of(store, config)
    assert footers.is_whole(content)
    place = random.Random(seed).randrange(len(content))
    torn = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    assert footers.is_whole(torn) is not True
    store.storage.write(f"rows/{config.key}.parquet", torn)
    if footers.is_whole(torn) is False:  # else the checksum's own name was hit, and what it guards is as it was
        assert store.states() == {}
        told: list[str] = []
        assert store.read_fragment(config.key, told.append) is None
        assert f"rows/{config.key}.parquet" in told


def test_a_file_of_before_checksums_is_read_in_full(store):
    config = made_up_config()
    finish(store, config)
    rows = pq.ParquetFile(pa.BufferReader(content_of(store, config))).read()
    footer = {k: v for k, v in rows.schema.metadata.items() if k != footers.CHECKSUM}
    store.storage.write(f"rows/{config.key}.parquet", to_parquet(rows.replace_schema_metadata(footer)))
    assert footers.is_whole(content_of(store, config)) is None
    assert store.states() == {config.key: "complete"}
    assert store.read().num_rows == 3


def test_a_checked_file_opens_anywhere_and_long_ones_are_compressed(store):
    few, many = made_up_config(seed=0), made_up_config(seed=1)
    for config, rows in ((few, 3), (many, 300)):
        store.write_fragment(config, [made_up_measurement(e) for e in range(rows)], made_up_record())
        file = pq.ParquetFile(pa.BufferReader(content_of(store, config)))
        assert file.read().num_rows == rows
        assert json.loads(file.schema_arrow.metadata[b"record"])["state"] == "complete"
        assert file.metadata.row_group(0).column(0).compression == ("ZSTD" if rows > 256 else "UNCOMPRESSED")
    assert store.seal().rows == 303
