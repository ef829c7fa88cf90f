"""Offsets by timestamp: what ListOffsets asks.  Source: Kafka's UnifiedLog.fetchOffsetByTimestamp."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tailrace.broker.log.segment import Segment
from tailrace.broker.records.batch import BatchHeader
from tailrace.broker.records.record import decode_records


@dataclass(frozen=True, slots=True)
class TimestampedOffset:
    """A record's timestamp and offset, and the leader epoch that wrote it."""

    timestamp_ms: int
    offset: int
    leader_epoch: int


def first_at_or_after(
    segments: Sequence[Segment], timestamp_ms: int, start: int, upper: int
) -> TimestampedOffset | None:
    """The first record in [start, upper) with a timestamp of at least `timestamp_ms`."""
    for segment in segments:
        if segment.base_offset >= upper:
            return None
        if segment.next_offset <= start or segment.max_timestamp < timestamp_ms:
            continue
        from_offset = max(start, segment.offset_before(timestamp_ms))
        found = _first_in(segment, segment.position_of(from_offset), timestamp_ms, start, upper)
        if found is not None:
            return found
    return None


def with_max_timestamp(segments: Sequence[Segment], start: int, upper: int) -> TimestampedOffset | None:
    """The first record with the greatest timestamp in [start, upper)."""
    best: tuple[int, Segment, int] | None = None
    for segment in segments:
        if segment.next_offset <= start or segment.base_offset >= upper:
            continue
        if best is not None and segment.max_timestamp <= best[0]:
            continue
        for position, header in _data_batches(segment, _scan_from(segment, start, upper), start, upper):
            if best is None or header.max_timestamp > best[0]:
                best = header.max_timestamp, segment, position
    if best is None:
        return None
    greatest, segment, position = best
    return _first_in(segment, position, greatest, start, upper)


def _scan_from(segment: Segment, start: int, upper: int) -> int:
    """The batch with the segment's greatest timestamp, else the first one from `start`."""
    position = segment.position_of(segment.max_timestamp_offset)
    for _, header in segment.headers(position):
        if not header.is_control and header.base_offset >= start and header.last_offset < upper:
            return position
        break
    return segment.position_of(start)


def _first_in(
    segment: Segment, position: int, timestamp_ms: int, start: int, upper: int
) -> TimestampedOffset | None:
    for at, header in _data_batches(segment, position, start, upper):
        if header.max_timestamp >= timestamp_ms:
            for record in decode_records(segment.batch_at(at, header.size)):
                if record.timestamp_ms >= timestamp_ms and start <= record.offset < upper:
                    return TimestampedOffset(record.timestamp_ms, record.offset, header.leader_epoch)
    return None


def _data_batches(
    segment: Segment, position: int, start: int, upper: int
) -> Iterator[tuple[int, BatchHeader]]:
    for at, header in segment.headers(position):
        if header.base_offset >= upper:
            return
        if header.last_offset >= start and not header.is_control:
            yield at, header
