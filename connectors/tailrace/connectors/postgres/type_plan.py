"""The type plan of a table: one decision per column, used by the initial snapshot and by the stream alike.

A plan is built from the Relation message (or from the catalog, in the same shape) and enriched by what
only the catalog knows (NOT NULL, TOAST storage).  A column that the catalog no longer has, because the
stream lags behind a DDL statement, is planned from the Relation message alone: nullable, and as TOASTable
as its type.

How to use it: run CATALOG_SQL with the table OIDs, run arrow_types.TYPES_SQL with the type OIDs found, then
`plan_table(...)`.  On a Relation message the decoder asks the `Resolver` it was given; that reads the
same two queries again and calls `plan_relation(...)`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from tailrace.changes import ConfigError, TableId, TableSchema
from tailrace.connectors.postgres.arrow_types import (
    Kind,
    PgType,
    TypeCatalog,
    ValueType,
    as_text,
    value_type,
)
from tailrace.connectors.postgres.config import TableOptions
from tailrace.connectors.postgres.relation import Relation, RelationColumn

CATALOG_SQL = """
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relreplident::text, a.attname::text, a.atttypid::int8,
       a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage::text,
       coalesce(a.attnum = ANY (k.indkey::int2[]), false),
       coalesce(a.attnum = ANY (p.indkey::int2[]), false)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     AND a.attgenerated = ''
LEFT JOIN pg_catalog.pg_index k ON k.indrelid = c.oid AND c.relreplident = 'i' AND k.indisreplident
LEFT JOIN pg_catalog.pg_index p ON p.indrelid = c.oid AND p.indisprimary AND p.indisvalid
WHERE c.oid = ANY (%s::oid[])
ORDER BY c.oid, a.attnum
"""
"""One parameter: an array of table OIDs.  Each row is the arguments of CatalogColumn, in order.

Generated columns are left out, as the stream leaves them out, so that snapshot and stream agree.
"""


@dataclass(frozen=True, slots=True)
class CatalogColumn:
    """A row of CATALOG_SQL."""

    table_oid: int
    namespace: str
    table: str
    replica_identity: str
    name: str
    type_oid: int
    typmod: int
    pg_type: str
    not_null: bool
    storage: str
    in_identity_index: bool
    in_primary_key: bool


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """How one column is read and carried."""

    name: str
    position: int
    """Index among the columns of the Relation message."""
    type_oid: int
    typmod: int
    pg_type: str
    value: ValueType
    nullable: bool
    not_null: bool
    """The column itself is NOT NULL (`nullable` may still be true: TOAST)."""
    storage: str
    """attstorage: p plain (never TOASTed), x extended, e external, m main"""
    key: bool
    toastable: bool
    """Whether a value may be stored out of line, so that an update that keeps it does not carry it."""
    warning: str = ""
    """For `plan`: what a reader of the table should know; empty when there is nothing to say."""

    @property
    def binary(self) -> bool:
        """Whether the binary wire form can be read, so that the stream may ask for it."""
        return self.value.binary

    @property
    def copy_expression(self) -> str:
        """The column in the SELECT list of a binary COPY.

        Where only its text is read, format() prints it by the type's output function, as the stream does;
        a cast to text would not (inet, bool and char(n) differ).  num_nulls() sees a null composite as one.
        """
        quoted = quote_identifier(self.name)
        if self.binary:
            return quoted
        return f"CASE pg_catalog.num_nulls({quoted}) WHEN 0 THEN pg_catalog.format('%s', {quoted}) END"


@dataclass(frozen=True, slots=True)
class TablePlan:
    """How one table is read and carried, from one Relation message to the next.

    Columns are in the source's order, without the excluded ones.
    """

    relation: Relation
    columns: tuple[ColumnPlan, ...]
    schema: TableSchema

    @property
    def id(self) -> TableId:
        return self.schema.id

    @property
    def binary(self) -> bool:
        """Whether a stream with `binary 'true'` can carry the table; the option is per connection, and the
        server then sends every column of every table in binary, the excluded ones too (those are skipped)."""
        return all(column.binary for column in self.columns)

    @property
    def copy_columns(self) -> str:
        """The SELECT list of `COPY (SELECT ... FROM ...) TO STDOUT (FORMAT binary)`."""
        return ", ".join(column.copy_expression for column in self.columns)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(column.warning for column in self.columns if column.warning)

    @property
    def partial(self) -> tuple[str, ...]:
        """Columns that an update may leave out: with REPLICA IDENTITY FULL the old row brings them."""
        if self.relation.replica_identity == "f":
            return ()
        return tuple(column.name for column in self.columns if column.toastable)

    def relaxed(self, names: Iterable[str]) -> "TablePlan":
        """The plan with these columns nullable: the stream carries rows from before their NOT NULL."""
        found = set(names)
        columns = tuple(
            replace(column, nullable=True, not_null=False) if column.name in found else column
            for column in self.columns
        )
        return TablePlan(self.relation, columns, _schema(self.id, columns, self.schema.key))


Resolver = Callable[[Relation], TablePlan | None]
"""Asked by the decoder at each Relation message that differs from the last one of the table; None: not ours.

Called in the middle of a decode, so it uses a connection of its own.
"""


def plan_table(
    rows: Sequence[CatalogColumn],
    types: TypeCatalog,
    options: TableOptions,
    *,
    published: frozenset[str] | None = None,
) -> TablePlan:
    """Plan a table from the rows of CATALOG_SQL that belong to it.

    published: the publication's column list where it has one (pg_publication_tables.attnames); None: all.
    Raises ConfigError when an option names a column that is not there, or excludes a key column.
    """
    first = rows[0]
    visible = [row for row in rows if published is None or row.name in published]
    relation = Relation(
        first.table_oid,
        TableId(first.namespace, first.table),
        first.replica_identity,
        tuple(RelationColumn(row.name, row.type_oid, row.typmod, _identifies(row)) for row in visible),
    )
    _check_options(relation, options)
    return plan_relation(relation, rows, types, options)


def plan_relation(
    relation: Relation,
    catalog: Sequence[CatalogColumn],
    types: TypeCatalog,
    options: TableOptions,
    previous: TablePlan | None = None,
) -> TablePlan:
    """Plan a table as a Relation message declares it.

    catalog   rows of CATALOG_SQL of this table, possibly of a later or earlier shape, possibly none.
    types     every type of the relation that still exists.
    previous  the plan until now: a column that the catalog no longer knows keeps what was known of it.
    """
    known = {(row.name, row.type_oid, row.typmod): row for row in catalog}
    before = {(c.name, c.type_oid, c.typmod): c for c in previous.columns} if previous else {}
    key = _key(relation, catalog, options, previous)
    columns = []
    for position, column in enumerate(relation.columns):
        if column.name in options.exclude:
            continue
        identity = (column.name, column.type_oid, column.typmod)
        row, old = known.get(identity), before.get(identity)
        pg_type = row.pg_type if row else old.pg_type if old else type_name(column, types)
        value = value_type(column.type_oid, column.typmod, types)
        is_key = column.name in key
        in_index = is_key and relation.replica_identity in ("d", "i")
        not_null = row.not_null if row else old.not_null if old else in_index
        storage = row.storage if row else old.storage if old else _storage(column.type_oid, types)
        toastable = storage != "p" and not is_key and value.kind is not Kind.DECIMAL
        if column.name in options.as_text:
            value = as_text(value)
        columns.append(
            ColumnPlan(
                name=column.name,
                position=position,
                type_oid=column.type_oid,
                typmod=column.typmod,
                pg_type=pg_type,
                value=value,
                nullable=toastable or not not_null,
                not_null=not_null,
                storage=storage,
                key=is_key,
                toastable=toastable,
                warning=_warning(relation.table, column.name, pg_type, value, options),
            )
        )
    planned = tuple(columns)
    return TablePlan(relation, planned, _schema(relation.table, planned, key))


def type_name(column: RelationColumn, types: TypeCatalog) -> str:
    """The type as format_type() renders it (search_path pg_catalog), for a column gone from the catalog."""
    found = types.get(column.type_oid)
    if found is None:
        return f"type with OID {column.type_oid}"
    built_in = found.namespace == "pg_catalog"
    name = _ALIASES.get(found.name, found.name) if built_in else f"{found.namespace}.{found.name}"
    if found.category == "A" and (element := types.get(found.element)) is not None:
        return type_name(replace(column, type_oid=element.oid), types) + "[]"
    return _with_modifier(name, found, column.typmod)


def quote_identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


_ALIASES = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bpchar": "character",
    "varchar": "character varying",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "varbit": "bit varying",
}


def _with_modifier(name: str, found: PgType, typmod: int) -> str:
    if typmod < 0:
        return name
    if found.name in ("bpchar", "varchar"):
        return f"{name}({typmod - 4})"
    if found.name in ("bit", "varbit"):
        return f"{name}({typmod})"
    if found.name == "numeric":
        packed = typmod - 4
        return f"{name}({packed >> 16 & 0xFFFF},{(packed & 0x7FF ^ 1024) - 1024})"
    if found.name in ("time", "timetz", "timestamp", "timestamptz"):
        head, _, tail = name.partition(" ")
        return f"{head}({typmod}) {tail}"
    return name


def _identifies(row: CatalogColumn) -> bool:
    by_identity = {"f": True, "i": row.in_identity_index, "d": row.in_primary_key}
    return by_identity.get(row.replica_identity, False)


def _key(
    relation: Relation, catalog: Sequence[CatalogColumn], options: TableOptions, previous: TablePlan | None
) -> tuple[str, ...]:
    """Key columns in column order: as configured, else what a DELETE of this table carries.

    REPLICA IDENTITY FULL (and NOTHING) flags say nothing about the key: there it is the primary key.
    """
    names = [column.name for column in relation.columns]
    if options.key:
        return tuple(name for name in names if name in options.key)
    if relation.replica_identity in ("d", "i"):
        return tuple(column.name for column in relation.columns if column.identity)
    primary = {row.name for row in catalog if row.in_primary_key}
    if not catalog and previous is not None:
        primary = set(previous.schema.key)
    return tuple(name for name in names if name in primary) if primary <= set(names) else ()


def _storage(type_oid: int, types: TypeCatalog) -> str:
    found = types.get(type_oid)
    return found.storage if found is not None else "x"


def _schema(table: TableId, columns: Sequence[ColumnPlan], key: tuple[str, ...]) -> TableSchema:
    fields = [
        pa.field(column.name, column.value.arrow, column.nullable, {"pg_type": column.pg_type})
        for column in columns
    ]
    return TableSchema(table, pa.schema(fields), key)


def _warning(table: TableId, name: str, pg_type: str, value: ValueType, options: TableOptions) -> str:
    if name in options.as_text or value.kind not in (Kind.RAW_TEXT, Kind.NUMERIC_TEXT):
        return ""
    if value.kind is Kind.NUMERIC_TEXT:
        return f"{table}.{name}: {pg_type} has no fixed decimal of 38 digits, so it is carried as exact text"
    return (
        f"{table}.{name}: {pg_type} has no columnar form, so it is carried as text, "
        "and the stream of all tables uses text too"
    )


def _check_options(relation: Relation, options: TableOptions) -> None:
    names = {column.name for column in relation.columns}
    for option in ("exclude", "as_text", "key"):
        for name in getattr(options, option):
            if name not in names:
                raise ConfigError(
                    f"{option} of {relation.table} names '{name}', which is not a published column of it",
                    fix="write a name from: " + ", ".join(sorted(names)),
                )
    for column in relation.columns:
        is_key = column.identity and relation.replica_identity in ("d", "i")
        if column.name in options.exclude and (is_key or column.name in options.key):
            raise ConfigError(
                f"{relation.table} cannot exclude '{column.name}': it is part of the key",
                fix="keep the column, or mask it in a transform",
            )
        if column.name in options.key and not column.identity:
            raise ConfigError(
                f"key of {relation.table} names '{column.name}', which a DELETE does not carry",
                fix=f"ALTER TABLE {relation.table} REPLICA IDENTITY FULL, or USING INDEX over these columns",
            )
