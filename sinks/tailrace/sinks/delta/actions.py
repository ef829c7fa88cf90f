"""Actions of a commit, as the Delta protocol spells them ("Actions")."""

import time
import uuid
from typing import Any

import pyarrow as pa

from tailrace.sinks.delta import arrow_types
from tailrace.sinks.delta.log import Action
from tailrace.sinks.delta.stats import loosened
from tailrace.sinks.delta.vectors import Descriptor

ENGINE = "tailrace"


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def commit_info(operation: str, version: int) -> Action:
    """What people see in `DESCRIBE HISTORY`."""
    return {
        "commitInfo": {
            "timestamp": now_ms(),
            "operation": operation,
            "operationParameters": {},
            "engineInfo": ENGINE,
            **({"readVersion": version - 1} if version else {}),
        }
    }


def protocol_action(schema: pa.Schema, *, deletion_vectors: bool) -> Action:
    """The lowest protocol that the table needs, so that as many readers as possible open it."""
    shared = ["deletionVectors"] * deletion_vectors + ["timestampNtz"] * arrow_types.uses_timestamp_ntz(
        schema
    )
    if not shared:
        return {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    return {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": shared,
            "writerFeatures": [*shared, "appendOnly", "invariants"],
        }
    }


def metadata_action(schema: pa.Schema, *, deletion_vectors: bool, old_files_s: float, log_s: float) -> Action:
    """Metadata of a new table."""
    configuration = {
        "delta.deletedFileRetentionDuration": f"interval {int(old_files_s) + 1} seconds",
        "delta.logRetentionDuration": f"interval {int(log_s)} seconds",
    }
    if deletion_vectors:
        configuration["delta.enableDeletionVectors"] = "true"
    return {
        "metaData": {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": arrow_types.schema_json(schema),
            "partitionColumns": [],
            "createdTime": now_ms(),
            "configuration": configuration,
        }
    }


def txn_action(app_id: str, version: int) -> Action:
    """One stored number of a checkpoint.  Without `lastUpdated`: it must never expire."""
    return {"txn": {"appId": app_id, "version": version}}


def add_action(
    path: str, size: int, stats: str, modified: int, vector: Descriptor | None, *, data_change: bool
) -> Action:
    """A live file, with its deletion vector if it has one."""
    add: dict[str, Any] = {
        "path": path,
        "partitionValues": {},
        "size": size,
        "modificationTime": modified,
        "dataChange": data_change,
        "stats": stats if vector is None else loosened(stats),
    }
    if vector is not None:
        add["deletionVector"] = vector
    return {"add": add}


def remove_action(path: str, size: int, vector: Descriptor | None, *, data_change: bool) -> Action:
    """A file that leaves, or is about to return with another vector; carries the vector that it had."""
    remove: dict[str, Any] = {
        "path": path,
        "deletionTimestamp": now_ms(),
        "dataChange": data_change,
        "extendedFileMetadata": True,
        "partitionValues": {},
        "size": size,
    }
    if vector is not None:
        remove["deletionVector"] = vector
    return {"remove": remove}
