"""What retention gives up, and what it never touches."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.broker.log.harness import NOW_MS, Harness

from tailrace.broker.log import TopicConfig

MINUTE_MS = 60_000
PRODUCER = (7, 0)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    config = TopicConfig(segment_bytes=1024, retention_ms=10 * MINUTE_MS)
    harness = Harness(tmp_path / "data", config)
    yield harness
    harness.crash()


def minutes(at: Harness, count: int) -> None:
    """A batch of half a segment every minute."""
    for _ in range(count):
        at.append(b"." * 400)
        at.clock.at_ms += MINUTE_MS
    at.sync()


def maintain(at: Harness) -> None:
    asyncio.run(at.logs.maintain())


def test_segments_go_when_their_last_record_is_too_old(at: Harness) -> None:
    minutes(at, 30)
    maintain(at)
    assert at.log.log_start_offset == 20
    assert [r.offset for r in at.records()] == list(range(20, 30))
    assert [int(path.stem) for path in at.files(".log")] == list(range(20, 30, 2))
    assert not list(at.directory.glob("*.deleted"))
    before = at.values()
    at.crash_and_start()
    assert (at.log.log_start_offset, at.values()) == (20, before)


def test_files_of_given_up_segments_stay_as_long_as_the_topic_says(at: Harness) -> None:
    config = TopicConfig(segment_bytes=1024, retention_ms=10 * MINUTE_MS, file_delete_delay_ms=MINUTE_MS)
    at.logs.configure("orders", config)
    minutes(at, 30)
    maintain(at)
    away = sorted(at.directory.glob("*.log.deleted"))
    assert [int(path.name.partition(".")[0]) for path in away] == list(range(0, 20, 2))
    at.clock.at_ms += MINUTE_MS - 1
    maintain(at)
    assert sorted(at.directory.glob("*.log.deleted")) == away
    at.clock.at_ms += 1
    maintain(at)
    assert not {*away} & {*at.directory.glob("*.deleted")}
    before = at.values()
    at.crash_and_start()
    assert at.values() == before and not list(at.directory.glob("*.deleted"))


def test_the_newest_segment_goes_too_when_all_is_old(at: Harness) -> None:
    minutes(at, 5)
    at.clock.at_ms += 20 * MINUTE_MS
    maintain(at)
    assert (at.log.log_start_offset, at.log.log_end_offset, at.values()) == (5, 5, [])
    assert at.append(b"next").base_offset == 5
    at.crash_and_start()
    assert at.values() == [b"next"]


def test_a_record_from_the_future_keeps_its_segment_and_those_after(at: Harness) -> None:
    config = TopicConfig(segment_bytes=1024, retention_ms=10 * MINUTE_MS, timestamp_after_max_ms=10**9)
    at.logs.configure("orders", config)
    at.append(b"." * 600, timestamp_ms=NOW_MS + 10**9)
    at.clock.at_ms += 1
    minutes(at, 20)
    at.clock.at_ms += 20 * MINUTE_MS
    maintain(at)
    assert at.log.log_start_offset == 0


def test_retention_bytes_keeps_at_least_that_much(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(segment_bytes=1024, retention_ms=-1, retention_bytes=3000))
    minutes(at, 20)
    maintain(at)
    assert 3000 <= at.log.size < 3000 + 1024
    assert at.log.log_end_offset == 20


def test_without_the_delete_policy_nothing_goes(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(compact=True, delete=False, retention_ms=0, retention_bytes=0))
    minutes(at, 5)
    at.clock.at_ms += 20 * MINUTE_MS
    maintain(at)
    assert at.log.log_start_offset == 0


def test_segments_below_deleted_records_go_under_any_policy(at: Harness) -> None:
    at.logs.configure("orders", TopicConfig(segment_bytes=1024, retention_ms=-1))
    minutes(at, 10)
    at.logs.delete_records("orders", 0, 5)
    maintain(at)
    assert [int(path.stem) for path in at.files(".log")] == [4, 6, 8]
    assert at.log.log_start_offset == 5


def test_an_open_transaction_is_never_given_up(at: Harness) -> None:
    at.append(b"." * 400, producer=PRODUCER, sequence=0, transactional=True)
    minutes(at, 5)
    at.clock.at_ms += 60 * MINUTE_MS
    maintain(at)
    assert (at.log.log_start_offset, at.log.last_stable_offset) == (0, 0)
    at.end(PRODUCER, commit=True)
    at.sync()
    at.clock.at_ms += 60 * MINUTE_MS
    maintain(at)
    assert at.log.log_start_offset == at.log.log_end_offset == 7


def test_what_is_not_durable_is_never_given_up(at: Harness) -> None:
    for _ in range(4):
        at.append(b"." * 400)
    at.clock.at_ms += 60 * MINUTE_MS
    maintain(at)
    assert at.log.log_start_offset == 0


def test_producers_outlive_their_records_and_expire_when_idle(at: Harness) -> None:
    at.append(b"." * 400, producer=PRODUCER, sequence=0)
    minutes(at, 30)
    maintain(at)
    assert at.log.log_start_offset > 0
    at.restart()
    assert [producer.producer_id for producer in at.log.producers()] == [7]
    assert at.append(b"x", producer=PRODUCER, sequence=1).base_offset == 31
    at.clock.at_ms += 24 * 60 * MINUTE_MS
    maintain(at)
    assert [producer.producer_id for producer in at.log.producers()] == [7]
    at.clock.at_ms += 1
    maintain(at)
    assert at.log.producers() == []


def test_records_without_a_timestamp_age_by_their_file(at: Harness, tmp_path: Path) -> None:
    for _ in range(4):
        at.append(b"." * 400, timestamp_ms=-1)
    at.sync()
    at.clock.at_ms = int(at.log.segments[0].file.path.stat().st_mtime * 1000) + 9 * MINUTE_MS
    maintain(at)
    assert at.log.log_start_offset == 0
    at.clock.at_ms += 2 * MINUTE_MS
    maintain(at)
    assert at.log.log_start_offset == 4
