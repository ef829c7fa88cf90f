"""One Iceberg v2 table as a TableBackend: position deletes, every commit one snapshot and one catalog swap.

The checkpoint travels twice in a commit: as table properties (authoritative: they survive snapshot expiry and
foreign maintenance) and in the snapshot's summary (audit, time travel).  The catalog is asked for the swap with
the head snapshot as requirement and never retries; pyiceberg's own commit retry rebases silently and is not used.
"""

import uuid
from collections.abc import Sequence
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AddSnapshotUpdate,
    AssertCurrentSchemaId,
    AssertLastAssignedFieldId,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyroaring import BitMap

from tailrace.changes import TailraceError, crash_point
from tailrace.sinks import parquet
from tailrace.sinks.backend import CommitConflict, DataFile, ForeignWriteError, TableCommit, TableState
from tailrace.sinks.checkpoint import Checkpoint, from_properties, to_properties
from tailrace.sinks.iceberg import arrow_types
from tailrace.sinks.iceberg.config import IcebergConfig
from tailrace.sinks.iceberg.housekeeping import Housekeeping
from tailrace.sinks.iceberg.ownership import ROWS, refuse_foreign_rows
from tailrace.sinks.iceberg.position_deletes import write_position_deletes
from tailrace.sinks.iceberg.snapshot import SnapshotWriter, totals
from tailrace.sinks.iceberg.state import (
    DeleteFile,
    IcebergFile,
    IcebergState,
    existing,
    gone,
    read_deleted,
    read_entries,
)
from tailrace.sinks.iceberg.version_hint import write_version_hint

_BRANCH = "main"
_MANIFESTS_BEFORE_REWRITE = 20
_DELETE_FILES_BEFORE_REWRITE = 20
_PROPERTIES = {
    "format-version": "2",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # other tools on this table must not rebase silently either
    "commit.retry.num-retries": "0",
}


class IcebergTable:
    """TableBackend of one Iceberg table."""

    deletes_by_position = True
    widens_in_place = True

    def __init__(
        self, catalog: Catalog, identifier: tuple[str, ...], owner: str, config: IcebergConfig
    ) -> None:
        """Nothing is read or written before `load` or `create`."""
        self._catalog = catalog
        self._identifier = identifier
        self._owner = owner
        self._keep_snapshots = config.keep_snapshots
        self._housekeeping = Housekeeping(config)
        self._table: Table | None = None
        self._next_schema: Schema | None = None

    @property
    def location(self) -> str:
        """Where its files are once it is open, before that its name in the catalog."""
        if self._table is None:
            return ".".join(self._identifier)
        return self._table.location().removeprefix("file://")

    def stored_type(self, arrow: pa.DataType) -> pa.DataType:
        """See `arrow_types`."""
        return arrow_types.stored_type(arrow)

    def load(self) -> IcebergState | None:
        """Read the newest version; ForeignWriteError when others wrote rows after us."""
        try:
            table = self._catalog.load_table(self._identifier)
        except NoSuchTableError:
            return None
        if self._next_schema is not None and table.schema() not in (
            self._opened().schema(),
            self._next_schema,
        ):
            raise ForeignWriteError(
                f"somebody else changed the columns of table {self.location} while this sink added some",
                fix="start the sink again: it writes its files anew, with the field ids that are free now",
            )
        self._table, self._next_schema = table, None
        checkpoint = from_properties(self._owner, table.metadata.properties)
        head = table.current_snapshot()
        manifests = tuple(head.manifests(table.io)) if head is not None else ()
        data = [m for m in manifests if m.content == ManifestContent.DATA]
        files = {
            entry.data_file.file_path: IcebergFile(
                entry.data_file.file_path,
                entry.data_file.record_count,
                entry.data_file.file_size_in_bytes,
                entry.data_file,
                entry,
            )
            for entry in read_entries(table.io, data)
        }
        deletes = tuple(
            DeleteFile(entry.data_file.file_path, entry)
            for entry in read_entries(
                table.io, [m for m in manifests if m.content == ManifestContent.DELETES]
            )
        )
        state = IcebergState(
            version=head.snapshot_id if head is not None else 0,
            schema=arrow_types.arrow_schema(table.schema()),
            checkpoint=checkpoint,
            files=files,
            deleted=read_deleted(table.io, deletes, files),
            table=table,
            manifests=manifests,
            deletes=deletes,
        )
        if checkpoint.epoch:
            refuse_foreign_rows(table, checkpoint, state.live_rows(), self.location)
        return state

    def create(self, schema: pa.Schema, checkpoint: Checkpoint) -> IcebergState:
        """Make the empty table; its namespace too."""
        self._catalog.create_namespace_if_not_exists(self._identifier[:-1])
        properties = {**_PROPERTIES, **to_properties(self._owner, checkpoint)}
        try:
            table = self._catalog.create_table(self._identifier, schema, properties=properties)
        except TableAlreadyExistsError as error:
            raise CommitConflict(str(error)) from error
        self._table, self._next_schema = table, None
        write_version_hint(table)
        return IcebergState(0, schema, checkpoint, {}, table=table)

    def write_data_file(self, rows: pa.Table) -> IcebergFile:
        """Write one Parquet file under the table's data folder, field ids as the schema of the next commit has them."""
        table = self._opened()
        schema = self._schema_for(rows.schema)
        key = [field.name for field in rows.schema if not field.nullable]
        buffer, _ = parquet.encode(arrow_types.with_field_ids(rows, schema), key)
        location = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet")
        with table.io.new_output(location).create() as stream:
            stream.write(buffer.to_pybytes())
        metadata = table.metadata.model_copy(
            update={"schemas": [*table.metadata.schemas, schema], "current_schema_id": schema.schema_id}
        )
        described = parquet_file_to_data_file(table.io, metadata, location)
        return IcebergFile(location, described.record_count, described.file_size_in_bytes, described)

    def discard(self, files: Sequence[DataFile]) -> None:
        """Remove uncommitted files now; what is missed here is swept later as an orphan."""
        for file in files:
            try:
                self._opened().io.delete(file.path)
            except OSError:
                continue

    def read(self, file: DataFile, schema: pa.Schema, rows: npt.NDArray[np.int64] | None = None) -> pa.Table:
        """Read one Parquet file; only the row groups that hold `rows` are decoded."""
        with (
            self._opened().io.new_input(file.path).open() as stream,
            pq.ParquetFile(cast(IO[Any], stream)) as source,
        ):
            return parquet.read(source, schema, rows)

    def commit(self, base: TableState, change: TableCommit) -> IcebergState:
        """Make a snapshot on top of `base`'s, or raise CommitConflict."""
        assert isinstance(base, IcebergState)
        schema = base.table.schema() if change.schema is None else self._schema_for(change.schema)
        writer = SnapshotWriter(base.table, schema)
        state, manifests, summary = self._assemble(base, change, writer)
        operation = _operation(change)
        snapshot = writer.snapshot(
            manifests, operation, {**summary, **to_properties(self._owner, change.checkpoint)}
        )
        updates: list[TableUpdate] = []
        if change.schema is not None and schema.schema_id != base.table.schema().schema_id:
            updates += [AddSchemaUpdate(schema_=schema), SetCurrentSchemaUpdate(schema_id=-1)]
        properties = {**to_properties(self._owner, change.checkpoint), ROWS: str(state.live_rows())}
        table = self._swap(base, [*updates, *self._snapshot_updates(base, snapshot, properties)], writer)
        return IcebergState(
            version=snapshot.snapshot_id,
            schema=change.schema or base.schema,
            checkpoint=change.checkpoint,
            files=state.files,
            deleted=state.deleted,
            table=table,
            manifests=tuple(manifests),
            deletes=state.deletes,
        )

    def upkeep(self, state: TableState) -> TableState:
        """Remove files that no kept snapshot needs, when due."""
        assert isinstance(state, IcebergState)
        self._housekeeping.run(state)
        return state

    def close(self) -> None:
        """Nothing is held open."""

    def _assemble(
        self, base: IcebergState, change: TableCommit, writer: SnapshotWriter
    ) -> tuple[IcebergState, list[ManifestFile], dict[str, str]]:
        """Manifests of the new snapshot, and what the table then consists of."""
        added = [_known(file) for file in change.added]
        files: dict[str, Any] = {
            path: file for path, file in base.files.items() if path not in set(change.removed)
        }
        entries = {file.path: writer.added(file.described) for file in added}
        deleted = {path: positions for path, positions in base.deleted.items() if path in files}
        for path, fresh in change.deleted.items():
            deleted[path] = deleted.get(path, BitMap()) | fresh
        rewrite_data = bool(change.removed) or len(base.manifests) >= _MANIFESTS_BEFORE_REWRITE
        if rewrite_data:
            left = [existing(_entry(file)) for file in files.values()]
            dropped = [gone(_entry(_known(base.files[path])), writer.snapshot_id) for path in change.removed]
            data_entries = [*left, *dropped, *entries.values()]
            manifests = [writer.manifest(data_entries, ManifestContent.DATA)] if data_entries else []
        else:
            fresh_manifest = (
                [writer.manifest(list(entries.values()), ManifestContent.DATA)] if entries else []
            )
            manifests = [*fresh_manifest, *(m for m in base.manifests if m.content == ManifestContent.DATA)]
        delete_manifests, deletes = self._assemble_deletes(base, change, writer, deleted, force=rewrite_data)
        for file in added:
            settled = writer.settled(entries[file.path])
            files[file.path] = IcebergFile(file.path, file.rows, file.size, file.described, settled)
        summary = totals(
            [file.described for file in files.values()],
            [delete.entry.data_file for delete in deletes],
            sum(map(len, deleted.values())),
        )
        summary |= {
            "added-data-files": str(len(added)),
            "added-records": str(sum(file.rows for file in added)),
            "deleted-data-files": str(len(change.removed)),
            "added-position-deletes": str(sum(map(len, change.deleted.values()))),
        }
        state = IcebergState(
            0, base.schema, change.checkpoint, files, deleted, table=base.table, deletes=deletes
        )
        return state, manifests + delete_manifests, summary

    def _assemble_deletes(
        self,
        base: IcebergState,
        change: TableCommit,
        writer: SnapshotWriter,
        deleted: dict[str, BitMap],
        *,
        force: bool,
    ) -> tuple[list[ManifestFile], tuple[DeleteFile, ...]]:
        """One delete file for the new positions, or from time to time one for all of them."""
        old_manifests = [m for m in base.manifests if m.content == ManifestContent.DELETES]
        consolidate = force or len(base.deletes) >= _DELETE_FILES_BEFORE_REWRITE
        if not change.deleted and not (consolidate and base.deletes):
            return old_manifests, base.deletes
        wanted = deleted if consolidate else change.deleted
        fresh: list[DeleteFile] = []
        entries = [gone(delete.entry, writer.snapshot_id) for delete in base.deletes] if consolidate else []
        if any(wanted.values()):
            crash_point("sink.before_delete_file")
            described = write_position_deletes(base.table, wanted)
            crash_point("sink.after_delete_file")
            entry = writer.added(described)
            entries.append(entry)
            fresh.append(DeleteFile(described.file_path, writer.settled(entry)))
        manifests = [writer.manifest(entries, ManifestContent.DELETES)] if entries else []
        if consolidate:
            return manifests, tuple(fresh)
        return manifests + old_manifests, (*base.deletes, *fresh)

    def _snapshot_updates(
        self, base: IcebergState, snapshot: Snapshot, properties: dict[str, str]
    ) -> list[TableUpdate]:
        updates: list[TableUpdate] = [
            SetPropertiesUpdate(updates=properties),
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate(
                ref_name=_BRANCH,
                type=SnapshotRefType.BRANCH,
                snapshot_id=snapshot.snapshot_id,
                max_ref_age_ms=None,
                max_snapshot_age_ms=None,
                min_snapshots_to_keep=None,
            ),
        ]
        known = sorted(base.table.metadata.snapshots, key=lambda item: item.sequence_number or 0)
        referenced = {ref.snapshot_id for name, ref in base.table.metadata.refs.items() if name != _BRANCH}
        expired = [
            item.snapshot_id for item in known[: -self._keep_snapshots] if item.snapshot_id not in referenced
        ]
        if expired:
            updates.append(RemoveSnapshotsUpdate(snapshot_ids=expired))
        return updates

    def _swap(self, base: IcebergState, updates: list[TableUpdate], writer: SnapshotWriter) -> Table:
        """Ask the catalog for the compare-and-set."""
        requirements: tuple[TableRequirement, ...] = (
            AssertTableUUID(uuid=base.table.metadata.table_uuid),
            AssertRefSnapshotId(ref=_BRANCH, snapshot_id=base.table.metadata.current_snapshot_id),
            AssertCurrentSchemaId(current_schema_id=base.table.metadata.current_schema_id),
            AssertLastAssignedFieldId(last_assigned_field_id=base.table.metadata.last_column_id),
        )
        try:
            answer = self._catalog.commit_table(base.table, requirements, tuple(updates))
        except CommitFailedException as error:
            writer.discard()
            raise CommitConflict(str(error)) from error
        except TailraceError:
            raise
        except Exception as error:
            raise CommitConflict(f"the catalog's answer was lost: {type(error).__name__}") from error
        self._table, self._next_schema = (
            Table(
                base.table.name(),
                answer.metadata,
                answer.metadata_location,
                base.table.io,
                self._catalog,
            ),
            None,
        )
        write_version_hint(self._table)
        return self._table

    def _schema_for(self, wanted: pa.Schema) -> Schema:
        """The table's schema, evolved when `wanted` has columns or wider types that it lacks.

        The same until the next commit, so that files written before it carry the ids that it will give.
        """
        table = self._opened()
        current = self._next_schema or table.schema()
        if not _lacking(current, wanted):
            return current
        # from the committed schema each time: ids are given in order, so earlier files keep theirs
        changed = _lacking(table.schema(), wanted)
        update = table.update_schema()
        update.union_by_name(pa.schema(changed))
        self._next_schema = update._apply()
        return self._next_schema

    def _opened(self) -> Table:
        if self._table is None:
            raise TailraceError(f"table {self.location} is not open")
        return self._table


def _lacking(schema: Schema, wanted: pa.Schema) -> "list[pa.Field[Any]]":
    """Fields of `wanted` that the schema does not have, or has with another type."""
    known = {field.name: field.type for field in arrow_types.arrow_schema(schema)}
    return [field for field in wanted if known.get(field.name) != field.type]


def _operation(change: TableCommit) -> Operation:
    if not change.data_change:
        return Operation.REPLACE
    if change.deleted or change.removed:
        return Operation.OVERWRITE if change.added else Operation.DELETE
    return Operation.APPEND


def _known(file: DataFile) -> IcebergFile:
    assert isinstance(file, IcebergFile)
    return file


def _entry(file: IcebergFile) -> Any:
    assert file.entry is not None
    return file.entry
