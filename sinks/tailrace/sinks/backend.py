"""The contract between the table writers (mirror, append) and a table format (Delta, Iceberg).

A back end knows how one format stores metadata; it knows nothing of keys, changes or topics.  The
writers know keys and positions, and nothing of formats.  Between them travel data files, deleted
row positions and checkpoints::

    load() -> TableState            what the newest version of the table holds
    create(schema, checkpoint)      version 0
    write_data_file(rows)           durable, but invisible until a commit names it
    commit(base, TableCommit)       ONE atomic commit on top of exactly `base`
    read(file, schema)              rows of one data file, deleted ones included

What a back end promises:

1. **Strict compare-and-set.**  `commit` succeeds only on top of the version that `base` describes.  It
   never rebases and never retries by itself.  A moved table raises `CommitConflict`; so does an
   unknown outcome (timeout, lost answer).  The caller reloads and decides (see `fencing`).
2. **Atomic.**  Rows, deletions, schema change and checkpoint become visible together or not at all.
3. **Durable.**  When `write_data_file` or `commit` returns, a power cut loses nothing of it.
4. **Faithful.**  `load` returns the checkpoint exactly as committed, also after log clean-up, snapshot
   expiry, or maintenance by others that preserves the rows; foreign DATA writes raise
   ForeignWriteError.
5. **Positions** are 0-based ordinals of rows in a data file, deleted ones counted.
6. Not thread-safe; one owner per table at a time is what the epoch enforces.

Any other failure (folder not writable, disk full, no permission) raises TailraceError with the path
and leaves nothing visible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyroaring import BitMap

from tailrace.changes import TailraceError
from tailrace.sinks.checkpoint import Checkpoint


class CommitConflict(Exception):
    """The table moved under the commit, or the outcome is unknown; never shown to a user."""


class ForeignWriteError(TailraceError):
    """Somebody else wrote rows into a table that a sink owns."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table; a back end may subclass it to keep its own metadata beside.

    path is unique in the table and is how a reader's metadata names it; rows counts deleted ones too.
    """

    path: str
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class TableState:
    """One version of a table, complete enough to write the next one.

    version    Delta version or Iceberg snapshot id: what a reader passes for time travel.
    schema     the table's columns in STORED types (see `TableBackend.stored_type`), in table order.
    checkpoint epoch 0 when the table exists but this owner never wrote to it.
    files      live data files by path.
    deleted    positions deleted so far by path, absent where none are.  Treat as immutable.
    """

    version: int
    schema: pa.Schema
    checkpoint: Checkpoint
    files: Mapping[str, DataFile]
    deleted: Mapping[str, BitMap] = field(default_factory=dict)

    def live_rows(self) -> int:
        """Rows that a reader of this version sees."""
        return sum(file.rows for file in self.files.values()) - sum(map(len, self.deleted.values()))


@dataclass(frozen=True, slots=True)
class TableCommit:
    """What one commit changes.

    checkpoint   stored with it.
    added        data files that become live, as `write_data_file` returned them.
    deleted      NEWLY deleted positions by path; a path is live in the base or in `added`.
    removed      live paths that leave the table whole (TRUNCATE, rewrite).  Disjoint from `deleted`.
    schema       the table's new schema when it changes: columns appended, or widened where the back end
                 can (`widens_in_place`) or where every file of the old type is in `removed`.
    data_change  False for maintenance: the same rows, other files (Delta `dataChange`, Iceberg `replace`).

    All empty but the checkpoint is a legal commit: a fence, or an idle table whose LSN moves on.
    """

    checkpoint: Checkpoint
    added: Sequence[DataFile] = ()
    deleted: Mapping[str, BitMap] = field(default_factory=dict)
    removed: Sequence[str] = ()
    schema: pa.Schema | None = None
    data_change: bool = True


class TableBackend(Protocol):
    """One table of one format."""

    @property
    def location(self) -> str:
        """Where the table is, for messages and the status file: a path, URL or catalog name."""

    @property
    def deletes_by_position(self) -> bool:
        """Whether `TableCommit.deleted` may be used; else the writer rewrites files (copy on write)."""

    @property
    def widens_in_place(self) -> bool:
        """Whether files of the narrow type may stay when a column is widened."""

    def stored_type(self, arrow: pa.DataType) -> pa.DataType:
        """The Arrow type in which this format stores and reads back a column of type `arrow`.

        Identity where the format has the type; else the type of ARCHITECTURE.md's column table (time64 in
        Delta is int64 microseconds).  ConfigError for a type outside that table.
        """

    def load(self) -> TableState | None:
        """The newest version of the table, None when there is no table.  No side effects."""

    def create(self, schema: pa.Schema, checkpoint: Checkpoint) -> TableState:
        """Make the empty table with its first checkpoint; `schema` is in stored types.

        CommitConflict when a table appeared meanwhile.
        """

    def write_data_file(self, rows: pa.Table) -> DataFile:
        """Write one durable Parquet file of `rows`, in order; columns by name as in the new schema."""

    def discard(self, files: Sequence[DataFile]) -> None:
        """Remove files that were written but will never be committed (best effort)."""

    def read(self, file: DataFile, schema: pa.Schema, rows: npt.NDArray[np.int64] | None = None) -> pa.Table:
        """One data file as `schema` (stored types), at the given positions in that order, else all rows.

        A column that the file lacks (added later, or about to be) is null; a narrower type is widened.
        """

    def commit(self, base: TableState, change: TableCommit) -> TableState:
        """Make `change` the version after `base`, or raise CommitConflict (see the promises above)."""

    def upkeep(self, state: TableState) -> TableState:
        """Housekeeping that changes no rows (checkpoints, expiry, old files); called between commits.

        Returns the state to go on from.  Must be cheap when nothing is due.
        """

    def close(self) -> None:
        """Let go of files and connections."""
