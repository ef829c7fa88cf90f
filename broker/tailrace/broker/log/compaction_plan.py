"""Which segments compaction rewrites next, and what it must know of the log to do so (LogCleanerManager)."""

import threading
from bisect import bisect_right
from dataclasses import dataclass, field

from tailrace.broker.log.partition import PartitionLog
from tailrace.broker.log.segment import MAX_RELATIVE_OFFSET, Segment
from tailrace.broker.records.batch import BatchHeader

MAX_RECORDS = 2_000_000  # of the dirty part at once: 24 bytes each


@dataclass(slots=True)
class Round:
    """One compaction of one log: made on the loop, read by a worker thread."""

    groups: list[list[Segment]]
    dirty_from: int
    end: int
    horizon_ms: int  # delete horizon of tombstones that get one now
    now_ms: int
    aborted: dict[int, list[tuple[int, int]]]  # producer id: (first, last offset), ascending
    last_batches: dict[int, tuple[int, int]]  # producer id: (last data offset or -1, epoch)
    stop: threading.Event
    live: dict[int, bool] = field(default_factory=dict)  # producers whose open transaction left a batch

    @property
    def segments(self) -> list[Segment]:
        return [segment for group in self.groups for segment in group]

    def is_aborted(self, header: BatchHeader) -> bool:
        if not header.is_transactional:
            return False
        spans = self.aborted.get(header.producer_id, [])
        nearest = bisect_right(spans, header.base_offset, key=lambda span: span[0]) - 1
        return nearest >= 0 and header.base_offset <= spans[nearest][1]


def plan(
    log: PartitionLog, cleaned_to: int, durable_to: int, now_ms: int, stop: threading.Event
) -> Round | None:
    """What to rewrite now, None when too little is dirty and nothing has waited max.compaction.lag.ms.

    Only segments below `durable_to` (the recovery point on disk) count: a start after a crash checks the
    others for offsets without a hole.
    """
    limit = min(log.last_stable_offset, durable_to)
    segments: list[Segment] = []
    lag_ms = log.config.min_compaction_lag_ms
    for segment in log.segments[:-1]:
        too_young = lag_ms > 0 and segment.latest_ms() > now_ms - lag_ms
        if segment.next_offset > limit or not segment.indexes_synced or too_young:
            break
        segments.append(segment)
    if not _is_due(log, segments, cleaned_to, now_ms):
        return None
    segments = _at_most(segments, cleaned_to, MAX_RECORDS)
    aborted: dict[int, list[tuple[int, int]]] = {}
    for segment in log.segments:  # the marker of a transaction may stand after the last of these segments
        for entry in segment.aborted.entries:
            aborted.setdefault(entry.producer_id, []).append((entry.first_offset, entry.last_offset))
    for spans in aborted.values():
        spans.sort()
    return Round(
        groups=_groups(segments, log.config.segment_bytes),
        dirty_from=cleaned_to,
        end=segments[-1].next_offset,
        horizon_ms=now_ms + log.config.delete_retention_ms,
        now_ms=now_ms,
        aborted=aborted,
        last_batches={
            producer_id: (producer.batches[-1].last_offset if producer.batches else -1, producer.epoch)
            for producer_id, producer in log.states.by_id.items()
        },
        stop=stop,
    )


def _is_due(log: PartitionLog, segments: list[Segment], cleaned_to: int, now_ms: int) -> bool:
    dirty = [segment for segment in segments if segment.next_offset > cleaned_to]
    size = sum(segment.size for segment in dirty)
    if not size:
        return False
    overdue = now_ms - log.config.max_compaction_lag_ms
    if any(0 <= segment.first_timestamp < overdue for segment in dirty):
        return True
    return size > log.config.min_cleanable_dirty_ratio * sum(segment.size for segment in segments)


def _at_most(segments: list[Segment], cleaned_to: int, records: int) -> list[Segment]:
    taken: list[Segment] = []
    for segment in segments:
        if segment.next_offset > cleaned_to:
            records -= segment.next_offset - max(segment.base_offset, cleaned_to)
            if records < 0 and any(earlier.next_offset > cleaned_to for earlier in taken):
                break
        taken.append(segment)
    return taken


def _groups(segments: list[Segment], segment_bytes: int) -> list[list[Segment]]:
    """Neighbours that fit into one segment, by their size before."""
    groups: list[list[Segment]] = []
    size = 0
    for segment in segments:
        too_far = groups and segment.next_offset - groups[-1][0].base_offset > MAX_RELATIVE_OFFSET
        if not groups or size + segment.size > segment_bytes or too_far:
            groups.append([])
            size = 0
        groups[-1].append(segment)
        size += segment.size
    return groups
