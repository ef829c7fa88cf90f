"""The sink part: one process per sink of the spec, many tables.

`run` returns after a clean stop (`stop` set, on SIGTERM) and raises TailraceError otherwise.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.changes import TableId
from tailrace.sinks.sink import Mode

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
class CommitPolicy:
    """When to commit: every so many seconds, and sooner once `max_rows` are read and a position allows it."""

    every: float = 0.5
    max_rows: int = 1_000_000


@dataclass(frozen=True, slots=True)
class SinkPartConfig:
    """Everything the sink process needs; addresses as in the spec.

    control_topic  positions and barriers of the source; None when all inputs come from transforms.
    bootstrap      host:port list of the broker.
    registry_url   http(s) address of the schema registry.
    base_dir       what relative paths in `options` start from.
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
