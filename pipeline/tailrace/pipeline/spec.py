"""The pipeline file as frozen models: shape and single fields; what refers to what is the plan's business.

    version: 1
    name: shop
    source: {type: postgres, dsn: ..., tables: [public.orders]}
    transforms: {enrich: {from: {o: public.orders}, to: enriched, key: [id], sql: "SELECT ..."}}
    sinks: {lake: {type: delta, path: "./lake/{table}"}}

Options of a source or a sink belong to its plugin: they stand beside `type:` and are checked against the
plugin's own model, with the same places in the file.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _duration(value: object) -> object:
    """`500ms`, `30s`, `7d`, `forever` -> milliseconds (-1: for ever)."""
    if value == "forever":
        return -1
    match = re.fullmatch(r"(\d+)\s*(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration; write 500ms, 30s, 10m, 6h, 7d or forever")
    return int(match[1]) * _UNITS_MS[match[2]]


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name has 1 to 48 of a-z, 0-9, _ and -, and begins with a letter or digit")
    return value


def _topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in (".", ".."):
        raise ValueError("a topic name has 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
    return value


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ValueError("not an address; write host:port, like 127.0.0.1:9092 (port 0: any free one)")
    return value


DurationMs = Annotated[int, BeforeValidator(_duration)]
Name = Annotated[str, AfterValidator(_name)]
TopicName = Annotated[str, AfterValidator(_topic)]
Address = Annotated[str, AfterValidator(_address)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _Plugin(BaseModel):
    """A model whose further fields are the options of a plugin."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    type: str

    @property
    def options(self) -> dict[str, Any]:
        """The fields that are the plugin's."""
        return dict(self.model_extra or {})


class BrokerSpec(_Model):
    """Where the log is: our own broker, or a Kafka cluster, whose client options (`load_cluster`) stand beside."""

    mode: Literal["embedded", "external"] = "embedded"
    bootstrap: str | None = None
    """external: host:port[,host:port]."""
    listen: Address = "127.0.0.1:0"
    """embedded: the address to listen on; port 0 takes any free one and keeps it."""
    config: dict[str, Any] = {}
    """embedded: further options by the names that `tailrace broker --help` lists."""


class RegistrySpec(_Model):
    """Where the schema registry is; without a url the embedded broker brings one."""

    url: str | None = None
    listen: Address = "127.0.0.1:0"


class SourceSpec(_Plugin):
    """The source; its `tables:` list or map is read by the plugin too."""

    topic: str = "raw.{pipeline}.{table}"
    """Name of a table's raw topic; {pipeline}, {namespace} and {table} stand for themselves."""


class TopicSpec(_Model):
    """Settings of topics that this pipeline creates."""

    partitions: Annotated[int, Field(ge=1, le=1000)] = 1
    retention: DurationMs = 7 * _UNITS_MS["d"]
    """Full history is kept this long; after that the newest row of every key."""


class TopicsSpec(_Model):
    """Settings for all topics of the pipeline."""

    defaults: TopicSpec = TopicSpec()


class UdfSpec(_Model):
    """A Python function that SQL may call."""

    python: Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$")]
    """`path/to/file.py:function`, relative to the pipeline file."""
    returns: str
    """Its SQL type, like DOUBLE or STRING."""
    batch: Literal["rows", "arrow"] = "rows"
    """rows: called once per row with values; arrow: once per batch with a pandas.Series per argument."""


class TransformSpec(_Model):
    """Flink SQL from topics to one topic."""

    inputs: Annotated[dict[str, str], Field(alias="from", min_length=1)]
    """SQL name -> source table or topic."""
    to: TopicName
    key: list[str] = []
    """Columns that identify a result row; without them the result must be insert-only."""
    sql: str
    udfs: dict[str, UdfSpec] = {}


class CommitSpec(_Model):
    """When a sink commits."""

    every: DurationMs = 500
    max_rows: Annotated[int, Field(ge=1)] = 1_000_000


class SinkSpec(_Plugin):
    """One kind of tables written from topics."""

    inputs: Annotated[str | list[str] | None, Field(alias="from")] = None
    """Source tables, transforms or topics; without it every source table."""
    mode: Literal["mirror", "append"] = "mirror"
    key: list[str] | None = None
    """Key columns; by default the topic's own."""
    commit: CommitSpec = CommitSpec()


class FlinkSpec(_Model):
    """How transforms run."""

    checkpoint: DurationMs = 1000
    parallelism: Annotated[int, Field(ge=1, le=128)] = 1
    requirements: list[str] = []
    """pip requirements of the Python functions."""
    udf_mode: Literal["process", "thread"] = "thread"
    """process: Python functions run beside the JVM; thread: inside it."""


class PipelineSpec(_Model):
    """A whole pipeline file."""

    version: Literal[1]
    name: Name
    description: str = ""
    owner: str = ""
    vars: dict[str, Any] = {}
    broker: BrokerSpec = BrokerSpec()
    registry: RegistrySpec = RegistrySpec()
    source: SourceSpec
    topics: TopicsSpec = TopicsSpec()
    transforms: dict[Name, TransformSpec] = {}
    sinks: Annotated[dict[Name, SinkSpec], Field(min_length=1)]
    flink: FlinkSpec = FlinkSpec()
