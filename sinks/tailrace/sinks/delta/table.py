"""One Delta table as a TableBackend: versions written as JSON commits, put-if-absent.

A commit is one file of actions, `_delta_log/<version>.json`::

    commitInfo                      who and what, for people
    protocol, metaData              only when the schema changes
    txn *                           the checkpoint (see `tailrace.sinks.checkpoint`)
    remove *                        a data file with its OLD deletion vector
    add *                           the same file with its NEW vector, or a new file

Version 0 is ours too, because deltalake's way to switch deletion vectors on adds features that lock readers
out.  deltalake writes the Delta checkpoints (`create_checkpoint`) and cleans the log.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from tailrace.changes import crash_point
from tailrace.sinks import parquet
from tailrace.sinks.backend import DataFile, ForeignWriteError, TableCommit, TableState
from tailrace.sinks.checkpoint import Checkpoint, from_transactions, to_transactions
from tailrace.sinks.delta import actions, arrow_types, vectors
from tailrace.sinks.delta.config import DeltaConfig
from tailrace.sinks.delta.housekeeping import LOG_KEPT_S, Housekeeping
from tailrace.sinks.delta.log import Action, LogState, commit_path, read_commit, read_log
from tailrace.sinks.delta.stats import statistics
from tailrace.sinks.delta.store import TableStore


@dataclass(frozen=True, slots=True)
class DeltaFile(DataFile):
    """A data file with what its next `add` action repeats."""

    stats: str
    modified: int
    vector: vectors.Descriptor | None = None


class DeltaTable:
    """TableBackend of one Delta table."""

    widens_in_place = False

    def __init__(self, store: TableStore, owner: str, config: DeltaConfig) -> None:
        """Nothing is read or written before `load` or `create`."""
        self._store = store
        self._owner = owner
        self.deletes_by_position = config.write == "merge_on_read"
        self._keep_s = config.keep_old_files
        self._housekeeping = Housekeeping(store, config)

    @property
    def location(self) -> str:
        """Folder or URL of the table."""
        return self._store.url

    def stored_type(self, arrow: pa.DataType) -> pa.DataType:
        """See `arrow_types`."""
        return arrow_types.stored_type(arrow)

    def load(self) -> TableState | None:
        """Read the newest version from the log; ForeignWriteError when others wrote rows after us."""
        log = read_log(self._store)
        if log is None:
            return None
        self._refuse_foreign_rows(log)
        files = {path: self._file(path, add) for path, add in log.adds.items()}
        self._housekeeping.start(log)
        return TableState(
            version=log.version,
            schema=arrow_types.arrow_schema(log.metadata["schemaString"]),
            checkpoint=from_transactions(self._owner, log.transactions),
            files=files,
            deleted=self._read_vectors(files),
        )

    def create(self, schema: pa.Schema, checkpoint: Checkpoint) -> TableState:
        """Write version 0."""
        by_position = self.deletes_by_position
        metadata = actions.metadata_action(
            schema, deletion_vectors=by_position, old_files_s=self._keep_s, log_s=LOG_KEPT_S
        )
        protocol = actions.protocol_action(schema, deletion_vectors=by_position)
        self._write_commit(0, "CREATE TABLE", [protocol, metadata], checkpoint)
        log = LogState(version=0)
        log.apply([protocol, metadata])
        self._housekeeping.start(log)
        return TableState(0, schema, checkpoint, {})

    def write_data_file(self, rows: pa.Table) -> DeltaFile:
        """Write `part-<uuid>.parquet`; required columns are the key (see `mirror`)."""
        key = [field.name for field in rows.schema if not field.nullable]
        buffer, metadata = parquet.encode(rows, key)
        path = f"part-{uuid.uuid4()}.zstd.parquet"
        self._store.put(path, buffer)
        return DeltaFile(path, metadata.num_rows, buffer.size, statistics(metadata), actions.now_ms())

    def discard(self, files: Sequence[DataFile]) -> None:
        """Remove uncommitted files now; what is missed here is swept later as an orphan."""
        for file in files:
            self._store.delete(file.path)

    def read(self, file: DataFile, schema: pa.Schema, rows: npt.NDArray[np.int64] | None = None) -> pa.Table:
        """Read one Parquet file; only the row groups that hold `rows` are decoded."""
        with pq.ParquetFile(self._store.source(file.path), memory_map=True) as source:
            return parquet.read(source, schema, rows)

    def commit(self, base: TableState, change: TableCommit) -> TableState:
        """Write version `base.version + 1`, or raise CommitConflict."""
        files = dict(base.files)
        deleted = dict(base.deleted)
        removes = [self._leave(files, path, change.data_change) for path in change.removed]
        for path in change.removed:
            deleted.pop(path, None)
        arriving: dict[str, DeltaFile] = {}
        for file in change.added:
            assert isinstance(file, DeltaFile)
            arriving[file.path] = file
        touched = {path: deleted.get(path, BitMap()) | fresh for path, fresh in change.deleted.items()}
        if touched:
            descriptors = self._write_vectors(touched)
            for path, descriptor in descriptors.items():
                if path not in arriving:
                    removes.append(self._leave(files, path, change.data_change))
                    arriving[path] = self._known(base, path)
                arriving[path] = replace(arriving[path], vector=descriptor)
            deleted.update(touched)
        adds = [
            actions.add_action(f.path, f.size, f.stats, f.modified, f.vector, data_change=change.data_change)
            for f in arriving.values()
        ]
        version = base.version + 1
        operation = "WRITE" if change.data_change else "OPTIMIZE"
        head = self._schema_actions(change.schema)
        self._write_commit(version, operation, [*head, *removes, *adds], change.checkpoint)
        self._housekeeping.removed(removes)
        files.update(arriving)
        return TableState(version, change.schema or base.schema, change.checkpoint, files, deleted)

    def upkeep(self, state: TableState) -> TableState:
        """Write the Delta checkpoint and remove old files when due."""
        self._housekeeping.run(state)
        return state

    def close(self) -> None:
        """Nothing is held open."""

    def _write_commit(self, version: int, operation: str, body: list[Action], checkpoint: Checkpoint) -> None:
        transactions = to_transactions(self._owner, checkpoint).items()
        lines = [
            actions.commit_info(operation, version),
            *(actions.txn_action(app_id, number) for app_id, number in transactions),
            *body,
        ]
        text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
        self._store.create(commit_path(version), text.encode())

    def _write_vectors(self, touched: Mapping[str, BitMap]) -> dict[str, vectors.Descriptor]:
        path, data, descriptors = vectors.encode_file(touched)
        crash_point("sink.before_delete_file")
        self._store.put(path, data)
        crash_point("sink.after_delete_file")
        return descriptors

    def _schema_actions(self, schema: pa.Schema | None) -> list[Action]:
        """Metadata and, where a new type asks for it, protocol, for a changed schema."""
        if schema is None:
            return []
        log = self._housekeeping.described
        metadata = {"metaData": {**log.metadata, "schemaString": arrow_types.schema_json(schema)}}
        wanted = actions.protocol_action(schema, deletion_vectors=self.deletes_by_position)
        have = {*log.protocol.get("readerFeatures", ())}
        missing = {*wanted["protocol"].get("readerFeatures", ())} - have
        changed = [wanted, metadata] if missing else [metadata]
        log.apply(changed)
        return changed

    def _leave(self, files: dict[str, DataFile], path: str, data_change: bool) -> Action:
        file = files.pop(path)
        assert isinstance(file, DeltaFile)
        return actions.remove_action(path, file.size, file.vector, data_change=data_change)

    def _known(self, base: TableState, path: str) -> DeltaFile:
        file = base.files[path]
        assert isinstance(file, DeltaFile)
        return file

    def _file(self, path: str, add: Action) -> DeltaFile:
        stats = add.get("stats")
        if not stats or "numRecords" not in json.loads(stats):
            with pq.ParquetFile(self._store.source(path)) as source:
                stats = statistics(source.metadata)
        rows = json.loads(stats)["numRecords"]
        return DeltaFile(path, rows, add["size"], stats, add["modificationTime"], add.get("deletionVector"))

    def _read_vectors(self, files: Mapping[str, DeltaFile]) -> dict[str, BitMap]:
        contents: dict[str, bytes] = {}
        deleted = {}
        for path, file in files.items():
            if file.vector is None:
                continue
            name = vectors.vector_path(file.vector)
            if name not in contents:
                contents[name] = self._store.get(name)
            deleted[path] = vectors.decode(contents[name], file.vector)
        return deleted

    def _refuse_foreign_rows(self, log: LogState) -> None:
        """Whether a commit after our last one changed rows; commits that were cleaned away are older."""
        marker = f"{self._owner}//sequence"
        if marker not in log.transactions:
            return
        for version in range(log.version, -1, -1):
            try:
                commit = read_commit(self._store, version)
            except FileNotFoundError:
                return
            if any(action.get("txn", {}).get("appId") == marker for action in commit):
                return
            if any((a.get("add") or a.get("remove") or {}).get("dataChange") for a in commit):
                raise ForeignWriteError(
                    f"version {version} of table {self.location} was written by somebody else and changes rows",
                    fix=f"restore version {version - 1} or rebuild; others may only do maintenance on it",
                )
