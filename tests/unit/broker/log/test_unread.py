"""Batches that are read when they are sent: the same bytes as read at once, whatever happens to the log meanwhile."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.broker.log.harness import Harness

from tailrace.broker.log import LogError, TopicConfig
from tailrace.broker.log.unread import Unread
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import HEADER_BYTES, iterate_batches

SEGMENT_BYTES = 150_000
BATCHES = 300


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    """About 400 kB in batches of 70 to 2,600 bytes, in three segments."""
    harness = Harness(tmp_path / "data", TopicConfig(segment_bytes=SEGMENT_BYTES))
    rng = random.Random(7)
    for _ in range(BATCHES):
        harness.append(rng.randbytes(rng.randrange(2_500)))
    harness.sync()
    assert len(harness.files(".log")) == 3
    yield harness
    harness.crash()


def later(at: Harness, offset: int, max_bytes: int, upper: int = BATCHES) -> Unread:
    unread = at.log.read_later(offset, max_bytes, upper=upper)
    assert unread is not None
    return unread


def taken(unread: Unread, most: int = 30_000) -> bytes:
    pieces = []
    while unread:
        pieces.append(unread.take(most))
    return b"".join(pieces)


@pytest.mark.parametrize("most", [1, HEADER_BYTES, 1_000, 4_099, 1 << 20])
def test_what_is_read_later_is_what_was_there(at: Harness, most: int) -> None:
    first = at.files(".log")[0].read_bytes()
    unread = later(at, 0, 1 << 20)
    assert len(unread) == len(first)
    assert taken(unread, most) == first


def test_every_offset_is_reached_by_following_reads_of_whole_batches_below_the_limit(at: Harness) -> None:
    offset, put_off = 0, 0
    while offset < BATCHES:
        unread = at.log.read_later(offset, 40_000, upper=BATCHES)
        put_off += unread is not None
        data = taken(unread) if unread is not None else at.log.read(offset, 40_000, upper=BATCHES)[0]
        assert len(data) <= 40_000
        for header, _ in iterate_batches(data):
            assert header.base_offset == offset
            offset = header.last_offset + 1
    assert put_off > 5


def test_what_is_little_or_beyond_the_bound_or_not_there_is_not_put_off(at: Harness) -> None:
    newest = int(at.files(".log")[-1].stem)
    assert at.log.read_later(0, 2_000, upper=BATCHES) is None
    assert at.log.read_later(newest, 1 << 20, upper=BATCHES - 1) is None
    assert at.log.read_later(BATCHES, 1 << 20, upper=BATCHES) is None
    assert at.log.read_later(BATCHES + 1, 1 << 20, upper=BATCHES + 9) is None
    at.log.advance_log_start(5)
    assert at.log.read_later(4, 1 << 20, upper=BATCHES) is None


def test_a_deleted_log_is_read_to_the_end_by_who_began(at: Harness) -> None:
    content = at.files(".log")[0].read_bytes()
    unread = later(at, 0, 1 << 20)
    begun = unread.take(10_000)
    descriptor = at.log.segments[0].file
    at.logs.delete("orders", [0], at.topic_id)
    assert begun + taken(unread) == content
    assert descriptor.fd >= 0
    del unread
    assert descriptor.fd == -1


def test_damage_that_is_found_late_is_told_to_the_next_reader(at: Harness) -> None:
    path = at.files(".log")[0]
    damaged = bytearray(path.read_bytes())
    second = int.from_bytes(damaged[8:12], "big") + 12
    damaged[second + 8] ^= 0x40  # a length of a gigabyte
    path.write_bytes(damaged)
    with pytest.raises(struct.error, match=path.name):
        taken(later(at, 0, 1 << 20))
    assert at.log.read_later(0, 1 << 20, upper=BATCHES) is None
    with pytest.raises(LogError, match=path.name) as caught:
        at.log.read(0, 1 << 20, upper=BATCHES)
    assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR


def test_a_file_that_was_cut_is_told_and_not_waited_for(at: Harness) -> None:
    path = at.files(".log")[0]
    unread = later(at, 0, 1 << 20)
    with path.open("r+b") as file:
        file.truncate(50_000)
    with pytest.raises(struct.error, match="ends at byte 50000"):
        taken(unread)


def test_an_index_that_is_not_true_puts_nothing_off(at: Harness) -> None:
    index = at.log.segments[0].offset_index
    last_offset, position = index.file.entry(3)
    index.file.path.write_bytes(
        index.file.path.read_bytes()[:24] + struct.pack(">ii", last_offset, position + 1)
    )
    at.log.segments[0].offset_index.file.load()
    assert at.log.read_later(0, position + 1, upper=BATCHES) is None
