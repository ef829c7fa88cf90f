"""The sink part: one process per sink of the spec, many tables.

`run` returns after a clean stop (`stop` set, on SIGTERM) and raises TailraceError otherwise.
"""

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tailrace.broker.client import (
    EARLIEST,
    LATEST,
    PLAINTEXT,
    Client,
    ClientSecurity,
    InterruptedClientError,
    TopicPartition,
)
from tailrace.changes import ConfigError, TableId, TableSchema, TailraceError
from tailrace.changes.status import StatusFile
from tailrace.registry.avro_schema import avro_to_arrow
from tailrace.registry.client import RegistryClient
from tailrace.registry.envelope import SchemaStore
from tailrace.registry.envelope.decoder import ChangeDecoder
from tailrace.registry.login import RegistryLogin
from tailrace.sinks.control import ControlLog
from tailrace.sinks.feed import TableFeed
from tailrace.sinks.load import CommitPolicy, LoadLoop
from tailrace.sinks.plugins import load_sink_type
from tailrace.sinks.sink import Mode, Sink, SinkPlace, TableWriter, Target

_WAIT_S = 0.2

CRASH_POINTS = (
    "sink.after_fence",
    "sink.before_data_file",
    "sink.after_data_file",
    "sink.before_delete_file",
    "sink.after_delete_file",
    "sink.before_commit",
    "sink.after_commit",
    "sink.before_offset_report",
)
"""Every durable step of a sink; a back end passes the file and commit points."""


@dataclass(frozen=True, slots=True)
class SinkInput:
    """One topic that a sink keeps as one table.

    topic    raw or enriched topic.
    table    the source table of a raw topic; None for a topic that a transform fills.
    key      key columns by name; None takes the columns of the topic's key subject.
    target   name of the table in the sink.
    """

    topic: str
    table: TableId | None
    key: tuple[str, ...] | None
    target: str
    mode: Mode = "mirror"


@dataclass(frozen=True, slots=True)
class SinkPartConfig:
    """Everything the sink process needs; addresses as in the spec.

    control_topic  positions and barriers of the source; None when all inputs come from transforms.
    bootstrap      host:port list of the broker.
    registry_url   http(s) address of the schema registry.
    base_dir       what relative paths in `options` start from.
    security       how to connect to the brokers.
    registry_login how to get into the registry.
    """

    pipeline: str
    sink: str
    type: str
    options: dict[str, Any]
    inputs: tuple[SinkInput, ...]
    control_topic: str | None
    bootstrap: str
    registry_url: str
    data_dir: Path
    base_dir: Path = Path()
    commit: CommitPolicy = field(default_factory=CommitPolicy)
    security: ClientSecurity = PLAINTEXT
    registry_login: RegistryLogin | None = None


def run(config: SinkPartConfig, stop: threading.Event) -> None:
    """Keep the sink's tables until `stop` is set; what is visible then is complete.

    Raises ConfigError for options, targets or schemas that cannot work, FencedError when another instance
    took a table over, BrokerUnavailableError when the broker stays away, TailraceError for the rest.
    """
    status = StatusFile(config.data_dir, f"sink.{config.sink}")
    status.write("starting")
    sink = make_sink(config)
    client = Client(config.bootstrap, client_id=f"tailrace-sink-{config.sink}", security=config.security)
    threading.Thread(target=_interrupt, args=(stop, client), daemon=True).start()
    loop = None
    try:
        with (
            closing(client),
            closing(sink),
            closing(RegistryClient(config.registry_url, login=config.registry_login)) as registry,
        ):
            loop = _open(config, sink, client, registry, status, stop)
            if loop is not None:
                loop.run(stop)
    except InterruptedClientError:
        if not stop.is_set():
            raise
    status.write("stopped", **(loop.document() if loop is not None else {}))


def _interrupt(stop: threading.Event, client: Client) -> None:
    """Wake a call that waits for the broker when the process shall stop."""
    stop.wait()
    client.interrupt()


def make_sink(config: SinkPartConfig) -> Sink:
    """The plugin of a sink with its options; opens nothing.  ConfigError for options that it refuses."""
    plugin = load_sink_type(config.type)
    try:
        options = plugin.Config(**config.options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or config.type
        raise ConfigError(f"sink '{config.sink}': option '{where}': {first['msg']}") from None
    owner = f"{config.pipeline}/{config.sink}"
    return plugin(options, SinkPlace(owner, config.data_dir / "sinks" / config.sink, config.base_dir))


def _open(
    config: SinkPartConfig,
    sink: Sink,
    client: Client,
    registry: SchemaStore,
    status: StatusFile,
    stop: threading.Event,
) -> LoadLoop | None:
    """Open every table as soon as its topic and schema are there; None when stopped before that."""
    feeds: list[TableFeed] = []
    _refuse_twins(config)
    for item in config.inputs:
        schema = _await_schema(item, config.pipeline, client, registry, status, stop)
        if schema is None:
            return None
        writer = sink.open_table(Target(item.target, schema, item.mode))
        decoder = ChangeDecoder(registry, item.topic, schema.id, key=schema.key)
        feeds.append(
            TableFeed(
                item.topic,
                item.target,
                raw=item.table is not None,
                writer=writer,
                decoder=decoder,
                starts=_starts(item.topic, writer, client),
            )
        )
    control, start = _open_control(config.control_topic, feeds, client, stop)
    if stop.is_set():
        return None
    return LoadLoop(
        client,
        feeds,
        control,
        start,
        group=f"tailrace.{config.pipeline}.{config.sink}",
        policy=config.commit,
        status=status,
    )


def _refuse_twins(config: SinkPartConfig) -> None:
    """One sink keeps one table per topic, and no two topics in one table."""
    for what, names in (
        ("reads topic", [item.topic for item in config.inputs]),
        ("keeps table", [item.target for item in config.inputs]),
    ):
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"sink '{config.sink}' {what} '{name}' twice", fix="make it two sinks")


def _open_control(
    topic: str | None, feeds: Sequence[TableFeed], client: Client, stop: threading.Event
) -> tuple[ControlLog | None, int]:
    """The control topic from the place that the table furthest behind needs."""
    raw = [feed.writer.checkpoint for feed in feeds if feed.raw]
    if topic is None or not raw:
        return None, 0
    place = TopicPartition(topic, 0)
    if not _await_topic(topic, client, stop):
        return None, 0
    # Compaction may have removed what is before, but never what a table has not passed.
    earliest = client.list_offsets([place], EARLIEST)[place]
    start = max(earliest, min(checkpoint.offsets.get(place, 0) for checkpoint in raw))
    return ControlLog(topic, min(checkpoint.lsn for checkpoint in raw)), start


def _await_topic(topic: str, client: Client, stop: threading.Event) -> bool:
    while not stop.is_set():
        if topic in client.metadata([topic]):
            return True
        stop.wait(_WAIT_S)
    return False


def _await_schema(
    item: SinkInput,
    pipeline: str,
    client: Client,
    registry: SchemaStore,
    status: StatusFile,
    stop: threading.Event,
) -> TableSchema | None:
    """The newest schema of a topic; None when stopped before there is one."""
    status.write("starting", waiting_for=item.topic)
    if not _await_topic(item.topic, client, stop):
        return None
    while not stop.is_set():
        value = registry.latest(f"{item.topic}-value")
        if value is not None:
            key = registry.latest(f"{item.topic}-key")
            names = item.key or (tuple(avro_to_arrow(key[1]).names) if key else ())
            table = item.table or TableId(pipeline, item.target)
            return _checked(item, TableSchema(table, avro_to_arrow(value[1]), names))
        stop.wait(_WAIT_S)
    return None


def _checked(item: SinkInput, schema: TableSchema) -> TableSchema:
    missing = [name for name in schema.key if name not in schema.arrow.names]
    if missing:
        raise ConfigError(
            f"topic {item.topic} has no column '{missing[0]}', which is in the key of table {item.target}",
            fix=f"columns: {', '.join(schema.arrow.names)}",
        )
    return schema


def _starts(topic: str, writer: TableWriter, client: Client) -> dict[int, int]:
    """Where to read each partition from: the table's checkpoint, else the beginning."""
    places = client.metadata([topic])[topic].partitions
    earliest = client.list_offsets(places, EARLIEST)
    latest = client.list_offsets(places, LATEST)
    starts: dict[int, int] = {}
    for place in places:
        known = writer.checkpoint.offsets.get(place)
        starts[place.partition] = earliest[place] if known is None else known
        if known is not None and not earliest[place] <= known <= latest[place]:
            raise TailraceError(
                f"table {writer.location} continues at offset {known} of {place}, "
                f"but the log holds {earliest[place]} to {latest[place]}",
                fix="was the topic made anew, or cut by retention? rebuild the table under another name",
            )
    return starts


__all__ = ["CRASH_POINTS", "CommitPolicy", "SinkInput", "SinkPartConfig", "run"]
