"""Mirror mode: the table equals the source.

`stage` turns changes into one data file (rows sorted by key, so that a row's position is its key's rank)
and positions of superseded rows, looked up by key in all live files, those staged before included.
`commit` makes everything staged visible at once.  Work and memory grow with the changes, not with the table.

An unchanged TOAST cell is read from the row that is being replaced; when there is no such row the
writer stops: a null in its place would be a lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from tailrace.changes import OP_READ, ChangeBatch, ConfigError, Lsn, TailraceError, Truncate, crash_point
from tailrace.sinks import compact
from tailrace.sinks.backend import DataFile, TableBackend, TableCommit, TableState
from tailrace.sinks.checkpoint import Checkpoint, TopicPartition
from tailrace.sinks.evolve import evolve, stored_schema
from tailrace.sinks.fencing import commit_strictly, take_over
from tailrace.sinks.keys import KeyCodec, KeyCodes, concat, load_secret
from tailrace.sinks.lookup import KeyIndex
from tailrace.sinks.merge import Gathered, Merged, gather, merge
from tailrace.sinks.sidecar import SidecarStore
from tailrace.sinks.sink import CommitResult, SinkPlace, Target


@dataclass(slots=True)
class _Stage:
    """What the next commit brings, on top of the base state."""

    added: dict[str, DataFile] = field(default_factory=dict)
    deleted: dict[str, BitMap] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    deleted_keys: list[pa.Table] = field(default_factory=list)
    truncated: bool = False
    widened: bool = False
    only_snapshot: bool = True
    """Nothing is staged but rows of one initial snapshot, whose LSN is `snapshot_lsn` (-1: nothing yet)."""
    snapshot_lsn: Lsn = -1


class MirrorWriter:
    """TableWriter of mirror mode, on any back end."""

    def __init__(self, backend: TableBackend, target: Target, place: SinkPlace) -> None:
        """Open, create or take over the table; errors as `Sink.open_table`."""
        self._key = target.schema.key
        if not self._key:
            raise ConfigError(
                f"table {target.schema.id} has no key, so it cannot be mirrored",
                fix="give it a primary key, name one with `key:`, or use mode: append",
            )
        self._backend = backend
        stored = stored_schema(target.schema, backend.stored_type, keyed=True)
        self._state: TableState
        self._schema: pa.Schema
        self._files: dict[str, DataFile]
        self._deleted: dict[str, BitMap]
        self._stage: _Stage
        self._in_doubt = False
        secret = load_secret(place.cache_dir)
        self._codec = KeyCodec(self._key, stored, secret)
        self._sidecars = SidecarStore(place.cache_dir / "keys" / target.name, secret)
        self._index = KeyIndex(self._codec, self._sidecars, self._read_keys)
        self._streams = {target.schema.arrow: stored}
        self._rebase(take_over(backend, stored))
        # Key columns, and only they, are required in a mirror: that is how a table tells its key.
        kept_key = {field.name for field in self._schema if not field.nullable}
        if kept_key != set(self._key):
            raise ConfigError(
                f"table {self.location} is kept by key ({', '.join(sorted(kept_key)) or 'none'}), "
                f"not by ({', '.join(self._key)})",
                fix="give the sink another path or table name, so that the table is built anew",
            )
        self._sidecars.keep_only(set(self._files))

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
        """Apply changes to the version that the next commit will make."""
        changes = [batch for batch in changes if len(batch)]
        if not changes:
            return
        for batch in changes:
            self._accept(batch)
        gathered = gather(changes, self._schema)
        merged = merge(gathered, self._codec)
        upserts = self._with_old_cells(merged)
        if not self._is_first_copy(gathered):
            self._delete(concat([merged.upsert_keys, merged.delete_keys]))
        if merged.deletes.num_rows:
            self._stage.deleted_keys.append(merged.deletes)
        if upserts.num_rows:
            order = self._codec.sort_indices(upserts, merged.upsert_keys)
            self._add(upserts.take(pa.array(order, pa.int64())), merged.upsert_keys.take(order))

    def truncate(self, barrier: Truncate) -> None:
        """Empty the table, in the next commit."""
        self._backend.discard(list(self._stage.added.values()))
        for path in self._stage.added:
            self._index.forget(path)
        self._files, self._deleted = {}, {}
        self._stage = _Stage(removed=set(self._state.files), truncated=True)

    def commit(self, offsets: Mapping[TopicPartition, int], lsn: Lsn) -> CommitResult:
        """Make everything staged visible; CommitConflict is resolved inside (see `fencing`)."""
        checkpoint = self.checkpoint.advanced(offsets, lsn)

        def build(base: TableState) -> TableCommit:
            if base is not self._state:
                self._restage(base)
            self._rewrite_where_needed()
            stage = self._stage
            schema = None if self._schema.equals(base.schema) else self._schema
            crash_point("sink.before_commit")
            return TableCommit(
                checkpoint, tuple(stage.added.values()), stage.deleted, tuple(stage.removed), schema
            )

        self._in_doubt = True
        state = commit_strictly(self._backend, self._state, build)
        crash_point("sink.after_commit")
        for path in self._stage.removed:
            self._index.forget(path)
        self._rebase(state)
        self._in_doubt = False
        return self.result

    def upkeep(self) -> None:
        """Compact when due, then let the back end do its housekeeping; nothing may be staged."""
        files = compact.choose(self._state)
        if files:
            self._compact(files)
        self._rebase(self._backend.upkeep(self._state))

    def close(self) -> None:
        """Forget what is staged and let go of the table."""
        if not self._in_doubt:  # the files of a commit whose outcome is unknown may be in the table
            self._backend.discard(list(self._stage.added.values()))
        self._stage = _Stage()
        self._backend.close()

    def _rebase(self, state: TableState) -> None:
        self._state = state
        self._schema = state.schema
        self._files = dict(state.files)
        self._deleted = dict(state.deleted)
        self._stage = _Stage()
        for stream in self._streams.values():
            self._evolve(stream)

    def _read_keys(self, file: DataFile) -> pa.Table:
        return self._backend.read(file, pa.schema([self._schema.field(name) for name in self._key]))

    def _accept(self, batch: ChangeBatch) -> None:
        """Check a batch's schema against the table's, once per schema."""
        if batch.table.arrow in self._streams:
            return
        if set(batch.table.key) != set(self._key):
            raise TailraceError(
                f"the key of {batch.table.id} is now ({', '.join(batch.table.key)}), "
                f"that of table {self.location} ({', '.join(self._key)})",
                fix="rebuild the table under another name",
            )
        stored = stored_schema(batch.table, self._backend.stored_type, keyed=True)
        self._evolve(stored)
        self._streams[batch.table.arrow] = stored

    def _evolve(self, stream: pa.Schema) -> None:
        change = evolve(self._schema, stream, location=self.location)
        if change is not None:
            self._schema = change.schema
            self._stage.widened |= bool(change.widened)

    def _is_first_copy(self, changes: Gathered) -> bool:
        """Whether these are rows of an initial snapshot into an empty table: no key has an old row."""
        stage = self._stage
        lsn = int(changes.lsn[0])
        pure = bool((changes.op == OP_READ).all() and (changes.lsn == lsn).all())
        stage.only_snapshot &= pure and stage.snapshot_lsn in (-1, lsn)
        stage.snapshot_lsn = lsn
        return stage.only_snapshot and (stage.truncated or not self._state.files)

    def _add(self, rows: pa.Table, keys: KeyCodes) -> None:
        crash_point("sink.before_data_file")
        file = self._backend.write_data_file(rows)
        crash_point("sink.after_data_file")
        self._index.add(file, keys)
        self._stage.added[file.path] = file
        self._files[file.path] = file

    def _delete(self, keys: KeyCodes) -> None:
        for path, hits in self._index.find(keys, self._files.values(), self._deleted).items():
            fresh = BitMap(hits.position)
            self._stage.deleted[path] = self._stage.deleted.get(path, BitMap()) | fresh
            self._deleted[path] = self._deleted.get(path, BitMap()) | fresh
            if len(self._deleted[path]) == self._files[path].rows:
                self._drop(path)

    def _drop(self, path: str) -> None:
        """A file leaves the next version whole."""
        file = self._files.pop(path)
        self._deleted.pop(path, None)
        self._stage.deleted.pop(path, None)
        if self._stage.added.pop(path, None) is None:
            self._stage.removed.add(path)
        else:
            self._index.forget(path)
            self._backend.discard([file])

    def _with_old_cells(self, merged: Merged) -> pa.Table:
        """The upserts with their unchanged cells read from the rows that they replace."""
        upserts = merged.upserts
        if not merged.lookups:
            return upserts
        names = sorted({lookup.column for lookup in merged.lookups})
        fields = pa.schema([self._schema.field(name) for name in names])
        place = np.full(len(merged.wanted), -1, np.int64)
        parts, count = [], 0
        for path, hits in self._index.find(merged.wanted, self._files.values(), self._deleted).items():
            parts.append(self._backend.read(self._files[path], fields, hits.position.astype(np.int64)))
            place[hits.key] = np.arange(count, count + len(hits.key))
            count += len(hits.key)
        if (place < 0).any():
            raise TailraceError(
                f"an update of {self.location} leaves column '{names[0]}' unchanged, but there is no old row",
                fix="rebuild the table from a new snapshot, or set REPLICA IDENTITY FULL on the source table",
            )
        old = pa.concat_tables(parts)
        for lookup in merged.lookups:
            index = upserts.schema.get_field_index(lookup.column)
            column = pa.chunked_array([*upserts.column(index).chunks, *old.column(lookup.column).chunks])
            source = np.arange(upserts.num_rows, dtype=np.int64)
            source[lookup.row] = upserts.num_rows + place[lookup.key]
            upserts = upserts.set_column(
                index, upserts.schema.field(index), column.take(pa.array(source, pa.int64()))
            )
        return upserts

    def _rewrite_where_needed(self) -> None:
        """Copy on write, and wider types where the format cannot keep narrow files."""
        paths = set(self._stage.deleted) if not self._backend.deletes_by_position else set()
        if self._stage.widened and not self._backend.widens_in_place:
            paths |= set(self._files)
        for path in sorted(paths):
            rows = compact.live_rows(self._backend, self._files[path], self._deleted.get(path), self._schema)
            self._drop(path)
            self._add(rows, self._codec.encode(rows))
        self._stage.widened = False

    def _restage(self, base: TableState) -> None:
        """Others did maintenance: the same rows lie elsewhere.  Find what the stage replaces again."""
        stage = self._stage
        own = {path: positions for path, positions in self._deleted.items() if path in stage.added}
        self._rebase(base)
        self._stage.truncated, self._stage.deleted_keys = stage.truncated, stage.deleted_keys
        self._stage.widened |= stage.widened
        if stage.truncated:
            self._stage.removed, self._files, self._deleted = set(base.files), {}, {}
        replaced = [self._read_keys(file) for file in stage.added.values()]
        for keys in [*replaced, *stage.deleted_keys]:
            self._delete(self._codec.encode(keys))
        self._stage.added = stage.added
        self._stage.deleted.update(own)
        self._files.update(stage.added)
        self._deleted.update(own)

    def _compact(self, files: list[DataFile]) -> None:
        """Merge files into one; the same rows before and after."""
        rows = compact.merged_rows(self._backend, files, self._state.deleted, self._state.schema)
        merged = None
        if rows.num_rows:
            keys = self._codec.encode(rows)
            order = self._codec.sort_indices(rows, keys)
            merged = self._backend.write_data_file(rows.take(pa.array(order, pa.int64())))
            self._index.add(merged, keys.take(order))
        self._rebase(compact.replace(self._backend, self._state, files, merged))
        for file in files if merged is None else [*files, merged]:
            if file.path not in self._files:
                self._index.forget(file.path)
