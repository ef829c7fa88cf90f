"""Checked points: how much of the segment that was growing a start after a kill need not check again.

`<offset>.checked` in a log's folder: below `offset` the batches and the indexes of the segment that holds it
are durable, and this was the state before `offset`.  Only at or below the recovery point does that count;
batches below are then taken like those of a finished segment.  Numbers are big endian:

    version i16 (1) | crc u32 of all that follows | bytes of the segment i64 |
    entries of .index, .timeindex and .txnindex i32 each | crc u32 of these entries |
    the producers, as in a snapshot file

Kafka has no such file: it checks the whole segment, up to a gigabyte for each partition.
"""

import asyncio
import logging
import struct
from pathlib import Path

from crc32c import crc32c

from tailrace.broker.log.durable import discard_files, read_file, replace_file, sync_file
from tailrace.broker.log.partition import PartitionLog
from tailrace.broker.log.producers import ProducerStates
from tailrace.broker.log.segment import IndexedPart, Segment, segment_name
from tailrace.broker.log.snapshots import snapshot_offsets
from tailrace.changes import crash_point

CRASH_POINTS = ("broker.log.before_checked_point", "broker.log.after_checked_point")
SUFFIX = ".checked"
CHECKED_BYTES = 16 << 20

_PREFIX = struct.Struct(">hI")
_PART = struct.Struct(">qiiiI")

_log = logging.getLogger(__name__)


async def note_checked_point(log: PartitionLog, durable_to: int) -> None:
    """Let a start check the newest segment from here on, once enough was appended to it.  Raises OSError.

    `durable_to`: the recovery point on disk; the point before it stays until the new one lies below.
    """
    segment, disk, directory = log.segments[-1], log.disk, log.directory
    if segment.size - segment.checked_size < CHECKED_BYTES:
        return
    indexes = segment.finish_indexes()
    offset, part = log.log_end_offset, segment.indexed_part()
    path, producers = directory / segment_name(offset, SUFFIX), log.states.to_snapshot()
    known = snapshot_offsets(disk, directory, SUFFIX)
    usable = max((point for point in known if point <= durable_to), default=-1)
    outdated = [directory / segment_name(point, SUFFIX) for point in known if point < usable]
    try:
        await asyncio.to_thread(_write, segment, part, indexes, path, producers)
    except FileNotFoundError:
        return  # the segment or its topic was deleted meanwhile
    segment.checked_size = part.size
    for path in outdated:
        disk.unlink(path)


def _write(segment: Segment, part: IndexedPart, indexes: list[Path], path: Path, producers: bytes) -> None:
    crash_point("broker.log.before_checked_point")
    for index in indexes:
        sync_file(segment.disk, index)
    body = _PART.pack(*part, segment.indexes_crc(part)) + producers
    replace_file(segment.disk, path, _PREFIX.pack(1, crc32c(body)) + body)
    crash_point("broker.log.after_checked_point")


def take_checked_point(segment: Segment, recovery_point: int, seen_ms: int) -> ProducerStates | None:
    """Take over `segment` up to its newest checked point, if that counts: the state of the producers there.

    All later points are given up, durably: the indexes that they speak of are built anew.
    Raises OSError.
    """
    disk, directory = segment.disk, segment.directory
    known = [point for point in snapshot_offsets(disk, directory, SUFFIX) if point > segment.base_offset]
    states = None
    usable = max((point for point in known if point <= recovery_point), default=-1)
    if usable >= 0:
        path = directory / segment_name(usable, SUFFIX)
        try:
            states = _read(segment, usable, read_file(disk, path), seen_ms)
        except (ValueError, struct.error, FileNotFoundError) as error:
            states, usable = None, -1
            _log.warning("passing over %s: %s", path, error)
    discard_files(disk, directory, [directory / segment_name(n, SUFFIX) for n in known if n > usable])
    if states is not None:
        segment.checked_size = segment.size
        segment.write_indexes()  # what comes after it is built anew
    return states


def _read(segment: Segment, offset: int, content: bytes, seen_ms: int) -> ProducerStates:
    """Load `segment` up to `offset`.  Raises ValueError, struct.error or FileNotFoundError for any damage."""
    version, crc = _PREFIX.unpack_from(content)
    body = content[_PREFIX.size :]
    if version != 1 or crc32c(body) != crc:
        raise ValueError("it is damaged")
    *fields, indexes_crc = _PART.unpack_from(body)
    part = IndexedPart(*fields)
    if segment.indexes_crc(part) != indexes_crc:
        raise ValueError("an index of its segment is damaged")
    if not segment.load_indexes(part) or segment.next_offset != offset:
        raise ValueError("its segment is damaged")
    return ProducerStates.from_snapshot(body[_PART.size :], seen_ms)
