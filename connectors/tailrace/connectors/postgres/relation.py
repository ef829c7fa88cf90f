"""The Relation message: which columns the rows that follow have.

    Byte1 'R' | [Int32 xid, only inside a streamed block] | Int32 relation OID | String namespace (empty for
    pg_catalog) | String name | Int8 replica identity (d, n, f, i) | Int16 columns, each:
        Int8 flags (1: part of the replica identity) | String name | Int32 type OID | Int32 type modifier

PostgreSQL manual, "Logical Replication Message Formats".  It comes before the first change of a table
and again after the table's definition changed.  Dropped columns are not in it, generated ones only where
published.
"""

import struct
from dataclasses import dataclass

from tailrace.changes import TableId

_PG_CATALOG = "pg_catalog"


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column as the stream declares it."""

    name: str
    type_oid: int
    typmod: int
    identity: bool
    """Part of the replica identity; with REPLICA IDENTITY FULL every column is."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the stream declares it, in force from its place in the stream."""

    oid: int
    table: TableId
    replica_identity: str
    """d default (primary key), n nothing, f full, i index"""
    columns: tuple[RelationColumn, ...]


def parse_relation(message: bytes, *, streamed: bool) -> Relation:
    """Parse a whole Relation message, its kind byte included."""
    at = 5 if streamed else 1
    (oid,) = struct.unpack_from(">I", message, at)
    namespace, at = _string(message, at + 4)
    name, at = _string(message, at)
    replica_identity = chr(message[at])
    (count,) = struct.unpack_from(">h", message, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        flags = message[at]
        column, at = _string(message, at + 1)
        type_oid, typmod = struct.unpack_from(">Ii", message, at)
        at += 8
        columns.append(RelationColumn(column, type_oid, typmod, bool(flags & 1)))
    return Relation(oid, TableId(namespace or _PG_CATALOG, name), replica_identity, tuple(columns))


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1
