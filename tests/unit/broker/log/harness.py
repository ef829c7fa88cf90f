"""A log on a real directory, for tests: batches as producers send them, and clocks that tests move."""

import uuid
from collections.abc import Iterable
from pathlib import Path

from tailrace.broker.log import LogManager, PartitionLog, PartitionSpec, TopicConfig
from tailrace.broker.log.disk import Disk, LocalDisk
from tailrace.broker.log.partition import AppendResult, sync_all
from tailrace.broker.records.batch import iterate_batches
from tailrace.broker.records.record import Record, decode_records, encode_batch

TOPIC_ID = uuid.UUID(int=7)
NOW_MS = 1_790_000_000_000


class ManualClock:
    """A clock that only moves when a test moves it."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_ms(self) -> int:
        return self.at_ms


class Harness:
    """One data directory with the partition orders-0; `crash` and `stop` end it, `start` opens it again."""

    topic_id = TOPIC_ID

    def __init__(
        self, data_dir: Path, config: TopicConfig | None = None, *, disk: Disk | None = None
    ) -> None:
        self.data_dir = data_dir
        self.directory = data_dir / "orders-0"
        self.config = config or TopicConfig()
        self.clock = ManualClock()
        self.disk = disk or LocalDisk()
        self.created = False
        self.start()

    def start(self) -> None:
        self.logs = LogManager(self.data_dir, clock=self.clock, disk=self.disk)
        self.logs.open([PartitionSpec("orders", 0, TOPIC_ID, self.config, self.created)])
        self.created = True

    @property
    def log(self) -> PartitionLog:
        return self.logs.get("orders", 0)

    def stop(self) -> None:
        self.logs.close()

    def crash(self) -> None:
        """The process dies: nothing is written any more, the kernel keeps what was written."""
        for log in self.logs.partitions():
            log.close()
        self.logs._lock.release()

    def restart(self) -> None:
        self.stop()
        self.start()

    def crash_and_start(self) -> None:
        self.crash()
        self.start()

    def append(
        self,
        *values: bytes,
        key: bytes | None = b"k",
        producer: tuple[int, int] = (-1, -1),
        sequence: int = -1,
        transactional: bool = False,
        timestamp_ms: int | None = None,
        verified: bool = True,
    ) -> AppendResult:
        """Append one batch with a record for each value."""
        batch = make_batch(values, key, producer, sequence, transactional, timestamp_ms or self.clock.at_ms)
        return self.log.append(
            batch,
            now_ms=self.clock.at_ms,
            leader_epoch=self.logs.leader_epoch,
            verified_transaction=verified,
        )

    def end(self, producer: tuple[int, int], *, commit: bool, coordinator_epoch: int = 0) -> AppendResult:
        """Append a transaction marker."""
        return self.log.append_marker(
            *producer,
            coordinator_epoch,
            commit=commit,
            now_ms=self.clock.at_ms,
            leader_epoch=self.logs.leader_epoch,
        )

    def sync(self) -> None:
        """Make everything durable, as a round of the Flusher does."""
        sync_all(self.log)

    def values(self) -> list[bytes | None]:
        """The value of every record that may be read, in order."""
        return [record.value for record in self.records()]

    def records(self) -> list[Record]:
        found: list[Record] = []
        offset, end = self.log.log_start_offset, self.log.log_end_offset
        while offset < end:
            views = self.log.read(offset, 1 << 20, upper=end)
            if not views:
                return found
            for view in views:
                for header, whole in iterate_batches(view):
                    offset = header.last_offset + 1
                    if not header.is_control:
                        found += [r for r in decode_records(whole) if r.offset >= self.log.log_start_offset]
        return found

    def files(self, suffix: str) -> list[Path]:
        return sorted(self.directory.glob("*" + suffix))


def make_batch(
    values: Iterable[bytes],
    key: bytes | None = b"k",
    producer: tuple[int, int] = (-1, -1),
    sequence: int = -1,
    transactional: bool = False,
    timestamp_ms: int = NOW_MS,
) -> bytearray:
    """A batch as a producer sends it."""
    return encode_batch(
        [Record(key, value, timestamp_ms) for value in values],
        producer_id=producer[0],
        producer_epoch=producer[1],
        base_sequence=sequence,
        transactional=transactional,
    )
