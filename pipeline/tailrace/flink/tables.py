"""The CREATE TABLE statements of a job: topics as tables.

Flink's `kafka` connector with our format `tailrace-avro`.  A topic with a `-key` subject is a table with a primary
key whose null values are deletes; a topic without one is a stream of rows.  Why not `upsert-kafka`: it does not tell
the planner that its deletes carry only keys (FLIP-510), so even a plain projection would keep the whole table in
state.  Consumers read committed records only, from the beginning; after a restart from the checkpoint's offsets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tailrace.changes.errors import ConfigError
from tailrace.flink.columns import COMMIT_TIME, Column, from_avro, literal, quoted, record_name, to_avro

DATABASE = "topics"
"""The catalog database that holds one table per input topic."""


@dataclass(frozen=True, slots=True)
class TopicSchemas:
    """What the registry knows of a topic: the newest key schema (None without a key) and value schema."""

    topic: str
    key: str | None
    value: str

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table's columns.  Of a keyed topic exactly the key is never null: a delete carries nothing else."""
        columns, keys = from_avro(self.value, self.topic), self.key_columns
        if not keys:
            return columns
        return tuple(Column(c.name, c.type, nullable=c.name not in keys) for c in columns)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The primary key, empty for a topic without one."""
        if self.key is None:
            return ()
        return tuple(column.name for column in from_avro(self.key, self.topic))


@dataclass(frozen=True, slots=True)
class Sink:
    """A transform's target: its columns in order, and the columns that key it (none: rows are appended)."""

    topic: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    commit_time: bool

    @property
    def key_schema(self) -> str | None:
        """The Avro schema of the `-key` subject, None for an appended topic."""
        if not self.key:
            return None
        by_name = {column.name: column for column in self.columns}
        name, namespace = record_name(self.topic)
        return to_avro(tuple(by_name[column] for column in self.key), f"{name}_key", namespace)

    @property
    def value_schema(self) -> str:
        """The Avro schema of the `-value` subject."""
        return to_avro(self.columns, *record_name(self.topic))


def planned_sink(topic: str, planned: Sequence[Column], key: Sequence[str], *, commit_time: bool) -> Sink:
    """The sink of a planned result; ConfigError when a key column is missing."""
    missing = [name for name in key if name not in {column.name for column in planned}]
    if missing:
        raise ConfigError(
            f"key column {', '.join(missing)} is not in the result",
            fix=f"the SQL gives {', '.join(column.name for column in planned)}",
        )
    columns = tuple(Column(c.name, c.type, nullable=c.nullable and c.name not in key) for c in planned)
    return Sink(topic, columns, tuple(key), commit_time)


def source_ddl(
    schemas: TopicSchemas, *, bootstrap: str, security: Mapping[str, str], registry_url: str, group: str
) -> str:
    """CREATE TABLE for an input topic, with the hidden commit time; `security`: properties of Kafka's client."""
    keyed = bool(schemas.key_columns)
    lines = [column.ddl for column in schemas.columns]
    commit_time = f"{quoted(COMMIT_TIME)} TIMESTAMP_LTZ(3)"
    lines.append(commit_time if keyed else f"{commit_time} METADATA FROM 'timestamp' VIRTUAL")
    options = {
        "connector": "kafka",
        "topic": schemas.topic,
        "properties.bootstrap.servers": bootstrap,
        **_properties(security),
        "properties.group.id": group,
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": "earliest-offset",
        "value.format": "tailrace-avro",
        "value.tailrace-avro.url": registry_url,
    }
    if keyed:
        lines.append(_primary_key(schemas.key_columns))
        options |= {
            "key.format": "tailrace-avro",
            "key.tailrace-avro.url": registry_url,
            "key.fields": ";".join(schemas.key_columns),
            "value.fields-include": "EXCEPT_KEY",
            "value.tailrace-avro.changelog": "upsert",
        }
    return _create(f"{DATABASE}.{quoted(schemas.topic)}", lines, options)


def sink_ddl(
    sink: Sink,
    table: str,
    *,
    bootstrap: str,
    security: Mapping[str, str],
    key_id: int | None,
    value_id: int,
    transactional_prefix: str,
    transaction_timeout_ms: int,
) -> str:
    """CREATE TABLE for a transform's target; rows become visible with the checkpoint that covers them."""
    lines = [column.ddl for column in sink.columns]
    if sink.commit_time:
        lines.append(f"{quoted(COMMIT_TIME)} TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'")
    options = {
        "connector": "kafka",
        "topic": sink.topic,
        "properties.bootstrap.servers": bootstrap,
        **_properties(security),
        "properties.transaction.timeout.ms": str(transaction_timeout_ms),
        "properties.linger.ms": "5",
        "properties.batch.size": "262144",
        "properties.compression.type": "lz4",
        "sink.delivery-guarantee": "exactly-once",
        "sink.transactional-id-prefix": transactional_prefix,
        "value.format": "tailrace-avro",
        "value.tailrace-avro.schema-id": str(value_id),
    }
    if sink.key:
        lines.append(_primary_key(sink.key))
        options |= {
            "key.format": "tailrace-avro",
            "key.tailrace-avro.schema-id": str(key_id),
            "key.fields": ";".join(sink.key),
            "value.tailrace-avro.changelog": "upsert",
        }
    return _create(table, lines, options)


def _properties(security: Mapping[str, str]) -> dict[str, str]:
    return {f"properties.{name}": value for name, value in security.items()}


def _primary_key(columns: Sequence[str]) -> str:
    return f"PRIMARY KEY ({', '.join(map(quoted, columns))}) NOT ENFORCED"


def _create(table: str, lines: Sequence[str], options: Mapping[str, str]) -> str:
    body = ",\n  ".join(lines)
    settings = ",\n  ".join(f"{literal(name)} = {literal(value)}" for name, value in options.items())
    return f"CREATE TABLE {table} (\n  {body}\n) WITH (\n  {settings}\n)"
