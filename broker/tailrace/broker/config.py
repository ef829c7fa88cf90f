"""The options of one broker process, checked before anything is opened."""

from dataclasses import dataclass, field
from pathlib import Path

from tailrace.broker.coordinator.consumer_group.assignors import ASSIGNORS
from tailrace.broker.coordinator.consumer_group.migration import MigrationPolicy
from tailrace.broker.options import about, option, options_of
from tailrace.broker.security_options import SecurityOptions
from tailrace.changes.errors import ConfigError
from tailrace.security.listeners import Listener, SecurityProtocol
from tailrace.security.listeners import is_loopback as is_loopback


@dataclass(frozen=True, slots=True)
class BrokerConfig(SecurityOptions):
    """What a broker is told at start; the names follow Kafka's `server.properties` where one exists.

    Raises ConfigError for an option outside its range, and for a listener beyond loopback that has no TLS or
    no authentication, unless `insecure` allows it.
    """

    data_dir: Path = field(metadata=about("log.dir", "Folder of the logs and of the broker's own files."))
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port; the port in use is told to `on_ready`
    advertised_host: str = ""  # what clients are told to connect to; empty: `host`
    advertised_port: int = 0  # 0: the port that listens
    insecure: bool = option(
        "tailrace.insecure", False, "Whether to listen beyond loopback without TLS and authentication."
    )
    node_id: int = option("node.id", 1, "The number of this broker; there is only one.")

    durability: str = option(
        "tailrace.durability",
        "fsync",
        "fsync: answered when it survives a power cut; page_cache: when it is written, as Kafka does.",
    )
    auto_create_topics: bool = option(
        "auto.create.topics.enable", True, "Whether a topic that a client asks for is created."
    )
    default_partitions: int = option(
        "num.partitions", 1, "Partitions of a topic whose creator names no number."
    )
    recovery_threads: int = option(
        "num.recovery.threads.per.data.dir", 4, "How many partitions a start recovers side by side."
    )
    delete_topic_enable: bool = option("delete.topic.enable", True, "Whether topics may be deleted.")

    request_max_bytes: int = option(
        "socket.request.max.bytes", 100 * 1024 * 1024, "A larger request closes its connection."
    )
    max_in_flight_bytes: int = option(
        "tailrace.max.in.flight.bytes",
        64 * 1024 * 1024,
        "Bytes of unanswered requests at which a connection is not read any further.",
    )
    queued_max_request_bytes: int = (
        option(  # Kafka's default is -1; buffers take twice as much while they grow
            "queued.max.request.bytes",
            64 * 1024 * 1024,
            "Bytes of requests over all connections at which most are not read any further; -1: no limit.",
        )
    )
    fetch_max_bytes: int = option(
        "fetch.max.bytes", 55 * 1024 * 1024, "Ceiling of one fetch answer, whatever the client asks."
    )
    connections_max_idle_ms: int = option(
        "connections.max.idle.ms", 600_000, "A connection without requests for this long is closed."
    )

    metrics_listen: str = option(
        "tailrace.metrics.listen",
        "",
        "Address of /metrics and /health: host:port, or https://host:port; empty: none.",
    )
    metrics_open: bool = option(
        "tailrace.metrics.open", False, "Whether metrics may be told beyond loopback, to everybody."
    )
    health_max_fsync_s: float = option(
        "tailrace.health.max.fsync.seconds", 10.0, "The broker is not ready while one fdatasync takes longer."
    )
    health_min_free_bytes: int = option(
        "tailrace.health.min.free.bytes", 512 << 20, "The broker is not ready while the disk has less room."
    )

    # a client that joins before it has seen the topic gets nothing assigned (kafka-python): leave it a moment
    group_initial_rebalance_delay_ms: int = option(
        "group.initial.rebalance.delay.ms", 300, "How long the first member of a group waits for others."
    )
    group_min_session_timeout_ms: int = option(
        "group.min.session.timeout.ms", 1_000, "Shortest session timeout of a group member."
    )
    group_max_session_timeout_ms: int = option(
        "group.max.session.timeout.ms", 30 * 60_000, "Longest session timeout of a group member."
    )
    group_max_size: int = option("group.max.size", 10_000, "Most members of one group.")
    group_consumer_session_timeout_ms: int = option(
        "group.consumer.session.timeout.ms",
        45_000,
        "A member of the consumer protocol that is silent this long is out.",
    )
    group_consumer_heartbeat_interval_ms: int = option(
        "group.consumer.heartbeat.interval.ms", 5_000, "How often members of the consumer protocol call."
    )
    group_consumer_min_session_timeout_ms: int = option(
        "group.consumer.min.session.timeout.ms", 45_000, "Shortest session timeout that a group may set."
    )
    group_consumer_max_session_timeout_ms: int = option(
        "group.consumer.max.session.timeout.ms", 60_000, "Longest session timeout that a group may set."
    )
    group_consumer_min_heartbeat_interval_ms: int = option(
        "group.consumer.min.heartbeat.interval.ms", 5_000, "Shortest heartbeat interval that a group may set."
    )
    group_consumer_max_heartbeat_interval_ms: int = option(
        "group.consumer.max.heartbeat.interval.ms", 15_000, "Longest heartbeat interval that a group may set."
    )
    group_consumer_max_size: int = option(
        "group.consumer.max.size", 2**31 - 1, "Most members of one group of the consumer protocol."
    )
    group_consumer_assignors: tuple[str, ...] = option(
        "group.consumer.assignors",
        ("uniform", "range"),
        "Assignors that members may ask for; the first is the default.",
    )
    group_consumer_migration_policy: str = option(
        "group.consumer.migration.policy",
        MigrationPolicy.BIDIRECTIONAL.value,
        "Whether groups with members change their protocol: bidirectional, upgrade, downgrade or disabled.",
    )
    offset_metadata_max_bytes: int = option(
        "offset.metadata.max.bytes", 4096, "Longest text that a client may store with an offset."
    )
    offsets_retention_minutes: int = option(
        "offsets.retention.minutes", 7 * 24 * 60, "How long the offsets of a group without members are kept."
    )
    offsets_topic_partitions: int = option(
        "offsets.topic.num.partitions", 1, "Partitions of __consumer_offsets when it is created."
    )

    transaction_max_timeout_ms: int = option(  # Flink asks for one hour; Kafka's 15 min refuses it
        "transaction.max.timeout.ms", 4 * 3_600_000, "Longest timeout that a producer's transaction may ask."
    )
    transactional_id_expiration_ms: int = option(
        "transactional.id.expiration.ms",
        7 * 24 * 3_600_000,
        "A transactional id unused this long is forgotten.",
    )
    producer_id_expiration_ms: int = option(
        "producer.id.expiration.ms",
        24 * 3_600_000,
        "A partition forgets a producer without an open transaction that wrote nothing this long.",
    )
    transaction_version: int = option(  # 0: Flink's recovery and its tests need the classic protocol
        "transaction.version",
        0,
        "Feature level of transactions, until a client updates it: 2 raises the producer's epoch with every one.",
    )
    transaction_topic_partitions: int = option(
        "transaction.state.log.num.partitions", 1, "Partitions of __transaction_state when it is created."
    )

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"broker port {self.port} is not between 0 and 65535")
        if not 0 <= self.advertised_port <= 65535:
            raise ConfigError(f"broker advertised port {self.advertised_port} is not between 0 and 65535")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"broker option {_name_of(name)} must be greater than 0")
        for least, most in (
            ("group_min_session_timeout_ms", "group_max_session_timeout_ms"),
            ("group_consumer_min_session_timeout_ms", "group_consumer_max_session_timeout_ms"),
            ("group_consumer_min_heartbeat_interval_ms", "group_consumer_max_heartbeat_interval_ms"),
        ):
            if getattr(self, least) > getattr(self, most):
                raise ConfigError(f"broker option {_name_of(least)} is greater than {_name_of(most)}")
        if self.transaction_version not in (0, 1, 2):
            raise ConfigError(
                f"broker option transaction.version is {self.transaction_version}, not 0, 1 or 2"
            )
        if self.queued_max_request_bytes <= 0 and self.queued_max_request_bytes != -1:
            raise ConfigError("broker option queued.max.request.bytes must be greater than 0, or -1")
        if self.durability not in ("fsync", "page_cache"):
            raise ConfigError(
                f"broker option tailrace.durability is {self.durability!r}, not fsync or page_cache"
            )
        if self.group_consumer_heartbeat_interval_ms >= self.group_consumer_session_timeout_ms:
            raise ConfigError(
                "broker option group.consumer.heartbeat.interval.ms must be smaller than "
                "group.consumer.session.timeout.ms"
            )
        policies = [policy.value for policy in MigrationPolicy]
        if self.group_consumer_migration_policy.lower() not in policies:
            raise ConfigError(
                f"broker option group.consumer.migration.policy is {self.group_consumer_migration_policy!r}",
                fix=f"There are {', '.join(policies)}",
            )
        unknown = [name for name in self.group_consumer_assignors if name not in ASSIGNORS]
        if unknown or not self.group_consumer_assignors:
            raise ConfigError(
                f"broker option group.consumer.assignors names {', '.join(unknown) or 'no assignor'}",
                fix=f"There are {' and '.join(ASSIGNORS)}",
            )
        if self.host in ("0.0.0.0", "::", "") and not self.advertised_host and not self.listeners:
            raise ConfigError(
                f"the broker would listen on every address ({self.host or 'none given'}), and clients cannot "
                "be told which of them to use",
                fix="Give the address that clients connect to as the advertised host",
            )
        self.check_security()
        self.doors()

    def doors(self) -> tuple[Listener, ...]:
        """The listeners: those of `listeners`, else one in plain text on `host` and `port`."""
        plain = Listener(
            "PLAINTEXT",
            SecurityProtocol.PLAINTEXT,
            self.host,
            self.port,
            self.advertised_host or self.host,
            self.advertised_port,
        )
        return self.bound_listeners(plain, insecure=self.insecure)


_POSITIVE = (
    "default_partitions",
    "recovery_threads",
    "request_max_bytes",
    "max_in_flight_bytes",
    "fetch_max_bytes",
    "connections_max_idle_ms",
    "group_min_session_timeout_ms",
    "group_max_size",
    "group_consumer_session_timeout_ms",
    "group_consumer_heartbeat_interval_ms",
    "group_consumer_min_session_timeout_ms",
    "group_consumer_min_heartbeat_interval_ms",
    "group_consumer_max_size",
    "offsets_retention_minutes",
    "offsets_topic_partitions",
    "transaction_max_timeout_ms",
    "transactional_id_expiration_ms",
    "producer_id_expiration_ms",
    "transaction_topic_partitions",
)

OPTIONS = options_of(BrokerConfig)
"""Every option by its name in files, flags and DescribeConfigs."""


def _name_of(field: str) -> str:
    return next(option.name for option in OPTIONS.values() if option.field == field)
