"""What compaction keeps, what it drops, and when."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.broker.log.harness import NOW_MS, Harness

from tailrace.broker.log import TopicConfig
from tailrace.broker.log.compaction import _with_records
from tailrace.broker.log.record_keys import LatestOffsets, copy_records, hashes_of
from tailrace.broker.records.batch import (
    DELETE_HORIZON,
    finish_batch,
    has_valid_crc,
    iterate_batches,
    read_header,
)
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.broker.records.compression import Codec
from tailrace.broker.records.record import Record, decode_records, encode_batch

HOUR_MS = 3_600_000
PRODUCER = (7, 0)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    config = TopicConfig(segment_bytes=2000, compact=True, delete=False, delete_retention_ms=HOUR_MS)
    harness = Harness(tmp_path / "data", config)
    yield harness
    harness.crash()


def compact(at: Harness) -> bool:
    """Roll, flush, checkpoint and compact: everything written so far may be cleaned."""
    at.log.roll()
    at.sync()

    async def work() -> bool:
        await at.logs.checkpoint()
        return await at.logs.compact(at.log)

    return asyncio.run(work())


def put(at: Harness, *pairs: tuple[bytes, bytes | None], codec: Codec = Codec.NONE) -> int:
    batch = encode_batch([Record(key, value, at.clock.at_ms) for key, value in pairs], codec=codec)
    result = at.log.append(batch, now_ms=at.clock.at_ms, leader_epoch=at.logs.leader_epoch)
    return result.base_offset


def contents(at: Harness) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(record.offset, record.key, record.value) for record in at.records()]


def batches(at: Harness) -> list[tuple[int, int, int]]:
    """(base offset, last offset, records) of every batch; their CRCs are right."""
    found, offset = [], at.log.log_start_offset
    while views := at.log.read(offset, 1 << 20, upper=at.log.log_end_offset):
        for view in views:
            for header, batch in iterate_batches(view):
                assert has_valid_crc(batch)
                found.append((header.base_offset, header.last_offset, header.record_count))
                offset = header.last_offset + 1
    return found


@pytest.mark.parametrize("codec", list(Codec))
def test_the_latest_record_of_every_key_stays_at_its_offset(at: Harness, codec: Codec) -> None:
    for number in range(60):
        put(at, (b"a%d" % (number % 7), b"%d" % number), (b"b", b"%d" % number), codec=codec)
    written = contents(at)
    latest = {key: (offset, key, value) for offset, key, value in written}
    size = at.log.size
    assert compact(at)
    assert contents(at) == sorted(latest.values())
    assert at.log.size < size / 3
    assert at.log.log_end_offset == 120
    for again in (at.restart, at.crash_and_start):
        again()
        assert contents(at) == sorted(latest.values())
        assert put(at, (b"next", b"")) >= 120
        latest[b"next"] = (at.log.log_end_offset - 1, b"next", b"")


def test_every_offset_can_still_be_fetched(at: Harness) -> None:
    for number in range(100):
        put(at, (b"k%d" % (number % 3), b"%d" % number))
    compact(at)
    kept = [offset for offset, _, _ in contents(at)]
    for offset in range(100):
        header = read_header(at.log.read(offset, 1, upper=100)[0])
        assert header.last_offset >= offset
        following = [
            record for view in at.log.read(offset, 1 << 20, upper=100) for record in all_records(view)
        ]
        assert [r.offset for r in following if r.offset >= offset] == [k for k in kept if k >= offset]


def all_records(view: memoryview | bytes) -> list[Record]:
    return [record for _, batch in iterate_batches(view) for record in decode_records(batch)]


def test_the_newest_segment_and_young_ones_are_not_touched(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(segment_bytes=2000, compact=True, min_compaction_lag_ms=HOUR_MS))
    for number in range(40):
        put(at, (b"k", b"old %d" % number))
    at.log.roll()
    at.clock.at_ms += 2 * HOUR_MS
    for number in range(40):
        put(at, (b"k", b"young %d" % number))
    assert compact(at)
    assert [value for _, _, value in contents(at)] == [b"old 39", *(b"young %d" % n for n in range(40))]


def test_what_is_little_is_left_alone(at: Harness) -> None:
    for number in range(100):
        put(at, (b"k%d" % number, b"." * 50))
    assert compact(at)
    assert not compact(at)
    put(at, (b"k1", b"again"))
    assert not compact(at)
    for number in range(120):
        put(at, (b"k%d" % number, b"." * 50))
    assert compact(at)
    assert len(contents(at)) == 120


def test_the_share_that_must_be_dirty_is_the_topics(at: Harness) -> None:
    base = {"segment_bytes": 2000, "compact": True, "delete": False}
    for number in range(100):
        put(at, (b"k%d" % number, b"." * 50))
    assert compact(at)
    put(at, (b"k1", b"again"))
    at.logs.configure("orders", TopicConfig(**base, min_cleanable_dirty_ratio=0.5))  # type: ignore[arg-type]
    assert not compact(at)
    at.logs.configure("orders", TopicConfig(**base, min_cleanable_dirty_ratio=0.0))  # type: ignore[arg-type]
    assert compact(at)
    assert not compact(at)  # nothing is dirty
    for number in range(200):
        put(at, (b"k%d" % number, b"." * 50))
    at.logs.configure("orders", TopicConfig(**base, min_cleanable_dirty_ratio=1.0))  # type: ignore[arg-type]
    assert not compact(at)


def test_what_waited_too_long_is_compacted_however_little_it_is(at: Harness) -> None:
    at.logs.configure(
        "orders", TopicConfig(segment_bytes=2000, compact=True, delete=False, max_compaction_lag_ms=HOUR_MS)
    )
    for number in range(100):
        put(at, (b"k%d" % number, b"." * 50))
    assert compact(at)
    put(at, (b"k1", b"again"))
    assert not compact(at)
    at.clock.at_ms += HOUR_MS
    assert not compact(at)
    at.clock.at_ms += 1
    assert compact(at)
    assert not compact(at)
    assert len(contents(at)) == 100


def test_segments_are_not_merged_over_more_offsets_than_an_index_holds(
    at: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.broker.log.compaction_plan.MAX_RELATIVE_OFFSET", 50)
    for number in range(300):
        put(at, (b"k%d" % (number % 3), b"%d" % number))
    assert compact(at)
    bases = [segment.base_offset for segment in at.log.segments]
    ends = [segment.next_offset for segment in at.log.segments]
    assert max(end - base for base, end in zip(bases, ends, strict=True)) <= 50
    assert len(contents(at)) == 3


def test_a_compacted_topic_also_gives_up_what_is_past_its_retention(at: Harness) -> None:
    config = TopicConfig(segment_bytes=2000, compact=True, delete=True, retention_ms=HOUR_MS)
    at.logs.configure("orders", config)
    for number in range(100):
        put(at, (b"old%d" % (number % 5), b"%d" % number))
    assert compact(at)
    assert len(contents(at)) == 5
    at.clock.at_ms += HOUR_MS + 1
    for number in range(100):
        put(at, (b"new%d" % (number % 5), b"%d" % number))
    assert compact(at)
    asyncio.run(at.logs.maintain())
    assert {key for _, key, _ in contents(at)} == {b"new%d" % n for n in range(5)}


def test_many_aborted_transactions_of_one_producer_are_all_dropped(at: Harness) -> None:
    for number in range(60):
        at.append(b"%d" % number, key=b"k%d" % number, producer=PRODUCER, sequence=number, transactional=True)
        at.end(PRODUCER, commit=number % 3 == 0)
    assert compact(at)
    assert [value for _, _, value in contents(at)] == [b"%d" % n for n in range(0, 60, 3)]


def test_a_tombstone_lives_until_its_delete_horizon(at: Harness) -> None:
    put(at, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    put(at, (b"a", None), (b"b", b"2"))
    assert compact(at)
    assert [(k, v) for _, k, v in contents(at)] == [(b"c", b"1"), (b"a", None), (b"b", b"2")]
    stamped = [h for v in at.log.read(0, 1 << 20, upper=5) for h, _ in iterate_batches(v)][-1]
    assert stamped.attributes & DELETE_HORIZON and stamped.base_timestamp == NOW_MS + HOUR_MS
    assert [record.timestamp_ms for record in at.records()] == [NOW_MS] * 3

    def make_dirty() -> None:
        for number in range(20):
            put(at, (b"d", b"%d" % number * 50))

    at.clock.at_ms += HOUR_MS - 1
    make_dirty()
    assert compact(at)
    assert (b"a", None) in [(k, v) for _, k, v in contents(at)]
    at.clock.at_ms += 1
    make_dirty()
    assert compact(at)
    assert [(k, v) for _, k, v in contents(at)][:2] == [(b"c", b"1"), (b"b", b"2")]


def test_nothing_of_an_aborted_transaction_stays_and_nothing_committed_is_lost(at: Harness) -> None:
    at.append(b"committed", key=b"k", producer=PRODUCER, sequence=0, transactional=True)
    at.end(PRODUCER, commit=True)
    at.append(b"aborted", key=b"k", producer=PRODUCER, sequence=1, transactional=True)
    at.log.roll()
    at.append(b"aborted", key=b"l", producer=PRODUCER, sequence=2, transactional=True)
    at.end(PRODUCER, commit=False)
    at.append(b"last", key=b"m", producer=PRODUCER, sequence=3)
    assert compact(at)
    assert [value for _, _, value in contents(at)] == [b"committed", b"last"]
    assert at.log.aborted_transactions(0, at.log.log_end_offset) == [(7, 2)]


def test_the_marker_of_a_transaction_that_ends_later_still_decides(at: Harness) -> None:
    at.append(b"kept", key=b"k")
    at.append(b"aborted", key=b"k", producer=PRODUCER, sequence=0, transactional=True)
    for _ in range(30):
        at.append(b"." * 100, key=b"x")
    at.end(PRODUCER, commit=False)  # stays in the newest segment: only the first ones are cleaned
    at.sync()

    async def work() -> bool:
        await at.logs.checkpoint()
        return await at.logs.compact(at.log)

    assert asyncio.run(work())
    assert b"kept" in [value for _, _, value in contents(at)]


def test_an_open_transaction_stops_compaction(at: Harness) -> None:
    put(at, (b"k", b"1"))
    at.append(b"open", key=b"k", producer=PRODUCER, sequence=0, transactional=True)
    for _ in range(50):
        put(at, (b"k", b"later"))
    assert not compact(at)
    at.end(PRODUCER, commit=True)
    assert compact(at)
    assert [value for _, _, value in contents(at)] == [b"later"]


def test_markers_of_vanished_transactions_vanish_after_their_horizon(at: Harness) -> None:
    for number in range(40):
        at.append(b"%d" % number, key=b"k", producer=PRODUCER, sequence=number, transactional=True)
        at.end(PRODUCER, commit=number % 2 == 0)
    assert compact(at)
    before = len(batches(at))
    at.clock.at_ms += HOUR_MS
    for number in range(40, 140):
        at.append(b"%d" % number, key=b"k", producer=PRODUCER, sequence=number)
    assert compact(at)
    assert len(batches(at)) <= 8 < before
    assert at.log.aborted_transactions(0, at.log.log_end_offset) == [(7, 78)]  # its marker ends a segment


def test_sequences_survive_compaction_without_a_snapshot(at: Harness) -> None:
    for number in range(20):
        at.append(b"%d" % number, key=b"k", producer=PRODUCER, sequence=number)
    for _ in range(20):
        put(at, (b"k", b"other" * 20))
    assert compact(at)
    at.crash()
    for path in at.files(".snapshot"):
        path.unlink()
    at.start()
    assert at.append(b"19", key=b"k", producer=PRODUCER, sequence=19).duplicate
    assert at.append(b"20", key=b"k", producer=PRODUCER, sequence=20).base_offset == 40


def test_a_kept_record_of_a_transaction_keeps_its_marker(at: Harness) -> None:
    at.append(b"kept", key=b"k", producer=PRODUCER, sequence=0, transactional=True)
    at.end(PRODUCER, commit=True)
    at.append(b"dropped", key=b"k2", producer=(8, 0), sequence=0, transactional=True)
    at.end((8, 0), commit=True)
    put(at, (b"k2", b"later"))
    for _ in range(2):
        assert compact(at)
        assert [value for _, _, value in contents(at)][:1] == [b"kept"]
        at.clock.at_ms += 2 * HOUR_MS
        for number in range(50):
            put(at, (b"x", b"%d" % number))
    at.crash()
    for path in at.files(".snapshot"):
        path.unlink()
    at.start()
    assert at.log.last_stable_offset == at.log.log_end_offset
    assert [p.transaction_start_offset for p in at.log.producers()] == [-1, -1]


def test_a_lost_recovery_point_does_not_cut_a_compacted_log(at: Harness) -> None:
    for number in range(100):
        put(at, (b"k%d" % (number % 3), b"%d" % number))
    assert compact(at)
    before = contents(at)
    at.crash()
    (at.data_dir / "recovery-point-offset-checkpoint").unlink()
    at.start()
    assert contents(at) == before


@pytest.mark.parametrize("done", range(12))
def test_an_exchange_cut_short_at_any_rename_leaves_the_old_or_the_new_segments(
    at: Harness, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        put(at, (b"k%d" % (number % 3), b"%d" % number))
    latest = {key: (offset, key, value) for offset, key, value in contents(at)}
    renames = 0
    rename = Path.rename

    class Cut(BaseException):
        pass

    def counted(path: Path, target: Path) -> Path:
        nonlocal renames
        if path.parent.name in ("orders-0", "cleaning") and not path.name.endswith(".tmp"):
            renames += 1
            if renames > done:
                raise Cut
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", counted)
    with pytest.raises(Cut):
        compact(at)
    monkeypatch.undo()
    at.crash()
    at.start()
    found = {key: (offset, key, value) for offset, key, value in contents(at)}
    assert found == latest
    assert compact(at)
    assert contents(at) == sorted(latest.values())


def test_a_record_that_cannot_be_parsed_stops_compaction_of_that_log_only(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(segment_bytes=2000))
    damaged = encode_batch([Record(b"k", b"value")])
    damaged[-3:] = b"\xff\xff\xff"
    finish_batch(damaged, -1, -1, -1, transactional=False)
    at.log.append(damaged, now_ms=NOW_MS, leader_epoch=at.logs.leader_epoch)
    for _ in range(30):
        put(at, (b"k", b"x" * 50))
    at.logs.configure("orders", TopicConfig(segment_bytes=2000, compact=True))
    size = at.log.size
    assert not compact(at)
    assert not compact(at)
    assert at.log.size == size


@given(st.lists(st.tuples(st.binary(max_size=4), st.none() | st.binary(max_size=3)), min_size=1, max_size=40))
def test_the_latest_offset_of_a_key_is_found_by_its_hashes(pairs: list[tuple[bytes, bytes | None]]) -> None:
    records = parse_batches([memoryview(encode_batch([Record(k, v, 5) for k, v in pairs], base_offset=10))])
    latest = LatestOffsets.of([(*hashes_of(records), records.offset)])
    expected = [any(key == later for later, _ in pairs[n + 1 :]) for n, (key, _) in enumerate(pairs)]
    assert latest.superseded(records).tolist() == expected


@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=9), st.booleans()), min_size=1, max_size=20),
    st.integers(-(1 << 45), 1 << 45),
)
def test_copied_records_differ_only_in_their_timestamp(
    kept: list[tuple[bytes | None, bool]], shift: int
) -> None:
    sent = [Record(b"k", value, 1000 + n * 7, (("h", b"v"),)) for n, (value, _) in enumerate(kept)]
    batch = encode_batch(sent)
    keep = np.array([flag for _, flag in kept])
    payload = copy_records(parse_batches([memoryview(batch)]).buffer, keep, shift)
    copied = decode_records(_with_records(read_header(batch), payload, int(keep.sum())))
    expected = [
        Record(r.key, r.value, r.timestamp_ms + shift, r.headers, n) for n, r in enumerate(sent) if keep[n]
    ]
    assert copied == expected


def test_a_long_log_is_compacted_in_rounds(at: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.broker.log.compaction_plan.MAX_RECORDS", 50)
    for number in range(300):
        put(at, (b"k%d" % (number % 3), b"%d" % number))
    rounds = 0
    while compact(at):
        rounds += 1
    assert rounds > 2
    assert len(contents(at)) <= 3 + 60


def test_segments_that_became_small_are_merged(at: Harness) -> None:
    for _ in range(3):
        for number in range(100):
            put(at, (b"k%d" % (number % 3), b"%d" % number))
        assert compact(at)
    assert len(at.log.segments) < 12
    assert len(contents(at)) == 3


def test_leftovers_of_a_compaction_are_removed_at_start(at: Harness) -> None:
    put(at, (b"k", b"v"))
    at.crash()
    (at.directory / "cleaning").mkdir()
    shutil.copy(at.files(".log")[0], at.directory / "cleaning")
    (at.directory / "00000000000000000000.index.swap").write_bytes(os.urandom(8))
    at.start()
    assert contents(at) == [(0, b"k", b"v")]
    assert not (at.directory / "cleaning").exists() and not at.files(".swap")
