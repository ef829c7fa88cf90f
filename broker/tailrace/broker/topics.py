"""Topics, their configs, the cluster's identity and producer ids: one SQLite database beside the logs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tailrace.broker.log import LogManager, PartitionLog


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as Metadata and DescribeConfigs show it; `configs` holds only what was set."""

    name: str
    topic_id: UUID
    partitions: int
    configs: Mapping[str, str]
    internal: bool


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One row of DescribeConfigs; `source` is Kafka's number (1 topic, 2 broker dynamic, 4 static, 5 default)."""

    name: str
    value: str
    source: int
    config_type: int
    read_only: bool
    documentation: str


class Topics:
    """The catalog of one broker; every change is durable on return.

    Raises LogError: TOPIC_ALREADY_EXISTS, INVALID_TOPIC_EXCEPTION, INVALID_PARTITIONS, INVALID_CONFIG,
    UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID.
    """

    def __init__(self, data_dir: Path, logs: LogManager) -> None:
        """Open the database, finish half-done creations and deletions, and open all logs."""
        raise NotImplementedError

    @property
    def cluster_id(self) -> str:
        """22 characters, made at the first start."""
        raise NotImplementedError

    def all(self) -> Sequence[Topic]:
        """Every topic, by name."""
        raise NotImplementedError

    def get(self, name: str) -> Topic:
        """The topic, or UNKNOWN_TOPIC_OR_PARTITION."""
        raise NotImplementedError

    def find(self, name: str) -> Topic | None:
        """The topic or None."""
        raise NotImplementedError

    def by_id(self, topic_id: UUID) -> Topic:
        """The topic, or UNKNOWN_TOPIC_ID."""
        raise NotImplementedError

    def log(self, name: str, partition: int) -> PartitionLog:
        """The partition's log; same errors as LogManager.get."""
        raise NotImplementedError

    def check_create(self, name: str, partitions: int, configs: Mapping[str, str | None]) -> None:
        """Raise what `create` would raise (CreateTopics with validate_only)."""
        raise NotImplementedError

    def create(
        self, name: str, partitions: int, configs: Mapping[str, str | None], *, internal: bool = False
    ) -> Topic:
        """Make a topic and its logs."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Remove a topic and its logs."""
        raise NotImplementedError

    def check_add_partitions(self, name: str, total: int) -> None:
        """Raise what `add_partitions` would raise."""
        raise NotImplementedError

    def add_partitions(self, name: str, total: int) -> Topic:
        """Grow a topic to `total` partitions."""
        raise NotImplementedError

    def check_configs(self, configs: Mapping[str, str | None]) -> None:
        """Raise INVALID_CONFIG for a name or a value that would not be obeyed."""
        raise NotImplementedError

    def set_configs(self, name: str, configs: Mapping[str, str | None]) -> Topic:
        """Replace all configs of the topic (None or absent: back to the default)."""
        raise NotImplementedError

    def describe_configs(self, name: str) -> list[ConfigEntry]:
        """All configs of the topic with their values and where they come from."""
        raise NotImplementedError

    def allocate_producer_id(self) -> int:
        """A producer id that was never given out before, also over crashes."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the database (not the logs)."""
        raise NotImplementedError
