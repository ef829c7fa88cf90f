"""Postgres types -> how a value is carried: its kind, its Arrow type, and whether we read its binary form.

The table is ARCHITECTURE.md's "Columns: Postgres -> Arrow -> Avro -> tables".  A type that is not in it is
carried as its text, never dropped.  PostgreSQL manual: chapter 8, catalog pg_type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa


class Kind(Enum):
    """How the bytes of a value are read; one compiled loop per kind and wire format."""

    BOOL = "bool"
    INT2 = "int2"
    INT4 = "int4"
    INT8 = "int8"
    FLOAT4 = "float4"
    FLOAT8 = "float8"
    DECIMAL = "decimal"
    """numeric(p <= 38, 0 <= s <= p)"""
    NUMERIC_TEXT = "numeric_text"
    """Any other numeric, as the text that Postgres prints."""
    TEXT = "text"
    """Binary and text form are the same bytes: text, varchar, char(n), name, json, enum, citext."""
    JSONB = "jsonb"
    BYTEA = "bytea"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    """With and without time zone: microseconds since 2000-01-01 on the wire in both."""
    INTERVAL = "interval"
    UUID = "uuid"
    ARRAY = "array"
    """One-dimensional, lower bound 1."""
    RAW_TEXT = "raw_text"
    """Anything else: only the text form is read."""


INTERVAL = pa.struct(
    [
        pa.field("months", pa.int32(), nullable=False),
        pa.field("days", pa.int32(), nullable=False),
        pa.field("micros", pa.int64(), nullable=False),
    ]
)

_DECIMAL_DIGITS = 38  # decimal128, and the largest decimal of Delta and Iceberg
_TYPMOD_HEADER = 4  # VARHDRSZ, added by numerictypmodin

# Vectors that pg_type calls arrays but that count from 0 and print as numbers with blanks.
_INT2VECTOR, _OIDVECTOR = 22, 30
_NUMERIC = 1700
CITEXT = "citext"


@dataclass(frozen=True, slots=True)
class ValueType:
    """How the values of a column are carried.

    `binary`: whether the binary wire form can be read.  False means that a stream that carries such a
    column must ask for text, and that COPY must cast it.
    """

    kind: Kind
    arrow: pa.DataType
    binary: bool = True
    element: "ValueType | None" = None
    """Of an array."""


@dataclass(frozen=True, slots=True)
class PgType:
    """A row of pg_type, as TYPES_SQL reads it."""

    oid: int
    namespace: str
    name: str
    kind: str
    """typtype: b base, c composite, d domain, e enum, p pseudo, r range, m multirange"""
    category: str
    element: int
    """typelem"""
    base: int
    """typbasetype, of a domain"""
    base_typmod: int
    """typtypmod, of a domain"""
    length: int
    """typlen, -1 for variable length"""
    storage: str
    """typstorage: p plain (never TOASTed), x extended, e external, m main"""
    delimiter: str = ","


TypeCatalog = Mapping[int, PgType]
"""pg_type rows by OID, base and element types included."""

TYPES_SQL = """
WITH RECURSIVE used(oid) AS (
    SELECT unnest(%s::oid[])
  UNION
    SELECT unnest(ARRAY[t.typelem, t.typbasetype]) FROM used JOIN pg_catalog.pg_type t USING (oid)
)
SELECT t.oid::int8, n.nspname::text, t.typname::text, t.typtype::text, t.typcategory::text, t.typelem::int8,
       t.typbasetype::int8, t.typtypmod, t.typlen::int4, t.typstorage::text, t.typdelim::text
FROM used JOIN pg_catalog.pg_type t USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
"""
"""One parameter: an array of type OIDs.  Each row is the arguments of PgType, in order."""

RAW_TEXT = ValueType(Kind.RAW_TEXT, pa.string(), binary=False)
_TEXT = ValueType(Kind.TEXT, pa.string())
_NUMERIC_TEXT = ValueType(Kind.NUMERIC_TEXT, pa.string())

_BUILT_IN = {
    16: ValueType(Kind.BOOL, pa.bool_()),
    17: ValueType(Kind.BYTEA, pa.binary()),
    19: _TEXT,  # name
    20: ValueType(Kind.INT8, pa.int64()),
    21: ValueType(Kind.INT2, pa.int16()),
    23: ValueType(Kind.INT4, pa.int32()),
    25: _TEXT,
    114: _TEXT,  # json
    700: ValueType(Kind.FLOAT4, pa.float32()),
    701: ValueType(Kind.FLOAT8, pa.float64()),
    1042: _TEXT,  # char(n), blanks kept as sent
    1043: _TEXT,  # varchar
    1082: ValueType(Kind.DATE, pa.date32()),
    1083: ValueType(Kind.TIME, pa.time64("us")),
    1114: ValueType(Kind.TIMESTAMP, pa.timestamp("us")),
    1184: ValueType(Kind.TIMESTAMP, pa.timestamp("us", tz="UTC")),
    1186: ValueType(Kind.INTERVAL, INTERVAL),
    2950: ValueType(Kind.UUID, pa.string()),
    3802: ValueType(Kind.JSONB, pa.string()),
}


def value_type(oid: int, typmod: int, types: TypeCatalog) -> ValueType:
    """How values of the type `oid` with modifier `typmod` are carried; RAW_TEXT for what we do not know.

    Domains resolve to their base type, each level's modifier counting where the outer one has none.
    """
    while (found := types.get(oid)) is not None and found.kind == "d":
        oid, typmod = found.base, found.base_typmod if typmod < 0 else typmod
    if oid == _NUMERIC:
        return _numeric(typmod)
    if (built_in := _BUILT_IN.get(oid)) is not None:
        return built_in
    if found is None:
        return RAW_TEXT
    if found.kind == "e" or (found.kind == "b" and found.name == CITEXT):
        return _TEXT
    if (
        found.category == "A"
        and found.element
        and found.length == -1
        and oid not in (_INT2VECTOR, _OIDVECTOR)
    ):
        return _array(found.element, typmod, types)
    return RAW_TEXT


def as_text(value: ValueType) -> ValueType:
    """The same values carried as Postgres' text; binary only where we print them exactly as Postgres does."""
    if value.kind in (Kind.TEXT, Kind.JSONB, Kind.UUID, Kind.NUMERIC_TEXT):
        return value
    return _NUMERIC_TEXT if value.kind is Kind.DECIMAL else RAW_TEXT


def _numeric(typmod: int) -> ValueType:
    if typmod < _TYPMOD_HEADER:
        return _NUMERIC_TEXT
    packed = typmod - _TYPMOD_HEADER
    precision = packed >> 16 & 0xFFFF
    scale = (packed & 0x7FF ^ 1024) - 1024  # 11 bits with sign since PostgreSQL 15
    if precision <= _DECIMAL_DIGITS and 0 <= scale <= precision:
        return ValueType(Kind.DECIMAL, pa.decimal128(precision, scale))
    return _NUMERIC_TEXT


def _array(element_oid: int, typmod: int, types: TypeCatalog) -> ValueType:
    element = value_type(element_oid, typmod, types)
    element_row = types.get(element_oid)
    is_nested = element.kind is Kind.ARRAY  # a domain over an array
    if (
        element.kind is Kind.RAW_TEXT
        or is_nested
        or (element_row is not None and element_row.delimiter != ",")
    ):
        return RAW_TEXT
    return ValueType(Kind.ARRAY, pa.list_(pa.field("element", element.arrow)), element.binary, element)
