"""The vocabulary that every part shares: tables, changes, positions, errors.  Imports nothing of ours."""

from tailrace.changes.change import (
    OP_CREATE,
    OP_DELETE,
    OP_READ,
    OP_UPDATE,
    ChangeBatch,
    ChangeSet,
    Truncate,
)
from tailrace.changes.crash import crash_point
from tailrace.changes.errors import ConfigError, FencedError, SourceDataError, TailraceError
from tailrace.changes.position import Lsn, format_lsn, parse_lsn
from tailrace.changes.table import TableId, TableSchema

__all__ = [
    "OP_CREATE",
    "OP_DELETE",
    "OP_READ",
    "OP_UPDATE",
    "ChangeBatch",
    "ChangeSet",
    "ConfigError",
    "FencedError",
    "Lsn",
    "SourceDataError",
    "TableId",
    "TableSchema",
    "TailraceError",
    "Truncate",
    "crash_point",
    "format_lsn",
    "parse_lsn",
]
