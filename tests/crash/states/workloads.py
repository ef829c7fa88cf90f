"""What is done to the logs while the trace is recorded: small, and with every kind of change in it."""

import contextlib
import random
from collections.abc import Iterator
from unittest.mock import patch

from tests.crash.states.history import Expectation
from tests.crash.states.memory_disk import Flat
from tests.crash.states.recorder import NOBODY, Recorder

from tailrace.broker.log import TopicConfig, checked, index, segment

HOUR_MS = 3_600_000
COMPACTED = TopicConfig(segment_bytes=500, compact=True, delete=False, min_cleanable_dirty_ratio=0.0)
FIRST, SECOND, THIRD = (7, 0), (8, 0), (9, 0)


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Small indexes, partly in memory, room for two batches beyond the end, a checked point for every third."""
    with (
        patch.object(segment, "INDEX_INTERVAL_BYTES", 150),
        patch.object(index, "UNWRITTEN_BYTES", 16),
        patch.object(segment, "ROOM", memoryview(bytes(250))),
        patch.object(segment, "ROOM_FROM_BYTES", 150),
        patch.object(checked, "CHECKED_BYTES", 250),
    ):
        yield


def produce(at: Recorder) -> None:
    """Idempotent and plain producers, rolls, checkpoints, appends during a flush, stops and kills."""
    at.create("orders", TopicConfig(segment_bytes=400))
    for number in range(11):
        producer = (FIRST, SECOND, NOBODY)[number % 3]
        at.append("orders", [(None, b"value %d" % number), (b"k", b"." * (number % 7))], producer=producer)
        if number % 4 == 1:
            sync = at.begin_sync("orders")
            at.append("orders", [(None, b"during a flush")])
            if sync is not None:
                sync.run()
            at.append("orders", [(None, b"after the fdatasync")], producer=THIRD)
            at.finish_sync("orders", sync)
        if number in (3, 8):
            at.checkpoint()
        if number == 5:
            at.stop()
        if number in (6, 9):
            at.kill()
    at.stop()


def transact(at: Recorder) -> None:
    """Open, committed and aborted transactions across segments, kills and stops; epochs bumped."""
    at.create("orders", TopicConfig(segment_bytes=600))
    for turn in range(4):
        for producer in (FIRST, SECOND):
            at.append("orders", [(b"k", b"turn %d" % turn)], producer=producer, transactional=True)
        at.append("orders", [(b"k", b"outside")])
        at.end("orders", FIRST, commit=turn % 3 != 1)
        if turn % 2:
            at.sync("orders")
        at.append("orders", [(b"k", b"more")], producer=SECOND, transactional=True)
        at.end("orders", SECOND, commit=turn % 2 == 0)
        if turn == 1:
            at.checkpoint()
        if turn == 2:
            at.append("orders", [(b"k", b"left open")], producer=THIRD, transactional=True)
            at.sync("orders")
            at.kill()
        if turn == 3:
            at.stop()
            at.end("orders", (9, 1), commit=False)
    at.sync("orders")
    at.stop()


def retain(at: Recorder) -> None:
    """Retention by size and by time, DeleteRecords, producers that outlive their records."""
    at.create("orders", TopicConfig(segment_bytes=400, retention_bytes=700, retention_ms=HOUR_MS))
    for number in range(16):
        producer = FIRST if number < 3 else (SECOND if number % 3 == 0 else NOBODY)
        at.append("orders", [(b"k", b"value %d" % number)], producer=producer)
        if number % 3 == 2:
            at.sync("orders")
        if number in (6, 12):
            at.maintain(later_ms=6000)
        if number == 9:
            at.delete_records("orders", 7)
            at.maintain()
        if number == 10:
            at.kill()
        if number == 14:
            at.sync("orders")
            at.maintain(later_ms=2 * HOUR_MS)
            at.append("orders", [(b"k", b"after all was old")], producer=SECOND)
    at.kill()
    at.append("orders", [(b"k", b"of the next leader epoch")], producer=SECOND)
    at.sync("orders")
    at.delete_records("orders", at.end_of("orders"))
    at.kill()
    at.append("orders", [(b"k", b"after all was deleted")], producer=SECOND)
    at.stop()


def compact(at: Recorder) -> None:
    """Compaction with tombstones, transactions, delete horizons; kills between the rounds."""
    at.create(
        "tables", TopicConfig(segment_bytes=450, compact=True, delete=False, delete_retention_ms=HOUR_MS)
    )
    for number in range(18):
        value = None if number % 7 == 6 else b"value %d" % number
        keyed = [(b"k%d" % (number % 4), value)]
        if number % 5 == 4:
            at.append("tables", keyed, producer=THIRD, transactional=True)
            at.end("tables", THIRD, commit=number % 2 == 0)
        else:
            at.append("tables", keyed, producer=(FIRST, SECOND)[number % 2])
        if number % 3 == 2:
            at.sync("tables")
        if number in (7, 12, 17):
            at.sync("tables")
            assert at.compact("tables")
        if number == 9:
            at.kill()
        if number == 14:
            at.clock.at_ms += 2 * HOUR_MS
            at.stop()
    at.stop()


def commit_offsets(at: Recorder) -> None:
    """The internal topic of offsets as coordinators write it: with and without transactions, compacted."""
    at.create("__consumer_offsets", COMPACTED)
    topic = "__consumer_offsets"
    for number in range(12):
        record = (b"group%d orders 0" % (number % 3), None if number == 7 else b"%d" % number)
        if number % 4 == 3:
            at.append(topic, [record], producer=FIRST, transactional=True, internal=True)
            at.sync(topic)
            at.end(topic, FIRST, commit=number % 8 == 3)
        else:
            at.append(topic, [record], internal=True)
        at.sync(topic)
        if number in (6, 11):
            at.compact(topic)
        if number == 8:
            at.kill()
    at.stop()


def change_topics(at: Recorder) -> None:
    """Topics made, grown, deleted and made again under their names."""
    config = TopicConfig(segment_bytes=400)
    at.create("orders", config, partitions=2)
    at.create("passing", config)
    for number in range(6):
        at.append("orders", [(None, b"%d" % number)], partition=number % 2, producer=FIRST)
        at.append("passing", [(None, b"%d" % number)] * 2, producer=SECOND)
    at.sync("orders", 0)
    at.sync("orders", 1)
    at.sync("passing")
    at.delete_records("passing", 4)
    at.checkpoint()
    at.delete("passing")
    at.add_partitions("orders", 3)
    at.append("orders", [(None, b"new")], partition=2)
    at.sync("orders", 2)
    at.maintain()
    at.create("passing", config)
    at.append("passing", [(None, b"another")], producer=SECOND)
    at.sync("passing")
    at.kill()
    at.delete("orders")
    at.stop()
    at.create("orders", config)
    at.append("orders", [(None, b"again")])
    at.sync("orders")
    at.maintain()
    at.delete("orders")
    at.create("orders", config)  # at once: nothing else has synced the folder
    at.stop()


def grow(at: Recorder) -> None:
    """Checked points in segments that go on growing; some run ahead of what is durable."""
    at.create("orders", TopicConfig(segment_bytes=1600))
    for turn in range(9):
        at.append("orders", [(b"k", b"turn %d" % turn)], producer=FIRST, transactional=True)
        at.append("orders", [(b"k", b"outside")], producer=SECOND)
        if turn % 2:
            at.sync("orders")
        at.end("orders", FIRST, commit=turn % 3 == 1)
        at.append("orders", [(None, b"plain"), (None, b"twice")])
        if turn % 3 != 1:
            at.checkpoint()
        if turn in (3, 6):
            at.append("orders", [(b"k", b"after the checkpoint")], producer=THIRD)
            at.kill()
        if turn == 5:
            at.stop()
    at.sync("orders")
    at.stop()


WORKLOADS = (produce, transact, retain, compact, commit_offsets, change_topics, grow)


def go_on(start: Flat, expected: Expectation, seed: int) -> Recorder:
    """The broker starts on what a power cut left, and works until the next one."""
    chance = random.Random(seed)
    at = Recorder(start, expected)
    for row in at.catalog.topics:
        internal = row.name.startswith("__")
        at.append(row.name, [(b"k", b"after a power cut")], internal=internal)
        at.sync(row.name)
        at.append(row.name, [(b"k", b"." * chance.randrange(60))], internal=internal)
    if chance.random() < 0.5:
        at.kill()
    at.maintain(later_ms=6000)
    at.stop()
    return at
