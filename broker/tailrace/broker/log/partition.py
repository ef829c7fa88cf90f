"""One partition: an append-only log of record batches, its producers and its transactions."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Where a batch stands.  `log_append_time_ms` is -1 unless the topic stamps LogAppendTime."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    log_start_offset: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class ActiveProducer:
    """One row of DescribeProducers; -1 stands for "none"."""

    producer_id: int
    epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    transaction_start_offset: int


@dataclass(frozen=True, slots=True)
class TimestampedOffset:
    """An answer of ListOffsets."""

    timestamp_ms: int
    offset: int
    leader_epoch: int


class PartitionLog:
    """A durable log of record batches v2, kept as the producer sent them.

    All offsets are Kafka's.  Raises LogError; never half-appends: after an error the log is as before.
    """

    topic: str
    partition: int

    @property
    def log_start_offset(self) -> int:
        """First offset that may be read."""
        raise NotImplementedError

    @property
    def log_end_offset(self) -> int:
        """Offset that the next record gets."""
        raise NotImplementedError

    @property
    def high_watermark(self) -> int:
        """End of what is fsynced; consumers never see beyond."""
        raise NotImplementedError

    @property
    def last_stable_offset(self) -> int:
        """First offset of the oldest transaction whose end is not durable, else the high watermark."""
        raise NotImplementedError

    @property
    def leader_epoch(self) -> int:
        """The newest epoch written to this log, -1 for none."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        raise NotImplementedError

    def append(
        self,
        batch: memoryview | bytes,
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
        clients (size limit, null keys) do not apply.

        A retry of one of the producer's last five batches answers with the first one's offsets and
        `duplicate`: it still has to be awaited with `wait_durable(.., last_offset + 1)`.

        Raises LogError with CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP,
        OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, KAFKA_STORAGE_ERROR.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    def read(
        self, offset: int, max_bytes: int, *, upper: int, at_least_one: bool = True
    ) -> list[memoryview | bytes]:
        """Whole batches in order, from the one that contains `offset`, all below `upper` (exclusive).

        Stops at `max_bytes`; with `at_least_one` the first batch comes even when it alone is larger.
        Empty at the end.  Raises LogError: OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR.
        """
        raise NotImplementedError

    def aborted_transactions(self, start: int, upper: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records in [start, upper)."""
        raise NotImplementedError

    def offset_for_timestamp(self, timestamp_ms: int, upper: int) -> TimestampedOffset | None:
        """First record at or after `timestamp_ms` below `upper`."""
        raise NotImplementedError

    def max_timestamp(self, upper: int) -> TimestampedOffset | None:
        """The record with the greatest timestamp below `upper` (ListOffsets -3)."""
        raise NotImplementedError

    def has_open_transaction(self, producer_id: int, epoch: int) -> bool:
        """Whether a transaction of this producer and epoch has records here and no marker yet."""
        raise NotImplementedError

    def producers(self) -> list[ActiveProducer]:
        """All producers known to this log, for DescribeProducers."""
        raise NotImplementedError

    def leader_epochs(self) -> Mapping[int, int]:
        """Start offset of every leader epoch in the log."""
        raise NotImplementedError

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(newest epoch <= `epoch`, its end offset) for OffsetForLeaderEpoch; (-1, -1) when unknown."""
        raise NotImplementedError
