"""Changes as columns: what a source yields and a sink applies.

A ChangeBatch holds changes of ONE table, in commit order, as an Arrow batch beside NumPy columns of
change metadata.  There is no Python object per row anywhere between a source and a table commit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.changes.position import Lsn
from tailrace.changes.table import TableId, TableSchema

# Operation codes are Debezium's letters, so that headers read well in any Kafka tool.
OP_CREATE = ord("c")
OP_UPDATE = ord("u")
OP_DELETE = ord("d")
OP_READ = ord("r")
"""A row of the initial snapshot."""


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes of one table, ordered by (lsn, seq); n rows in every column.

    rows          n rows of `table.arrow`: the row after the change; for a delete only key columns are set.
                  A column named in the row's unchanged set means "keep the old cell", whatever stands here.
    op            uint8[n], OP_*.  A key change is two changes: OP_DELETE of the old key, then OP_CREATE.
    lsn           int64[n], end LSN of the source transaction; snapshot rows: the slot's consistent point.
    seq           int64[n], index of the change inside its source transaction, from 0.
    xid           int64[n], source transaction id, 0 for snapshot rows.
    timestamp     int64[n], commit time, microseconds since the Unix epoch.
    unchanged     int16[n], index into `unchanged_sets`, -1 where every column is given.
    unchanged_sets  the distinct sets of unchanged TOAST columns in this batch.
    prior_key     n rows of the key columns: the key that the row had before a key change, where an
                  unchanged cell must be looked up; None when no row of the batch needs it; a row
                  that does not need it holds nulls.
    """

    table: TableSchema
    rows: pa.RecordBatch
    op: npt.NDArray[np.uint8]
    lsn: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    xid: npt.NDArray[np.int64]
    timestamp: npt.NDArray[np.int64]
    unchanged: npt.NDArray[np.int16]
    unchanged_sets: tuple[tuple[str, ...], ...] = ()
    prior_key: pa.RecordBatch | None = None

    def __len__(self) -> int:
        return self.rows.num_rows


@dataclass(frozen=True, slots=True)
class Truncate:
    """TRUNCATE of tables, at its place between batches: it empties what came before it."""

    tables: tuple[TableId, ...]
    lsn: Lsn
    seq: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A run of the stream: changes in commit order, possibly of many source transactions.

    Batches of different tables may be reordered against each other, but never across a Truncate or
    across another batch of the same table.  `position` is the end LSN up to which the stream is now
    complete, None while a source transaction is still open (a large one arrives in pieces, and no
    piece may become visible before the set with its position).
    """

    changes: tuple[ChangeBatch | Truncate, ...]
    position: Lsn | None
    timestamp: int
    """Commit time of the newest source transaction in the set, microseconds since the Unix epoch."""
