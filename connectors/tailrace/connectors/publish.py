"""Publishing to the log: rows, barriers, notes and the source's position in one producer transaction.

The position record holds the offsets of all raw partitions.  To spare a round trip (and the broker an
fsync) it goes out together with the rows, with the offsets that these must get: this producer is the only
writer of its topics.  Should an answer differ, somebody else wrote there, and the transaction is given up.
"""

import time
from collections.abc import Iterator, Sequence

from tailrace.broker.client import (
    LATEST,
    BrokerError,
    Client,
    NewTopic,
    TopicPartition,
    TransactionalProducer,
)
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.changes import Lsn, TailraceError, Truncate, crash_point
from tailrace.connectors.control_log import (
    ControlLog,
    NoteRecord,
    check_same_topics,
    is_settled,
    read_control_log,
)
from tailrace.connectors.prepare import EncodedBatch, LogNames, PreparedSet
from tailrace.connectors.source import LogState, Note
from tailrace.registry.envelope import SourcePosition, TruncateMark, control_batch

_TRANSACTION_TIMEOUT_MS = 4 * 3600 * 1000
_KAFKA_LONGEST_TIMEOUT_MS = 900_000
_REQUEST_BYTES = 16 << 20
_PEEKS, _PEEK_PAUSE_S = 10, 0.05
# timestamps are those of the source's commits: its clock may be ahead of the broker's by any time
_ANY_CLOCK = {"message.timestamp.after.max.ms": str(2**63 - 1)}
# one row may be large: a record batch holds at least one record
_RAW_CONFIGS = {"cleanup.policy": "compact", "max.message.bytes": str(64 << 20), **_ANY_CLOCK}
_CONTROL_CONFIGS = {"cleanup.policy": "compact", "segment.bytes": "16777216", **_ANY_CLOCK}


_ControlRecord = NoteRecord | TruncateMark | SourcePosition


class LogMovedError(TailraceError):
    """The log's end was not where the last session left it; a new session looks again."""

    retriable = True


class Publisher:
    """The only writer of a pipeline's raw and control topics.  One thread at a time.

    `open` -> `create_topics` -> `publish`*; after an error the publisher is of no more use: make a new one,
    whose `open` reads back what became durable.
    """

    def __init__(self, client: Client, names: LogNames) -> None:
        self._client = client
        self._names = names
        self._control = TopicPartition(names.control_topic, 0)
        self._producer = TransactionalProducer(client, names.transactional_id, _TRANSACTION_TIMEOUT_MS)
        self._log = ControlLog()
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._touched: set[TopicPartition] = set()
        self._notes: list[Note] = []
        self._marks: list[TruncateMark] = []

    @property
    def in_transaction(self) -> bool:
        """Whether pieces of a source transaction wait for their position."""
        return self._producer.in_transaction

    def peek(self) -> LogState | None:
        """Where the log stands, without fencing anybody; None while a transaction on it is still open."""
        for _ in range(_PEEKS):
            if is_settled(self._client, self._names.control_topic):
                return read_control_log(self._client, self._names.control_topic).state
            time.sleep(_PEEK_PAUSE_S)
        return None

    def open(self) -> LogState:
        """Fence an older instance and read back where the log stands.  Creates nothing."""
        try:
            self._producer.init()
        except BrokerError as error:
            if error.error != ErrorCode.INVALID_TRANSACTION_TIMEOUT:
                raise
            self._producer = TransactionalProducer(
                self._client, self._names.transactional_id, _KAFKA_LONGEST_TIMEOUT_MS
            )
            self._producer.init()
        self._log = read_control_log(self._client, self._names.control_topic)
        check_same_topics(self._log, self._names.topics, self._names.control_topic)
        return self._log.state

    def create_topics(self) -> dict[str, int]:
        """Create the topics that are missing; the number of partitions of each raw topic."""
        raw = {**_RAW_CONFIGS, "min.compaction.lag.ms": str(self._names.retention_ms)}
        new = [NewTopic(topic, self._names.partitions, raw) for topic in self._names.topics.values()]
        self._client.create_topics([*new, NewTopic(self._names.control_topic, 1, _CONTROL_CONFIGS)])
        found = self._client.metadata(self._names.topics.values())
        places = [place for topic in found.values() for place in topic.partitions]
        self._next = self._client.list_offsets(places, LATEST)
        durable = {} if self._log.position is None else self._log.position.offsets
        self._ends = {place: durable.get(place.topic, {}).get(place.partition, 0) for place in places}
        return {name: len(topic.leaders) for name, topic in found.items()}

    def record(self, note: Note) -> None:
        """Make a note durable in a producer transaction of its own; RuntimeError while another is open."""
        self._producer.begin()
        self._producer.send(self._control_items([NoteRecord(note)]))
        self._producer.commit()

    def publish(self, sets: Sequence[PreparedSet]) -> Lsn | None:
        """Send the sets; commit up to the last one that has a position, and return that position.

        Returns when what was sent is durable.  Sets behind the last position stay in the transaction that is
        open then.
        """
        last = max((i for i, prepared in enumerate(sets) if prepared.position is not None), default=-1)
        position = sets[last].position if last >= 0 else None
        if position is not None:
            self._commit(sets[: last + 1], position)
        if rest := sets[last + 1 :]:
            self._send(self._items(rest))
        return position

    def abort(self) -> None:
        """Give up what is in the open transaction, so that readers need not wait for its timeout."""
        self._producer.abort()

    def _commit(self, sets: Sequence[PreparedSet], position: Lsn) -> None:
        items = self._items(sets)
        timestamp = max(prepared.timestamp for prepared in sets)
        source_position = SourcePosition(position, timestamp, self._offsets(), self._names.topics)
        records: list[_ControlRecord] = [*map(NoteRecord, self._notes), *self._marks, source_position]
        self._send(items, closing=self._control_items(records))
        crash_point("source.after_produce_before_commit")
        self._producer.commit()
        for place in self._touched:
            self._next[place] += 1  # the marker that ends the transaction takes an offset
        self._touched.clear()
        self._notes.clear()
        self._marks.clear()

    def _items(self, sets: Sequence[PreparedSet]) -> list[tuple[EncodedBatch, int]]:
        """The batches of the sets with the offsets that they must get; notes barriers on the way."""
        items: list[tuple[EncodedBatch, int]] = []
        for prepared in sets:
            for step in prepared.steps:
                if isinstance(step, Truncate):
                    self._marks += self._truncate_marks(step)
                    continue
                items.append((step, self._next[step.place]))
                self._next[step.place] += step.records
                self._ends[step.place] = self._next[step.place]
                self._touched.add(step.place)
            self._notes += prepared.notes
        return items

    def _send(
        self,
        items: Sequence[tuple[EncodedBatch, int]],
        closing: Sequence[tuple[TopicPartition, bytearray]] = (),
    ) -> None:
        if not self._producer.in_transaction:
            self._producer.begin()
        crash_point("source.before_produce")
        portions = list(_portions(items)) or [[]]
        for portion in portions:
            batches = [(batch.place, batch.data) for batch, _ in portion]
            if portion is portions[-1]:
                batches += closing
            if not batches:
                return
            answered = self._producer.send(batches)
            for (batch, expected), offset in zip(portion, answered, strict=False):
                if offset != expected:
                    raise LogMovedError(
                        f"records of {batch.place} begin at offset {offset}, not at {expected}: something else "
                        "writes to this topic",
                        fix="let nothing but this pipeline write to it",
                    )

    def _control_items(self, records: Sequence[_ControlRecord]) -> list[tuple[TopicPartition, bytearray]]:
        batches = control_batch(records, timestamp_ms=time.time_ns() // 1_000_000)
        return [(self._control, data) for data, _ in batches]

    def _truncate_marks(self, truncate: Truncate) -> Iterator[TruncateMark]:
        offsets = self._offsets()
        for table in truncate.tables:
            topic = self._names.topics.get(table)
            if topic is not None:
                yield TruncateMark(
                    table, topic, truncate.lsn, truncate.seq, truncate.timestamp, offsets[topic]
                )

    def _offsets(self) -> dict[str, dict[int, int]]:
        """The next offset of every raw partition."""
        offsets: dict[str, dict[int, int]] = {}
        for place, offset in self._ends.items():
            offsets.setdefault(place.topic, {})[place.partition] = offset
        return offsets


def _portions(items: Sequence[tuple[EncodedBatch, int]]) -> Iterator[list[tuple[EncodedBatch, int]]]:
    """Cut what is to be sent into requests of bounded size, in order."""
    portion: list[tuple[EncodedBatch, int]] = []
    size = 0
    for item in items:
        if portion and size + len(item[0].data) > _REQUEST_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += len(item[0].data)
    if portion:
        yield portion
