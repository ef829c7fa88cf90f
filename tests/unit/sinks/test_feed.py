"""A feed stages exactly what lies before a cut, in chunks that keep key changes whole."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.broker.client import FetchedPartition, TopicPartition
from tailrace.broker.records.batch import finish_batch, read_header, set_base_offset
from tailrace.changes import ChangeBatch, Lsn, Truncate
from tailrace.registry.envelope import SourcePosition, TruncateMark, control_batch
from tailrace.registry.envelope.decoder import ChangeDecoder
from tailrace.registry.envelope.encoder import ChangeEncoder
from tailrace.sinks.checkpoint import Checkpoint
from tailrace.sinks.checkpoint import TopicPartition as Place
from tailrace.sinks.control import ControlLog
from tailrace.sinks.evolve import stored_schema
from tailrace.sinks.feed import TableFeed
from tailrace.sinks.keys import KeyCodec
from tailrace.sinks.merge import gather, merge
from tailrace.sinks.sink import CommitResult
from tailrace.sinks.testing import ORDERS, ModelSource
from tailrace.sinks.testing.model import Key, Row

TOPIC, CONTROL, PARTITIONS = "raw.shop.orders", "_tailrace.shop.control", 3


class Schemas:
    """A registry in memory."""

    def __init__(self) -> None:
        self._schemas: list[tuple[str, str]] = []

    def register(self, subject: str, schema: str, /) -> int:
        if (subject, schema) not in self._schemas:
            self._schemas.append((subject, schema))
        return self._schemas.index((subject, schema)) + 1

    def schema(self, schema_id: int, /) -> str:
        return self._schemas[schema_id - 1][1]

    def latest(self, subject: str, /) -> tuple[int, str] | None:
        found = [(i + 1, text) for i, (name, text) in enumerate(self._schemas) if name == subject]
        return found[-1] if found else None


class Log:
    """Partitions as lists of record batches with their offsets, and the positions that the source wrote."""

    def __init__(self, schemas: Schemas) -> None:
        self._encoder = ChangeEncoder(schemas, TOPIC)
        self.batches: dict[int, list[memoryview]] = {number: [] for number in range(PARTITIONS)}
        self.ends = dict.fromkeys(range(PARTITIONS), 0)

    def append(self, changes: Sequence[ChangeBatch]) -> None:
        for change in changes:
            for number, batches in self._encoder.encode(change, PARTITIONS).items():
                for data, count in batches:
                    finish_batch(data, 1, 0, 0, transactional=True)
                    set_base_offset(data, self.ends[number], 0)
                    self.batches[number].append(memoryview(bytes(data)))
                    self.ends[number] += count

    def marker(self) -> None:
        """The end of a producer transaction takes an offset in every partition."""
        for number in self.ends:
            self.ends[number] += 1


class DictWriter:
    """A TableWriter that applies what is staged to a dict, with the real merge."""

    location = "memory"

    def __init__(self) -> None:
        self.schema = stored_schema(ORDERS, lambda arrow: arrow, keyed=True)
        self.codec = KeyCodec(ORDERS.key, self.schema, (1, 2))
        self.rows: dict[Key, Row] = {}
        self.checkpoint = Checkpoint()
        self.stages = 0

    @property
    def result(self) -> CommitResult:
        return CommitResult(0, len(self.rows))

    def stage(self, changes: Sequence[ChangeBatch]) -> None:
        self.stages += 1
        merged = merge(gather(changes, self.schema), self.codec)
        upserts: list[Row] = merged.upserts.to_pylist()
        for lookup in merged.lookups:
            for row, key in zip(lookup.row.tolist(), lookup.key.tolist(), strict=True):
                upserts[row][lookup.column] = self.rows[(int(merged.wanted.code[key]),)][lookup.column]
        for row in merged.deletes.to_pylist():
            self.rows.pop((row["id"],), None)
        self.rows.update({(row["id"],): row for row in upserts})

    def truncate(self, barrier: Truncate) -> None:
        self.rows.clear()

    def commit(self, offsets: Mapping[Place, int], lsn: Lsn) -> CommitResult:
        self.checkpoint = self.checkpoint.advanced(offsets, lsn)
        return self.result

    def upkeep(self) -> None:
        raise AssertionError("a feed leaves upkeep to the loop")

    def close(self) -> None:
        raise AssertionError("a feed does not own its writer")


def deliver(feed: TableFeed, log: Log, chooser: random.Random, known: dict[int, int]) -> bool:
    """Bring a few record batches of one partition, as a fetch does; False when all are delivered."""
    left = [number for number in range(PARTITIONS) if known[number] < len(log.batches[number])]
    if not left:
        for number in range(PARTITIONS):
            place = TopicPartition(TOPIC, number)
            end = log.ends[number]
            feed.arrive(FetchedPartition(place, [], end, end, end, end))
        return False
    number = chooser.choice(left)
    count = chooser.randrange(1, 3)
    batches = log.batches[number][known[number] : known[number] + count]
    known[number] += len(batches)
    start, after = read_header(batches[0]).base_offset, read_header(batches[-1]).last_offset + 1
    feed.arrive(FetchedPartition(TopicPartition(TOPIC, number), batches, start, after, after, after))
    return True


def marks_of(control: ControlLog, marks: list[Any], first: int) -> None:
    """Bring marks of the control topic, from offset `first` on."""
    for data, _count in control_batch(marks, timestamp_ms=1):
        finish_batch(data, 1, 0, 0, transactional=True)
        set_base_offset(data, first, 0)
        place, end = TopicPartition(CONTROL, 0), first + len(marks)
        control.arrive(FetchedPartition(place, [memoryview(bytes(data))], first, end, end, end))


@pytest.mark.parametrize("chunk", [1, 10, 10_000])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), truncate=st.booleans())
def test_every_position_is_reached_exactly_however_the_records_arrive(
    chunk: int, seed: int, truncate: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailrace.sinks.feed.CHUNK_ROWS", chunk)
        chooser, schemas = random.Random(seed), Schemas()
        log, writer = Log(schemas), DictWriter()
        decoder = ChangeDecoder(schemas, TOPIC, ORDERS.id, key=ORDERS.key)
        starts = dict.fromkeys(range(PARTITIONS), 0)
        feed = TableFeed(TOPIC, "orders", raw=True, writer=writer, decoder=decoder, starts=starts)
        control = ControlLog(CONTROL, 0)
        source, delivered, offset = ModelSource(seed=seed, partitions=1, keys=12), dict(starts), 0
        for segment_number in range(3):
            marks: list[Any] = []
            for _ in range(3):
                log.append(source.transaction(8))
            if truncate and segment_number == 1:
                source.rows.clear()
                source.lsn += 1
                marks.append(TruncateMark(ORDERS.id, TOPIC, source.lsn, 0, 0, dict(log.ends)))
                log.append(source.transaction(8))
            position = SourcePosition(source.lsn, 0, {TOPIC: dict(log.ends)}, {ORDERS.id: TOPIC})
            log.marker()
            expected = dict(source.rows)
            # what comes after the position is already in the log, and must not be taken
            later = source if segment_number == 2 else None
            if later is not None:
                log.append(later.transaction(8))
            marks_of(control, [*marks, position], offset)
            offset += len(marks) + 1
            segment = control.take(feed.decoded(), 10_000)
            assert segment is not None
            feed.aim(segment)
            while not feed.advance():
                deliver(feed, log, chooser, delivered)
            feed.commit(position.lsn, {(TOPIC, n): at for n, at in segment.offsets(TOPIC).items()})
            assert writer.rows == expected
            assert {p: writer.checkpoint.offsets[TOPIC, p] for p in range(PARTITIONS)} == position.offsets[
                TOPIC
            ]


def test_a_position_inside_a_record_batch_is_reached_exactly() -> None:
    schemas = Schemas()
    log, writer = Log(schemas), DictWriter()
    decoder = ChangeDecoder(schemas, TOPIC, ORDERS.id, key=ORDERS.key)
    starts = dict.fromkeys(range(PARTITIONS), 0)
    feed = TableFeed(TOPIC, "orders", raw=True, writer=writer, decoder=decoder, starts=starts)
    (batch,) = ModelSource(seed=1, partitions=1, keys=60).insert(60)
    log.append([replace(batch, lsn=np.full(60, 10, np.int64))])
    control, chooser, delivered = ControlLog(CONTROL, 0), random.Random(0), dict(starts)
    for step in range(1, 5):
        cut = {number: end * step // 4 for number, end in log.ends.items()}
        marks_of(control, [SourcePosition(step, 0, {TOPIC: cut}, {})], step)
        segment = control.take(feed.decoded(), 10_000)
        assert segment is not None
        feed.aim(segment)
        while not feed.advance():
            deliver(feed, log, chooser, delivered)
        feed.commit(step, {(TOPIC, number): at for number, at in cut.items()})
        assert len(writer.rows) == sum(cut.values())


def test_segments_are_as_long_as_asked_for_and_at_least_one_position() -> None:
    control = ControlLog(CONTROL, 20)
    positions = [SourcePosition(lsn, 0, {TOPIC: {0: lsn}}, {}) for lsn in (10, 20, 30, 40, 50, 200)]
    marks_of(control, list(positions), 7)
    read = {(TOPIC, 0): 20}
    first = control.take(read, 25)
    assert first is not None
    assert (first.position.lsn, first.next_offset) == (40, 11)
    assert control.pending()
    second = control.take({(TOPIC, 0): 40}, 5)
    assert second is not None
    assert second.position.lsn == 50
    third = control.take({(TOPIC, 0): 50}, 5)
    assert third is not None
    assert third.position.lsn == 200
    assert not control.pending()
    assert control.take(read, 5) is None


def test_control_records_of_other_kinds_are_passed_over() -> None:
    control = ControlLog(CONTROL, 0)
    data, _count = control_batch([SourcePosition(5, 0, {}, {})], timestamp_ms=1)[0]
    other = data.replace(json.dumps("position").encode(), json.dumps("somewhat").encode())
    finish_batch(other, 1, 0, 0, transactional=True)
    place = TopicPartition(CONTROL, 0)
    control.arrive(FetchedPartition(place, [memoryview(bytes(other))], 0, 1, 1, 1))
    assert not control.pending()
