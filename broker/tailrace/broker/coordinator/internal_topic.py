"""A compacted topic that a coordinator of this broker writes: appended, awaited, replayed at start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tailrace.broker.log import Clock, Flusher, LogManager, PartitionLog
from tailrace.broker.records.batch import BatchHeader, iterate_batches, read_marker
from tailrace.broker.records.record import Record, decode_records, encode_batch
from tailrace.broker.topics import Topics

CONSUMER_OFFSETS = "__consumer_offsets"
TRANSACTION_STATE = "__transaction_state"

_READ_BYTES = 1 << 20

KeyValue = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was appended: durable once `log` is durable up to `end_offset`."""

    log: PartitionLog
    base_offset: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class ReplayedBatch:
    """One batch of the log; `committed` says how a marker ended its transaction, None: not a marker."""

    partition: int
    header: BatchHeader
    records: list[Record]
    committed: bool | None


class InternalTopic:
    """One internal topic; created with `partitions` partitions if it does not exist yet.

    All methods belong to the event loop's thread.
    """

    def __init__(
        self, name: str, partitions: int, *, topics: Topics, logs: LogManager, flusher: Flusher, clock: Clock
    ) -> None:
        found = topics.find(name)
        if found is None:
            configs = {"cleanup.policy": "compact", "segment.bytes": str(100 << 20)}
            found = topics.create(name, partitions, configs, internal=True)
        self.name = name
        self.partitions = found.partitions
        self._topics = topics
        self._logs = logs
        self._flusher = flusher
        self._clock = clock

    def partition_of(self, key: str) -> int:
        """The partition of a group or transactional id, as Kafka's coordinators choose it."""
        return (java_hash(key) & 0x7FFF_FFFF) % self.partitions

    def append(
        self, partition: int, records: Sequence[KeyValue], *, producer_id: int = -1, epoch: int = -1
    ) -> Receipt:
        """Append one batch, transactional when a producer is named.  Raises LogError."""
        now_ms = self._clock.now_ms()
        log = self._topics.log(self.name, partition)
        batch = encode_batch(
            [Record(key, value, now_ms) for key, value in records],
            producer_id=producer_id,
            producer_epoch=epoch,
            transactional=producer_id >= 0,
        )
        result = log.append(
            memoryview(batch),
            now_ms=now_ms,
            leader_epoch=self._logs.leader_epoch,
            verified_transaction=producer_id >= 0,
            internal=True,
        )
        return Receipt(log, result.base_offset, result.last_offset + 1)

    def flush_soon(self, receipt: Receipt) -> None:
        """Make it durable without anybody waiting."""
        self._flusher.request([receipt.log])

    async def durable(self, receipt: Receipt) -> None:
        """Return when it is durable.  Raises StorageFailure."""
        await self._flusher.wait_durable([(receipt.log, receipt.end_offset)])

    def replay(self) -> Iterator[ReplayedBatch]:
        """Every batch of every partition, in offset order within a partition."""
        for partition in range(self.partitions):
            log = self._topics.log(self.name, partition)
            offset = log.log_start_offset
            while parts := log.read(offset, _READ_BYTES, upper=log.log_end_offset):
                for part in parts:
                    for header, batch in iterate_batches(part):
                        offset = header.last_offset + 1
                        if not header.is_control:
                            yield ReplayedBatch(partition, header, decode_records(batch), None)
                        elif (marker := read_marker(batch)) is not None:
                            yield ReplayedBatch(partition, header, [], marker.commit)


def java_hash(text: str) -> int:
    """`String.hashCode` of Java, over UTF-16 code units, as an unsigned 32-bit number."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for at in range(0, len(units), 2):
        value = (31 * value + (units[at] << 8) + units[at + 1]) & 0xFFFF_FFFF
    return value
