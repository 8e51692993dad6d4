"""What a row is as Arrow and Parquet see it: the schemas of all tables, from the columns and the settings; and whether a
trial's file is whole, told without decoding a column, as ten thousand Parquet files take too long to open: an entry of the
footer lies in the file as it was given, after its name (Thrift's compact protocol: 0x18, a length, the bytes), and a
checksum over the whole file says that nothing between is torn. Knows pyarrow, the columns and TrialConfig; does not know
where rows are kept, how they are measured, torch or Ray."""

import dataclasses
import io
import json
import os
import types
import typing
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.design.columns import Measurement, TrialRecord, columns_with, fields_of
from study.design.config import KNOWN, LATER_SETTINGS, NUMBERS_VERSION, TrialConfig
from study.design.errors import StudyError

# Major: a reader of another major refuses. Minor: columns were added; older fragments are read with nulls.
# From 1.4 on the bounds of margins are wider by the rounding of rows and means, mostly under 1e-14.
SCHEMA_VERSION = "1.7"
FINAL = frozenset({"complete", "diverged"})  # states of a trial that no rerun would change
FEW_ROWS = 256  # up to so many a table is not compressed
UNSET = b"00000000"  # stands where the checksum will be, while it is computed
CHECKSUM = b"crc32"


# Arrow's own pool asks for memory in huge pages, which some machines take a second to give where these take a quarter.
if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
    pa.set_memory_pool(pa.system_memory_pool())


class UnknownSchema(StudyError):
    """The folder was written by a version whose major schema number this one does not know."""


@dataclass(frozen=True)
class Column:
    """A column as tables, docs and axis labels need it."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    better: str = ""  # min or max, where little or much of it is better

    def field(self) -> pa.Field:
        known = {"unit": self.unit, "meaning": self.meaning} | ({"better": self.better} if self.better else {})
        return pa.field(self.name, self.type, metadata=known)


_ARROW = {
    int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string(), list[float]: pa.list_(pa.float64()),
    list[int]: pa.list_(pa.int64()), list[str]: pa.list_(pa.string()),
    dict[str, float]: pa.map_(pa.string(), pa.float64()),
}  # fmt: skip


def _arrow_type(annotation: Any) -> pa.DataType:
    """int, float, bool, str, lists of float or str, Literal strings, Annotated or any of them or None."""
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        return _arrow_type(next(a for a in typing.get_args(annotation) if a is not type(None)))
    if origin is typing.Annotated:
        return _arrow_type(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return pa.string()
    return _ARROW[annotation]


def _columns_of(record: str) -> tuple[Column, ...]:
    known = ("unit", "meaning", "better")
    return tuple(Column(name, _arrow_type(kind), *map(f.metadata.get, known)) for name, kind, f in fields_of(record))


IDENTITY = _columns_of("Identity")
SETTINGS = tuple(
    Column(name, _arrow_type(f.annotation), KNOWN[name]["unit"], KNOWN[name]["meaning"])
    for name, f in TrialConfig.model_fields.items()
)
MEASUREMENTS = _columns_of("Measurement")
REFERENCES = _columns_of("Reference")  # added when tables are read or sealed, so a better table changes no fragment
TRIAL_COLUMNS = _columns_of("TrialRecord")
SEALED_FROM = _columns_of("SealedFrom")  # the file a sealed trial was read from: whether it need not be read again
MEASURED = frozenset(column.name for column in MEASUREMENTS)
# Columns that differ between two correct runs of the same trial: time, host, memory and attempt.
CIRCUMSTANCES = frozenset(columns_with("run"))


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    versions = {"schema_version": SCHEMA_VERSION, "numbers_version": str(NUMBERS_VERSION)}
    return pa.schema([c.field() for c in columns], metadata=versions)


FRAGMENT_SCHEMA = _schema(IDENTITY + SETTINGS + MEASUREMENTS)
RESULTS_SCHEMA = _schema(IDENTITY + SETTINGS + MEASUREMENTS + REFERENCES)
TRIALS_SCHEMA = _schema(IDENTITY + SETTINGS + TRIAL_COLUMNS + SEALED_FROM)
# Per-class margins: every class for K <= 10,000, else the 1,000 smallest.
MARGINS_COLUMNS = _columns_of("Margins")
MARGINS_SCHEMA = _schema(MARGINS_COLUMNS)


def identity_and_settings(config: TrialConfig) -> dict[str, Any]:
    return {"trial": config.key, "cell": config.cell, **config.settings()}


def stored_config(row: dict[str, Any]) -> TrialConfig:
    """The settings of a stored row as they are: a rule that came later must not make a stored trial unreadable."""
    return TrialConfig.model_construct(**{name: row[name] for name in TrialConfig.model_fields})


def fragment_table(config: TrialConfig, measurements: list[Measurement]) -> pa.Table:
    """Rows of one trial under FRAGMENT_SCHEMA, by epoch; every column present, absent values null."""
    identity = identity_and_settings(config)
    rows = [identity | dataclasses.asdict(m) for m in measurements]
    return pa.Table.from_pylist(rows, schema=FRAGMENT_SCHEMA)


def record_from_json(text: str) -> TrialRecord:
    """A TrialRecord out of JSON; fields of a newer minor version are dropped, missing ones are None."""
    known = json.loads(text)
    values: dict[str, Any] = {column.name: known.get(column.name) for column in TRIAL_COLUMNS}
    return TrialRecord(**values)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the schema's columns, metadata from the schema.
    A measurement that the table does not know is null; a later setting has the value that keeps the key."""
    held = dict(zip(table.column_names, table.columns, strict=True))
    settled = _later_settings(table, [name for name in schema.names if name not in held])
    columns = []
    for f in schema:
        if f.name in held:
            column = held[f.name]
            columns.append(column if column.type == f.type else column.cast(f.type))  # a cast to itself is not free
        elif f.name in settled:
            columns.append(pa.array(settled[f.name], f.type))
        else:
            columns.append(pa.nulls(table.num_rows, f.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _later_settings(table: pa.Table, missing: list[str]) -> dict[str, list[Any]]:
    """For each missing setting with a value that keeps old keys, that value in the rows whose trial reads it."""
    wanted = [name for name in missing if name in LATER_SETTINGS]
    if not wanted or "trial" not in table.column_names:
        return {}
    held = set(table.column_names)
    known = [name for name in TrialConfig.model_fields if name in held]
    trials = table.column("trial").to_pylist()
    first = {key: index for index, key in reversed(list(enumerate(trials)))}
    rows = table.select(known).take(list(first.values())).to_pylist()
    settled = {key: with_later_settings(row) for key, row in zip(first, rows, strict=True)}
    return {name: [settled[key][name] for key in trials] for name in wanted}


def with_later_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A stored trial's settings by name, those that came after it at the value that keeps its key."""
    settled = TrialConfig.settle(settings)
    # a setting that the trial does not read is None; today's default need not be what was done before
    later = {name: None if settled.get(name, old) is None else old for name, old in LATER_SETTINGS.items()}
    return later | settings


def to_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    # Of numbers that hardly repeat a dictionary is begun in vain: it takes half of the time and a fifth of the room.
    repeating = [f.name for f in table.schema if not (pa.types.is_floating(f.type) and f.name in MEASURED)]
    pq.write_table(table, sink, compression=_compression(table), use_dictionary=repeating)
    return sink.getvalue()


def _compression(table: pa.Table) -> str:
    """None for a few rows: of 140 short columns it makes a larger file, and twice the time to read it."""
    return "none" if table.num_rows <= FEW_ROWS else "zstd"


def read_parquet(content: bytes | pa.Buffer) -> pa.Table:
    """The table in a Parquet file's bytes; UnknownSchema for a foreign major version, pa.ArrowException if torn."""
    return open_parquet(content).read(use_threads=False)


def open_parquet(content: bytes | pa.Buffer) -> pq.ParquetFile:
    """A Parquet file's bytes to be read in parts; errors as in read_parquet."""
    # Not pq.read_table: its read-ahead threads may still hold the bytes when the interpreter ends, which aborts it.
    file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
    check_version(file.schema_arrow.metadata)
    return file


def check_version(metadata: Mapping[bytes, bytes] | None) -> None:
    found, known = (metadata or {}).get(b"schema_version", b"?").decode(), SCHEMA_VERSION.split(".")[0]
    if found.split(".")[0] != known:
        cure = "Use the gnc-study version that wrote this folder, or another results folder."
        raise UnknownSchema(f"schema_version must be {known}.x, got {found!r}. {cure}")


def to_fragment(table: pa.Table) -> bytes:
    """As to_parquet, with a checksum of all bytes among the footer's entries."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression=_compression(table)) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({CHECKSUM.decode(): UNSET.decode()})
    content = sink.getvalue()
    found = _find(content, CHECKSUM)
    assert found is not None  # it was written just now
    return content[: found[0]] + b"%08x" % zlib.crc32(content) + content[found[1] :]


def is_whole(content: bytes) -> bool | None:
    """Whether every byte is as it was written; None for an older file, which has no checksum."""
    found = _find(content, CHECKSUM)
    if found is None:
        return None
    start, end = found
    checksum = zlib.crc32(memoryview(content)[end:], zlib.crc32(UNSET, zlib.crc32(memoryview(content)[:start])))
    return content[start:end] == b"%08x" % checksum


def read_entry(content: bytes, name: bytes) -> bytes | None:
    """The footer's entry of that name; None where there is none. Valid only if the file is whole."""
    found = _find(content, name)
    return None if found is None else content[found[0] : found[1]]


def _find(content: bytes, name: bytes) -> tuple[int, int] | None:
    mark = b"\x18" + bytes([len(name)]) + name + b"\x18"
    at = content.rfind(mark)
    if at < 0:
        return None
    at, length, shift = at + len(mark), 0, 0
    for byte in content[at : at + 5]:  # the length, seven bits per byte, lowest first
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return at, at + length
