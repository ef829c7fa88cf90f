"""One partition: an append-only log of record batches, its producers and its transactions."""

import logging
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tailrace.broker.log.clock import Clock
from tailrace.broker.log.config import TopicConfig
from tailrace.broker.log.epochs import LeaderEpochs
from tailrace.broker.log.errors import LogError
from tailrace.broker.log.index import AbortedTransaction
from tailrace.broker.log.producers import ActiveProducer, ProducerStates
from tailrace.broker.log.reading import SegmentReader
from tailrace.broker.log.segment import MAX_RELATIVE_OFFSET, Segment
from tailrace.broker.log.snapshots import write_snapshot
from tailrace.broker.log.sync import SyncRound
from tailrace.broker.log.timestamps import TimestampedOffset, first_at_or_after, with_max_timestamp
from tailrace.broker.log.unread import Unread
from tailrace.broker.log.validation import check_batch, rewritten
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.records.batch import (
    HEADER_BYTES,
    BatchHeader,
    Marker,
    control_batch,
    read_header,
    set_base_offset,
)
from tailrace.changes import crash_point

CRASH_POINTS = (
    "broker.log.before_append",
    "broker.log.after_append",
    "broker.log.before_marker",
    "broker.log.after_marker",
    "broker.log.before_roll",
    "broker.log.roll_segment_created",
    "broker.log.roll_snapshot_written",
    "broker.log.after_roll",
)

_log = logging.getLogger(__name__)


class AppendResult(NamedTuple):
    """Where a batch stands.  `log_append_time_ms` is -1 unless the topic stamps LogAppendTime."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    log_start_offset: int
    duplicate: bool


class PartitionLog:
    """A durable log of record batches v2, kept as the producer sent them.

    All offsets are Kafka's.  Raises LogError; never half-appends: after an error the log is as before.
    Made by LogManager from what recovery found; `segments` is ascending, contiguous and never empty.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        directory: Path,
        config: TopicConfig,
        clock: Clock,
        *,
        segments: list[Segment],
        producers: ProducerStates,
        epochs: LeaderEpochs,
        log_start_offset: int,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.directory = directory
        self.config = config
        self.disk = segments[-1].disk
        self.segments = segments
        self._reader = SegmentReader(segments)  # the same list: exchanges happen in place
        self.states = producers
        self.epochs = epochs
        self._clock = clock
        self._start = log_start_offset
        self._end = segments[-1].next_offset
        self._high_watermark = self._end
        self._durable_end = self._end
        self._directory_fd: int | None = None  # open while names in it are not durable
        self._torn = False
        self._damage_told = self._reads_at_once = False
        self.closed = False
        self._first_end = self._end
        self.bytes_in = self.bytes_out = 0

    def __repr__(self) -> str:
        return f"PartitionLog({self.topic}-{self.partition} [{self._start}, {self._end}))"

    @property
    def log_start_offset(self) -> int:
        """First offset that may be read."""
        return self._start

    @property
    def log_end_offset(self) -> int:
        """Offset that the next record gets."""
        return self._end

    @property
    def high_watermark(self) -> int:
        """End of what consumers may see: what is fsynced (`durability: page_cache`: what is written)."""
        return self._high_watermark

    @property
    def durable_end(self) -> int:
        """End of what is fsynced."""
        return self._durable_end

    @property
    def last_stable_offset(self) -> int:
        """First offset of the oldest transaction whose end is not durable, else the high watermark."""
        return self.states.first_unstable_offset(self._high_watermark)

    @property
    def leader_epoch(self) -> int:
        """The newest epoch written to this log, -1 for none."""
        return self.epochs.latest()

    @property
    def records_in(self) -> int:
        """How many records were appended since the log was opened; `bytes_in`: of how many bytes."""
        return self._end - self._first_end

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def unsynced_bytes(self) -> int:
        """Bytes of the newest segment that are not durable yet."""
        return self.segments[-1].size - self.segments[-1].synced_size

    def append(
        self,
        batch: Buffer,
        *,
        now_ms: int,
        leader_epoch: int,
        verified_transaction: bool = False,
        internal: bool = False,
    ) -> AppendResult:
        """Append exactly one record batch; not durable until the Flusher says so.

        `batch` is not kept: the caller may reuse its memory after the return.  Base offset and leader
        epoch are written, the rest goes to the file as it is (except under LogAppendTime).
        `verified_transaction`: the coordinator knows this partition in the producer's ongoing
        transaction (KIP-890).  `internal`: written by a coordinator of this broker, so the checks for
        clients (sequence, size limit, null keys) do not apply.

        A retry of one of the producer's last five batches answers with the first one's offsets and
        `duplicate`: it still has to be awaited with `wait_durable(.., last_offset + 1)`.

        Raises LogError with CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP,
        UNSUPPORTED_FOR_MESSAGE_FORMAT, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH,
        INVALID_TXN_STATE, KAFKA_STORAGE_ERROR.
        """
        view = memoryview(batch)
        config = self.config
        header = check_batch(view, config, now_ms, internal=internal)
        if header.producer_id >= 0:
            written = self.states.check(header)
            if written is not None:
                stamped = written.timestamp_ms if config.log_append_time else -1
                first = written.last_offset - written.offset_delta
                return AppendResult(first, written.last_offset, stamped, self._start, duplicate=True)
            self.states.check_transaction(header, verified=verified_transaction)
        if config.log_append_time or config.codec is not None:
            header, head, records = rewritten(view, header, config, now_ms)
        else:
            head, records = bytearray(view[:HEADER_BYTES]), view[HEADER_BYTES:]
        crash_point("broker.log.before_append")
        base_offset = self._write(head, records, header, leader_epoch)
        crash_point("broker.log.after_append")
        if header.producer_id >= 0:
            self.states.note(header, base_offset, self._clock.monotonic_ms())
        stamped = now_ms if config.log_append_time else -1
        return AppendResult(base_offset, self._end - 1, stamped, self._start, duplicate=False)

    def append_marker(
        self,
        producer_id: int,
        epoch: int,
        coordinator_epoch: int,
        *,
        commit: bool,
        now_ms: int,
        leader_epoch: int,
    ) -> AppendResult:
        """End the producer's transaction here with a control batch; not durable until the Flusher says so.

        A marker without an open transaction is written too (a repeated EndTxn after a restart).
        Raises LogError: INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED, KAFKA_STORAGE_ERROR.
        """
        self.states.check_marker(producer_id, epoch, coordinator_epoch)
        batch = control_batch(producer_id, epoch, Marker(commit, coordinator_epoch), timestamp_ms=now_ms)
        header = read_header(batch)
        crash_point("broker.log.before_marker")
        offset = self._write(batch[:HEADER_BYTES], memoryview(batch)[HEADER_BYTES:], header, leader_epoch)
        crash_point("broker.log.after_marker")
        seen_ms = self._clock.monotonic_ms()
        ended = self.states.note_marker(header, offset, coordinator_epoch, commit=commit, seen_ms=seen_ms)
        if ended is not None and not commit:
            self.segments[-1].aborted.add(AbortedTransaction.of(ended))
        return AppendResult(offset, offset, -1, self._start, duplicate=False)

    def _write(self, head: bytearray, records: memoryview, header: BatchHeader, leader_epoch: int) -> int:
        """Write one batch at the end of the log and count it; returns its base offset."""
        size = header.size
        self._check_open()
        try:
            if self._torn:
                self.segments[-1].drop_torn_tail()
                self._torn = False
            if self._must_roll(header, size):
                self._roll()
            segment, offset = self.segments[-1], self._end
            set_base_offset(head, offset, leader_epoch)
            self._torn = True
            segment.write([head, records], size)
            self._torn = False
        except OSError as error:
            raise LogError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"cannot append to {self.topic}-{self.partition} in {self.directory}: {error.strerror}",
                fix="Free space on the disk; producers retry by themselves",
            ) from error
        segment.noted(header, offset)
        self.epochs.note(leader_epoch, offset)
        self.bytes_in += size
        self._end = segment.next_offset
        return offset

    def _check_open(self) -> None:
        if self.closed:
            raise LogError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"{self.topic}-{self.partition} is no longer open"
            )

    def _must_roll(self, header: BatchHeader, size: int) -> bool:
        segment, config = self.segments[-1], self.config
        if segment.size == 0:
            return False
        return (
            segment.size + size > config.segment_bytes
            or header.max_timestamp - segment.first_timestamp > config.segment_ms
            or self._clock.now_ms() - segment.created_ms > config.segment_ms
            or segment.offset_index.is_full(config.segment_index_bytes)
            or self._end + header.last_offset_delta - segment.base_offset > MAX_RELATIVE_OFFSET
        )

    def roll(self) -> None:
        """Start a new segment unless the newest is empty.  Raises OSError with the log as before."""
        if self.segments[-1].size:
            self._roll()

    def _roll(self) -> None:
        crash_point("broker.log.before_roll")
        if self._directory_fd is None:  # opened here: once appended, only fsync itself may fail
            self._directory_fd = self.disk.open_directory(self.directory)
        segment = Segment(self.disk, self.directory, self._end, create=True, created_ms=self._clock.now_ms())
        try:
            segment.create_indexes()
            crash_point("broker.log.roll_segment_created")
            write_snapshot(self.disk, self.directory, self._end, self.states, durable=False)
            crash_point("broker.log.roll_snapshot_written")
            self.segments[-1].trim()
        except OSError:
            segment.remove()
            raise
        self.segments[-1].seal()
        self.segments.append(segment)
        crash_point("broker.log.after_roll")

    def read(
        self, offset: int, max_bytes: int, *, upper: int, at_least_one: bool = True
    ) -> list[memoryview | bytes]:
        """Whole batches in order, from the one that contains `offset`, all below `upper` (exclusive).

        Stops at `max_bytes`; with `at_least_one` the first batch comes even when it alone is larger.
        Empty at the end.  Raises LogError: OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR.
        """
        self._check_open()
        if not self._start <= offset <= self._end:
            raise LogError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} of {self.topic}-{self.partition} is not in [{self._start}, {self._end}]",
            )
        if offset >= upper:
            return []
        with self._telling_of_damage(offset):
            return self._reader.read(offset, max_bytes, upper=upper, at_least_one=at_least_one)

    def read_later(self, offset: int, max_bytes: int, *, upper: int) -> Unread | None:
        """What `read` would find, or its beginning, not read yet; None where that is not known, or not worth it."""
        readable = self._start <= offset < min(self._end, upper) and not self.closed
        if not readable or self._reads_at_once:
            return None
        with self._telling_of_damage(offset):
            return self._reader.read_later(offset, max_bytes, upper=upper, damaged=self._read_at_once)

    def _read_at_once(self) -> None:
        """What was to be read later could not be read: from now on that is seen before it is answered."""
        self._reads_at_once = True

    @contextmanager
    def _telling_of_damage(self, offset: int) -> Iterator[None]:
        """What the files cannot tell becomes KAFKA_STORAGE_ERROR; damage is logged once."""
        try:
            yield
        except (OSError, struct.error) as error:
            if isinstance(error, struct.error) and not self._damage_told:
                self._damage_told = True
                _log.error("%r: %s; restore the segment from a copy, or delete the topic", self, error)
            raise LogError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"cannot read {self.topic}-{self.partition} at offset {offset} in {self.directory}: {error}",
            ) from error

    def segment_of(self, offset: int) -> Segment:
        """The segment that holds `offset`, or the first one when it lies before the log."""
        return self._reader.segment_of(offset)

    def aborted_transactions(self, start: int, upper: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records in [start, upper)."""
        return self._reader.aborted_transactions(start, upper)

    def offset_for_timestamp(self, timestamp_ms: int, upper: int) -> TimestampedOffset | None:
        """First record at or after `timestamp_ms` in [log start, `upper`).  Raises KAFKA_STORAGE_ERROR."""
        with self._telling_of_damage(self._start):
            return first_at_or_after(self.segments, timestamp_ms, self._start, upper)

    def max_timestamp(self, upper: int) -> TimestampedOffset | None:
        """The first record with the greatest timestamp in [log start, `upper`) (ListOffsets -3).

        Raises KAFKA_STORAGE_ERROR.
        """
        with self._telling_of_damage(self._start):
            return with_max_timestamp(self.segments, self._start, upper)

    def has_open_transaction(self, producer_id: int, epoch: int) -> bool:
        """Whether a transaction of this producer and epoch has records here and no marker yet."""
        return self.states.has_open(producer_id, epoch)

    def producers(self) -> list[ActiveProducer]:
        """All producers known to this log, for DescribeProducers."""
        return self.states.active()

    def leader_epochs(self) -> Mapping[int, int]:
        """Start offset of every leader epoch in the log."""
        return dict(self.epochs.starts)

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(newest epoch <= `epoch`, its end offset) for OffsetForLeaderEpoch; (-1, -1) when unknown."""
        return self.epochs.end_offset(epoch, self._end)

    def begin_sync(self, *, more_follows: bool = False) -> SyncRound | None:
        """What must be synced for all that is appended so far; None when nothing is.  On the loop.

        A log whose topic was deleted has nothing left to make durable.  `more_follows`: such rounds come one
        after the other, and are worth preparing the file for.
        """
        if self.closed:
            return None
        if more_follows:
            self.segments[-1].make_room()
        segments = [
            (segment, segment.size) for segment in self.segments if segment.size > segment.synced_size
        ]
        if not segments and self._directory_fd is None:
            return None
        directory, self._directory_fd = self._directory_fd, None
        return SyncRound(self.disk, segments, directory, self._end)

    def finish_sync(self, done: SyncRound) -> bool:
        """The round is on disk: move the high watermark.  True when it moved.  On the loop."""
        done.release()
        self._durable_end = max(self._durable_end, done.end_offset)
        return self.expose(done.end_offset)

    def expose(self, end_offset: int) -> bool:
        """Let consumers see what is below `end_offset`; True when the high watermark moved.

        Called for what is not durable only under `durability: page_cache`.
        """
        moved = end_offset > self._high_watermark
        self._high_watermark = max(self._high_watermark, end_offset)
        return moved

    def advance_log_start(self, before: int) -> int:
        """Records below `before` (-1: high watermark) may no longer be read; LogManager makes it durable."""
        before = self._high_watermark if before == -1 else before
        if not 0 <= before <= self._high_watermark:
            raise LogError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"cannot delete records of {self.topic}-{self.partition} before {before}: "
                f"the high watermark is {self._high_watermark}",
            )
        self._start = max(self._start, before)
        return self._start

    @property
    def recovery_point(self) -> int:
        """Everything below it is durable, indexes included: a start after a crash checks from here on."""
        for segment in self.segments[:-1]:
            if not segment.indexes_synced:
                return min(segment.base_offset, self._durable_end)
        return self._durable_end

    def replace_segments(self, first: int, count: int, replacements: list[Segment]) -> list[Segment]:
        """Put `replacements` in the place of `count` segments, which are returned as they are."""
        old, self.segments[first : first + count] = self.segments[first : first + count], replacements
        self._reader.forget_places()
        self._start = max(self._start, self.segments[0].base_offset)
        return old

    def close(self) -> None:
        """Close all files; appends and reads fail from now on (the topic was deleted, or the broker stops)."""
        self.closed = True
        if self._directory_fd is not None:
            self.disk.close(self._directory_fd)
            self._directory_fd = None
        for segment in self.segments:
            segment.close()


def sync_all(log: PartitionLog) -> None:
    """Make everything appended durable, blocking (start and stop only).  Raises OSError."""
    sync = log.begin_sync()
    if sync is not None:
        sync.run()
        log.finish_sync(sync)
