"""Topics, their configs, the cluster's identity and producer ids: one SQLite database beside the logs.

    metadata.db
        identity         name, value                cluster id, next producer id
        topics           topic id, name, partitions, created partitions, internal
        topic_configs    topic id, name, value      only what was set
        broker_configs   broker, name, value        defaults for all topics, see `topic_configs`
        deleted_topics   topic id, name, partitions whose directories are still to be removed

What is committed survives a power cut (`security.database`).  A topic is committed first and its
directories follow; `created_partitions` and `deleted_topics` tell a start what a crash left unfinished.
"""

import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from tailrace.broker.config_entries import ConfigEntry
from tailrace.broker.log import LogError, LogManager, PartitionLog, PartitionSpec
from tailrace.broker.log.config import read_topic_config
from tailrace.broker.log.errors import storage_error
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.topic_configs import BrokerDefaults
from tailrace.changes import crash_point
from tailrace.changes.errors import TailraceError
from tailrace.security.database import connect, opening, transaction

CRASH_POINTS = (
    "broker.topics.create_committed",
    "broker.topics.logs_created",
    "broker.topics.delete_committed",
    "broker.topics.logs_deleted",
    "broker.topics.before_producer_ids",
)
DATABASE = "metadata.db"
MAX_PARTITIONS = 10_000
_PRODUCER_ID_BLOCK = 1000
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE topics (
    topic_id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
    created_partitions INTEGER NOT NULL, internal INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE topic_configs (
    topic_id BLOB NOT NULL REFERENCES topics ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (topic_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE deleted_topics (
    topic_id BLOB PRIMARY KEY, name TEXT NOT NULL, partitions INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as Metadata and DescribeConfigs show it; `configs` holds only what was set."""

    name: str
    topic_id: UUID
    partitions: int
    configs: Mapping[str, str]
    internal: bool


class Topics:
    """The catalog of one broker; every change is durable on return.

    Raises LogError: TOPIC_ALREADY_EXISTS, INVALID_TOPIC_EXCEPTION, INVALID_PARTITIONS, INVALID_CONFIG,
    UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, KAFKA_STORAGE_ERROR.
    """

    def __init__(self, data_dir: Path, logs: LogManager) -> None:
        """Open the database, finish half-done creations and deletions, and open all logs."""
        self._logs = logs
        self._path = data_dir / DATABASE
        self._topics: dict[str, Topic] = {}
        self._ids: dict[UUID, str] = {}
        self._by_metric: dict[str, str] = {}
        self.version = 0  # grows with every change of a topic; not kept over a start
        self._next_producer_id = self._reserved_producer_ids = 0
        self._db = connect(self._path)
        try:
            with opening(self._path):
                self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise TailraceError(
                f"the broker's metadata database {self._path} has version {version}, "
                f"this broker knows {_SCHEMA_VERSION}",
                fix="Start the newer release that wrote it",
            )
        self._defaults = BrokerDefaults(self._db)
        self.cluster_id = self._identity("cluster_id") or self._name_cluster()
        self._next_producer_id = self._reserved_producer_ids = int(self._identity("next_producer_id") or 0)
        created = self._load()
        for topic_id, name, partitions in self._db.execute("SELECT * FROM deleted_topics").fetchall():
            self._remove_logs(UUID(bytes=topic_id), name, partitions)
        self._logs.open(
            spec
            for name, topic in self._topics.items()
            for spec in self._specs(topic, range(topic.partitions), created[name])
        )
        for topic in self._topics.values():
            if created[topic.name] < topic.partitions:
                self._note_created(topic)

    def _load(self) -> dict[str, int]:
        """Read all topics; returns how many partitions of each have their directory."""
        created = {}
        rows = self._db.execute("SELECT topic_id, name, partitions, created_partitions, internal FROM topics")
        for raw_id, name, partitions, created_partitions, internal in rows.fetchall():
            configs = dict(
                self._db.execute("SELECT name, value FROM topic_configs WHERE topic_id = ?", (raw_id,))
            )
            self._keep(Topic(name, UUID(bytes=raw_id), partitions, configs, bool(internal)))
            created[name] = created_partitions
        return created

    def all(self) -> Sequence[Topic]:
        """Every topic, by name."""
        return [self._topics[name] for name in sorted(self._topics)]

    def get(self, name: str) -> Topic:
        """The topic, or UNKNOWN_TOPIC_OR_PARTITION."""
        topic = self._topics.get(name)
        if topic is None:
            raise LogError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name}")
        return topic

    def find(self, name: str) -> Topic | None:
        """The topic or None."""
        return self._topics.get(name)

    def by_id(self, topic_id: UUID) -> Topic:
        """The topic, or UNKNOWN_TOPIC_ID."""
        name = self._ids.get(topic_id)
        if name is None:
            raise LogError(ErrorCode.UNKNOWN_TOPIC_ID, f"there is no topic with the id {topic_id}")
        return self._topics[name]

    def log(self, name: str, partition: int) -> PartitionLog:
        """The partition's log; same errors as LogManager.get."""
        return self._logs.get(name, partition)

    def check_create(self, name: str, partitions: int, configs: Mapping[str, str | None]) -> None:
        """Raise what `create` would raise (CreateTopics with validate_only)."""
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise LogError(
                ErrorCode.INVALID_TOPIC_EXCEPTION,
                f"the topic name {name!r} is not allowed",
                fix="Use 1 to 249 letters, digits, dots, underscores and hyphens",
            )
        if name in self._topics:
            raise LogError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")  # Kafka's words
        other = self._by_metric.get(name.replace(".", "_"))
        if other is not None:
            raise LogError(
                ErrorCode.INVALID_TOPIC_EXCEPTION,
                f"topic {name} would collide with topic {other}: metrics do not tell dots from underscores",
            )
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise LogError(
                ErrorCode.INVALID_PARTITIONS,
                f"{partitions} partitions for topic {name}: there must be 1 to {MAX_PARTITIONS}",
            )
        self.check_configs(_given(configs))

    def create(
        self, name: str, partitions: int, configs: Mapping[str, str | None], *, internal: bool = False
    ) -> Topic:
        """Make a topic and its logs; when a log cannot be made, there is no topic."""
        self.check_create(name, partitions, configs)
        topic = Topic(name, uuid.uuid4(), partitions, _given(configs), internal)
        with transaction(self._db, self._path, storage_error):
            self._db.execute(
                "INSERT INTO topics VALUES (?, ?, ?, 0, ?)",
                (topic.topic_id.bytes, name, partitions, int(internal)),
            )
            self._insert_configs(topic)
        crash_point("broker.topics.create_committed")
        try:
            self._make_logs(topic, range(partitions))
        except LogError:
            self._delete(topic)
            raise
        self._keep(topic)
        return topic

    def delete(self, name: str) -> None:
        """Remove a topic and its logs."""
        topic = self.get(name)
        self.version += 1
        del self._topics[name], self._ids[topic.topic_id]
        self._by_metric.pop(name.replace(".", "_"), None)
        self._delete(topic)

    def _delete(self, topic: Topic) -> None:
        with transaction(self._db, self._path, storage_error):
            self._db.execute(
                "INSERT INTO deleted_topics VALUES (?, ?, ?)",
                (topic.topic_id.bytes, topic.name, topic.partitions),
            )
            self._db.execute("DELETE FROM topics WHERE topic_id = ?", (topic.topic_id.bytes,))
        crash_point("broker.topics.delete_committed")
        self._remove_logs(topic.topic_id, topic.name, topic.partitions)

    def _remove_logs(self, topic_id: UUID, name: str, partitions: int) -> None:
        self._logs.delete(name, range(partitions), topic_id)
        crash_point("broker.topics.logs_deleted")
        with transaction(self._db, self._path, storage_error):
            self._db.execute("DELETE FROM deleted_topics WHERE topic_id = ?", (topic_id.bytes,))

    def check_add_partitions(self, name: str, total: int) -> None:
        """Raise what `add_partitions` would raise."""
        topic = self.get(name)
        if not topic.partitions < total <= MAX_PARTITIONS:
            raise LogError(
                ErrorCode.INVALID_PARTITIONS,
                f"topic {name} has {topic.partitions} partitions and cannot get {total}",
                fix=f"Partitions can only be added, up to {MAX_PARTITIONS}",
            )

    def add_partitions(self, name: str, total: int) -> Topic:
        """Grow a topic to `total` partitions."""
        self.check_add_partitions(name, total)
        topic = self.get(name)
        grown = replace(topic, partitions=total)
        with transaction(self._db, self._path, storage_error):
            self._db.execute(
                "UPDATE topics SET partitions = ? WHERE topic_id = ?", (total, topic.topic_id.bytes)
            )
        crash_point("broker.topics.create_committed")
        self._make_logs(grown, range(topic.partitions, total))
        self._keep(grown)
        return grown

    def check_configs(self, configs: Mapping[str, str]) -> None:
        """Raise INVALID_CONFIG for a name or a value that would not be obeyed."""
        self._defaults.config(configs, internal=False)

    def set_configs(self, name: str, configs: Mapping[str, str]) -> Topic:
        """Replace all configs of the topic; what is absent goes back to the default."""
        topic = replace(self.get(name), configs=dict(configs))
        config = self._defaults.config(topic.configs, internal=topic.internal)
        with transaction(self._db, self._path, storage_error):
            self._db.execute("DELETE FROM topic_configs WHERE topic_id = ?", (topic.topic_id.bytes,))
            self._insert_configs(topic)
        self._keep(topic)
        self._logs.configure(name, config)
        return topic

    def describe_configs(self, name: str) -> list[ConfigEntry]:
        """All configs of the topic with their values and where they come from."""
        topic = self.get(name)
        return self._defaults.describe_topic(topic.configs, internal=topic.internal)

    def preview_configs(self, configs: Mapping[str, str | None]) -> list[ConfigEntry]:
        """What `describe_configs` would say of a topic created with `configs`."""
        return self._defaults.describe_topic(_given(configs), internal=False)

    def broker_configs(self, broker: str) -> Mapping[str, str]:
        """The defaults for topics that are set on one broker, or with "" on all."""
        return self._defaults.of(broker)

    def describe_broker_configs(self, broker: str) -> list[ConfigEntry]:
        """The defaults for topics: of one broker all, with "" those that are set on all brokers."""
        return self._defaults.describe_broker(broker)

    def check_broker_configs(self, broker: str, configs: Mapping[str, str]) -> None:
        """Raise INVALID_CONFIG where `set_broker_configs` would."""
        self._defaults.check(configs)
        defaults = self._defaults.overlaid(broker, configs)
        for topic in self._topics.values():
            if not topic.internal:
                read_topic_config({**defaults, **topic.configs})

    def set_broker_configs(self, broker: str, configs: Mapping[str, str]) -> None:
        """Replace the defaults set on one broker, or with "" on all; topics obey at once."""
        self.check_broker_configs(broker, configs)
        with transaction(self._db, self._path, storage_error):
            self._defaults.write(broker, configs)
        self._defaults.adopt(broker, configs)
        for topic in self._topics.values():
            self._logs.configure(topic.name, self._defaults.config(topic.configs, internal=topic.internal))

    def allocate_producer_id(self) -> int:
        """A producer id that was never given out before, also over crashes."""
        if self._next_producer_id == self._reserved_producer_ids:
            reserved = self._next_producer_id + _PRODUCER_ID_BLOCK
            crash_point("broker.topics.before_producer_ids")
            with transaction(self._db, self._path, storage_error):
                self._set_identity("next_producer_id", str(reserved))
            self._reserved_producer_ids = reserved
        self._next_producer_id += 1
        return self._next_producer_id - 1

    def close(self) -> None:
        """Close the database (not the logs)."""
        self._db.close()

    def _keep(self, topic: Topic) -> None:
        self.version += 1
        self._topics[topic.name] = topic
        self._ids[topic.topic_id] = topic.name
        self._by_metric[topic.name.replace(".", "_")] = topic.name

    def _specs(self, topic: Topic, partitions: range, created: int) -> Iterator[PartitionSpec]:
        config = self._defaults.config(topic.configs, internal=topic.internal)
        for partition in partitions:
            yield PartitionSpec(topic.name, partition, topic.topic_id, config, partition < created)

    def _make_logs(self, topic: Topic, partitions: range) -> None:
        self._logs.create(list(self._specs(topic, partitions, 0)))
        crash_point("broker.topics.logs_created")
        self._note_created(topic)

    def _note_created(self, topic: Topic) -> None:
        with transaction(self._db, self._path, storage_error):
            self._db.execute(
                "UPDATE topics SET created_partitions = partitions WHERE topic_id = ?",
                (topic.topic_id.bytes,),
            )

    def _insert_configs(self, topic: Topic) -> None:
        self._db.executemany(
            "INSERT INTO topic_configs VALUES (?, ?, ?)",
            [(topic.topic_id.bytes, name, value) for name, value in topic.configs.items()],
        )

    def _identity(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM identity WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _set_identity(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO identity VALUES (?, ?)", (name, value))

    def _name_cluster(self) -> str:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        with transaction(self._db, self._path, storage_error):
            self._set_identity("cluster_id", cluster_id)
        return cluster_id


def _given(configs: Mapping[str, str | None]) -> dict[str, str]:
    """The configs of a creation.  Raises LogError: INVALID_CONFIG for one without a value."""
    without = [name for name, value in configs.items() if value is None]
    if without:
        raise LogError(
            ErrorCode.INVALID_CONFIG,
            f"topic config {', '.join(without)} has no value",
            fix="Leave it out to get the default",
        )
    return {name: value for name, value in configs.items() if value is not None}
