"""Opening a log: what a crash may have torn is cut, what was durable is never given up silently.

    recovery point: everything below it is fsynced, segment and indexes (`recovery-point-offset-checkpoint`)

    segments below it      indexes are loaded, or rebuilt from the batch headers; damage = DamagedLogError
    the segment it is in   is taken in the same way up to its newest checked point (`checked`)
    from there on          every batch is checked (CRC, size, offsets, epochs) and the indexes are rebuilt;
                           at the first bad byte the segment is truncated and later segments are removed
    a clean stop           the recovery point is the end of the log: nothing is scanned

The producers' state is that of the checked point, or the newest snapshot at or below the first segment to
check, plus a replay of the headers after it.
"""

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tailrace.broker.log.checked import take_checked_point
from tailrace.broker.log.clock import Clock
from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import discard_files, drop_files, sync_file
from tailrace.broker.log.epochs import LeaderEpochs
from tailrace.broker.log.errors import DamagedLogError
from tailrace.broker.log.index import AbortedTransaction
from tailrace.broker.log.producers import ProducerStates
from tailrace.broker.log.segment import (
    INDEX_SUFFIXES,
    MAX_RELATIVE_OFFSET,
    Segment,
    segment_name,
    segment_offsets,
)
from tailrace.broker.log.snapshots import (
    SUFFIX,
    load_snapshot,
    snapshot_offsets,
    sync_snapshot,
    write_snapshot,
)
from tailrace.broker.log.swap import finish_swaps
from tailrace.broker.records.batch import (
    HEADER_BYTES,
    MAGIC,
    BatchHeader,
    has_valid_crc,
    read_header,
    read_marker,
)
from tailrace.changes import crash_point

CRASH_POINTS = ("broker.recovery.before_truncate", "broker.recovery.after_truncate")
_READ_BYTES = 1 << 20
_FIX = "Restore the segment from a copy, or delete the topic; nothing was cut away"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Durable:
    """What the checkpoints say about one log."""

    recovery_point: int
    log_start: int
    clean: bool  # the last process stopped in order: the index files are complete
    known: bool  # whether the checkpoint file was there: without it compacted segments are scanned too
    newest_epoch: int  # no batch was written under a later leader epoch
    opened: bool  # it has a recovery point: an earlier start has made durable what it found


@dataclass(frozen=True, slots=True)
class _Checked:
    """Where the scan of the batches began, and the producers there if a checked point told."""

    end: int
    states: ProducerStates | None = None


@dataclass(slots=True)
class RecoveredLog:
    """The open files and the state that they amount to."""

    segments: list[Segment]
    producers: ProducerStates
    epochs: LeaderEpochs
    log_start_offset: int


def recover(disk: Disk, directory: Path, durable: Durable, clock: Clock) -> RecoveredLog:
    """Open the log in `directory`; everything in it is durable on return.

    Raises DamagedLogError, OSError.
    """
    names = disk.names(directory)
    finish_swaps(disk, directory)
    segments = _open_segments(disk, directory, durable, clock)
    try:
        epochs = LeaderEpochs(disk, directory)
        checked = _check(segments, durable, epochs, clock.monotonic_ms())
        end = segments[-1].next_offset
        if end < max(durable.recovery_point, durable.log_start):
            raise DamagedLogError(
                f"the log in {directory} ends at offset {end}, and it was durable up to "
                f"{max(durable.recovery_point, durable.log_start)}",
                fix="Restore the directory from a copy, or delete the topic",
            )
        start = max(durable.log_start, segments[0].base_offset)
        found = snapshot_offsets(disk, directory)
        ahead = [directory / segment_name(offset, SUFFIX) for offset in found if offset > end]
        discard_files(disk, directory, ahead)
        producers = _replay(disk, directory, segments, checked, clock.monotonic_ms())
        for segment in segments:
            if not segment.indexes_synced:
                segment.write_indexes()
        epochs.cut(start, end)
        if not _is_settled(segments, durable) or disk.names(directory) != names:
            _make_durable(disk, directory, segments, checked.end)
    except BaseException as error:
        for segment in segments:
            segment.close()
        if isinstance(error, struct.error):  # met below the recovery point, where headers are read only
            raise DamagedLogError(f"a segment is damaged: {error}", fix=_FIX) from error
        raise
    for segment in segments:
        segment.rest_indexes()
    return RecoveredLog(segments, producers, epochs, start)


def _is_settled(segments: list[Segment], durable: Durable) -> bool:
    """Whether an earlier start or its fsyncs have made everything durable, the names too."""
    last = segments[-1]
    named = last.base_offset < durable.recovery_point or last.base_offset == 0
    indexed = all(segment.indexes_synced for segment in segments[:-1])
    return durable.opened and named and indexed and last.next_offset <= durable.recovery_point


def _make_durable(disk: Disk, directory: Path, segments: list[Segment], checked_end: int) -> None:
    for segment in segments:
        if segment.next_offset > checked_end:
            disk.fdatasync(segment.file.fd)
    for segment in segments[:-1]:
        if not segment.indexes_synced:  # else the recovery point went back, to where compaction left holes
            for path in segment.finish_files():
                sync_file(disk, path)
            segment.indexes_synced = True
    sync_snapshot(disk, directory, segments[-1].base_offset)


def _open_segments(disk: Disk, directory: Path, durable: Durable, clock: Clock) -> list[Segment]:
    bases = segment_offsets(disk, directory)
    while len(bases) > 1 and bases[1] <= durable.log_start:
        # given up by retention: a crash may have kept any of the names
        given_up = bases.pop(0)
        for suffix in (".log", *INDEX_SUFFIXES):
            disk.unlink(directory / segment_name(given_up, suffix))
    if bases:
        return [Segment(disk, directory, base, create=False, created_ms=clock.now_ms()) for base in bases]
    if durable.recovery_point > durable.log_start:
        raise DamagedLogError(
            f"{directory} holds no segment, and its log was durable up to offset {durable.recovery_point}",
            fix="Restore the directory from a copy, or delete the topic",
        )
    segment = Segment(disk, directory, durable.log_start, create=True, created_ms=clock.now_ms())
    segment.create_indexes()
    return [segment]


def _check(segments: list[Segment], durable: Durable, epochs: LeaderEpochs, seen_ms: int) -> _Checked:
    """Load or scan every segment, cutting the list at the first bad byte."""
    finished = _load_finished(segments, durable)
    point = durable.recovery_point
    try:
        epochs.load()
    except ValueError:
        _rebuild_epochs(segments[:finished], epochs)
        point = 0  # the epochs in the checked part are to be found again too
    checked = _Checked(segments[-1].next_offset)
    if finished < len(segments):
        first = segments[finished]
        states = take_checked_point(first, point, seen_ms)
        if states is None:
            first.restart()
        checked = _Checked(first.next_offset, states)
    epochs.cut(min(durable.log_start, checked.end), checked.end)
    for number in range(finished, len(segments)):
        segment = segments[number]
        overlaps = number > 0 and segment.base_offset < segments[number - 1].next_offset
        if overlaps:
            raise _damaged(
                segment, f"begins inside the segment before, which ends at {segments[number - 1].next_offset}"
            )
        contiguous = number == finished or segment.base_offset == segments[number - 1].next_offset
        if contiguous and number > finished:
            segment.restart()
        if contiguous and _scan(segment, durable, epochs):
            continue
        following = segments[number + 1].base_offset if number + 1 < len(segments) else -1
        if contiguous and following == segment.next_offset and _is_room(segment, segment.size):
            segment.truncate(segment.size)  # the segment was finished, and its cut not yet durable
            continue
        _cut(segments, number if contiguous else number - 1, durable)
        break
    return checked


def _load_finished(segments: list[Segment], durable: Durable) -> int:
    """Take over the segments that need no scan: how many they are."""
    count = 1  # segments that lie wholly below the recovery point
    while count < len(segments) and segments[count].base_offset <= durable.recovery_point:
        count += 1
    last = segments[count - 1]
    finished = count - 1
    if durable.clean and count == len(segments) and _ends_at(last, durable.recovery_point):
        finished = count
    for number, segment in enumerate(segments[:finished]):
        try:
            _load(segment)
        except struct.error as error:
            raise _damaged(segment, f"is damaged ({error})") from error
        following = segments[number + 1].base_offset if number + 1 < len(segments) else segment.next_offset
        if segment.next_offset != following:
            raise _damaged(segment, f"ends at offset {segment.next_offset}, the next begins at {following}")
        if following == durable.recovery_point and not durable.clean:
            segment.restart_aborted()  # rolled at the recovery point: it may have grown until then
    return finished


def _is_room(segment: Segment, position: int) -> bool:
    """Whether nothing but zeros follows the batches of a segment (`Segment.make_room`)."""
    size = segment.disk.size(segment.file.fd)
    while position < size:
        chunk = segment.disk.read(segment.file.fd, min(_READ_BYTES, size - position), position)
        if chunk.count(0) != len(chunk):
            return False
        position += len(chunk)
    return True


def _ends_at(segment: Segment, offset: int) -> bool:
    """Whether a segment that was closed cleanly ends at `offset`; says nothing about its batches."""
    try:
        return segment.load_indexes() and segment.next_offset == offset
    except struct.error:
        return False


def _load(segment: Segment) -> None:
    """Take over a finished segment; indexes that are missing or impossible are built anew."""
    try:
        if segment.load_indexes():
            return
    except struct.error:
        pass  # an index that points into the middle of a batch
    _log.warning("rebuilding the indexes of %s", segment.file.path)
    headers: list[BatchHeader] = []
    try:
        for _, header in segment.headers():
            headers.append(header)
    except struct.error:
        end = sum(header.size for header in headers)
        last = headers[-1].size if headers else 0
        if not last or not has_valid_crc(segment.batch_at(end - last, last)) or not _is_room(segment, end):
            raise
        segment.truncate(end)  # it was the newest one: whether all of it is there, the next one tells
    segment.restart()
    segment.create_indexes()  # a start that dies now must not leave entries of both
    for header in headers:
        segment.noted(header, header.base_offset)


def _scan(segment: Segment, durable: Durable, epochs: LeaderEpochs) -> bool:
    """Check every further batch and index it; False when bytes that are no sound batch follow `size`."""
    size = segment.disk.size(segment.file.fd)
    for header, batch in _batches(segment, size):
        offset = header.base_offset
        may_miss = not durable.known or offset < durable.recovery_point  # compaction leaves holes there
        in_place = offset >= segment.next_offset if may_miss else offset == segment.next_offset
        if (
            not in_place
            or not epochs.latest() <= header.leader_epoch <= durable.newest_epoch
            or not 0 <= header.last_offset_delta <= MAX_RELATIVE_OFFSET - (offset - segment.base_offset)
            or not has_valid_crc(batch)
        ):
            break
        segment.noted(header, offset)
        epochs.note(header.leader_epoch, offset)
    return segment.size == size


def _batches(segment: Segment, size: int) -> Iterator[tuple[BatchHeader, memoryview]]:
    """What stands between `segment.size` and the end of the file, as far as it has the form of batches."""
    position, want = segment.size, _READ_BYTES
    while position + HEADER_BYTES <= size:
        chunk = memoryview(segment.disk.read(segment.file.fd, min(want, size - position), position))
        at = 0
        while at + HEADER_BYTES <= len(chunk):
            header = read_header(chunk, at)
            if header.magic != MAGIC or header.size < HEADER_BYTES or position + at + header.size > size:
                return
            if at + header.size > len(chunk):
                break
            yield header, chunk[at : at + header.size]
            at += header.size
        want = _READ_BYTES if at else header.size
        position += at


def _cut(segments: list[Segment], number: int, durable: Durable) -> None:
    """The log ends where segment `number` stops being sound."""
    segment = segments[number]
    end = segment.next_offset
    if end < durable.recovery_point:
        raise _damaged(
            segment,
            f"is damaged at byte {segment.size} (offset {end}), below offset {durable.recovery_point}, "
            "up to which it was durable",
        )
    lost = segment.disk.size(segment.file.fd) - segment.size
    later = segments[number + 1 :]
    if later or not _is_room(segment, segment.size):
        _log.warning(
            "%s: cutting %d bytes that a crash left unfinished at offset %d, and %d later segments",
            segment.file.path, lost, end, len(later),
        )  # fmt: skip
    crash_point("broker.recovery.before_truncate")
    away: list[Path] = []
    for following in reversed(later):  # the last first: a crash in between leaves no hole
        away += following.renamed_away()
    if away:
        drop_files(segment.disk, segment.directory, away)
    del segments[number + 1 :]
    segment.truncate(segment.size)
    crash_point("broker.recovery.after_truncate")


def _rebuild_epochs(segments: list[Segment], epochs: LeaderEpochs) -> None:
    epochs.starts.clear()
    for segment in segments:
        for _, header in segment.headers():
            epochs.note(header.leader_epoch, header.base_offset)


def _replay(
    disk: Disk, directory: Path, segments: list[Segment], checked: _Checked, seen_ms: int
) -> ProducerStates:
    """The producers' state at the end of the log; fills the transaction indexes that were built anew."""
    fresh = [segment.loaded_end for segment in segments if not segment.indexes_synced]
    at, states = load_snapshot(disk, directory, min([checked.end, *fresh]), seen_ms)
    newest = segments[-1].base_offset
    if at > newest:  # of a clean stop; a start after a crash needs the one below the newest segment
        earlier, then = load_snapshot(disk, directory, newest, seen_ms)
        if earlier < newest:
            at, states = earlier, then
    for segment in segments:
        if segment.base_offset == newest > at:
            found, then = load_snapshot(disk, directory, newest, seen_ms)
            if found == newest:  # it knows more than batches that compaction has left
                at, states = found, then
            else:
                write_snapshot(disk, directory, newest, states, durable=False)
        if checked.states is not None and segment.base_offset < checked.end <= segment.next_offset:
            at, states = checked.end, checked.states
        if segment.next_offset > at:
            _replay_segment(segment, at, states, seen_ms)
    return states


def _replay_segment(segment: Segment, at: int, states: ProducerStates, seen_ms: int) -> None:
    for position, header in segment.headers(segment.position_of(max(at, segment.base_offset))):
        if header.producer_id < 0 or header.base_offset < at:
            continue
        if not header.is_control:
            states.note(header, header.base_offset, seen_ms)
            continue
        marker = read_marker(segment.batch_at(position, header.size))
        if marker is None:
            raise _damaged(segment, f"holds an unknown control record at offset {header.base_offset}")
        epoch, commit = marker.coordinator_epoch, marker.commit
        ended = states.note_marker(header, header.base_offset, epoch, commit=commit, seen_ms=seen_ms)
        built_anew = not segment.indexes_synced and header.base_offset >= segment.loaded_end
        if ended is not None and not commit and built_anew:
            segment.aborted.add(AbortedTransaction.of(ended))


def _damaged(segment: Segment, what: str) -> DamagedLogError:
    return DamagedLogError(
        f"segment {segment.file.path} {what}",
        fix=_FIX,
    )
