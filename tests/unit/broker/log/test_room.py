"""The zeros that a growing segment keeps beyond its end, so that an fdatasync finds size and blocks as they were."""

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.broker.log.disks import FaultyDisk
from tests.unit.broker.log.harness import Harness

from tailrace.broker.log import LogError, TopicConfig
from tailrace.broker.log.segment import ROOM, ROOM_FROM_BYTES
from tailrace.broker.protocol.fields import Buffer

PIECE = b"x" * 10_000


@pytest.fixture
def at(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "data")


def flush(at: Harness) -> None:
    """A round, as the Flusher runs one after the other."""
    sync = at.log.begin_sync(more_follows=True)
    assert sync is not None
    sync.run()
    at.log.finish_sync(sync)


def grow(at: Harness, rounds: int = 10) -> None:
    for _ in range(rounds):
        at.append(PIECE)
        flush(at)


def sizes(at: Harness) -> list[int]:
    return [path.stat().st_size for path in at.files(".log")]


def test_small_rounds_make_room_and_appends_fill_it(at: Harness) -> None:
    grow(at)
    (made,) = sizes(at)
    assert at.log.size < made <= at.log.size + len(ROOM)
    grow(at, 20)
    assert sizes(at) == [made]
    grow(at, 100)
    (then,) = sizes(at)
    assert made < then <= at.log.size + len(ROOM)
    assert at.values() == [PIECE] * 130
    at.stop()


def test_a_short_segment_and_large_rounds_make_no_room(at: Harness) -> None:
    grow(at, 3)
    assert at.log.size < ROOM_FROM_BYTES and sizes(at) == [at.log.size]
    for _ in range(4):
        for _ in range(20):
            at.append(PIECE)
        flush(at)
    assert sizes(at) == [at.log.size]
    at.stop()


def test_a_clean_stop_cuts_the_room(at: Harness) -> None:
    grow(at)
    size = at.log.size
    at.stop()
    assert sizes(at) == [size]
    at.start()
    assert at.values() == [PIECE] * 10
    at.stop()


def test_a_roll_cuts_the_room(tmp_path: Path) -> None:
    at = Harness(tmp_path / "data", TopicConfig(segment_bytes=200_000))
    grow(at, 25)
    assert len(at.log.segments) == 2
    assert sizes(at)[0] == at.log.segments[0].size
    at.stop()


def test_recovery_cuts_the_room_without_a_warning(at: Harness, caplog: pytest.LogCaptureFixture) -> None:
    grow(at)
    size = at.log.size
    at.crash_and_start()
    assert sizes(at) == [size] and at.values() == [PIECE] * 10
    assert not caplog.records
    at.stop()


def test_a_segment_whose_cut_was_lost_keeps_the_segments_after_it(tmp_path: Path) -> None:
    at = Harness(tmp_path / "data", TopicConfig(segment_bytes=200_000))
    grow(at, 25)
    first, *_ = at.files(".log")
    with first.open("ab") as file:
        file.write(bytes(50_000))  # what a power cut brings back when the new size was not durable
    at.crash_and_start()
    assert at.values() == [PIECE] * 25
    assert sizes(at)[0] == at.log.segments[0].size
    at.crash_and_start()
    assert at.values() == [PIECE] * 25
    at.stop()


def test_a_roll_that_a_power_cut_leaves_half_done_keeps_what_was_durable(at: Harness) -> None:
    grow(at)
    asyncio.run(at.logs.checkpoint())
    assert at.log.recovery_point == 10
    end = at.log.log_end_offset
    at.crash()
    (at.directory / f"{end:020d}.log").touch()  # made before the zeros of the one before were cut
    at.start()
    assert at.values() == [PIECE] * 10
    assert [segment.base_offset for segment in at.log.segments] == [0, end]
    assert sizes(at) == [at.log.size, 0]
    grow(at)
    at.crash_and_start()
    assert at.values() == [PIECE] * 20
    at.stop()


def test_zeros_where_a_batch_was_durable_are_damage(at: Harness) -> None:
    grow(at)
    asyncio.run(at.logs.checkpoint())
    last = at.log.segments[-1].size - len(PIECE)
    at.crash()
    (path,) = at.files(".log")
    with path.open("r+b") as file:
        file.truncate(last - 500)
        file.truncate(last + 2 * len(PIECE))
    at.start()
    with pytest.raises(LogError, match="is offline"):
        at.logs.get("orders", 0)
    at.logs.close()


@pytest.mark.parametrize("taken", [0, 1, 5000])
def test_a_disk_that_has_no_place_for_room_takes_appends_still(tmp_path: Path, taken: int) -> None:
    asked = 0

    class NearlyFull(FaultyDisk):
        def write(self, fd: int, parts: Sequence[Buffer], at: int, /) -> int:
            nonlocal asked
            if any(part.obj is ROOM.obj for part in parts if isinstance(part, memoryview)):
                asked += 1
                if not taken:
                    raise OSError(errno.ENOSPC, "No space left on device")
                parts = [ROOM[:taken]]
            return super().write(fd, parts, at)

    at = Harness(tmp_path / "data", disk=NearlyFull())
    grow(at, 30)
    assert asked == 1
    assert sizes(at) == [at.log.size]
    at.crash_and_start()
    assert at.values() == [PIECE] * 30
    at.stop()


def test_an_append_that_fails_inside_the_room_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    disk = FaultyDisk()
    at = Harness(tmp_path / "data", disk=disk)
    grow(at)

    def broken(operation: str, path: Path) -> None:
        if operation == "write" and path.suffix == ".log":
            raise OSError(errno.EIO, "Input/output error")

    disk.before = broken
    with pytest.raises(LogError, match="cannot append"):
        at.append(b"lost")
    disk.before = quiet
    grow(at)
    at.crash_and_start()
    assert at.values() == [PIECE] * 20
    at.stop()


def quiet(operation: str, path: Path) -> None:
    """No fault."""
