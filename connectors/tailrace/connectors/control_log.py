"""Reading a pipeline's control topic back at the start: the durable position, its offsets, the source's notes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tailrace.broker.client import EARLIEST, Client, Fetcher, TopicPartition
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.changes import TailraceError
from tailrace.connectors.source import LogState, Note
from tailrace.registry.envelope import SourcePosition, TruncateMark, parse_control


@dataclass(frozen=True, slots=True)
class NoteRecord:
    """A source's note as a control record: the note's key is the record's key and its type."""

    note: Note

    def to_record(self) -> tuple[bytes, bytes]:
        """Key and value."""
        value = {"type": self.note.key, **self.note.value}
        return self.note.key.encode(), json.dumps(value, separators=(",", ":")).encode()


@dataclass(slots=True)
class ControlLog:
    """What the committed records of the control topic say, newest per key."""

    position: SourcePosition | None = None
    notes: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def state(self) -> LogState:
        """What a source needs of it."""
        return LogState(None if self.position is None else self.position.lsn, dict(self.notes))

    def _apply(self, key: bytes | None, value: bytes | None, where: str) -> None:
        mark = parse_control(value, where=where)
        if isinstance(mark, SourcePosition):
            self.position = mark
        elif not isinstance(mark, TruncateMark) and key is not None and value is not None:
            document = json.loads(value)
            if isinstance(document, dict):
                self.notes[key.decode()] = {name: item for name, item in document.items() if name != "type"}


def is_settled(client: Client, topic: str) -> bool:
    """Whether no transaction is open on the control topic, so that what it says now is the last word."""
    if topic not in client.metadata([topic]):
        return True
    place = [TopicPartition(topic, 0)]
    stable = client.list_offsets(place, isolation="read_committed")
    return stable == client.list_offsets(place, isolation="read_uncommitted")


def read_control_log(client: Client, topic: str) -> ControlLog:
    """Read the whole topic, committed records only; an absent topic is an empty log.

    Raises TailraceError when something else writes there.
    """
    log = ControlLog()
    if topic not in client.metadata([topic]):
        return log
    place = TopicPartition(topic, 0)
    end = client.list_offsets([place], isolation="read_committed")[place]
    fetcher = Fetcher(client, client.list_offsets([place], EARLIEST))
    while fetcher.positions[place] < end:
        for fetched in fetcher.poll():
            records = parse_batches(fetched.batches, where=f"topic {topic}")
            for index in range(len(records)):
                where = f"topic {topic}, offset {records.offset[index]}"
                log._apply(records.key(index), records.value(index), where)
    return log


def check_same_topics(log: ControlLog, topics: Mapping[Any, str], control_topic: str) -> None:
    """Refuse a table whose topic has changed: its rows would be split over two topics."""
    if log.position is None:
        return
    for table, topic in topics.items():
        before = log.position.tables.get(table)
        if before is not None and before != topic:
            raise TailraceError(
                f"table {table} was published to topic {before} until now, and the pipeline file names {topic}",
                fix=f"name the old topic again, or start a new pipeline (positions are in {control_topic})",
            )
