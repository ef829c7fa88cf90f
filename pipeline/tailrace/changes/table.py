"""Names and schemas of source and lakehouse tables."""

from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from tailrace.changes.errors import ConfigError


@dataclass(frozen=True, slots=True, order=True)
class TableId:
    """A table of the source: its namespace (a Postgres "schema") and its name."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``public.orders``; the namespace is required."""
        namespace, dot, name = text.partition(".")
        if not (namespace and dot and name):
            raise ConfigError(
                f"'{text}' is not a table name", fix="write namespace.table, like public.orders"
            )
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The schema of a table as our topics carry it.

    `arrow` has one field per column, in the source's column order.  A field is nullable when the
    column may be null OR when its value may be TOASTed: an unchanged TOAST value is carried as
    null plus its name in `ChangeBatch.unchanged_sets`.  Field metadata: ``pg_type`` (as
    ``format_type`` renders it).  `key` names the key columns, empty for a table without one.
    """

    id: TableId
    arrow: pa.Schema
    key: tuple[str, ...]

    def key_schema(self) -> pa.Schema:
        """The key columns alone, in key order."""
        return pa.schema([self.arrow.field(name) for name in self.key])
