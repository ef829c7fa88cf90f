"""Arrow <-> Iceberg v2 types (Iceberg table specification, "Schemas and Data Types"): one table.

| Arrow | Iceberg |
|---|---|
| bool, int32, int64, float32, float64 | boolean, int, long, float, double |
| int16 | int |
| decimal128(p, s) | decimal(p, s) |
| string, binary | string, binary |
| date32, time64[us] | date, time |
| timestamp[us], timestamp[us, UTC] | timestamp, timestamptz |
| list<T>, struct<...> | list, struct of the same |
"""

from typing import Any

import pyarrow as pa
from pyiceberg import types as iceberg
from pyiceberg.schema import Schema

from tailrace.changes import ConfigError

_SAME: dict[Any, pa.DataType] = {
    iceberg.BooleanType: pa.bool_(),
    iceberg.IntegerType: pa.int32(),
    iceberg.LongType: pa.int64(),
    iceberg.FloatType: pa.float32(),
    iceberg.DoubleType: pa.float64(),
    iceberg.StringType: pa.string(),
    iceberg.BinaryType: pa.binary(),
    iceberg.DateType: pa.date32(),
    iceberg.TimeType: pa.time64("us"),
    iceberg.TimestampType: pa.timestamp("us"),
    iceberg.TimestamptzType: pa.timestamp("us", "UTC"),
}
_STORED = frozenset(_SAME.values())


def stored_type(arrow: pa.DataType) -> pa.DataType:
    """The type in which Iceberg keeps a column; ConfigError for one outside the table above."""
    if arrow in _STORED or pa.types.is_decimal128(arrow):
        return arrow
    if pa.types.is_int16(arrow):
        return pa.int32()
    if pa.types.is_list(arrow):
        return _list_of(stored_type(arrow.value_type), arrow.value_field.nullable)
    if pa.types.is_struct(arrow):
        return pa.struct([field.with_type(stored_type(field.type)) for field in arrow])
    raise ConfigError(
        f"Iceberg has no type for a column of type {arrow}", fix="list the column under as_text"
    )


def arrow_schema(schema: Schema) -> pa.Schema:
    """The stored Arrow types of a table's columns."""
    return pa.schema([_arrow_field(field) for field in schema.fields])


def with_field_ids(rows: pa.Table, schema: Schema) -> pa.Table:
    """The same rows with `PARQUET:field_id` on every field, nested ones too, as readers need them."""
    fields = [_tagged(field, schema.find_field(field.name)) for field in rows.schema]
    return rows.cast(pa.schema(fields))


def _arrow_field(field: iceberg.NestedField) -> "pa.Field[Any]":
    return pa.field(field.name, _arrow_type(field.field_type), nullable=not field.required)


def _arrow_type(kind: iceberg.IcebergType) -> pa.DataType:
    if isinstance(kind, iceberg.DecimalType):
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, iceberg.ListType):
        return _list_of(_arrow_type(kind.element_type), not kind.element_required)
    if isinstance(kind, iceberg.StructType):
        return pa.struct([_arrow_field(field) for field in kind.fields])
    found = _SAME.get(type(kind))
    if found is None:
        raise ConfigError(
            f"a column of type {kind} was not made by this sink", fix="give the sink a table of its own"
        )
    return found


def _list_of(element: pa.DataType, nullable: bool) -> pa.DataType:
    return pa.list_(pa.field("element", element, nullable=nullable))


def _tagged(field: "pa.Field[Any]", known: iceberg.NestedField) -> "pa.Field[Any]":
    kind = field.type
    if isinstance(known.field_type, iceberg.ListType):
        kind = pa.list_(_tagged(kind.value_field.with_name("element"), known.field_type.element_field))
    elif isinstance(known.field_type, iceberg.StructType):
        inner = {part.name: part for part in known.field_type.fields}
        kind = pa.struct([_tagged(part, inner[part.name]) for part in field.type])
    metadata = {"PARQUET:field_id": str(known.field_id)}
    return pa.field(field.name, kind, nullable=field.nullable, metadata=metadata)
