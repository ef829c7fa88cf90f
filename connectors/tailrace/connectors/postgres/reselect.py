"""Cells that an update left out, read again by key: unchanged TOASTed values for readers that see whole rows only.

PostgreSQL manual: "TOAST"; "Logical Replication Message Formats" (tuple data, kind 'u').  One COPY per call, through
the kernels that the snapshot uses, so that a cell read again equals the one that the stream would have carried.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from tailrace.changes import SourceDataError, TableId, TableSchema
from tailrace.connectors.postgres.arrow_types import Kind, ValueType
from tailrace.connectors.postgres.backend import open_backend
from tailrace.connectors.postgres.catalog import plan_tables
from tailrace.connectors.postgres.config import PostgresConfig
from tailrace.connectors.postgres.connection import Connection, connect, readable_errors
from tailrace.connectors.postgres.copy_binary import CopyDecoder
from tailrace.connectors.postgres.decode import Array
from tailrace.connectors.postgres.snapshot import copy_out
from tailrace.connectors.postgres.type_plan import ColumnPlan, TablePlan
from tailrace.connectors.source import Reselected

_PLACE = ColumnPlan(
    "tailrace_place", 0, 20, -1, "bigint", ValueType(Kind.INT8, pa.int64()), False, True, "p", False, False
)


class Reselector:
    """Reads cells of rows by key, on a session of its own; used by one thread."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._connection: Connection | None = None

    def cells(self, table: TableSchema, keys: pa.RecordBatch, columns: Sequence[str]) -> Reselected:
        """As `Source.reselect`; SourceDataError when a column has another type now, or is gone."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._config)
        connection = self._connection
        with readable_errors(), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            plan = plan_tables(connection, {table.id: self._config.table_options()[table.id]})[table.id]
            wanted = _wanted(plan, table, columns)
            rows = pa.Table.from_batches(
                _copy(connection, wanted, _query(connection, plan, table, wanted, keys)), wanted.schema.arrow
            )
        place = rows.column(0).to_numpy() - 1
        source = np.full(len(keys), -1, np.int64)
        source[place] = np.arange(len(place))
        taken = rows.drop_columns([_PLACE.name]).take(pa.array(source, pa.int64(), mask=source < 0))
        return Reselected(taken.combine_chunks().to_batches()[0], source >= 0)

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()


def _wanted(plan: TablePlan, table: TableSchema, columns: Sequence[str]) -> TablePlan:
    """The plan of the columns to read, behind the place of each row's key."""
    now = {column.name: column for column in plan.columns}
    for name in (*table.key, *columns):
        if name not in now or now[name].value.arrow != table.arrow.field(name).type:
            raise SourceDataError(
                f"an update of {table.id} leaves out its unchanged TOASTed values, and column {name} was dropped or "
                "retyped since, so that they cannot be selected again",
                fix=f"ALTER TABLE {table.id} REPLICA IDENTITY FULL, then run the pipeline under a new name",
            )
    chosen = (_PLACE, *(now[name] for name in columns))
    fields = [pa.field(column.name, column.value.arrow) for column in chosen]
    return TablePlan(plan.relation, chosen, TableSchema(table.id, pa.schema(fields), ()))


def _query(
    connection: Connection, plan: TablePlan, table: TableSchema, wanted: TablePlan, keys: pa.RecordBatch
) -> str:
    types = {column.name: column.type_oid for column in plan.columns}
    names = [f"tailrace_key_{number}" for number in range(len(table.key))]
    arrays = [
        sql.SQL("{}::text[]").format(sql.Literal(_array_literal(table.id, keys.column(name))))
        for name in table.key
    ]
    equal = [
        sql.SQL("t.{} = CAST(k.{} AS {})").format(
            sql.Identifier(name), sql.Identifier(alias), sql.SQL(_bare_type(connection, types[name]))
        )
        for name, alias in zip(table.key, names, strict=True)
    ]
    return (
        sql.SQL(
            "COPY (SELECT {} FROM {} AS t JOIN ROWS FROM (unnest({})) WITH ORDINALITY AS k({}) ON {}) TO STDOUT "
            "(FORMAT binary)"
        )
        .format(
            sql.SQL(wanted.copy_columns),
            sql.Identifier(table.id.namespace, table.id.name),
            sql.SQL(", ").join(arrays),
            sql.SQL(", ").join(map(sql.Identifier, [*names, _PLACE.name])),
            sql.SQL(" AND ").join(equal),
        )
        .as_string(connection)
    )


def _bare_type(connection: Connection, oid: int) -> str:
    """The type without its modifier: a cast to varchar(3) would cut a longer key, and find another row."""
    row = connection.execute("SELECT pg_catalog.format_type(%s, -1)", (oid,)).fetchone()
    assert row is not None
    return str(row[0])


def _copy(connection: Connection, plan: TablePlan, command: str) -> list[pa.RecordBatch]:
    decoder = CopyDecoder(plan)
    found: list[pa.RecordBatch] = []
    with contextlib.closing(open_backend(connection)) as backend:
        for payload in copy_out(backend, command):
            found += decoder.feed(payload)
    decoder.finish()
    return found


def _array_literal(table: TableId, values: Array) -> str:
    """The values as a text[] literal (PostgreSQL manual, "Array Input and Output Syntax")."""
    texts: Any = _texts(table, values)
    for special in ("\\", '"'):
        texts = pc.replace_substring(texts, special, "\\" + special)
    quoted = pc.binary_join_element_wise('"', texts, '"', "")
    whole: Any = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(quoted)], pa.int32()), quoted), ",")
    return f"{{{whole[0]}}}"


def _texts(table: TableId, values: Array) -> Array:
    kind = values.type
    if pa.types.is_binary(kind) or pa.types.is_nested(kind):
        raise SourceDataError(
            f"an update of {table} leaves out its unchanged TOASTed values, and its key cannot be used to select them "
            "again",
            fix=f"ALTER TABLE {table} REPLICA IDENTITY FULL, then run the pipeline under a new name",
        )
    return values.cast(pa.string())
