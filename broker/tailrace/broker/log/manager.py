"""All partitions of one data directory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tailrace.broker.log.clock import Clock
from tailrace.broker.log.config import TopicConfig
from tailrace.broker.log.partition import PartitionLog


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    """A partition that must exist at start.  `created`: its directory was made before."""

    topic: str
    partition: int
    topic_id: UUID
    config: TopicConfig
    created: bool


class LogManager:
    """Opens, creates, deletes and maintains the logs below `data_dir`; one broker per directory.

    Raises ConfigError when another process holds the directory.
    """

    def __init__(self, data_dir: Path, *, clock: Clock | None = None) -> None:
        raise NotImplementedError

    @property
    def leader_epoch(self) -> int:
        """Epoch of this start: one higher after every unclean stop."""
        raise NotImplementedError

    def open(self, partitions: Iterable[PartitionSpec]) -> None:
        """Recover every partition.  A damaged one is offline (`get` raises), the others serve."""
        raise NotImplementedError

    def create(self, spec: PartitionSpec) -> PartitionLog:
        """Make a new, empty partition; durable on return."""
        raise NotImplementedError

    def delete(self, topic: str, partition: int) -> None:
        """Rename the directory away, then remove it."""
        raise NotImplementedError

    def get(self, topic: str, partition: int) -> PartitionLog:
        """Raises LogError: UNKNOWN_TOPIC_OR_PARTITION, KAFKA_STORAGE_ERROR (offline, with the reason)."""
        raise NotImplementedError

    def partitions(self) -> Iterator[PartitionLog]:
        """Every log that is online."""
        raise NotImplementedError

    def offline(self) -> dict[tuple[str, int], str]:
        """Why partitions are offline."""
        raise NotImplementedError

    def configure(self, topic: str, config: TopicConfig) -> None:
        """Obey a new configuration from now on."""
        raise NotImplementedError

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        """Move the log start to `before` (-1: high watermark), durably; returns the new log start.

        Raises LogError: OFFSET_OUT_OF_RANGE.
        """
        raise NotImplementedError

    async def maintain(self) -> None:
        """One round of retention, compaction, producer expiry and checkpoints; call about every second."""
        raise NotImplementedError

    def close(self) -> None:
        """Flush everything, write snapshots and the clean-shutdown marker, release the directory."""
        raise NotImplementedError
