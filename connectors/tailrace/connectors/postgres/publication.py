"""The publication: its shape, what makes it unfit, creating it and adding tables.

PostgreSQL manual: CREATE PUBLICATION; system catalog pg_publication, view pg_publication_tables.
The publication is committed before the slot is made: a slot older than its publication is stuck for good, and
tables added while writers are open lose rows unless every transaction that was open has ended (the slot's
creation waits for that).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from psycopg import sql

from tailrace.changes import TableId
from tailrace.connectors.postgres.connection import Connection
from tailrace.connectors.source import Finding

_ACTIONS = ("insert", "update", "delete", "truncate")


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication as it stands in the catalog."""

    name: str
    owner: str
    all_tables: bool
    via_root: bool
    actions: frozenset[str]
    tables: frozenset[TableId]
    """Published tables: leaves of partitioned tables, or the roots when `via_root`."""
    filtered: frozenset[TableId]
    """Tables with a row filter or a column list."""


def read_publication(connection: Connection, name: str) -> Publication | None:
    """The publication as it is now, None when there is none."""
    row = connection.execute(
        "SELECT pg_get_userbyid(pubowner), puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, "
        "pubtruncate, oid "
        "FROM pg_publication WHERE pubname = %s",
        (name,),
    ).fetchone()
    if row is None:
        return None
    owner, all_tables, via_root, *flags, oid = row
    tables = connection.execute(
        "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", (name,)
    ).fetchall()
    return Publication(
        name,
        owner,
        all_tables,
        via_root,
        frozenset(action for action, published in zip(_ACTIONS, flags, strict=True) if published),
        frozenset(TableId(*table) for table in tables),
        _filtered_tables(connection, oid),
    )


def _filtered_tables(connection: Connection, oid: int) -> frozenset[TableId]:
    if connection.info.server_version < 150000:
        return frozenset()  # row filters and column lists came with 15
    rows = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE r.prpubid = %s AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)",
        (oid,),
    ).fetchall()
    return frozenset(TableId(*row) for row in rows)


def unfit(
    publication: Publication, tables: Collection[TableId], partitioned: Collection[TableId]
) -> Iterator[Finding]:
    """Why an existing publication cannot carry these tables; missing tables are no reason, they are added."""
    name = sql.Identifier(publication.name).as_string()
    missing = [action for action in _ACTIONS if action not in publication.actions]
    if missing:
        yield Finding(
            "error",
            f"publication {publication.name} does not publish {', '.join(missing)}",
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')",
        )
    if partitioned and not publication.via_root:
        yield Finding(
            "error",
            f"publication {publication.name} publishes the partitions of {_listed(partitioned)}, not the "
            "tables",
            f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true)",
        )
    filtered = [table for table in tables if table in publication.filtered]
    if filtered:
        table = _identifier(filtered[0]).as_string()
        yield Finding(
            "error",
            f"publication {publication.name} has a row filter or a column list on {_listed(filtered)}",
            f"publish the whole table: ALTER PUBLICATION {name} DROP TABLE {table}; "
            f"ALTER PUBLICATION {name} ADD TABLE {table}. Leave columns out with `exclude`",
        )


def create_statement(name: str, tables: Collection[TableId]) -> sql.Composed:
    """CREATE PUBLICATION with the shape that we need."""
    return sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)").format(
        sql.Identifier(name), sql.SQL(", ").join(_identifier(table) for table in tables)
    )


def add_statement(name: str, tables: Collection[TableId]) -> sql.Composed:
    """ALTER PUBLICATION that adds tables."""
    return sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
        sql.Identifier(name), sql.SQL(", ").join(_identifier(table) for table in tables)
    )


def missing_tables(publication: Publication, tables: Collection[TableId]) -> list[TableId]:
    """The tables that the publication does not carry yet."""
    return [] if publication.all_tables else [table for table in tables if table not in publication.tables]


def ensure_publication(connection: Connection, name: str, tables: Collection[TableId]) -> None:
    """Create the publication or add what it lacks; committed when this returns (`connection` is in
    autocommit).
    """
    publication = read_publication(connection, name)
    if publication is None:
        connection.execute(create_statement(name, tables))
    elif missing := missing_tables(publication, tables):
        connection.execute(add_statement(name, missing))


def _identifier(table: TableId) -> sql.Identifier:
    return sql.Identifier(table.namespace, table.name)


def _listed(tables: Collection[TableId]) -> str:
    return ", ".join(str(table) for table in tables)
