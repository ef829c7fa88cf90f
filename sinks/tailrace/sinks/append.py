"""Append mode: the change log as a table, one row per change.

Columns are the source's, all nullable (a delete carries the key only), and after them:

| column | type | meaning |
|---|---|---|
| `_op` | string | `c` `u` `d` `r`, as in the topic; `t` for a TRUNCATE, all source columns null |
| `_lsn` | int64 | end LSN of the source transaction |
| `_seq` | int64 | index of the change in it |
| `_xid` | int64 | source transaction id |
| `_commit_ts` | timestamp[us, UTC] | commit time at the source |
| `_unchanged` | list<string> | columns whose value the change left as it was and the log does not know; null: none |

Rows of one commit are ordered by (`_lsn`, `_seq`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tailrace.changes import ChangeBatch, ConfigError, Lsn, TableSchema, Truncate, crash_point
from tailrace.sinks import compact
from tailrace.sinks.backend import DataFile, TableBackend, TableCommit, TableState
from tailrace.sinks.checkpoint import Checkpoint, TopicPartition
from tailrace.sinks.evolve import conform, evolve, stored_schema
from tailrace.sinks.fencing import commit_strictly, take_over
from tailrace.sinks.sink import CommitResult, Target

_CHANGE_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("_op", pa.string()),
    pa.field("_lsn", pa.int64()),
    pa.field("_seq", pa.int64()),
    pa.field("_xid", pa.int64()),
    pa.field("_commit_ts", pa.timestamp("us", tz="UTC")),
    pa.field("_unchanged", pa.list_(pa.field("element", pa.string()))),
]
_CHANGE_COLUMNS = pa.schema(_CHANGE_FIELDS)
_LETTERS = pa.array([chr(code) for code in range(128)])


class AppendWriter:
    """TableWriter of append mode, on any back end."""

    def __init__(self, backend: TableBackend, target: Target) -> None:
        """Open, create or take over the table; errors as `Sink.open_table`."""
        self._backend = backend
        stored = self._stored(target.schema)
        self._state = take_over(backend, stored)
        self._schema = self._state.schema
        if not set(_CHANGE_COLUMNS.names) <= set(self._schema.names):
            raise ConfigError(
                f"table {self.location} is a mirror, not a change log", fix="give the sink another table name"
            )
        self._added: list[DataFile] = []
        self._in_doubt = False
        self._streams = {target.schema.arrow}
        self._evolve(stored)

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest commit's checkpoint."""
        return self._state.checkpoint

    @property
    def location(self) -> str:
        """Where the table lies."""
        return self._backend.location

    @property
    def result(self) -> CommitResult:
        """Version and live rows of the newest commit."""
        return CommitResult(self._state.version, self._state.live_rows())

    @property
    def state(self) -> TableState:
        """The newest committed version of the table."""
        return self._state

    def stage(self, changes: Sequence[ChangeBatch]) -> None:
        """Write the changes as rows; visible with the next commit."""
        changes = [batch for batch in changes if len(batch)]
        for batch in changes:
            if batch.table.arrow not in self._streams:
                self._evolve(self._stored(batch.table))
                self._streams.add(batch.table.arrow)
        if changes:
            rows = pa.concat_tables([conform(_as_rows(batch), self._schema) for batch in changes])
            lsn = np.concatenate([batch.lsn for batch in changes])
            seq = np.concatenate([batch.seq for batch in changes])
            self._add(rows.take(pa.array(np.lexsort((seq, lsn)), pa.int64())))

    def truncate(self, barrier: Truncate) -> None:
        """Record the TRUNCATE as a row of its own."""
        row = pa.table(
            {
                "_op": pa.array(["t"]),
                "_lsn": pa.array([barrier.lsn], pa.int64()),
                "_seq": pa.array([barrier.seq], pa.int64()),
                "_commit_ts": pa.array([barrier.timestamp], pa.timestamp("us", tz="UTC")),
            }
        )
        self._add(conform(row, self._schema))

    def commit(self, offsets: Mapping[TopicPartition, int], lsn: Lsn) -> CommitResult:
        """Make everything staged visible; CommitConflict is resolved inside (see `fencing`)."""
        checkpoint = self.checkpoint.advanced(offsets, lsn)

        def build(base: TableState) -> TableCommit:
            change = evolve(base.schema, self._schema, location=self.location)
            schema = base.schema if change is None else change.schema
            removed: list[str] = []
            added = list(self._added)
            if change is not None and change.widened and not self._backend.widens_in_place:
                removed = list(base.files)
                added += [self._rewritten(base, path, schema) for path in removed]
            crash_point("sink.before_commit")
            return TableCommit(checkpoint, added, removed=removed, schema=None if change is None else schema)

        self._in_doubt = True
        state = commit_strictly(self._backend, self._state, build)
        crash_point("sink.after_commit")
        self._state, self._schema, self._added = state, state.schema, []
        self._in_doubt = False
        return self.result

    def upkeep(self) -> None:
        """Compact when due, then let the back end do its housekeeping; nothing may be staged."""
        files = compact.choose(self._state)
        if files:
            self._state = compact.replace(self._backend, self._state, files, self._merged(files))
        self._state = self._backend.upkeep(self._state)

    def close(self) -> None:
        """Forget what is staged and let go of the table."""
        if not self._in_doubt:  # the files of a commit whose outcome is unknown may be in the table
            self._backend.discard(self._added)
        self._added = []
        self._backend.close()

    def _merged(self, files: list[DataFile]) -> DataFile:
        rows = compact.merged_rows(self._backend, files, self._state.deleted, self._state.schema)
        return self._backend.write_data_file(rows)

    def _rewritten(self, base: TableState, path: str, schema: pa.Schema) -> DataFile:
        return self._backend.write_data_file(self._backend.read(base.files[path], schema))

    def _add(self, rows: pa.Table) -> None:
        crash_point("sink.before_data_file")
        self._added.append(self._backend.write_data_file(rows))
        crash_point("sink.after_data_file")

    def _stored(self, table: TableSchema) -> pa.Schema:
        taken = sorted(set(table.arrow.names) & set(_CHANGE_COLUMNS.names))
        if taken:
            raise ConfigError(
                f"{table.id} has a column '{taken[0]}', a name that a change log uses itself",
                fix="rename the column, or use mode: mirror",
            )
        stored = stored_schema(table, self._backend.stored_type, keyed=False)
        return pa.schema([*stored, *_CHANGE_COLUMNS])

    def _evolve(self, stream: pa.Schema) -> None:
        change = evolve(self._schema, stream, location=self.location)
        if change is not None:
            self._schema = change.schema


def _as_rows(batch: ChangeBatch) -> pa.Table:
    """The batch's columns and, beside them, what happened when."""
    sets = pa.array([*map(list, batch.unchanged_sets), None], _CHANGE_COLUMNS.field("_unchanged").type)
    unchanged = np.where(batch.unchanged < 0, len(batch.unchanged_sets), batch.unchanged)
    columns = {
        "_op": _LETTERS.take(pa.array(batch.op, pa.uint8())),
        "_lsn": pa.array(batch.lsn),
        "_seq": pa.array(batch.seq),
        "_xid": pa.array(batch.xid),
        "_commit_ts": pa.array(batch.timestamp).cast(pa.timestamp("us", tz="UTC")),
        "_unchanged": sets.take(pa.array(unchanged, pa.int64())),
    }
    return pa.table([*batch.rows.columns, *columns.values()], names=[*batch.rows.schema.names, *columns])
