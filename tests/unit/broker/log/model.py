"""What a log must know, told a second time: a fold over the history of what was appended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_SEQUENCE = 0x7FFF_FFFF


class Event(NamedTuple):
    """A batch or (`commit` is not None) a marker."""

    base: int
    last: int
    leader_epoch: int
    producer: tuple[int, int]
    sequence: int
    transactional: bool
    values: tuple[bytes, ...]
    commit: bool | None = None


@dataclass
class ModelProducer:
    epoch: int
    batches: list[tuple[int, int, int, int]] = field(default_factory=list)  # sequences and offsets
    open_since: int | None = None

    @property
    def next_sequence(self) -> int:
        return (self.batches[-1][1] + 1) % (MAX_SEQUENCE + 1) if self.batches else 0


class EndedTransaction(NamedTuple):
    producer_id: int
    first: int
    marker: int
    commit: bool


class Model:
    """The state after `events`."""

    def __init__(self, events: Sequence[Event] = ()) -> None:
        self.events: list[Event] = []
        self.producers: dict[int, ModelProducer] = {}
        self.ended: list[EndedTransaction] = []
        for event in events:
            self.add(event)

    @property
    def end(self) -> int:
        return self.events[-1].last + 1 if self.events else 0

    def cut(self, end: int) -> "Model":
        return Model([event for event in self.events if event.last < end])

    def add(self, event: Event) -> None:
        self.events.append(event)
        producer_id, epoch = event.producer
        if producer_id < 0:
            return
        producer = self.producers.setdefault(producer_id, ModelProducer(epoch))
        if epoch != producer.epoch:
            producer.epoch, producer.batches = epoch, []
        if event.commit is None:
            if event.sequence >= 0:  # a coordinator writes without sequences
                last_sequence = (event.sequence + len(event.values) - 1) % (MAX_SEQUENCE + 1)
                producer.batches = [
                    *producer.batches[-4:],
                    (event.sequence, last_sequence, event.base, event.last),
                ]
            if event.transactional and producer.open_since is None:
                producer.open_since = event.base
        elif producer.open_since is not None:
            ended = EndedTransaction(producer_id, producer.open_since, event.base, event.commit)
            self.ended.append(ended)
            producer.open_since = None

    def last_stable_offset(self, high_watermark: int) -> int:
        unstable = [p.open_since for p in self.producers.values() if p.open_since is not None]
        unstable += [ended.first for ended in self.ended if ended.marker >= high_watermark]
        return min([*unstable, high_watermark])

    def committed(self, start: int, upper: int) -> list[tuple[int, bytes]]:
        """(offset, value) that a read_committed consumer sees in [start, upper)."""
        seen = []
        for event in self.events:
            if event.commit is not None or event.base >= upper:
                continue
            if event.transactional:
                end = next(
                    e for e in self.ended if e.producer_id == event.producer[0] and e.marker > event.base
                )
                if not end.commit:
                    continue
            seen += [
                (event.base + number, value)
                for number, value in enumerate(event.values)
                if start <= event.base + number < upper
            ]
        return seen

    def epoch_ends(self, start: int) -> dict[int, int]:
        """Where each leader epoch that has records at or after `start` ends."""
        ends: dict[int, int] = {}
        for event in self.events:
            if event.last >= start:
                ends[event.leader_epoch] = event.last + 1
        return ends
