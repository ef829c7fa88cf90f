"""Compaction: of every key the latest record stays (Kafka's LogCleaner, KIP-354, KIP-534).

    segments  | cleaned before | dirty, finished, old enough, below the last stable offset | the rest |
                 `----------- rewritten in groups of at most segment.bytes -----------'

What a rewritten group keeps:
- the latest record of each key; records without a key go;
- tombstones, until the delete horizon that their batch got when it was first rewritten (attribute bit 6);
- nothing of aborted transactions; a marker as long as a batch of its transaction is left, then until its
  own delete horizon;
- the last batch of each known producer and the last batch of the group, emptied if need be: sequences
  survive, and each segment still ends where the next one begins.
Batches keep base offset, last offset and producer fields, so offsets never move.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from tailrace.broker.log.compaction_plan import Round
from tailrace.broker.log.durable import sync_file
from tailrace.broker.log.record_keys import LatestOffsets, copy_records, hashes_of
from tailrace.broker.log.segment import Segment
from tailrace.broker.log.swap import CLEANING
from tailrace.broker.records.batch import (
    CODEC_MASK,
    CRC_START,
    DELETE_HORIZON,
    HEADER,
    HEADER_BYTES,
    LENGTH_END,
    LOG_APPEND_TIME,
    BatchHeader,
    read_header,
)
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.broker.records.compression import compress


class CompactionStopped(Exception):
    """The broker stops; nothing was changed."""


def read_keys(work: Round) -> LatestOffsets:
    """The latest offset of every key of the dirty part.  In a worker thread."""
    parts = []
    for segment in work.segments:
        if segment.next_offset <= work.dirty_from:
            continue
        for header, batch in _batches(segment, work):
            if header.is_control or header.record_count == 0 or work.is_aborted(header):
                continue
            records = parse_batches([batch])
            keyed = records.key_length >= 0
            first, second = hashes_of(records)
            parts.append((first[keyed], second[keyed], records.offset[keyed]))
    return LatestOffsets.of(parts)


def rewrite(work: Round, latest: LatestOffsets, group: list[Segment]) -> Path:
    """Write what is kept of a group, durably, into a directory beside the log.  In a worker thread."""
    disk, directory = group[0].disk, group[0].directory / CLEANING
    disk.make_directory(directory)
    target = Segment(disk, directory, group[0].base_offset, create=True, created_ms=work.now_ms)
    try:
        target.restart()
        disk.truncate(target.file.fd, 0)
        aborted = {entry.last_offset: entry for segment in group for entry in segment.aborted.entries}
        for segment in group:
            for header, batch in _batches(segment, work):
                last_of_group = header.last_offset + 1 == group[-1].next_offset
                kept = _kept(header, batch, work, latest, last_of_group)
                if kept is None:
                    continue
                target.write([kept], len(kept))
                target.noted(read_header(kept), header.base_offset)
                if header.is_control and header.last_offset in aborted:
                    target.aborted.add(aborted[header.last_offset])
        for path in target.finish_files():
            sync_file(disk, path)
        disk.set_modified_ns(target.file.fd, disk.modified_ns(group[-1].file.fd))
    finally:
        target.close()
    return directory


def _batches(segment: Segment, work: Round) -> Iterator[tuple[BatchHeader, memoryview]]:
    for position, header in segment.headers():
        if work.stop.is_set():
            raise CompactionStopped
        yield header, memoryview(segment.batch_at(position, header.size))


def _kept(
    header: BatchHeader, batch: memoryview, work: Round, latest: LatestOffsets, last_of_group: bool
) -> bytes | memoryview | None:
    """The batch as it goes on, None when nothing of it does."""
    of_producer = _is_last_of_producer(header, work)
    if header.is_control:
        kept = _kept_marker(header, batch, work)
        return batch if kept is None and (of_producer or last_of_group) else kept
    empty = header.record_count == 0 or work.is_aborted(header)
    kept = None if empty else _kept_records(header, batch, work, latest)
    if kept is None and of_producer:
        kept = _with_records(header._replace(attributes=header.attributes & ~CODEC_MASK), b"", 0)
    elif (
        kept is None and last_of_group
    ):  # only its offsets count: nobody's transaction needs its marker for it
        return _with_records(
            header._replace(attributes=0, producer_id=-1, producer_epoch=-1, base_sequence=-1), b"", 0
        )
    if kept is not None and header.is_transactional:
        work.live[header.producer_id] = True
    return kept


def _kept_marker(header: BatchHeader, batch: memoryview, work: Round) -> bytes | memoryview | None:
    if work.live.pop(header.producer_id, False):
        return batch
    if header.attributes & DELETE_HORIZON:
        return batch if work.now_ms < header.base_timestamp else None
    return _stamped(header, np.frombuffer(batch[HEADER_BYTES:], np.uint8), np.ones(1, bool), work)


def _kept_records(
    header: BatchHeader, batch: memoryview, work: Round, latest: LatestOffsets
) -> bytes | memoryview | None:
    records = parse_batches([batch])
    keep = ~latest.superseded(records)
    tombstones = records.value_length < 0
    has_horizon = bool(header.attributes & DELETE_HORIZON)
    if has_horizon and work.now_ms >= header.base_timestamp:
        keep &= ~tombstones
    if not keep.any():
        return None
    if not header.attributes & LOG_APPEND_TIME:
        header = header._replace(max_timestamp=int(records.timestamp_ms[keep].max()))
    if not has_horizon and bool((keep & tombstones).any()):
        return _stamped(header, records.buffer, keep, work)
    if keep.all():
        return batch
    return _with_kept(header, records.buffer, keep, 0)


def _stamped(
    header: BatchHeader, buffer: npt.NDArray[np.uint8], keep: npt.NDArray[np.bool_], work: Round
) -> bytes:
    """The kept records under a delete horizon, which takes the place of the base timestamp."""
    stamped = header._replace(attributes=header.attributes | DELETE_HORIZON, base_timestamp=work.horizon_ms)
    return _with_kept(stamped, buffer, keep, header.base_timestamp - work.horizon_ms)


def _with_kept(
    header: BatchHeader, buffer: npt.NDArray[np.uint8], keep: npt.NDArray[np.bool_], time_shift: int
) -> bytes:
    payload = compress(header.codec, copy_records(buffer, keep, time_shift))
    return _with_records(header, payload, int(keep.sum()))


def _with_records(header: BatchHeader, payload: bytes, count: int) -> bytes:
    changed = header._replace(length=HEADER_BYTES - LENGTH_END + len(payload), record_count=count)
    crc = crc32c(payload, crc32c(HEADER.pack(*changed)[CRC_START:]))
    return HEADER.pack(*changed._replace(crc=crc)) + payload


def _is_last_of_producer(header: BatchHeader, work: Round) -> bool:
    last = work.last_batches.get(header.producer_id)
    if last is None:
        return False
    offset, epoch = last
    if offset >= 0:
        return header.last_offset == offset
    return header.is_control and header.producer_epoch == epoch
