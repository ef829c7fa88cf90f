"""What was done to the logs, and so what any later state of the disk must still tell."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

from tests.unit.broker.log.model import Event, Model

from tailrace.broker.log import PartitionSpec, TopicConfig

Key = tuple[UUID, int]  # topic id, partition


class TopicRow(NamedTuple):
    """A topic as the broker's metadata database has it; `created`: partitions whose folders are there."""

    name: str
    topic_id: UUID
    partitions: int
    created: int
    config: TopicConfig


@dataclass(frozen=True)
class Catalog:
    """The metadata database: each change of it is atomic and durable."""

    topics: tuple[TopicRow, ...] = ()
    deleted: tuple[TopicRow, ...] = ()

    def specs(self) -> list[PartitionSpec]:
        return [
            PartitionSpec(row.name, partition, row.topic_id, row.config, partition < row.created)
            for row in self.topics
            for partition in range(row.partitions)
        ]

    def with_topic(self, row: TopicRow) -> "Catalog":
        others = tuple(topic for topic in self.topics if topic.topic_id != row.topic_id)
        return replace(self, topics=(*others, row))


@dataclass
class LogHistory:
    """One partition: everything that was sent to it, what was acknowledged, where it may begin."""

    events: list[Event] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)  # of the same, as they stand in the log
    acked: int = 0
    deleted_to: int = 0  # acknowledged DeleteRecords
    may_start: int = 0
    cuts: int = 0
    _models: dict[int, Model] = field(default_factory=dict)

    def append(self, event: Event, batch: bytes) -> None:
        self.events.append(event)
        self.batches.append(batch)

    def cut(self, end: int) -> None:
        """A recovery ended the log there: what follows was never acknowledged, and other batches come."""
        count = self.count_to(end)
        self.cuts += 1
        del self.events[count:], self.batches[count:]
        self._models.clear()

    def told(self) -> tuple[int, ...]:
        """Changes whenever something else must be true."""
        return self.cuts, len(self.events), self.acked, self.deleted_to, self.may_start

    def count_to(self, end: int) -> int:
        """How many batches lie below `end`."""
        return bisect_left(self.events, end, key=lambda event: event.base)

    def content(self, start: int, end: int) -> bytes:
        """The batches with records in [start, end)."""
        first = bisect_left(self.events, start, key=lambda event: event.last)
        return b"".join(self.batches[first : self.count_to(end)])

    def model(self, end: int) -> Model:
        """What a log that ends there knows."""
        if end not in self._models:
            self._models[end] = Model(self.events[: self.count_to(end)])
        return self._models[end]


@dataclass
class Expectation:
    """What must be true of the disk after some steps of the trace."""

    catalog: Catalog = field(default_factory=Catalog)
    logs: dict[Key, LogHistory] = field(default_factory=dict)

    def log(self, key: Key) -> LogHistory:
        return self.logs.setdefault(key, LogHistory())


class Mark(NamedTuple):
    """Something that holds from a position of the trace on."""

    position: int
    tell: Callable[[Expectation], None]
