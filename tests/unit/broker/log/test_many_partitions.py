"""A start of many partitions: side by side, and without waiting for a disk that has nothing to do."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from tests.unit.broker.log.disks import FaultyDisk
from tests.unit.broker.log.harness import NOW_MS, TOPIC_ID, ManualClock, make_batch

from tailrace.broker.log import LogManager, PartitionSpec, TopicConfig
from tailrace.broker.log.partition import sync_all

PARTITIONS = 6


def opened(data_dir: Path, disk: FaultyDisk, *, created: bool = True, threads: int = 1) -> LogManager:
    logs = LogManager(data_dir, clock=ManualClock(), disk=disk, recovery_threads=threads)
    config = TopicConfig(segment_bytes=2000)
    logs.open([PartitionSpec("orders", n, TOPIC_ID, config, created) for n in range(PARTITIONS)])
    return logs


def killed(logs: LogManager) -> None:
    for log in logs.partitions():
        log.close()
    logs._lock.release()


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def data_dir(tmp_path: Path, disk: FaultyDisk) -> Path:
    """Partitions with several segments, all checkpointed, after a kill; the last one is empty."""
    logs = opened(tmp_path / "data", disk, created=False)
    for log in list(logs.partitions())[:-1]:
        for number in range(20):
            batch = make_batch([b"." * 150], producer=(7, 0), sequence=number)
            log.append(batch, now_ms=NOW_MS, leader_epoch=logs.leader_epoch)
        sync_all(log)
    asyncio.run(logs.checkpoint())
    killed(logs)
    return tmp_path / "data"


def syncs(disk: FaultyDisk, data_dir: Path) -> list[tuple[str, str]]:
    """Keep a list of all that is synced in partitions' folders from now on."""
    done: list[tuple[str, str]] = []

    def note(operation: str, path: Path) -> None:
        if operation in ("fsync", "fdatasync") and path != data_dir and path.parent != data_dir.parent:
            folder = path if path.is_dir() else path.parent
            if folder.parent == data_dir:
                done.append((folder.name, operation))

    disk.before = note
    return done


def test_a_start_syncs_nothing_that_an_earlier_one_or_a_checkpoint_made_durable(
    disk: FaultyDisk, data_dir: Path
) -> None:
    done = syncs(disk, data_dir)
    for _ in range(2):
        logs = opened(data_dir, disk)
        assert done == []
        assert [log.log_end_offset for log in logs.partitions()] == [20] * (PARTITIONS - 1) + [0]
        killed(logs)


def test_a_start_syncs_what_was_appended_since_the_checkpoint(disk: FaultyDisk, data_dir: Path) -> None:
    logs = opened(data_dir, disk)
    logs.get("orders", 2).append(make_batch([b"later"]), now_ms=NOW_MS, leader_epoch=logs.leader_epoch)
    killed(logs)
    done = syncs(disk, data_dir)
    logs = opened(data_dir, disk)
    assert {folder for folder, _ in done} == {"orders-2"}
    assert {operation for _, operation in done} == {"fdatasync", "fsync"}
    assert logs.get("orders", 2).durable_end == 21
    killed(logs)


def test_a_start_makes_new_and_removed_names_durable(disk: FaultyDisk, data_dir: Path) -> None:
    (data_dir / "orders-1" / "00000000000000000000.log.deleted").write_bytes(b"")
    done = syncs(disk, data_dir)
    killed(opened(data_dir, disk))
    assert ("orders-1", "fsync") in done


def test_threads_find_what_one_finds(disk: FaultyDisk, data_dir: Path) -> None:
    torn = max((data_dir / "orders-1").glob("*.log"))
    with torn.open("ab") as file:
        file.write(b"torn")
    damaged = min((data_dir / "orders-3").glob("*.log"))
    os.truncate(damaged, damaged.stat().st_size - 1)
    logs = opened(data_dir, disk, threads=4)
    assert [log.partition for log in logs.partitions()] == [0, 1, 2, 4, 5]
    assert [log.log_end_offset for log in logs.partitions()] == [20, 20, 20, 20, 0]
    assert list(logs.offline()) == [("orders", 3)]
    assert [len(log.producers()) for log in logs.partitions()] == [1, 1, 1, 1, 0]
    killed(logs)


def test_partitions_are_recovered_side_by_side(disk: FaultyDisk, data_dir: Path) -> None:
    together = threading.Barrier(2)
    seen: set[str] = set()

    def meet(operation: str, path: Path) -> None:
        if operation == "read" and path.suffix == ".log" and path.parent.name not in seen and len(seen) < 2:
            seen.add(path.parent.name)
            together.wait(10)  # raises BrokenBarrierError when nobody else comes

    disk.before = meet
    logs = opened(data_dir, disk, threads=2)
    assert len(seen) == 2 and not logs.offline()
    killed(logs)
