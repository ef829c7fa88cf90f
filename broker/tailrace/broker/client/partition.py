"""Names of things in a cluster: partitions, topics, brokers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tailrace.changes.errors import ConfigError


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to be created; `configs` as Kafka's topic configs (`cleanup.policy`, `retention.ms`, ...).

    replication_factor  -1: the broker's default.
    """

    name: str
    partitions: int = 1
    configs: Mapping[str, str] = field(default_factory=dict)
    replication_factor: int = -1


@dataclass(frozen=True, slots=True)
class TopicMetadata:
    """A topic as a broker describes it: `leaders[i]` is the node that leads partition i, -1 for none."""

    name: str
    topic_id: bytes
    is_internal: bool
    leaders: tuple[int, ...]

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.name, index) for index in range(len(self.leaders))]


def parse_bootstrap(bootstrap: str) -> list[Address]:
    """The addresses in `host:port,host:port`; an IPv6 host stands in brackets.  Raises ConfigError."""
    addresses: list[Address] = []
    for part in bootstrap.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(
                f"broker address {part.strip()!r} is not host:port", fix="write it like 127.0.0.1:9092"
            )
        addresses.append(Address(host.removeprefix("[").removesuffix("]"), int(port)))
    return addresses
