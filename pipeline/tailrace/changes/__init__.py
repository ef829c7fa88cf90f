"""The vocabulary that every part shares: tables, changes, positions, errors.  Imports nothing of ours.

Names that need Arrow are imported when first asked for: the command line and the broker do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tailrace.changes.crash import crash_point
from tailrace.changes.errors import ConfigError, FencedError, SourceDataError, TailraceError
from tailrace.changes.position import Lsn, format_lsn, parse_lsn

if TYPE_CHECKING:
    from tailrace.changes.change import (
        OP_CREATE,
        OP_DELETE,
        OP_READ,
        OP_UPDATE,
        ChangeBatch,
        ChangeSet,
        Truncate,
    )
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


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "table" if name.startswith("Table") else "change"
        return getattr(import_module(f"tailrace.changes.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
