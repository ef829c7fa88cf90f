"""Records as Python objects, for control paths: internal topics, command line, registry.

    record   length varint | attributes int8 0 | timestamp delta varlong | offset delta varint
             | key length varint (-1 null), key | value length varint (-1 null), value
             | header count varint | (name length varint, name, value length varint (-1 null), value)*

Varints are zigzag (protobuf's sint).  Rows of tables never pass through here: see `columnar_build`.
Source: Kafka's protocol guide (Record), KIP-82 (headers).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.records.batch import (
    HEADER,
    HEADER_BYTES,
    LENGTH_END,
    LOG_APPEND_TIME,
    MAGIC,
    NO_PRODUCER,
    finish_batch,
    read_header,
)
from tailrace.broker.records.compression import Codec, compress, decompress
from tailrace.broker.records.errors import InvalidBatchError

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `offset` is its place in the partition, and is not read when a batch is built.

    timestamp_ms  milliseconds since the epoch, -1 for none.
    """

    key: bytes | None
    value: bytes | None
    timestamp_ms: int = -1
    headers: Headers = ()
    offset: int = -1


def encode_batch(
    records: Sequence[Record],
    *,
    codec: Codec = Codec.NONE,
    producer_id: int = NO_PRODUCER,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    base_offset: int = 0,
) -> bytearray:
    """One whole batch of the records, checksum included; offsets run on from `base_offset`.

    Raises ValueError for no records.
    """
    if not records:
        raise ValueError("a record batch holds at least one record")
    base_timestamp = records[0].timestamp_ms
    payload = bytearray()
    for delta, record in enumerate(records):
        _put_record(payload, record, record.timestamp_ms - base_timestamp, delta)
    body = compress(codec, payload)
    batch = bytearray(HEADER_BYTES)
    batch += body
    HEADER.pack_into(
        batch,
        0,
        base_offset,
        len(batch) - LENGTH_END,
        0,
        MAGIC,
        0,
        codec,
        len(records) - 1,
        base_timestamp,
        max(record.timestamp_ms for record in records),
        NO_PRODUCER,
        -1,
        -1,
        len(records),
    )
    finish_batch(batch, producer_id, producer_epoch, base_sequence, transactional=transactional)
    return batch


def decode_records(batch: Buffer) -> list[Record]:
    """The records of one whole batch.  Raises InvalidBatchError (CORRUPT_MESSAGE) for bytes that are none."""
    view = memoryview(batch)
    if len(view) < HEADER_BYTES:
        raise _damaged("the batch is shorter than its header")
    header = read_header(view)
    if header.magic != MAGIC:
        raise _damaged(f"its format is {header.magic}")
    payload = view[HEADER_BYTES:]
    if header.codec:
        payload = memoryview(decompress(header.codec, payload))
    if not 0 <= header.record_count <= len(payload):
        raise _damaged("it claims more records than it has bytes")
    append_time = header.max_timestamp if header.attributes & LOG_APPEND_TIME else None
    records: list[Record] = []
    position = 0
    try:
        for _ in range(header.record_count):
            size, position = _read_varint(payload, position)
            end = position + size
            if size < 0 or end > len(payload):
                raise _damaged("a record runs past its end")
            records.append(
                _read_record(payload[position:end], header.base_offset, header.base_timestamp, append_time)
            )
            position = end
    except (IndexError, UnicodeDecodeError) as error:
        raise _damaged("a record cannot be read") from error
    return records


def _put_record(out: bytearray, record: Record, timestamp_delta: int, offset_delta: int) -> None:
    body = bytearray(1)
    _put_varint(body, timestamp_delta)
    _put_varint(body, offset_delta)
    _put_bytes(body, record.key)
    _put_bytes(body, record.value)
    _put_varint(body, len(record.headers))
    for name, value in record.headers:
        _put_bytes(body, name.encode())
        _put_bytes(body, value)
    _put_varint(out, len(body))
    out += body


def _read_record(view: memoryview, base_offset: int, base_timestamp: int, append_time: int | None) -> Record:
    timestamp_delta, position = _read_varint(view, 1)
    offset_delta, position = _read_varint(view, position)
    key, position = _read_bytes(view, position)
    value, position = _read_bytes(view, position)
    count, position = _read_varint(view, position)
    if not 0 <= count <= len(view):
        raise _damaged("a record claims more headers than it has bytes")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, position = _read_bytes(view, position)
        if name is None:
            raise _damaged("a header has no name")
        content, position = _read_bytes(view, position)
        headers.append((name.decode(), content))
    timestamp = base_timestamp + timestamp_delta if append_time is None else append_time
    return Record(key, value, timestamp, tuple(headers), base_offset + offset_delta)


def _put_varint(out: bytearray, value: int) -> None:
    rest = (value << 1) ^ (value >> 63)
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    rest = shift = 0
    while True:
        byte = view[position]
        position += 1
        rest |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (rest >> 1) ^ -(rest & 1), position
        shift += 7
        if shift > 63:
            raise _damaged("a varint is longer than 10 bytes")


def _put_bytes(out: bytearray, value: bytes | None) -> None:
    if value is None:
        out.append(1)
        return
    _put_varint(out, len(value))
    out += value


def _read_bytes(view: memoryview, position: int) -> tuple[bytes | None, int]:
    size, position = _read_varint(view, position)
    if size == -1:
        return None, position
    if size < 0 or position + size > len(view):
        raise _damaged("a field runs past its record")
    return bytes(view[position : position + size]), position + size


def _damaged(what: str) -> InvalidBatchError:
    return InvalidBatchError(f"a record batch is damaged: {what}", error=ErrorCode.CORRUPT_MESSAGE)
