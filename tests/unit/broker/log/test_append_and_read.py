"""Appending and reading: offsets, whole batches, the high watermark, segments."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.broker.log.harness import NOW_MS, Harness, make_batch

from tailrace.broker.log import LogError, TopicConfig
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import has_valid_crc, iterate_batches, read_header


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path / "data", TopicConfig(segment_bytes=4096))
    yield harness
    harness.crash()


def refused(code: ErrorCode) -> "pytest.RaisesExc[LogError]":
    return pytest.raises(LogError, check=lambda error: error.code is code)


def test_offsets_count_records_without_a_hole(at: Harness) -> None:
    results = [at.append(b"a", b"b"), at.append(b"c"), at.append(b"d", b"e", b"f")]
    assert [(r.base_offset, r.last_offset) for r in results] == [(0, 1), (2, 2), (3, 5)]
    assert at.values() == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_the_stored_batch_is_the_producers_except_offset_and_epoch(at: Harness) -> None:
    at.append(b"first")
    sent = make_batch([b"x", b"y"], producer=(5, 0), sequence=0)
    at.log.append(sent, now_ms=NOW_MS, leader_epoch=3)
    (stored,) = at.log.read(1, 1 << 20, upper=3)
    assert bytes(stored[16:]) == bytes(sent[16:]) and bytes(stored[8:12]) == bytes(sent[8:12])
    header = read_header(stored)
    assert (header.base_offset, header.leader_epoch) == (1, 3)
    assert has_valid_crc(stored)


def test_a_batch_is_copied_before_append_returns(at: Harness) -> None:
    sent = make_batch([b"kept"])
    at.log.append(memoryview(sent), now_ms=NOW_MS, leader_epoch=0)
    sent[:] = bytes(len(sent))
    assert at.values() == [b"kept"]


def test_the_high_watermark_moves_only_with_fsync(at: Harness) -> None:
    at.append(b"a")
    assert (at.log.log_end_offset, at.log.high_watermark) == (1, 0)
    assert at.log.read(0, 1000, upper=at.log.high_watermark) == []
    at.sync()
    assert at.log.high_watermark == 1


def test_a_fetch_inside_a_batch_returns_that_whole_batch(at: Harness) -> None:
    at.append(b"a", b"b", b"c")
    at.append(b"d")
    (view,) = at.log.read(2, 1 << 20, upper=4)
    assert [header.base_offset for header, _ in iterate_batches(view)] == [0, 3]


def test_the_first_batch_comes_even_when_it_is_larger_than_the_limit(at: Harness) -> None:
    at.append(b"x" * 1000)
    at.append(b"y")
    (view,) = at.log.read(0, 10, upper=2)
    assert [header.base_offset for header, _ in iterate_batches(view)] == [0]
    assert at.log.read(0, 10, upper=2, at_least_one=False) == []


@pytest.mark.parametrize("max_bytes", [1, 61, 500, 3000, 4096, 10_000, 1 << 20])
def test_every_offset_is_reached_by_following_reads_over_segments(at: Harness, max_bytes: int) -> None:
    for number in range(60):
        at.append(*[b"%d-%d" % (number, i) for i in range(number % 4 + 1)] + [b"z" * (number * 7)])
    assert len(at.log.segments) > 3
    offset, seen = 0, []
    while offset < at.log.log_end_offset:
        views = at.log.read(offset, max_bytes, upper=at.log.log_end_offset)
        for view in views:
            for header, _ in iterate_batches(view):
                assert header.base_offset == offset
                offset = header.last_offset + 1
                seen.append(header.base_offset)
        assert len(views) == 1 or sum(map(len, views)) <= max_bytes
    for start in range(at.log.log_end_offset):
        at.log._reader.forget_places()
        first = read_header(at.log.read(start, 1, upper=at.log.log_end_offset)[0])
        assert first.base_offset <= start <= first.last_offset


def test_nothing_at_or_above_the_upper_bound_is_read(at: Harness) -> None:
    for _ in range(5):
        at.append(b"a", b"b")
    views = at.log.read(0, 1 << 20, upper=6)
    assert [h.last_offset for view in views for h, _ in iterate_batches(view)] == [1, 3, 5]


@pytest.mark.parametrize("offset", [-1, 3])
def test_an_offset_outside_the_log_is_refused(at: Harness, offset: int) -> None:
    at.append(b"a", b"b")
    with refused(ErrorCode.OFFSET_OUT_OF_RANGE):
        at.log.read(offset, 100, upper=2)


def test_a_batch_with_any_flipped_bit_after_its_crc_is_refused(at: Harness) -> None:
    good = make_batch([b"payload"])
    for byte in range(17, len(good)):
        bad = bytearray(good)
        bad[byte] ^= 0x10
        with pytest.raises(LogError) as caught:
            at.log.append(bad, now_ms=NOW_MS, leader_epoch=0)
        assert caught.value.code is ErrorCode.CORRUPT_MESSAGE
    assert at.log.log_end_offset == 0 and at.log.size == 0


def test_more_than_one_batch_for_a_partition_is_refused(at: Harness) -> None:
    with refused(ErrorCode.INVALID_RECORD):
        at.log.append(make_batch([b"a"]) + make_batch([b"b"]), now_ms=NOW_MS, leader_epoch=0)


def test_a_batch_above_max_message_bytes_is_refused(tmp_path: Path) -> None:
    at = Harness(tmp_path, TopicConfig(max_message_bytes=200))
    at.append(b"x" * 100)
    with refused(ErrorCode.MESSAGE_TOO_LARGE):
        at.append(b"x" * 200)
    at.stop()


def test_a_record_without_a_key_is_refused_where_the_log_is_compacted(tmp_path: Path) -> None:
    at = Harness(tmp_path, TopicConfig(compact=True))
    with refused(ErrorCode.INVALID_RECORD):
        at.append(b"v", key=None)
    at.append(b"v", key=b"")
    assert at.values() == [b"v"]
    at.stop()


def test_log_append_time_is_stamped_with_a_right_crc(tmp_path: Path) -> None:
    at = Harness(tmp_path, TopicConfig(log_append_time=True))
    result = at.append(b"a", b"b", timestamp_ms=5)
    assert result.log_append_time_ms == NOW_MS
    (view,) = at.log.read(0, 1000, upper=2)
    assert has_valid_crc(view)
    assert [record.timestamp_ms for record in at.records()] == [NOW_MS, NOW_MS]
    at.stop()


def test_segments_are_rolled_by_size_and_by_record_time(tmp_path: Path) -> None:
    at = Harness(tmp_path, TopicConfig(segment_bytes=1000, segment_ms=60_000))
    for _ in range(10):
        at.append(b"x" * 300)
    assert all(segment.size <= 1000 for segment in at.log.segments)
    before = len(at.log.segments)
    at.append(b"later", timestamp_ms=NOW_MS + 60_001)
    assert len(at.log.segments) == before + 1
    at.stop()


def test_the_offset_index_has_an_entry_per_interval_and_finds_every_batch(at: Harness) -> None:
    config = TopicConfig()
    at.logs.configure("orders", config)
    for number in range(400):
        at.append(b"%05d" % number * 20)
    at.log.segments[-1].finish_files()
    (index,) = at.files(".index")
    entries = list(struct.iter_unpack(">ii", index.read_bytes()))
    assert len(entries) == pytest.approx(at.log.size / 4200, rel=0.1)
    for relative, position in entries:
        header = read_header((at.directory / "00000000000000000000.log").read_bytes(), position)
        assert header.last_offset == relative
    for offset in range(400):
        assert read_header(at.log.read(offset, 1, upper=400)[0]).base_offset == offset


def test_timestamps_find_the_first_record_that_is_late_enough(at: Harness) -> None:
    stamps = [100, 300, 200, 500, 400, 900, 700]
    for number, stamp in enumerate(stamps):
        at.append(b"x" * 900, timestamp_ms=stamp)
        if number == 2:
            at.append(b"a", b"b", b"c", timestamp_ms=250)
    records = [(record.timestamp_ms, record.offset) for record in at.records()]
    assert len(at.log.segments) > 1
    for wanted in range(0, 1000, 50):
        expected = next(((t, o) for t, o in records if t >= wanted), None)
        found = at.log.offset_for_timestamp(wanted, at.log.log_end_offset)
        assert (found and (found.timestamp_ms, found.offset)) == expected
    for upper in range(1, 11):
        best = max(t for t, o in records if o < upper)
        first = next(o for t, o in records if t == best)
        found = at.log.max_timestamp(upper)
        assert found and (found.timestamp_ms, found.offset) == (best, first)
    assert at.log.offset_for_timestamp(900, 3) is None


def test_deleted_records_are_gone_also_after_a_crash(at: Harness) -> None:
    for number in range(10):
        at.append(b"%d" % number)
    at.sync()
    assert at.logs.delete_records("orders", 0, 4) == 4
    with refused(ErrorCode.OFFSET_OUT_OF_RANGE):
        at.log.read(3, 100, upper=10)
    at.crash_and_start()
    assert at.log.log_start_offset == 4
    assert at.values() == [b"%d" % number for number in range(4, 10)]
    with refused(ErrorCode.OFFSET_OUT_OF_RANGE):
        at.logs.delete_records("orders", 0, 11)
    assert at.logs.delete_records("orders", 0, -1) == 10
