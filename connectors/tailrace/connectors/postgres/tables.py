"""What the catalog says about the configured tables: identity, rights, size.

PostgreSQL manual: pg_class.relreplident, pg_index, "Publication", "Row Security Policies".
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tailrace.changes import TableId
from tailrace.connectors.postgres.connection import Connection

_FACTS = """
SELECT c.oid, c.relkind, c.relpersistence, c.relreplident, GREATEST(c.reltuples, 0)::bigint,
       pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'),
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       row_security_active(c.oid),
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum),
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND attnotnull),
       (SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS
       k(attnum, place)
                     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum ORDER BY k.place)
        FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid),
       (SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS
       k(attnum, place)
                     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum ORDER BY k.place)
        FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One relation as it is in the catalog now."""

    id: TableId
    oid: int
    kind: str
    """pg_class.relkind: r table, p partitioned table, v view, f foreign table, ..."""
    persistence: str
    """pg_class.relpersistence: p permanent, u unlogged, t temporary."""
    replica_identity: str
    """pg_class.relreplident: d default, n nothing, f full, i index."""
    estimated_rows: int
    owner: str
    owned: bool
    """Whether our role may act as the owner."""
    readable: bool
    rows_hidden: bool
    """Whether a row security policy applies to our role."""
    columns: tuple[str, ...]
    not_null: frozenset[str]
    primary_key: tuple[str, ...]
    identity_index: tuple[str, ...]
    """Columns of the index chosen by REPLICA IDENTITY USING INDEX."""

    @property
    def is_partitioned(self) -> bool:
        return self.kind == "p"

    @property
    def identity_columns(self) -> frozenset[str]:
        """The columns that an UPDATE or DELETE tells us of the old row."""
        match self.replica_identity:
            case "f":
                return frozenset(self.columns)
            case "i":
                return frozenset(self.identity_index)
            case "d":
                return frozenset(self.primary_key)
            case _:
                return frozenset()

    def key(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """The key to mirror by: the one asked for, the primary key, the identity index, or none."""
        for candidate in (
            asked,
            self.primary_key,
            self.identity_index if self.replica_identity == "i" else (),
        ):
            if candidate and self.identity_columns.issuperset(candidate):
                return candidate
        return ()


def read_facts(connection: Connection, tables: Iterable[TableId]) -> dict[TableId, TableFacts]:
    """The facts of the tables that exist, in the order given."""
    found = {}
    for table in tables:
        row = connection.execute(_FACTS, (table.namespace, table.name)).fetchone()
        if row is not None:
            oid, kind, persistence, identity, estimate, owner, owned, readable, hidden = row[:9]
            columns, not_null, primary_key, identity_index = (tuple(names or ()) for names in row[9:])
            found[table] = TableFacts(
                id=table,
                oid=oid,
                kind=kind,
                persistence=persistence,
                replica_identity=identity,
                estimated_rows=estimate,
                owner=owner,
                owned=owned,
                readable=readable,
                rows_hidden=hidden,
                columns=columns,
                not_null=frozenset(not_null),
                primary_key=primary_key,
                identity_index=identity_index,
            )
    return found


def similar_tables(connection: Connection, table: TableId) -> list[TableId]:
    """Tables of the same name elsewhere, and those of the same namespace; for "did you mean"."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE "
        "'pg\\_%%' "
        "AND (lower(c.relname) = lower(%(name)s) OR n.nspname = %(namespace)s)",
        {"name": table.name, "namespace": table.namespace},
    ).fetchall()
    return [TableId(*row) for row in rows]
