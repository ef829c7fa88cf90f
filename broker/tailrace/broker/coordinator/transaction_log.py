"""Transitions on `__transaction_state`, and the markers that end a transaction in its partitions."""

from collections.abc import Callable, Iterable

from tailrace.broker.coordinator.internal_topic import CONSUMER_OFFSETS, InternalTopic, Receipt
from tailrace.broker.coordinator.schemas import TxnMetadata, encode_txn_key
from tailrace.broker.coordinator.transaction import EPOCH_BUMP_VERSION, Partition
from tailrace.broker.coordinator.transactions import CoordinatorLogError
from tailrace.broker.log import Clock, Flusher, LogError, LogManager, PartitionLog
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.records.batch import Marker
from tailrace.broker.topics import Topics
from tailrace.changes import crash_point

# (partition of __consumer_offsets, producer id, commit): the offsets of a transaction have been decided
OnOffsetsEnd = Callable[[int, int, bool], None]


class StateLog:
    """The `TransactionLog` of a running broker.

    From `transaction.version` 1 on values are of the form that keeps what KIP-890 adds; what a higher level has
    left keeps it also after the level went down.
    """

    def __init__(self, topic: InternalTopic, version: Callable[[], int]) -> None:
        self._topic = topic
        self._version = version

    async def write(self, transactional_id: str, value: TxnMetadata) -> None:
        """Append one value at once, return when it is durable.  Raises CoordinatorLogError."""
        await self._topic.durable(self._append(transactional_id, value))
        crash_point("broker.after_transaction_state")

    def write_soon(self, transactional_id: str, value: TxnMetadata | None) -> None:
        """Append one value that nobody waits for.  Raises CoordinatorLogError."""
        self._topic.flush_soon(self._append(transactional_id, value))

    def _append(self, transactional_id: str, value: TxnMetadata | None) -> Receipt:
        encoded = None
        if value is not None:
            encoded = value.encode(1 if self._version() or value.needs_version_1 else 0)
        crash_point("broker.before_transaction_state")
        try:
            return self._topic.append(
                self._topic.partition_of(transactional_id), [(encode_txn_key(transactional_id), encoded)]
            )
        except LogError as error:
            raise CoordinatorLogError(str(error)) from error


class ProducerIdBlocks:
    """The `ProducerIds` of a running broker: from the catalog's reserved blocks."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def __call__(self) -> int:
        """An id that was never given out.  Raises CoordinatorLogError."""
        try:
            return self._topics.allocate_producer_id()
        except LogError as error:
            raise CoordinatorLogError(str(error)) from error


class Markers:
    """The `MarkerWriter` of a running broker."""

    def __init__(
        self,
        *,
        topics: Topics,
        logs: LogManager,
        flusher: Flusher,
        clock: Clock,
        on_offsets_end: OnOffsetsEnd,
    ) -> None:
        self._topics = topics
        self._logs = logs
        self._flusher = flusher
        self._clock = clock
        self._on_offsets_end = on_offsets_end

    async def write(
        self, partitions: Iterable[Partition], producer_id: int, epoch: int, *, commit: bool, version: int = 0
    ) -> frozenset[Partition]:
        """Write a marker to every partition and make them durable together; returns those that failed."""
        marker = Marker(commit, self._logs.leader_epoch)
        errors = await self.append(partitions, producer_id, epoch, marker, version)
        # a deleted topic needs no marker; a newer epoch in the log has ended this transaction there
        return frozenset(p for p, error in errors.items() if error is ErrorCode.KAFKA_STORAGE_ERROR)

    async def append(
        self, partitions: Iterable[Partition], producer_id: int, epoch: int, marker: Marker, version: int
    ) -> dict[Partition, ErrorCode]:
        """Append one marker to every partition; what came of each, when all that was written is durable."""
        crash_point("broker.before_markers")
        errors: dict[Partition, ErrorCode] = {}
        written: list[tuple[Partition, PartitionLog, int]] = []
        for topic, partition in partitions:
            try:
                log = self._topics.log(topic, partition)
                if version >= EPOCH_BUMP_VERSION:
                    log.states.check_bumped_marker(producer_id, epoch)
                result = log.append_marker(
                    producer_id,
                    epoch,
                    marker.coordinator_epoch,
                    commit=marker.commit,
                    now_ms=self._clock.now_ms(),
                    leader_epoch=self._logs.leader_epoch,
                )
            except LogError as error:
                errors[topic, partition] = error.code
                continue
            errors[topic, partition] = ErrorCode.NONE
            written.append(((topic, partition), log, result.last_offset + 1))
            crash_point("broker.between_markers")
        await self._flusher.wait_durable([(log, end) for _, log, end in written])
        for (topic, partition), _, _ in written:
            if topic == CONSUMER_OFFSETS:
                self._on_offsets_end(partition, producer_id, marker.commit)
        crash_point("broker.after_markers")
        return errors
