"""The options of one broker process, checked before anything is opened."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from tailrace.changes.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """What a broker is told at start; the names follow Kafka's `server.properties` where one exists.

    Raises ConfigError for an option outside its range, and for a listener beyond loopback without
    `insecure`: there is no TLS and no authentication yet.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port; the port in use is told to `on_ready`
    advertised_host: str = ""  # what clients are told to connect to; empty: `host`
    advertised_port: int = 0  # 0: the port that listens
    insecure: bool = False
    node_id: int = 1

    auto_create_topics: bool = True
    default_partitions: int = 1
    delete_topic_enable: bool = True

    request_max_bytes: int = 100 * 1024 * 1024  # a larger frame closes the connection
    max_in_flight_bytes: int = 64 * 1024 * 1024  # unanswered produce bytes at which a connection is not read
    fetch_max_bytes: int = 55 * 1024 * 1024  # ceiling of one fetch answer, whatever the client asks
    idle_timeout_s: float = 600.0

    # a client that joins before it has seen the topic gets nothing assigned (kafka-python): leave it a moment
    group_initial_rebalance_delay_ms: int = 300
    group_min_session_timeout_ms: int = 1_000
    group_max_session_timeout_ms: int = 30 * 60_000
    group_max_size: int = 10_000
    offset_metadata_max_bytes: int = 4096
    offsets_retention_ms: int = 7 * 24 * 3_600_000
    offsets_topic_partitions: int = 1

    transaction_max_timeout_ms: int = 4 * 3_600_000  # Flink asks for one hour; Kafka's 15 min refuses it
    transactional_id_expiration_ms: int = 7 * 24 * 3_600_000
    transaction_topic_partitions: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"broker port {self.port} is not between 0 and 65535")
        if not 0 <= self.advertised_port <= 65535:
            raise ConfigError(f"broker advertised port {self.advertised_port} is not between 0 and 65535")
        for name in (
            "default_partitions",
            "request_max_bytes",
            "max_in_flight_bytes",
            "fetch_max_bytes",
            "idle_timeout_s",
            "group_min_session_timeout_ms",
            "group_max_size",
            "offsets_topic_partitions",
            "transaction_max_timeout_ms",
            "transaction_topic_partitions",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"broker option {name} must be greater than 0")
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms:
            raise ConfigError("broker option group_min_session_timeout_ms is greater than the maximum")
        if self.host in ("0.0.0.0", "::", "") and not self.advertised_host:
            raise ConfigError(
                f"the broker would listen on every address ({self.host or 'none given'}), and clients cannot "
                "be told which of them to use",
                fix="Give the address that clients connect to as the advertised host",
            )
        if not self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"the broker would listen on {self.host}, which other machines can reach, and it has "
                "neither TLS nor authentication yet",
                fix="Listen on 127.0.0.1, or accept an open listener with --insecure",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host` (a literal address or `localhost`)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
