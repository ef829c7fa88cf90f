"""What a log knows of its producers: sequences for idempotence (KIP-98), open transactions (KIP-890).

A snapshot file `<offset>.snapshot` holds the state before `offset`, in Kafka's form:

    version i16 (1) | crc u32 of all that follows | count i32 | entries of 46 bytes:
    producer id i64, epoch i16, last sequence i32, last offset i64, offset delta i32, timestamp i64,
    coordinator epoch i32, first offset of the open transaction i64 (-1: none)

Kafka keeps one batch per producer there, and forgets older duplicates at a restart.  Here a producer
has one entry for each of its last five batches, oldest first: Kafka's readers let the last one win.
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from crc32c import crc32c

from tailrace.broker.log.errors import LogError
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import MAX_SEQUENCE, BatchHeader

KEPT_BATCHES = 5
MAX_EPOCH = 32767

_PREFIX = struct.Struct(">hI")
_COUNT = struct.Struct(">i")
_ENTRY = struct.Struct(">qhiqiqiq")


class WrittenBatch(NamedTuple):
    """One batch of a producer, as it was acknowledged."""

    first_sequence: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp_ms: int


class EndedTransaction(NamedTuple):
    """A transaction whose marker was just written at `marker_offset`."""

    producer_id: int
    first_offset: int
    marker_offset: int
    last_stable_offset: int
    committed: bool


@dataclass(frozen=True, slots=True)
class ActiveProducer:
    """One row of DescribeProducers; -1 stands for "none"."""

    producer_id: int
    epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    transaction_start_offset: int


@dataclass(slots=True)
class Producer:
    """The state of one producer id in one partition."""

    epoch: int
    coordinator_epoch: int = -1
    other_timestamp: int = -1  # of the last marker or coordinator batch
    transaction_start: int = -1
    seen_ms: int = 0  # monotonic, for expiry
    batches: deque[WrittenBatch] = field(default_factory=lambda: deque(maxlen=KEPT_BATCHES))

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else -1

    @property
    def last_timestamp(self) -> int:
        return self.batches[-1].timestamp_ms if self.batches else self.other_timestamp

    def enter_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches.clear()


class ProducerStates:
    """All producers of one log; `check*` decides, `note*` records what was written."""

    def __init__(self) -> None:
        self.by_id: dict[int, Producer] = {}
        self._open: dict[int, int] = {}  # producer id to first offset, in order of first offset
        self._ended: deque[EndedTransaction] = deque()  # marker written, not yet durable

    def check(self, header: BatchHeader) -> WrittenBatch | None:
        """The batch that this one repeats, or None when it may be appended.  Raises LogError.

        A batch without a sequence (written by a coordinator) only has its epoch checked.
        """
        producer = self.by_id.get(header.producer_id)
        if producer is None:
            return None  # unknown, expired or deleted: any sequence may come next
        if header.producer_epoch < producer.epoch:
            raise LogError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {header.producer_id} sent epoch {header.producer_epoch}, "
                f"the log knows epoch {producer.epoch}",
            )
        if header.base_sequence < 0:
            return None
        same_epoch = header.producer_epoch == producer.epoch
        expected = (producer.last_sequence + 1) & MAX_SEQUENCE if same_epoch else 0
        if header.base_sequence == expected:
            return None
        if same_epoch:
            sequences = (header.base_sequence, header.last_sequence)
            for batch in producer.batches:
                if (batch.first_sequence, batch.last_sequence) == sequences:
                    return batch
        raise LogError(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"producer {header.producer_id} sent sequence {header.base_sequence}, {expected} is next",
        )

    def check_transaction(self, header: BatchHeader, *, verified: bool) -> None:
        """Raise INVALID_TXN_STATE where the batch does not belong to an ongoing transaction (KIP-890)."""
        start = self._open.get(header.producer_id, -1)
        if header.is_transactional:
            if not verified and not self.has_open(header.producer_id, header.producer_epoch):
                raise LogError(
                    ErrorCode.INVALID_TXN_STATE,
                    f"producer {header.producer_id} has no ongoing transaction with this partition",
                )
        elif start >= 0:
            raise LogError(
                ErrorCode.INVALID_TXN_STATE,
                f"producer {header.producer_id} has an open transaction since offset {start} "
                "and sent a batch outside of it",
            )

    def check_marker(self, producer_id: int, epoch: int, coordinator_epoch: int) -> None:
        """Raise LogError for a marker of an older epoch or an older coordinator."""
        producer = self.by_id.get(producer_id)
        if producer is None:
            return
        if epoch < producer.epoch:
            raise LogError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"a marker of epoch {epoch} for producer {producer_id}, which is at {producer.epoch}",
            )
        if coordinator_epoch < producer.coordinator_epoch:
            raise LogError(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"a marker of coordinator epoch {coordinator_epoch} after {producer.coordinator_epoch}",
            )

    def check_bumped_marker(self, producer_id: int, epoch: int) -> None:
        """Raise INVALID_PRODUCER_EPOCH for a marker whose end did not raise the epoch (KIP-890, version 2).

        The same epoch is a retry of the marker as long as no transaction is open (KAFKA-19999).
        """
        producer = self.by_id.get(producer_id)
        if producer is None or epoch > producer.epoch:
            return
        retried = epoch == producer.epoch and (producer.transaction_start < 0 or epoch == MAX_EPOCH)
        if not retried:
            raise LogError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"a marker of epoch {epoch} for producer {producer_id}, which is at {producer.epoch} already",
            )

    def note(self, header: BatchHeader, base_offset: int, seen_ms: int) -> None:
        """A data batch was written at `base_offset`."""
        producer = self.by_id.get(header.producer_id)
        if producer is None:
            producer = self.by_id[header.producer_id] = Producer(header.producer_epoch)
        producer.enter_epoch(header.producer_epoch)
        if header.base_sequence >= 0:
            last_offset = base_offset + header.last_offset_delta
            sequences = (header.base_sequence, header.last_sequence)
            producer.batches.append(
                WrittenBatch(*sequences, last_offset, header.last_offset_delta, header.max_timestamp)
            )
        else:  # a coordinator writes transactional offset commits without sequences
            producer.other_timestamp = header.max_timestamp
        producer.seen_ms = seen_ms
        if header.is_transactional and producer.transaction_start < 0:
            producer.transaction_start = base_offset
            self._open[header.producer_id] = base_offset

    def note_marker(
        self, header: BatchHeader, offset: int, coordinator_epoch: int, *, commit: bool, seen_ms: int
    ) -> EndedTransaction | None:
        """A marker was written at `offset`; the transaction that it ends, if one was open."""
        producer = self.by_id.get(header.producer_id)
        if producer is None:
            producer = self.by_id[header.producer_id] = Producer(header.producer_epoch)
        producer.enter_epoch(header.producer_epoch)
        producer.coordinator_epoch = coordinator_epoch
        producer.other_timestamp = header.max_timestamp
        producer.seen_ms = seen_ms
        start, producer.transaction_start = producer.transaction_start, -1
        if start < 0:
            return None
        del self._open[header.producer_id]
        stable = next(iter(self._open.values()), offset + 1)
        ended = EndedTransaction(header.producer_id, start, offset, stable, commit)
        self._ended.append(ended)
        return ended

    def has_open(self, producer_id: int, epoch: int) -> bool:
        producer = self.by_id.get(producer_id)
        return producer is not None and producer.epoch == epoch and producer.transaction_start >= 0

    def first_unstable_offset(self, high_watermark: int) -> int:
        """First offset whose transaction is not durably ended; `high_watermark` when all are."""
        if not (self._open or self._ended):
            return high_watermark
        while self._ended and self._ended[0].marker_offset < high_watermark:
            self._ended.popleft()
        first = next(iter(self._open.values()), high_watermark)
        for ended in self._ended:
            first = min(first, ended.first_offset)
        return min(first, high_watermark)

    def active(self) -> list[ActiveProducer]:
        """All producers, for DescribeProducers."""
        return [
            ActiveProducer(
                producer_id,
                producer.epoch,
                producer.last_sequence,
                producer.last_timestamp,
                producer.coordinator_epoch,
                producer.transaction_start,
            )
            for producer_id, producer in self.by_id.items()
        ]

    def expire(self, now_ms: int, idle_ms: int) -> None:
        """Forget producers without an open transaction that wrote nothing for `idle_ms` (monotonic)."""
        for producer_id in [
            producer_id
            for producer_id, producer in self.by_id.items()
            if producer.transaction_start < 0 and now_ms - producer.seen_ms > idle_ms
        ]:
            del self.by_id[producer_id]

    def to_snapshot(self) -> bytes:
        """The content of a snapshot file."""
        entries = [_ENTRY.pack(*row) for row in self._rows()]
        body = _COUNT.pack(len(entries)) + b"".join(entries)
        return _PREFIX.pack(1, crc32c(body)) + body

    @classmethod
    def from_snapshot(cls, content: bytes, seen_ms: int) -> "ProducerStates":
        """The state of a snapshot file.  Raises ValueError when it is damaged."""
        if len(content) < _PREFIX.size + _COUNT.size:
            raise ValueError("a producer snapshot is too short")
        version, crc = _PREFIX.unpack_from(content)
        body = memoryview(content)[_PREFIX.size :]
        (count,) = _COUNT.unpack_from(body)
        if version != 1 or crc32c(body) != crc or len(body) != _COUNT.size + count * _ENTRY.size:
            raise ValueError("a producer snapshot is damaged")
        states = cls()
        starts: list[tuple[int, int]] = []
        for row in _ENTRY.iter_unpack(body[_COUNT.size :]):
            producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator_epoch, start = row
            producer = states.by_id.get(producer_id)
            if producer is None:
                producer = states.by_id[producer_id] = Producer(epoch, seen_ms=seen_ms)
                if start >= 0:
                    starts.append((start, producer_id))
            producer.coordinator_epoch, producer.transaction_start = coordinator_epoch, start
            if last_offset < 0:
                producer.other_timestamp = timestamp
            else:
                first = (last_sequence - delta) & MAX_SEQUENCE
                producer.batches.append(WrittenBatch(first, last_sequence, last_offset, delta, timestamp))
        states._open = {producer_id: start for start, producer_id in sorted(starts)}
        return states

    def _rows(self) -> Iterator[tuple[int, ...]]:
        for producer_id, producer in self.by_id.items():
            tail = (producer.coordinator_epoch, producer.transaction_start)
            if not producer.batches:
                yield producer_id, producer.epoch, -1, -1, 0, producer.last_timestamp, *tail
            for batch in producer.batches:
                rest = (batch.last_sequence, batch.last_offset, batch.offset_delta, batch.timestamp_ms)
                yield producer_id, producer.epoch, *rest, *tail
