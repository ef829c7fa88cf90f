"""Type plans from the catalog: for the snapshot, for `plan`, and for each Relation message of the stream."""

import logging
from collections.abc import Iterable, Mapping

from psycopg import sql

from tailrace.changes import ConfigError, TableId
from tailrace.connectors.postgres.arrow_types import TYPES_SQL, PgType, TypeCatalog
from tailrace.connectors.postgres.config import PostgresConfig, TableOptions
from tailrace.connectors.postgres.connection import Connection, connect, readable_errors
from tailrace.connectors.postgres.relation import Relation
from tailrace.connectors.postgres.tables import read_facts
from tailrace.connectors.postgres.type_plan import (
    CATALOG_SQL,
    CatalogColumn,
    TablePlan,
    plan_relation,
    plan_table,
)

_log = logging.getLogger(__name__)

_FILLED_COLUMNS = """
SELECT attname::text FROM pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND atthasmissing AND attname <> ALL (%s)
"""


def plan_tables(connection: Connection, options: Mapping[TableId, TableOptions]) -> dict[TableId, TablePlan]:
    """Plans of the configured tables as the catalog is now; ConfigError when one is not there."""
    facts = read_facts(connection, options)
    missing = [str(table) for table in options if table not in facts]
    if missing:
        raise ConfigError(f"there is no table {', '.join(missing)} in database {connection.info.dbname}")
    columns = _columns(connection, [found.oid for found in facts.values()])
    types = _types(connection, [column.type_oid for rows in columns.values() for column in rows])
    return {
        table: plan_table(columns[found.oid], types, options[table])
        for table, found in facts.items()
        if found.oid in columns
    }


class RelationResolver:
    """Answers the decoder's question "what is this table?" from the catalog, on a session of its own.

    Used by the decoding thread only.  The session is opened at the first question, which comes at the first
    change of a table, and again when it was lost.
    """

    def __init__(self, config: PostgresConfig, plans: Mapping[TableId, TablePlan]) -> None:
        """plans: the tables as they were when the stream began."""
        self._config = config
        self._options = config.table_options()
        self._plans = dict(plans)
        self._connection: Connection | None = None

    def __call__(self, relation: Relation) -> TablePlan | None:
        """The plan of a table of ours, None for any other."""
        options = self._options.get(relation.table)
        if options is None:
            return None
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._config)
        with readable_errors():
            columns = _columns(self._connection, [relation.oid]).get(relation.oid, [])
            oids = {column.type_oid for column in columns} | {column.type_oid for column in relation.columns}
            types = _types(self._connection, oids)
        previous = self._plans.get(relation.table)
        plan = plan_relation(relation, columns, types, options, previous)
        self._plans[relation.table] = plan
        if previous is not None:
            self._warn_of_defaults(self._connection, relation, previous)
        return plan

    def _warn_of_defaults(self, connection: Connection, relation: Relation, previous: TablePlan) -> None:
        """ADD COLUMN ... DEFAULT gives old rows a value that no change record carries: say how to bring it."""
        known = [column.name for column in previous.columns]
        for (name,) in connection.execute(_FILLED_COLUMNS, (relation.oid, known)).fetchall():
            table, column = (
                sql.Identifier(relation.table.namespace, relation.table.name),
                sql.Identifier(name),
            )
            statement = sql.SQL("UPDATE {0} SET {1} = {1}").format(table, column).as_string(connection)
            _log.warning(
                "column %s was added to %s with a default: rows that existed before hold it in Postgres, but no "
                "change says so; bring it to the tables with: %s",
                name,
                relation.table,
                statement,
            )

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()


def _columns(connection: Connection, oids: list[int]) -> dict[int, list[CatalogColumn]]:
    found: dict[int, list[CatalogColumn]] = {}
    for row in connection.execute(CATALOG_SQL, (oids,)):
        column = CatalogColumn(*row)
        found.setdefault(column.table_oid, []).append(column)
    return found


def _types(connection: Connection, oids: Iterable[int]) -> TypeCatalog:
    return {row[0]: PgType(*row) for row in connection.execute(TYPES_SQL, (list(set(oids)),))}
