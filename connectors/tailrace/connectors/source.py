"""The contract between a source and the part that publishes it: one page for plugin authors.

A source is a class found by entry point (group ``tailrace.sources``); `tailrace.connectors.plugins` loads it.

Life, as `tailrace.connectors.service` drives it; every call is made by one thread unless said otherwise:

    Source(config, context)      connects nowhere
    check(log)                   every reason not to start, each with its repair; changes nothing anywhere
    discover()                   the tables with their schemas, and what a reader should be warned about
    snapshot(journal)            only when `needs_snapshot(log)`: the rows that exist now
    stream(position)             changes after `position`, for ever
    confirm(position)            after the log has made `position` durable; called from another thread
    close()                      called from another thread; the iterators end soon after, with no error

Order.        Changes of one table come in commit order.  A position is the end of a source transaction
              and never goes back; `stream(p)` yields every change of every transaction that ends after p.
Duplicates.   None inside one iterator.  A transaction that ends at or before the asked position is not
              yielded.  What was yielded but not covered by a committed position is read again after a
              crash; the log drops the first copy: rows and position are one producer transaction.
Visibility.   Nothing becomes visible before the ChangeSet with its position: pieces with position None
              stay in the open producer transaction.  All of `snapshot` is one producer transaction.
Durability.   The source may forget what lies before a confirmed position, and nothing else.  `confirm` is
              called only after the position is fsynced in the log.
Notes.        What a source must remember over a crash it keeps in the log as Notes.  A yielded one becomes
              durable with the ChangeSet that follows it, `Journal.record` returns when the note is durable.
              `LogState.notes` gives the newest of each key back at the next start.  (A ledger of snapshot
              chunks is notes under one key per chunk.)
Faults.       SourceUnavailable means that a new start may help (server restarting, connection lost); every
              other TailraceError is final.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel

from tailrace.changes import ChangeSet, Lsn, TableId, TableSchema, TailraceError


class SourceUnavailable(TailraceError):
    """The source cannot be reached now; the same call may work later (server restart, lost connection)."""

    retriable = True


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `check` found: `what` is wrong and the one step (often SQL) that repairs it.

    An "error" forbids the start; a "warning" is shown and the source starts.
    """

    level: Literal["error", "warning"]
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}"


@dataclass(frozen=True, slots=True)
class DiscoveredTable:
    """A table that will be read: its schema, a row estimate for progress bars, and warnings for `plan`."""

    schema: TableSchema
    estimated_rows: int
    warnings: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    """Columns that an update may leave out when they did not change (unchanged TOAST)."""


@dataclass(frozen=True, slots=True)
class Reselected:
    """Cells read again by key: `rows` has one row per asked key, null where `found` (bool[n]) is False."""

    rows: pa.RecordBatch
    found: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Note:
    """A fact that the source keeps in the log, newest per key: plain JSON, no row values, no secrets."""

    key: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogState:
    """What the log says about this source: the durable position and the newest note of each key."""

    position: Lsn | None = None
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Journal(Protocol):
    """Where a source records a note at once, outside the stream of changes."""

    def record(self, note: Note) -> None:
        """Make the note durable at once, before any row that is yielded later."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What the framework tells a source about its pipeline."""

    pipeline: str
    data_dir: Path
    """A folder that the source may use for spools; empty at no cost to correctness."""
    tables_needing_keys: frozenset[TableId] = frozenset()
    """Tables that a mirror sink or a changelog transform reads: without a key they cannot be mirrored."""


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """A snapshot of counters for the status file; cheap to take from another thread."""

    state: str
    """starting, snapshot, running: what the source is doing now, in the words of the status file."""
    received: Lsn | None
    """The newest position that the source has seen."""
    confirmed: Lsn | None
    """The newest position that the source was told is durable."""
    snapshot_rows: Mapping[TableId, int]
    """Rows of the initial snapshot read so far, per table."""


class FencedRead(Protocol):
    """The source's rows at `position`, rendered as text by the source itself."""

    @property
    def position(self) -> Lsn:
        """Every transaction that ends at or before it is in the rows, none that ends later."""

    def read(self, table: TableId) -> pa.Table:
        """All rows; one large_string column per column that travels, in the form of `tailrace.pipeline.verify`."""


class Source(Protocol):
    """See the module docstring for the contract."""

    Config: ClassVar[type[BaseModel]]
    """The options under `source:` in the pipeline file; unknown options are refused."""

    def __init__(self, config: Any, context: SourceContext) -> None: ...

    def check(self, log: LogState | None) -> list[Finding]:
        """Every finding at once.  Without a log (`validate`, `plan`) only the source itself is checked."""

    def discover(self) -> list[DiscoveredTable]:
        """The configured tables, in the order of the configuration."""

    def needs_snapshot(self, log: LogState) -> bool:
        """Whether the initial snapshot is still to be taken, or was cut off and starts again."""

    def snapshot(self, journal: Journal) -> Iterator[ChangeSet | Note]:
        """The existing rows as OP_READ changes; only the last ChangeSet carries a position."""

    def stream(self, position: Lsn) -> Iterator[ChangeSet | Note]:
        """Changes after `position`; an empty ChangeSet with a position means "nothing for you up to here"."""

    def reselect(self, table: TableSchema, keys: pa.RecordBatch, columns: Sequence[str]) -> Reselected:
        """The columns of the rows with these keys as they are now, in the order of `keys`.

        Asked only for columns that a ChangeBatch named unchanged, by the thread that iterates.
        """

    def confirm(self, position: Lsn) -> None:
        """Everything up to `position` is durable in the log.  Any thread; does not block."""

    def current_position(self) -> Lsn:
        """A position such that everything committed before the call ends at or before it."""

    def fenced_read(self) -> AbstractContextManager[FencedRead]:
        """The tables as they are at one exact position, for verification."""

    def progress(self) -> SourceProgress:
        """Counters for the status file.  Any thread."""

    def close(self) -> None:
        """Release connections; a running iterator ends.  Any thread; twice is once."""
