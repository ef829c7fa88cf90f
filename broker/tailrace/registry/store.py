"""The registry's durable state: the topic `_schemas`, in Confluent's record form, one partition, compacted.

    key    {"keytype":"SCHEMA","subject":"s","version":1,"magic":1}
    value  {"subject":"s","version":1,"id":1,"schema":"...","deleted":false}

A write is durable in the topic before it changes the state and before it is answered.  The topic is replayed at
start, and after a write whose answer was lost: it may be in the topic.  One registry writes one topic.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tailrace.broker.client import (
    EARLIEST,
    LATEST,
    Client,
    Fetcher,
    IdempotentProducer,
    NewTopic,
    TopicPartition,
)
from tailrace.broker.records.record import Record as LogRecord
from tailrace.broker.records.record import decode_records, encode_batch
from tailrace.changes.crash import crash_point
from tailrace.changes.errors import TailraceError
from tailrace.registry.subjects import Record, Subjects

TOPIC = "_schemas"
CRASH_POINTS = ("registry.before_write", "registry.after_write")

_NOOP: Record = ({"keytype": "NOOP", "magic": 0}, None)
"""Confluent's record that says nothing, to learn where the topic ends."""

_Result = TypeVar("_Result")


class Store:
    """Subjects over a topic; `write` may be called from any thread, reads see whole writes."""

    def __init__(self, client: Client) -> None:
        self.subjects = Subjects()
        self._client = client
        self._place = TopicPartition(TOPIC, 0)
        self._producer = IdempotentProducer(client)
        self._lock = threading.Lock()
        self._in_doubt = False

    def open(self) -> None:
        """Create the topic if it is missing and replay it; raise TailraceError when it is not a registry's."""
        self._client.create_topics([NewTopic(TOPIC, partitions=1, configs={"cleanup.policy": "compact"})])
        self.subjects = self._read(self._client.list_offsets([self._place], LATEST)[self._place])

    def _read(self, end: int) -> Subjects:
        """What the topic says before `end`."""
        subjects = Subjects()
        start = self._client.list_offsets([self._place], EARLIEST)[self._place]
        fetcher = Fetcher(self._client, {self._place: start}, isolation="read_uncommitted")
        while fetcher.positions[self._place] < end:
            for fetched in fetcher.poll():
                for batch in fetched.batches:
                    for record in decode_records(batch):
                        _replay(subjects, record)
        return subjects

    def write(self, operation: Callable[[Subjects], tuple[_Result, list[Record]]]) -> _Result:
        """Run an operation, make its records durable, apply them, and return its answer."""
        with self._lock:
            if self._in_doubt:
                # what was lost comes before this record, if it is there at all
                end = self._producer.send([(self._place, encode_batch([_to_log(_NOOP)]))])[0]
                self.subjects = self._read(end)
            result, records = operation(self.subjects)
            if records:
                crash_point("registry.before_write")
                self._in_doubt = True
                self._producer.send([(self._place, encode_batch([_to_log(record) for record in records]))])
                crash_point("registry.after_write")
                for key, value in records:
                    self.subjects.apply(key, value)
            self._in_doubt = False
            return result


def _replay(subjects: Subjects, record: LogRecord) -> None:
    try:
        key = json.loads(record.key or b"")
        value = None if record.value is None else json.loads(record.value)
    except ValueError:
        raise TailraceError(
            f"the topic {TOPIC} holds something that is not a registry's record, at offset {record.offset}",
            fix="let nothing but the schema registry write to it",
        ) from None
    subjects.apply(key, value)


def _to_log(record: Record) -> LogRecord:
    key, value = record
    return LogRecord(
        key=json.dumps(key, separators=(",", ":")).encode(),
        value=None if value is None else json.dumps(value, separators=(",", ":")).encode(),
        timestamp_ms=int(time.time() * 1000),
    )
