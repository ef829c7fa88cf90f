"""What a start after a kill checks, and what it takes from the newest checked point of the segment that grew."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.unit.broker.log.disks import FaultyDisk
from tests.unit.broker.log.harness import Harness

from tailrace.broker.log import TopicConfig, checked
from tailrace.broker.log.checkpoints import RECOVERY_POINTS

PRODUCER = (7, 0)
OTHER = (8, 0)
LATER = (9, 0)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def at(tmp_path: Path, disk: FaultyDisk) -> Iterator[Harness]:
    with patch.object(checked, "CHECKED_BYTES", 20_000):
        harness = Harness(tmp_path / "data", TopicConfig(segment_bytes=1 << 20), disk=disk)
        yield harness
        harness.crash()


def fill(at: Harness, batches: int) -> None:
    """Transactions of two producers, every other one aborted, with records outside of them in between."""
    for number in range(batches):
        producer = (PRODUCER, OTHER)[number % 2]
        value, sequence = b"%03d" % number + b"." * 900, next_sequence(at, producer)
        at.append(value, producer=producer, sequence=sequence, transactional=True)
        at.append(b"outside", timestamp_ms=at.clock.at_ms + number)
        if number % 4 > 1:
            at.end(producer, commit=number % 8 > 3)


def next_sequence(at: Harness, producer: tuple[int, int]) -> int:
    known = at.log.states.by_id.get(producer[0])
    return 0 if known is None else known.last_sequence + 1


def checkpoint(at: Harness) -> None:
    at.sync()
    asyncio.run(at.logs.checkpoint())


def grown(at: Harness) -> object:
    """A segment with a checked point and batches after it, killed; what was known of it."""
    fill(at, 60)
    checkpoint(at)
    for _ in range(3):
        at.append(b"later", producer=LATER, sequence=next_sequence(at, LATER))
    at.sync()
    known = state(at)
    at.crash()
    return known


def state(at: Harness) -> object:
    log, end = at.log, at.log.log_end_offset
    return (
        at.values(),
        log.aborted_transactions(0, end),
        log.last_stable_offset,
        sorted(log.producers(), key=lambda producer: producer.producer_id),
        [log.offset_for_timestamp(at.clock.at_ms + n, end) for n in range(60)],
        log.segments[-1].max_timestamp,
    )


def bytes_read_at_start(at: Harness, disk: FaultyDisk) -> int:
    """How much of the segment a start reads."""
    read = [0]
    plain = disk.read

    def counted(fd: int, size: int, position: int, /) -> bytes:
        data = plain(fd, size, position)
        read[0] += len(data) if disk.path_of(fd).suffix == ".log" else 0
        return data

    with patch.object(disk, "read", counted):
        at.start()
    return read[0]


def test_a_start_after_a_kill_reads_what_came_after_the_checked_point_only(
    at: Harness, disk: FaultyDisk
) -> None:
    fill(at, 900)
    checkpoint(at)
    at.append(b"later")
    at.sync()
    known = state(at)
    at.crash()
    size = at.files(".log")[0].stat().st_size
    assert size > 900_000
    assert bytes_read_at_start(at, disk) < size / 5  # the first header, and from the last index entry on
    assert state(at) == known
    at.crash()
    at.files(".checked")[0].unlink()
    assert bytes_read_at_start(at, disk) > size
    assert state(at) == known


def test_a_log_goes_on_from_a_checked_point_and_gets_the_next_one(at: Harness) -> None:
    points = []
    for _ in range(4):
        known = grown(at)
        points = at.files(".checked")
        at.start()
        assert state(at) == known
        assert at.files(".checked") == points
    assert len(points) == 2  # the newest one, and that which counts until the recovery point passes it


def test_a_checked_point_is_written_when_its_indexes_are_durable(at: Harness, disk: FaultyDisk) -> None:
    done: list[tuple[str, str]] = []
    fill(at, 60)
    at.sync()
    disk.before = lambda operation, path: done.append((operation, "".join(path.suffixes)))
    asyncio.run(at.logs.checkpoint())
    disk.before = lambda _operation, _path: None
    written = done.index(("rename", ".checked.tmp"))
    for suffix in (".index", ".timeindex", ".txnindex", ".checked.tmp"):
        assert ("fdatasync", suffix) in done[:written]


def test_a_checked_point_beyond_the_recovery_point_is_given_up(at: Harness) -> None:
    fill(at, 60)
    checkpoint(at)
    known = state(at)
    at.crash()
    offset = int(at.files(".checked")[0].stem)
    (at.data_dir / RECOVERY_POINTS).write_text(f"0\n1\norders 0 {offset - 1}\n")
    at.start()
    assert at.files(".checked") == []
    assert state(at) == known


@pytest.mark.parametrize("suffix", [".checked", ".index", ".timeindex", ".txnindex"])
def test_damage_of_what_a_checked_point_speaks_of_is_found_and_made_good(at: Harness, suffix: str) -> None:
    known = grown(at)
    (path,) = at.files(suffix)
    (point,) = at.files(".checked")
    content, told = path.read_bytes(), point.read_bytes()
    torn = [content[:-1], content[: len(content) // 2], b"", bytes(len(content)), None]
    flipped = [
        content[:byte] + bytes([content[byte] ^ 1 << byte % 8]) + content[byte + 1 :]
        for byte in range(0, len(content), max(1, len(content) // 60))
    ]
    for number, damaged in enumerate([*torn, *flipped]):
        point.write_bytes(told)
        path.write_bytes(damaged or b"")
        if damaged is None:
            path.unlink()
        at.start()
        assert state(at) == known, number
        at.crash()
        at.start()
        assert state(at) == known, number
        at.crash()
    at.start()


def test_damage_of_batches_below_a_checked_point_cuts_nothing(at: Harness) -> None:
    grown(at)
    (path,) = at.files(".log")
    content = path.read_bytes()
    at.start()
    end = at.log.log_end_offset
    at.crash()
    for byte in range(8, content.rindex(b"later"), 971):
        damaged = content[:byte] + bytes([content[byte] ^ 0x40]) + content[byte + 1 :]
        path.write_bytes(damaged)
        at.start()
        assert path.read_bytes() == damaged, byte
        assert ("orders", 0) in at.logs.offline() or at.log.log_end_offset == end, byte
        at.crash()
    path.write_bytes(content)
    at.start()
