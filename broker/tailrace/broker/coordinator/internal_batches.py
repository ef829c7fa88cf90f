"""Small record batches v2 for internal topics: built and read record by record (a control path).

batch header, 61 bytes (see `tailrace.broker.log.header`)
record: length varint | attributes int8 | timestamp delta varint | offset delta varint
        | key length varint, key | value length varint (-1: null), value | header count varint
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crc32c import crc32c

from tailrace.broker.log.header import CODEC_MASK, CRC_START, HEADER_BYTES, TRANSACTIONAL, read_header
from tailrace.changes.errors import TailraceError

KeyValue = tuple[bytes, bytes | None]

_START = struct.Struct(">qiibI")
_REST = struct.Struct(">hiqqqhii")


@dataclass(frozen=True, slots=True)
class InternalRecord:
    """One record of an internal topic."""

    offset: int
    key: bytes
    value: bytes | None


def build_batch(
    records: Sequence[KeyValue], timestamp_ms: int, *, producer_id: int = -1, epoch: int = -1
) -> bytes:
    """One uncompressed batch; with a producer id it is transactional, without a sequence."""
    body = bytearray()
    for delta, (key, value) in enumerate(records):
        record = bytearray(b"\0\0")
        _put_varint(record, delta)
        _put_varint(record, len(key))
        record += key
        _put_varint(record, -1 if value is None else len(value))
        record += value or b""
        record.append(0)
        _put_varint(body, len(record))
        body += record
    attributes = TRANSACTIONAL if producer_id >= 0 else 0
    last = len(records) - 1
    checked = (
        _REST.pack(attributes, last, timestamp_ms, timestamp_ms, producer_id, epoch, -1, len(records)) + body
    )
    length = CRC_START - 12 + len(checked)
    return _START.pack(0, length, 0, 2, crc32c(checked)) + checked


def read_batch(batch: memoryview | bytes) -> Iterator[InternalRecord]:
    """The records of one whole batch, which must be uncompressed as `build_batch` leaves it."""
    header = read_header(batch)
    if header.attributes & CODEC_MASK:
        raise TailraceError(
            f"an internal topic holds a compressed batch at offset {header.base_offset}",
            fix="Internal topics are written by the broker only: restore the data directory from a backup",
        )
    raw, at = bytes(batch[: header.size]), HEADER_BYTES
    for _ in range(header.count):
        length, at = _get_varint(raw, at)
        end = at + length
        _, at = _get_varint(raw, at + 1)
        delta, at = _get_varint(raw, at)
        size, at = _get_varint(raw, at)
        key = raw[at : at + size]
        size, at = _get_varint(raw, at + max(size, 0))
        yield InternalRecord(header.base_offset + delta, key, None if size < 0 else raw[at : at + size])
        at = end


def _put_varint(out: bytearray, value: int) -> None:
    rest = (value << 1) ^ (value >> 63)
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


def _get_varint(raw: bytes, at: int) -> tuple[int, int]:
    shift = rest = 0
    while True:
        byte = raw[at]
        at += 1
        rest |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (rest >> 1) ^ -(rest & 1), at
        shift += 7
