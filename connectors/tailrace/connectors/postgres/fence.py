"""The source's rows at an exact LSN, as text that Postgres itself rendered: what `verify` compares tables with.

A temporary slot with an exported snapshot names the LSN at which the snapshot is exactly the state (PostgreSQL
manual, "Logical Decoding Concepts": exported snapshots).  Values are read as CSV of server-side
expressions, so nothing of the connector's own decoding is trusted.  One expression per type:

    bool 0|1    date days    time, timestamp, timestamptz microseconds    float the bits as an integer
    bytea hex   interval months,days,microseconds   arrays [V<length>:<element>,N,...]   else ::text
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pyarrow as pa
from psycopg import sql
from pyarrow import csv

from tailrace.changes import Lsn, TableId, parse_lsn
from tailrace.connectors.postgres.config import PostgresConfig
from tailrace.connectors.postgres.connection import Connection, connect, connect_replication, simple_query

_COLUMNS = """
WITH RECURSIVE base AS (
  SELECT t.oid AS column_type, t.oid, t.typname, t.typbasetype, t.typelem, t.typcategory FROM pg_type t
  UNION ALL
  SELECT base.column_type, t.oid, t.typname, t.typbasetype, t.typelem, t.typcategory
  FROM base JOIN pg_type t ON t.oid = base.typbasetype
)
SELECT a.attname::text, b.typname::text, CASE WHEN b.typcategory = 'A' THEN e.typname::text END
FROM pg_attribute a
JOIN base b ON b.column_type = a.atttypid AND b.typbasetype = 0
LEFT JOIN pg_type e ON e.oid = b.typelem
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""

_EXPRESSIONS = {
    "bool": "({0})::int",
    "float4": "('x' || encode(float4send({0}), 'hex'))::bit(32)::int",
    "float8": "('x' || encode(float8send({0}), 'hex'))::bit(64)::bigint",
    "bytea": "encode({0}, 'hex')",
    "date": "({0} - date '1970-01-01')",
    "time": "(extract(epoch from {0}) * 1000000)::bigint",
    "timestamp": "(extract(epoch from {0}) * 1000000)::bigint",
    "timestamptz": "(extract(epoch from {0}) * 1000000)::bigint",
    "interval": (
        "(extract(year from {0}) * 12 + extract(month from {0}))::int || ',' || extract(day from {0})::int || ','"
        " || ((extract(hour from {0}) * 60 + extract(minute from {0})) * 60000000 + extract(microseconds from {0}))::bigint"
    ),
}
# bpchar::text would drop the blanks that the value has
_AS_SENT = {"bpchar", "varchar", "text"}


class PostgresFencedRead:
    """The tables of a source at `position`; valid while its context is open."""

    def __init__(self, config: PostgresConfig, connection: Connection, position: Lsn) -> None:
        self._config = config
        self._connection = connection
        self.position = position

    def read(self, table: TableId) -> pa.Table:
        """Every row of a table; one large_string column per source column that travels."""
        options = self._config.table_options()[table]
        identifier = sql.Identifier(table.namespace, table.name)
        columns = self._connection.execute(_COLUMNS, (identifier.as_string(self._connection),)).fetchall()
        wanted = [
            (name, _expression(name, "text" if name in options.as_text else kind, element, self._connection))
            for name, kind, element in columns
            if name not in options.exclude
        ]
        query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv)").format(
            sql.SQL(", ").join(sql.SQL(expression) for _, expression in wanted), identifier
        )
        buffer = BytesIO()
        with self._connection.cursor().copy(query) as copy:
            for block in copy:
                buffer.write(block)
        return _parse(buffer, [name for name, _ in wanted])


def current_position(config: PostgresConfig) -> Lsn:
    """Where the server's WAL ends now."""
    with connect(config) as connection:
        row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        return parse_lsn(row[0])


@contextmanager
def fenced_read(config: PostgresConfig) -> Iterator[PostgresFencedRead]:
    """Open a read at an exact LSN; the temporary slot is gone when the context ends."""
    with connect_replication(config) as replication, connect(config) as connection:
        name = f"tailrace_fence_{connection.info.backend_pid}"
        row = simple_query(
            replication, f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT"
        )[0]
        position, snapshot = parse_lsn(str(row[1])), str(row[2])
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
        yield PostgresFencedRead(config, connection, position)
        connection.execute("ROLLBACK")


def _expression(name: str, kind: str, element: str | None, connection: Connection) -> str:
    column = sql.Identifier(name).as_string(connection)
    if element is None:
        return _scalar(kind, column)
    return (
        f"CASE WHEN {column} IS NULL THEN NULL ELSE '[' || coalesce((SELECT string_agg(CASE WHEN v IS NULL THEN 'N' "
        f"ELSE 'V' || length(v) || ':' || v END, ',' ORDER BY i) FROM unnest({column}) WITH ORDINALITY AS u(e, i), "
        f"LATERAL (SELECT ({_scalar(element, 'e')})::text AS v) AS s), '') || ']' END"
    )


def _scalar(kind: str, column: str) -> str:
    if kind in _AS_SENT:
        return column
    return _EXPRESSIONS.get(kind, "({0})::text").format(column)


def _parse(data: BytesIO, names: list[str]) -> pa.Table:
    schema = pa.schema([(name, pa.large_string()) for name in names])
    if not data.tell():
        return schema.empty_table()
    data.seek(0)
    return csv.read_csv(
        data,
        read_options=csv.ReadOptions(column_names=names, block_size=16 << 20),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
