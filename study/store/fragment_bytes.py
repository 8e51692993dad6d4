"""Reads from a trial's file, without decoding a column, whether it is whole and the entries of its footer: ten thousand
Parquet files take too long to open. An entry lies in the file as it was given, after its name (Thrift's compact protocol:
0x18, a length, the bytes). A checksum over the whole file says that nothing between is torn."""

import io
import zlib

import pyarrow as pa
import pyarrow.parquet as pq

UNSET = b"00000000"  # stands where the checksum will be, while it is computed
CHECKSUM = b"crc32"


def to_checked_parquet(table: pa.Table, **options: str) -> bytes:
    """The bytes of a Parquet file with a checksum of all of them among its footer's entries."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
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
    length, start = _varint(content, at + len(mark))
    return start, start + length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number stored as seven bits per byte, lowest first, and where it ends."""
    number = shift = 0
    for byte in content[at : at + 5]:
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return number, at
