"""What a log asks of a batch's bytes to step over it.

The layout is drawn in `tailrace.broker.records.batch`.
"""

import struct

from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.records.batch import HEADER_BYTES, LENGTH_END

_FRAME = struct.Struct(">qi11xi")


def read_frame(buffer: Buffer, at: int) -> tuple[int, int]:
    """(size in bytes, last offset) of the batch at `at`; struct.error when it is cut short or no batch."""
    base_offset, length, last_offset_delta = _FRAME.unpack_from(buffer, at)
    if length < HEADER_BYTES - LENGTH_END:
        raise struct.error(f"a record batch of {LENGTH_END + length} bytes")
    return LENGTH_END + length, base_offset + last_offset_delta
