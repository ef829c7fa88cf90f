"""The two things that a log does to a batch's bytes: step over it, and stamp it with LogAppendTime.

The layout is drawn in `tailrace.broker.records.batch`.
"""

import struct

from crc32c import crc32c

from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.records.batch import (
    CRC_START,
    HEADER,
    HEADER_BYTES,
    LENGTH_END,
    LOG_APPEND_TIME,
    read_header,
)

_FRAME = struct.Struct(">qi11xi")


def read_frame(buffer: Buffer, at: int) -> tuple[int, int]:
    """(size in bytes, last offset) of the batch at `at`; struct.error when it is cut short."""
    base_offset, length, last_offset_delta = _FRAME.unpack_from(buffer, at)
    return LENGTH_END + length, base_offset + last_offset_delta


def stamped_header(batch: memoryview, now_ms: int) -> bytes:
    """The header of `batch` with LogAppendTime `now_ms` and the CRC that this makes."""
    header = read_header(batch)
    stamped = header._replace(attributes=header.attributes | LOG_APPEND_TIME, max_timestamp=now_ms)
    crc = crc32c(batch[HEADER_BYTES:], crc32c(HEADER.pack(*stamped)[CRC_START:]))
    return HEADER.pack(*stamped._replace(crc=crc))
