"""What a sink is.

A sink keeps tables in some store true to topics.  The load loop (`load`) reads topics, cuts the stream
into table commits and calls the sink; a sink never sees the broker.  Per table the order of calls is::

    writer = sink.open_table(target)      take over: raise the epoch, fence an older owner
    writer.checkpoint                     where to read from: the table is the only truth
    writer.stage(batch)      *            changes in order; durable or not, but NOT visible
    writer.truncate(barrier) *            the rows staged or committed so far go, in the next commit
    writer.commit(offsets, lsn)           everything staged and the checkpoint, visible at once
    ...
    writer.close()

Promises that the loop relies on, and `testing.SinkContract` checks:

- `commit` is atomic: a reader sees all of it or nothing, at any moment and after any kill.
- After a kill, `open_table` returns the checkpoint of the last commit that is visible: replaying
  the topic from there never doubles and never loses a row.
- An older writer of the same table can commit nothing once a newer one has opened it; it gets FencedError.
- A commit whose answer was lost is resolved by reading the table again, not by guessing.
- A schema that the table cannot take without loss raises TailraceError before anything is visible.
- Staged rows that are never committed are never visible.

Duplicates: none in a mirror (changes are applied by key); none in an append table (offsets and rows land
together).  Order: per key as in the topic; across keys only through `lsn`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa
from pydantic import BaseModel

from tailrace.changes import ChangeBatch, Lsn, TableSchema, Truncate
from tailrace.sinks.checkpoint import Checkpoint, TopicPartition

Mode = Literal["mirror", "append"]
"""mirror: the table equals the source.  append: one row per change, with change metadata columns beside."""


@dataclass(frozen=True, slots=True)
class SinkPlace:
    """Who a sink is and where it may keep its cache.

    owner      `<pipeline>/<sink>`, the name under which checkpoints are stored in the tables.
    cache_dir  local folder for rebuildable files; losing it costs time, never data.
    base_dir   what relative paths in options start from: the folder of the pipeline file.
    """

    owner: str
    cache_dir: Path
    base_dir: Path = Path()


@dataclass(frozen=True, slots=True)
class Target:
    """A table that a sink shall keep: its name there, the stream's schema (with key), and how."""

    name: str
    schema: TableSchema
    mode: Mode


@dataclass(frozen=True, slots=True)
class CommitResult:
    """A commit that is visible: its version (Delta version, Iceberg snapshot id) and the rows then live."""

    version: int
    rows: int


@dataclass(frozen=True, slots=True)
class TableReading:
    """One version of a table: its checkpoint and all its rows."""

    version: int
    checkpoint: Checkpoint
    rows: pa.Table


class TableWriter(Protocol):
    """One open table; used by one thread."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest commit's checkpoint."""

    @property
    def result(self) -> CommitResult:
        """Version and live rows of the newest commit."""

    @property
    def location(self) -> str:
        """Where the table lies, for people."""

    def stage(self, changes: Sequence[ChangeBatch]) -> None:
        """Take changes of the table's topic, each batch from one partition, in its order.

        Across calls the order is (lsn, seq), and the two halves of a key change come in one call; inside
        a call partitions may come in any order.  Topics without change metadata have lsn 0: only the
        order inside a partition counts.

        May write files; makes nothing visible.  May be called often before one commit.
        """

    def truncate(self, barrier: Truncate) -> None:
        """TRUNCATE of the source table, in its place between the staged changes."""

    def commit(self, offsets: Mapping[TopicPartition, int], lsn: Lsn) -> CommitResult:
        """Make everything staged visible, complete through `lsn` and up to `offsets` (exclusive)."""

    def upkeep(self) -> None:
        """Compaction, expiry and clean-up that is due; called between commits, changes no rows."""

    def close(self) -> None:
        """Forget what is staged and let go of the table."""


class Sink(Protocol):
    """A plugin of the entry point group `tailrace.sinks`, made as `plugin(Config(**options), place)`."""

    Config: ClassVar[type[BaseModel]]
    """Options of the spec's `sinks.<name>` block besides the ones that every sink has."""

    def __init__(self, config: Any, place: SinkPlace) -> None: ...

    def check(self, names: Sequence[str]) -> None:
        """ConfigError when tables of these names could not be written; changes nothing anywhere.

        Asked before a pipeline starts, so that a wrong place is told before the source has made its slot.
        """

    def open_table(self, target: Target) -> TableWriter:
        """Open or create the table and take it over.

        ConfigError when the target cannot be kept: no key in mirror mode, a type that the format lacks,
        a folder that cannot be written, a table that exists and is not this owner's.
        """

    def table_checkpoint(self, name: str) -> Checkpoint | None:
        """How far a table is, for somebody who only looks; None when there is no table.  Takes nothing over."""

    def read_table(self, name: str) -> TableReading | None:
        """One version of a table as the format's own library reads it, for verification; None when there is none."""

    def close(self) -> None:
        """Let go of everything."""
