"""The logs of a broker on a disk in memory: does things to them, and notes what a power cut may not undo."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.crash.states.history import Catalog, Expectation, Key, LogHistory, Mark, TopicRow
from tests.crash.states.log_state import LogState, difference, last_of, state_of
from tests.crash.states.memory_disk import Flat, MemoryDisk, Tree
from tests.unit.broker.log.harness import NOW_MS, ManualClock
from tests.unit.broker.log.model import Event

from tailrace.broker.log import LogManager, PartitionLog, TopicConfig
from tailrace.broker.log.sync import SyncRound
from tailrace.broker.records.record import Record, encode_batch

DATA_DIR = Path("/data")
NOBODY = (-1, -1)
Keyed = tuple[bytes | None, bytes | None]


def open_logs(disk: MemoryDisk, catalog: Catalog, clock: ManualClock) -> LogManager:
    """Start on a disk, as the broker's catalog does: deletions are finished first."""
    logs = LogManager(DATA_DIR, clock=clock, disk=disk)
    for row in catalog.deleted:
        logs.delete(row.name, range(row.partitions), row.topic_id)
    logs.open(catalog.specs())
    return logs


class Recorder:
    """One data directory from its first start on; every method leaves marks in the trace."""

    def __init__(self, start: Flat = (), expected: Expectation | None = None) -> None:
        self.disk = MemoryDisk.of(start)
        self.start = Tree(
            {number: dict(entries) for number, entries in self.disk.folders.items()},
            {number: bytes(content) for number, content in self.disk.files.items()},
        )
        self.expected_at_start = expected or Expectation()
        self.marks: list[Mark] = []
        self.clock = ManualClock(NOW_MS)
        self.catalog = self.expected_at_start.catalog
        self._sequences: dict[tuple[Key, int], int] = {}
        self._acks: dict[Key, int] = {}
        self.open()

    # -- starts and stops --------------------------------------------------------------------------

    def open(self) -> None:
        self.logs = open_logs(self.disk, self.catalog, self.clock)
        assert not self.logs.offline(), self.logs.offline()
        self.catalog = Catalog(tuple(row._replace(created=row.partitions) for row in self.catalog.topics))
        self._note_catalog()
        for row in self.catalog.topics:
            for partition in range(row.partitions):
                self._note_reopened(row, partition)

    def _note_reopened(self, row: TopicRow, partition: int) -> None:
        log, key = self.logs.get(row.name, partition), (row.topic_id, partition)
        end, start = log.log_end_offset, log.log_start_offset
        for producer_id, producer in log.states.by_id.items():
            self._sequences[key, producer_id] = producer.last_sequence + 1

        def tell(expected: Expectation) -> None:
            history = expected.log(key)
            history.cut(end)
            history.acked = end  # a consumer sees it from now on
            history.may_start = max(history.may_start, start)

        self._mark(tell)

    def stop(self) -> None:
        for log in self.logs.partitions():
            self._may_be_acked(log)
        live = self._states()
        self.logs.close()
        self.open()
        self._compare(live)

    def kill(self) -> None:
        """The process dies; the machine goes on."""
        live = self._states()
        for log in self.logs.partitions():
            log.close()
        self.open()
        self._compare(live)

    def _states(self) -> dict[tuple[str, int], LogState]:
        return {(log.topic, log.partition): state_of(log) for log in self.logs.partitions()}

    def _compare(self, live: dict[tuple[str, int], LogState]) -> None:
        """What a start has replayed is what was known before; what was not durable is visible now."""
        for log in self.logs.partitions():
            before, now = live[log.topic, log.partition], state_of(log)
            before = before._replace(stable=now.stable)
            if log.config.compact:
                before = before._replace(producers=tuple(map(last_of, before.producers)))
                now = now._replace(producers=tuple(map(last_of, now.producers)))
            assert now == before, f"{log} after a start: {difference(now, before)}"

    # -- topics ------------------------------------------------------------------------------------

    def create(self, name: str, config: TopicConfig, partitions: int = 1) -> None:
        row = TopicRow(name, uuid.UUID(int=len(self.disk.trace) + 1), partitions, 0, config)
        self._create(row, range(partitions))

    def add_partitions(self, name: str, total: int) -> None:
        row = self._row(name)
        self._create(row._replace(partitions=total), range(row.partitions, total))

    def _create(self, row: TopicRow, partitions: range) -> None:
        self.catalog = self.catalog.with_topic(row)
        self._note_catalog()
        self.logs.create(
            [
                spec
                for spec in self.catalog.specs()
                if spec.topic_id == row.topic_id and spec.partition in partitions
            ]
        )
        self.catalog = self.catalog.with_topic(row._replace(created=row.partitions))
        self._note_catalog()

    def delete(self, name: str) -> None:
        row = self._row(name)
        rest = tuple(topic for topic in self.catalog.topics if topic.name != name)
        self.catalog = Catalog(rest, (row,))
        self._note_catalog()
        self.logs.delete(name, range(row.partitions), row.topic_id)
        self.catalog = Catalog(rest)
        self._note_catalog()

    # -- records -----------------------------------------------------------------------------------

    def append(
        self,
        topic: str,
        records: Sequence[Keyed],
        *,
        partition: int = 0,
        producer: tuple[int, int] = NOBODY,
        transactional: bool = False,
        internal: bool = False,
    ) -> None:
        log, key = self._log(topic, partition)
        sequence = -1 if producer == NOBODY or internal else self._sequences.get((key, producer[0]), 0)
        batch = encode_batch(
            [Record(k, v, self.clock.at_ms) for k, v in records],
            producer_id=producer[0],
            producer_epoch=producer[1],
            base_sequence=sequence,
            transactional=transactional,
        )
        before, epoch = len(self.disk.trace), self.logs.leader_epoch
        result = log.append(
            batch,
            now_ms=self.clock.at_ms,
            leader_epoch=epoch,
            verified_transaction=transactional,
            internal=internal,
        )
        if sequence >= 0:
            self._sequences[key, producer[0]] = sequence + len(records)
        values = tuple(b"" if v is None else v for _, v in records)
        event = Event(
            result.base_offset, result.last_offset, epoch, producer, sequence, transactional, values
        )
        self._note_append(log, key, event, before)

    def end(self, topic: str, producer: tuple[int, int], *, commit: bool, partition: int = 0) -> None:
        log, key = self._log(topic, partition)
        before, epoch = len(self.disk.trace), self.logs.leader_epoch
        result = log.append_marker(*producer, 0, commit=commit, now_ms=self.clock.at_ms, leader_epoch=epoch)
        at = result.base_offset
        self._note_append(log, key, Event(at, at, epoch, producer, -1, False, (), commit), before)

    def _note_append(self, log: PartitionLog, key: Key, event: Event, before: int) -> None:
        segment = log.segments[-1]
        position = segment.position_of(event.base)
        batch = segment.batch_at(position, segment.size - position)

        def tell(expected: Expectation) -> None:
            expected.log(key).append(event, batch)

        self._mark(tell, before)

    def begin_sync(self, topic: str, partition: int = 0) -> SyncRound | None:
        return self._log(topic, partition)[0].begin_sync(more_follows=True)

    def finish_sync(self, topic: str, sync: SyncRound | None, partition: int = 0) -> None:
        """The round is done: everything up to its end is acknowledged."""
        log, key = self._log(topic, partition)
        if sync is not None:
            log.finish_sync(sync)
        self._note_acked(key, log.high_watermark)

    def sync(self, topic: str, partition: int = 0) -> None:
        """One round of the Flusher."""
        sync = self.begin_sync(topic, partition)
        if sync is not None:
            sync.run()
        self.finish_sync(topic, sync, partition)

    def _may_be_acked(self, log: PartitionLog) -> None:
        sync = log.begin_sync()
        if sync is not None:
            sync.run()
            log.finish_sync(sync)

    def _note_acked(self, key: Key, end: int) -> None:
        def tell(expected: Expectation) -> None:
            expected.log(key).acked = max(expected.log(key).acked, end)

        self._mark(tell)

    def delete_records(self, topic: str, before: int, partition: int = 0) -> None:
        _, key = self._log(topic, partition)
        self._note_may_start(key, before, len(self.disk.trace))
        start = self.logs.delete_records(topic, partition, before)

        def tell(expected: Expectation) -> None:
            expected.log(key).deleted_to = max(expected.log(key).deleted_to, start)

        self._mark(tell)

    def end_of(self, topic: str) -> int:
        return self._log(topic, 0)[0].log_end_offset

    # -- maintenance -------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        asyncio.run(self.logs.checkpoint())

    def maintain(self, *, later_ms: int = 1000) -> None:
        self.clock.at_ms += later_ms
        before = len(self.disk.trace)
        asyncio.run(self.logs.maintain())
        for row in self.catalog.topics:
            for partition in range(row.partitions):
                log, key = self._log(row.name, partition)
                self._note_may_start(key, log.log_start_offset, before)

    def compact(self, topic: str) -> bool:
        log, _ = self._log(topic, 0)

        async def compact() -> bool:
            await self.logs.checkpoint()
            return await self.logs.compact(log)

        return asyncio.run(compact())

    def _note_may_start(self, key: Key, start: int, position: int) -> None:
        def tell(expected: Expectation) -> None:
            expected.log(key).may_start = max(expected.log(key).may_start, start)

        self._mark(tell, position)

    # -- marks -------------------------------------------------------------------------------------

    def _mark(self, tell: Callable[[Expectation], None], position: int | None = None) -> None:
        self.marks.append(Mark(len(self.disk.trace) if position is None else position, tell))

    def _note_catalog(self) -> None:
        catalog = self.catalog

        def tell(expected: Expectation) -> None:
            expected.catalog = catalog

        self._mark(tell)

    def _row(self, name: str) -> TopicRow:
        return next(row for row in self.catalog.topics if row.name == name)

    def _log(self, topic: str, partition: int) -> tuple[PartitionLog, Key]:
        return self.logs.get(topic, partition), (self._row(topic).topic_id, partition)


def copy_of(expected: Expectation) -> Expectation:
    """An expectation that later marks do not change."""
    logs = {
        key: LogHistory(list(h.events), list(h.batches), h.acked, h.deleted_to, h.may_start)
        for key, h in expected.logs.items()
    }
    return Expectation(expected.catalog, logs)
