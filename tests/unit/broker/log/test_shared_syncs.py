"""What it costs to make and delete many partitions: syncs are shared, and what is answered is durable."""

import uuid
from pathlib import Path

from tailrace.broker.log import LogManager, PartitionSpec
from tailrace.broker.log.config import TopicConfig
from tailrace.broker.log.disk import LocalDisk

PARTITIONS = 50
TOPIC_ID = uuid.UUID(int=7)


class CountingDisk(LocalDisk):
    """Counts what waits for the disk."""

    def __init__(self) -> None:
        self.contents = self.folders = 0

    def fdatasync(self, fd: int, /) -> None:
        self.contents += 1
        super().fdatasync(fd)

    def fsync(self, fd: int, /) -> None:
        self.folders += 1
        super().fsync(fd)

    def taken(self) -> tuple[int, int]:
        taken, self.contents, self.folders = (self.contents, self.folders), 0, 0
        return taken


def specs(name: str) -> list[PartitionSpec]:
    return [PartitionSpec(name, n, TOPIC_ID, TopicConfig(), created=False) for n in range(PARTITIONS)]


def test_a_partition_is_made_by_two_syncs_and_a_topic_by_one_more(tmp_path: Path) -> None:
    disk = CountingDisk()
    logs = LogManager(tmp_path / "data", disk=disk)
    logs.open([])
    disk.taken()
    logs.create(specs("orders"))
    assert disk.taken() == (PARTITIONS, PARTITIONS + 1)  # each id and folder; the folder of all
    assert all(logs.get("orders", n).log_end_offset == 0 for n in range(PARTITIONS))
    logs.close()


def test_a_topic_is_deleted_by_as_many_syncs_as_one_partition(tmp_path: Path) -> None:
    disk = CountingDisk()
    logs = LogManager(tmp_path / "data", disk=disk)
    logs.open([])
    for count in (1, PARTITIONS):
        logs.create(specs("orders")[:count])
        disk.taken()
        logs.delete("orders", range(count), TOPIC_ID)
        assert disk.taken() == (1, 2)
        assert not [path for path in (tmp_path / "data").glob("orders-*") if path.suffix == ""]
    logs.close()
