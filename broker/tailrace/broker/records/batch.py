"""The header of a record batch v2 (magic 2), its checks, and the control batch that ends a transaction.

    at  size  field                     integers big endian
     0     8  base offset               the broker's to fill
     8     4  batch length              bytes after this field
    12     4  partition leader epoch    the broker's to fill
    16     1  magic                     2
    17     4  CRC                       CRC-32C of everything after it
    21     2  attributes                0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 horizon
    23     4  last offset delta
    27     8  base timestamp            milliseconds
    35     8  max timestamp
    43     8  producer id               -1: not idempotent
    51     2  producer epoch
    53     4  base sequence
    57     4  record count
    61        records                   compressed as one piece

Base offset and leader epoch stand before the checksummed part, so a broker sets them without touching
the rest.  A control batch holds one record: key int16 version 0, int16 type (0 abort, 1 commit); value int16
version 0, int32 coordinator epoch.

Sources: Kafka's protocol guide (Record Batch), KIP-98 (transactions), KIP-534 (delete horizon).
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.records.errors import InvalidBatchError

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
LENGTH_AT = 8
LENGTH_END = LENGTH_AT + 4
LEADER_EPOCH_AT = LENGTH_END
MAGIC_AT = LEADER_EPOCH_AT + 4
CRC_AT = MAGIC_AT + 1
CRC_START = CRC_AT + 4
ATTRIBUTES_AT = CRC_START
PRODUCER_ID_AT = ATTRIBUTES_AT + 2 + 4 + 8 + 8

MAGIC = 2
CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
DELETE_HORIZON = 0x40

NO_PRODUCER = -1
MAX_SEQUENCE = 0x7FFF_FFFF

_BASE_OFFSET = struct.Struct(">q")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_UINT32 = struct.Struct(">I")
_PRODUCER = struct.Struct(">qhi")
_WALK = struct.Struct(">qi")
_MARKER = struct.Struct(">bhhbhi")


class BatchHeader(NamedTuple):
    """The fields before the records; `length` as on the wire, without the 12 bytes up to its own end."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return LENGTH_END + self.length

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; after 2**31 - 1 comes 0."""
        return (self.base_sequence + self.last_offset_delta) & MAX_SEQUENCE

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)


class Marker(NamedTuple):
    """What a control batch says about its producer's transaction."""

    commit: bool
    coordinator_epoch: int


def read_header(buffer: Buffer, at: int = 0) -> BatchHeader:
    """The header at `at`; raises struct.error where fewer than 61 bytes follow."""
    return BatchHeader._make(HEADER.unpack_from(buffer, at))


def iterate_batches(buffer: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The whole batches of a buffer, in order, as views; a last one that is cut short is left out.

    Raises InvalidBatchError (CORRUPT_MESSAGE) where a batch is of another format or its length is impossible.
    """
    view = memoryview(buffer)
    position, end = 0, len(view)
    while position + HEADER_BYTES <= end:
        header = read_header(view, position)
        if header.magic != MAGIC or header.size < HEADER_BYTES:
            raise InvalidBatchError(
                f"the bytes at offset {header.base_offset} are no record batch of format 2",
                error=ErrorCode.CORRUPT_MESSAGE,
            )
        if position + header.size > end:
            return
        yield header, view[position : position + header.size]
        position += header.size


def has_valid_crc(batch: Buffer) -> bool:
    """Whether the checksum of one whole batch is right."""
    view = memoryview(batch)
    (stored,) = _UINT32.unpack_from(view, CRC_AT)
    return bool(crc32c(view[CRC_START:]) == stored)


def check_produced(records: Buffer) -> BatchHeader:
    """The header of what a client wants to append to one partition: exactly one sound batch.

    Raises InvalidBatchError with Kafka's code: CORRUPT_MESSAGE for a wrong size or checksum; INVALID_RECORD
    for another format, more than one batch, no records, a count that does not match, a control batch, or
    an idempotent batch without a sequence (LogValidator, ProduceRequest.validateRecords).
    """
    if len(records) < HEADER_BYTES:
        raise InvalidBatchError("a record batch is shorter than its header", error=ErrorCode.CORRUPT_MESSAGE)
    header = read_header(records)
    if header.magic != MAGIC:
        raise _refused(f"has format {header.magic}, and only 2 is taken")
    size = header.size
    if size < HEADER_BYTES or size > len(records):
        raise InvalidBatchError("the length of a record batch is wrong", error=ErrorCode.CORRUPT_MESSAGE)
    if size < len(records):
        raise _refused("is not the only one for its partition")
    if crc32c(memoryview(records)[CRC_START:]) != header.crc:
        raise InvalidBatchError("the CRC of a record batch is wrong", error=ErrorCode.CORRUPT_MESSAGE)
    if header.record_count <= 0 or header.last_offset_delta + 1 != header.record_count:
        raise _refused(f"claims {header.record_count} records over {header.last_offset_delta + 1} offsets")
    if header.attributes & CONTROL:
        raise _refused("is a control batch, which only the broker writes")
    if header.producer_id >= 0 and header.base_sequence < 0:
        raise _refused("has a producer id but no sequence")
    return header


def set_base_offset(batch: bytearray | memoryview, base_offset: int, leader_epoch: int) -> None:
    """Give a batch its place in the log, in place; the checksum stays right."""
    _BASE_OFFSET.pack_into(batch, 0, base_offset)
    _INT32.pack_into(batch, LEADER_EPOCH_AT, leader_epoch)


def finish_batch(
    batch: bytearray | memoryview,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
    *,
    transactional: bool,
) -> None:
    """Fill what only the producer knows, in place: ids, sequence, the transactional bit, the checksum.

    Records, timestamps, count and codec must be there already.
    """
    (attributes,) = _INT16.unpack_from(batch, ATTRIBUTES_AT)
    attributes = attributes | TRANSACTIONAL if transactional else attributes & ~TRANSACTIONAL
    _INT16.pack_into(batch, ATTRIBUTES_AT, attributes)
    _PRODUCER.pack_into(batch, PRODUCER_ID_AT, producer_id, producer_epoch, base_sequence)
    _UINT32.pack_into(batch, CRC_AT, crc32c(memoryview(batch)[CRC_START:]))


def control_batch(
    producer_id: int, producer_epoch: int, marker: Marker, *, timestamp_ms: int, base_offset: int = 0
) -> bytearray:
    """The batch that commits or aborts the producer's transaction in a partition."""
    # one record: length 16 as a varint, attributes, two zero deltas, key of 4 bytes, value of 6, no headers
    fields = _MARKER.pack(8, 0, int(marker.commit), 12, 0, marker.coordinator_epoch)
    batch = bytearray(HEADER_BYTES) + b"\x20\0\0\0" + fields + b"\0"
    length = len(batch) - LENGTH_END
    attributes = CONTROL
    HEADER.pack_into(
        batch, 0, base_offset, length, 0, MAGIC, 0, attributes, 0, timestamp_ms, timestamp_ms, -1, -1, -1, 1
    )
    finish_batch(batch, producer_id, producer_epoch, -1, transactional=True)
    return batch


def read_marker(batch: Buffer) -> Marker | None:
    """What a control batch says; None for control records that are no transaction markers (KRaft's)."""
    try:
        attributes_at = _after_varint(batch, HEADER_BYTES)
        # the timestamp delta is long under a delete horizon, which took the place of the base timestamp
        key_at = _after_varint(batch, _after_varint(batch, attributes_at + 1))
        key_length, _, kind, _, _, coordinator_epoch = _MARKER.unpack_from(batch, key_at)
    except (IndexError, struct.error):
        return None
    if key_length != 8 or kind not in (0, 1):
        return None
    return Marker(commit=bool(kind), coordinator_epoch=coordinator_epoch)


def _after_varint(buffer: Buffer, at: int) -> int:
    while buffer[at] & 0x80:
        at += 1
    return at + 1


def _refused(why: str) -> InvalidBatchError:
    return InvalidBatchError(f"a record batch {why}", error=ErrorCode.INVALID_RECORD)
