"""What a topic's configs allow in it, and what they make of a batch: timestamps, keys, codecs, sizes."""

import dataclasses
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.broker.log.harness import NOW_MS, Harness

from tailrace.broker.log import LogError, TopicConfig
from tailrace.broker.log.validation import INFLATED_BYTES, INFLATED_FREELY, MOST_RATIO, RecordsRefusedError
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import (
    HEADER_BYTES,
    LENGTH_AT,
    LENGTH_END,
    LOG_APPEND_TIME,
    finish_batch,
    has_valid_crc,
    iterate_batches,
)
from tailrace.broker.records.compression import Codec, compress
from tailrace.broker.records.record import Record, encode_batch

HOUR_MS = 3_600_000


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path / "data")
    yield harness
    harness.crash()


def put(at: Harness, *records: Record, codec: Codec = Codec.NONE) -> int:
    batch = encode_batch(records, codec=codec)
    return at.log.append(batch, now_ms=at.clock.at_ms, leader_epoch=at.logs.leader_epoch).base_offset


def refused(code: ErrorCode) -> "pytest.RaisesExc[LogError]":
    return pytest.raises(LogError, check=lambda error: error.code is code)


def test_a_timestamp_outside_the_allowed_range_is_refused_unless_the_broker_stamps(at: Harness) -> None:
    ahead, behind = Record(b"k", b"v", NOW_MS + HOUR_MS + 1), Record(b"k", b"v", NOW_MS - 1001)
    with refused(ErrorCode.INVALID_TIMESTAMP):
        put(at, ahead)
    assert put(at, Record(b"k", b"v", NOW_MS + HOUR_MS), behind, Record(b"k", b"v", -1)) == 0
    at.logs.configure("orders", TopicConfig(timestamp_before_max_ms=1000, timestamp_after_max_ms=10**15))
    assert put(at, ahead, Record(b"k", b"v", -1)) == 3
    with pytest.raises(RecordsRefusedError) as caught:
        put(at, ahead, behind, ahead, behind)
    assert (caught.value.code, caught.value.records) == (ErrorCode.INVALID_TIMESTAMP, [1, 3])
    at.logs.configure(
        "orders", TopicConfig(timestamp_before_max_ms=0, timestamp_after_max_ms=0, log_append_time=True)
    )
    assert put(at, ahead, behind) == 5
    assert [record.timestamp_ms for record in at.records()][-2:] == [NOW_MS, NOW_MS]


@pytest.mark.parametrize("codec", list(Codec))
def test_keyless_records_of_a_compacted_topic_are_named_and_none_of_their_batch_is_kept(
    at: Harness, codec: Codec
) -> None:
    at.logs.configure("orders", TopicConfig(compact=True))
    keyed, keyless = Record(b"k", b"v", NOW_MS), Record(None, b"v", NOW_MS)
    with pytest.raises(RecordsRefusedError) as caught:
        put(at, keyed, keyless, keyed, keyless, codec=codec)
    assert (caught.value.code, caught.value.records) == (ErrorCode.INVALID_RECORD, [1, 3])
    assert at.log.log_end_offset == 0
    assert put(at, keyed, Record(b"", b"v", NOW_MS), codec=codec) == 0


@pytest.mark.parametrize("sent", list(Codec))
def test_a_batch_is_stored_as_it_was_sent_unless_the_topic_names_another_codec(
    at: Harness, sent: Codec
) -> None:
    records = [Record(b"k%d" % n, b"value" * 20, NOW_MS + n, (("h", b"x"),)) for n in range(50)]
    batch = bytes(encode_batch(records, codec=sent))
    put(at, *records, codec=sent)
    (view,) = at.log.read(0, 1 << 20, upper=50)
    assert bytes(view)[HEADER_BYTES:] == batch[HEADER_BYTES:]
    for codec in Codec:
        at.logs.configure("orders", TopicConfig(codec=codec))
        base = put(at, *records, codec=sent)
        (view,) = at.log.read(base, 1 << 20, upper=base + 50)
        ((header, whole),) = iterate_batches(view)
        assert (header.codec, header.base_offset) == (codec, base)
        assert has_valid_crc(whole)
    assert [(r.key, r.value, r.timestamp_ms, r.headers) for r in at.records()] == [
        (r.key, r.value, r.timestamp_ms, r.headers) for r in records
    ] * 6
    at.crash_and_start()
    assert len(at.records()) == 300


def test_a_compressed_batch_obeys_timestamp_and_level_of_its_topic(at: Harness) -> None:
    records = [Record(b"k", b"%d" % n * 50, NOW_MS - n) for n in range(200)]
    sizes = []
    for level in (1, 9):
        at.logs.configure("orders", TopicConfig(codec=Codec.GZIP, gzip_level=level, log_append_time=True))
        base = put(at, *records)
        ((header, whole),) = iterate_batches(at.log.read(base, 1 << 20, upper=base + 200)[0])
        assert header.attributes == Codec.GZIP | LOG_APPEND_TIME and header.max_timestamp == NOW_MS
        assert has_valid_crc(whole)
        sizes.append(header.size)
    assert sizes[1] < sizes[0]
    assert {record.timestamp_ms for record in at.records()} == {NOW_MS}


def test_a_batch_that_grows_past_the_limit_when_it_is_stored_is_refused(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(codec=Codec.NONE, max_message_bytes=500))
    with refused(ErrorCode.MESSAGE_TOO_LARGE):
        put(at, Record(b"k", b"v" * 1000, NOW_MS), codec=Codec.ZSTD)
    assert at.log.log_end_offset == 0


def packed(codec: Codec, payload: bytes) -> bytearray:
    """A batch of one record whose compressed bytes are `payload`."""
    batch = encode_batch([Record(b"k", b"v", NOW_MS)], codec=codec)[:HEADER_BYTES] + payload
    batch[LENGTH_AT:LENGTH_END] = (len(batch) - LENGTH_END).to_bytes(4, "big")
    finish_batch(batch, -1, -1, -1, transactional=False)
    return batch


@pytest.mark.parametrize("codec", [codec for codec in Codec if codec])
@pytest.mark.parametrize("config", [TopicConfig(compact=True), TopicConfig(codec=Codec.NONE)])
def test_a_bomb_is_refused_where_a_batch_has_to_be_opened(
    at: Harness, codec: Codec, config: TopicConfig
) -> None:
    at.logs.configure("orders", config)
    if codec is Codec.GZIP:
        stream = zlib.compressobj(1, wbits=31)
        payload = b"".join(stream.compress(bytes(1 << 20)) for _ in range(65)) + stream.flush()
    else:
        payload = compress(codec, bytes(INFLATED_BYTES + 1))
    if len(payload) > config.max_message_bytes:
        at.logs.configure(
            "orders", TopicConfig(config.compact, codec=config.codec, max_message_bytes=8 << 20)
        )
    with refused(ErrorCode.CORRUPT_MESSAGE):
        at.log.append(packed(codec, payload), now_ms=NOW_MS, leader_epoch=0)
    with refused(ErrorCode.CORRUPT_MESSAGE):
        at.log.append(packed(codec, b"\x01\x02garbage"), now_ms=NOW_MS, leader_epoch=0)


@pytest.mark.parametrize("config", [TopicConfig(compact=True), TopicConfig(codec=Codec.NONE)])
def test_a_batch_inflates_to_a_thousand_times_its_size_at_most_unless_that_is_little(
    at: Harness, config: TopicConfig
) -> None:
    at.logs.configure("orders", config)
    bomb = packed(Codec.ZSTD, compress(Codec.ZSTD, bytes(INFLATED_BYTES // 2)))
    assert MOST_RATIO * len(bomb) < INFLATED_FREELY
    with refused(ErrorCode.CORRUPT_MESSAGE) as refusal:
        at.log.append(bomb, now_ms=NOW_MS, leader_epoch=0)
    assert f"it inflates past {INFLATED_FREELY} bytes" in str(refusal.value)
    at.logs.configure("orders", dataclasses.replace(config, max_message_bytes=8 << 20))
    put(at, Record(b"k", bytes(7 << 20), NOW_MS), codec=Codec.ZSTD)  # its topic says that such may come
    assert at.log.log_end_offset == 1


def test_a_batch_that_is_large_and_compresses_well_is_no_bomb(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(compact=True))
    noise = os.urandom(20_000)
    batch = encode_batch([Record(b"k", noise, NOW_MS) for _ in range(500)], codec=Codec.ZSTD)
    assert 200 * len(batch) < 500 * len(noise) < MOST_RATIO * len(batch)
    at.log.append(batch, now_ms=NOW_MS, leader_epoch=0)
    assert at.log.log_end_offset == 500


def test_a_new_segment_begins_when_the_index_is_full(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(segment_index_bytes=16))
    for _ in range(40):
        at.append(b"." * 2000)
    bases = [int(path.stem) for path in at.files(".log")]
    assert bases == list(range(0, 40, bases[1])) and 3 <= bases[1] <= 8
    assert all(path.stat().st_size <= 16 for path in at.files(".index"))


def test_a_new_segment_begins_when_the_first_record_is_old(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(segment_ms=1000))
    for _ in range(4):
        at.append(b"x")
        at.clock.at_ms += 501
    assert [int(path.stem) for path in at.files(".log")] == [0, 2]
