"""Cutting bytes of a replication connection into pgoutput messages, a whole block at a time.

    Byte1 'd' | Int32 length, itself included | one of
        Byte1 'w' | Int64 WAL start | Int64 server's WAL end | Int64 sent at | one pgoutput message
        Byte1 'k' | Int64 server's WAL end | Int64 sent at | Byte1 1: answer at once

PostgreSQL manual, "Message Formats" (CopyData) and "Streaming Replication Protocol" (XLogData, keepalive).
"""

from dataclasses import dataclass

import numpy as np

from tailrace.changes import Lsn
from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.wire import Bytes, Offsets, read_i64, read_u8, read_u32

_COPY_DATA, _XLOG_DATA, _KEEPALIVE = ord("d"), ord("w"), ord("k")
_HEADER = 5
_XLOG_HEADER = 25
_SMALLEST_FRAME = 19  # a keepalive without its header; sizes the arrays


@dataclass(frozen=True, slots=True)
class Frames:
    """What one block holds.

    starts, ends     message i is block[starts[i]:ends[i]], its kind byte first.
    consumed         bytes of whole frames; the caller keeps the rest and puts it before the next block.
    other            kind byte of the message at `consumed` that is not CopyData (an error, a notice, the
                     end of the copy), 0 if there is none; nothing behind it was read.
    wal_end          newest WAL end that the server named, 0 if none: only for progress displays.
    keepalive_end    WAL end of the last keepalive, 0 if none.  When the decoder holds no open transaction
                     after this block, the stream is complete up to it.
    reply_requested  a keepalive wants an answer at once.
    """

    starts: Offsets
    ends: Offsets
    consumed: int
    other: int
    wal_end: Lsn
    keepalive_end: Lsn
    reply_requested: bool


def scan_frames(block: Bytes) -> Frames:
    """Find the messages of a block that starts at a frame boundary and may end anywhere."""
    capacity = block.size // _SMALLEST_FRAME + 1
    starts, ends = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    count, consumed, other, wal_end, keepalive_end, reply = _scan(block, starts, ends)
    return Frames(starts[:count], ends[:count], consumed, other, wal_end, keepalive_end, bool(reply))


@kernel
def _scan(block: Bytes, starts: Offsets, ends: Offsets) -> tuple[int, int, int, int, int, int]:
    count = at = other = wal_end = keepalive_end = reply = 0
    while at + _HEADER <= block.size:
        if block[at] != _COPY_DATA:
            other = read_u8(block, at)
            break
        end = at + 1 + read_u32(block, at + 1)
        if end > block.size or end < at + _HEADER + 1:
            break
        kind = block[at + _HEADER]
        if kind == _XLOG_DATA:
            starts[count] = at + _HEADER + _XLOG_HEADER
            ends[count] = end
            count += 1
            wal_end = max(wal_end, read_i64(block, at + _HEADER + 9))
        elif kind == _KEEPALIVE:
            keepalive_end = read_i64(block, at + _HEADER + 1)
            wal_end = max(wal_end, keepalive_end)
            reply |= read_u8(block, at + _HEADER + 17)
        at = end
    return count, at, other, wal_end, keepalive_end, reply
