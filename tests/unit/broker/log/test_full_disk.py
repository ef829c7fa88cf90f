"""A disk without space: the producer is told, the log stays whole, reading goes on, space ends it.

RLIMIT_FSIZE makes the kernel write only a part and then refuse, at any byte that a test wants.
"""

import asyncio
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.broker.log.disks import FaultyDisk
from tests.unit.broker.log.harness import Harness, make_batch

from tailrace.broker.log import LogError, TopicConfig, index
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.protocol.fields import Buffer

PRODUCER = (7, 0)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path / "data")
    yield harness
    harness.crash()


def test_an_append_torn_at_any_byte_leaves_the_log_as_before(at: Harness) -> None:
    at.append(b"acked", producer=PRODUCER, sequence=0)
    at.sync()
    size = at.log.size
    length = len(make_batch([b"torn"]))
    for room in range(length):
        with files_up_to(size + room), pytest.raises(LogError) as caught:
            at.append(b"torn", producer=PRODUCER, sequence=1)
        assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR and caught.value.fix
        assert at.log.segments[-1].file.path.stat().st_size == size
        assert (at.log.log_end_offset, at.log.size, at.values()) == (1, size, [b"acked"])
    assert at.append(b"retried", producer=PRODUCER, sequence=1).base_offset == 1
    at.crash_and_start()
    assert at.values() == [b"acked", b"retried"]


def test_a_roll_that_finds_no_space_leaves_the_old_segment_in_charge(tmp_path: Path) -> None:
    at = Harness(tmp_path / "data", TopicConfig(segment_bytes=1024))
    for sequence in range(4):
        at.append(b"." * 150, producer=PRODUCER, sequence=sequence)
    before = sorted(path.name for path in at.directory.iterdir())
    with files_up_to(30), pytest.raises(LogError) as caught:
        at.append(b"." * 900, producer=PRODUCER, sequence=4)
    assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    after = sorted(path.name for path in at.directory.iterdir() if path.suffix != ".tmp")
    assert (after, len(at.log.segments)) == (before, 1)
    assert at.append(b"." * 900, producer=PRODUCER, sequence=4).base_offset == 4
    assert len(at.log.segments) == 2
    at.crash_and_start()
    assert at.log.log_end_offset == 5
    at.stop()


def test_an_abort_whose_index_entry_found_no_space_is_still_an_abort(at: Harness) -> None:
    for sequence in range(4):
        at.append(b".", producer=PRODUCER, sequence=sequence, transactional=True)
        at.end(PRODUCER, commit=False)
    path = at.log.segments[-1].path(".txnindex")
    assert path.stat().st_size == 4 * 34
    at.append(b".", producer=PRODUCER, sequence=4, transactional=True)
    aborted = at.log.segments[-1].aborted
    path.rename(path.with_suffix(".away"))
    path.mkdir()  # opening it for writing fails, as it does without space
    at.end(PRODUCER, commit=False)
    expected = at.log.aborted_transactions(0, 10)
    assert [entry.first_offset for entry in aborted.entries] == [0, 2, 4, 6, 8]
    path.rmdir()
    path.with_suffix(".away").rename(path)
    at.restart()
    assert at.log.aborted_transactions(0, 10) == expected == [(7, 0), (7, 2), (7, 4), (7, 6), (7, 8)]


def test_indexes_that_found_no_space_still_find_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "UNWRITTEN_BYTES", 8)
    full = False

    class ShortWrites(FaultyDisk):
        def write(self, fd: int, parts: Sequence[Buffer], at: int, /) -> int:
            is_index = full and self.path_of(fd).suffix.endswith("index")
            return super().write(fd, [parts[0][:3]] if is_index else parts, at)

    at = Harness(tmp_path / "data", disk=ShortWrites())
    values = [b"%04d" % number * 500 for number in range(60)]
    for number, value in enumerate(values):
        full = 10 <= number < 40
        at.append(value, timestamp_ms=number + 1)
    assert at.log.segments[-1].offset_index.file.count == pytest.approx(15, abs=3)
    for again in (at.restart, at.crash_and_start):
        for offset, value in enumerate(values):
            (view,) = at.log.read(offset, 1, upper=60)
            assert value in bytes(view)
            found = at.log.offset_for_timestamp(offset + 1, 60)
            assert found is not None and found.offset == offset
        again()
    assert at.values() == values
    at.stop()


def test_maintenance_without_space_is_postponed_not_fatal(tmp_path: Path) -> None:
    at = Harness(tmp_path / "data", TopicConfig(segment_bytes=1024))
    for _ in range(20):
        at.append(b"." * 300)
    at.sync()
    point = at.log.recovery_point
    with files_up_to(5):
        asyncio.run(at.logs.maintain())
    at.clock.at_ms += 10_000
    asyncio.run(at.logs.maintain())
    assert at.log.recovery_point == 20 > point
    at.stop()
