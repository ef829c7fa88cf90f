"""Arrow types <-> Delta's schema JSON (Delta protocol, "Schema Serialization Format").

| Arrow | Delta | stored and read back as |
|---|---|---|
| bool, string, binary, date32 | boolean, string, binary, date | same |
| int16, int32, int64 | short, integer, long | same |
| float32, float64 | float, double | same |
| decimal128(p, s) | decimal(p,s) | same |
| time64[us] | long | int64, microseconds since midnight |
| timestamp[us] | timestamp_ntz | same |
| timestamp[us, UTC] | timestamp | same |
| struct, list | struct, array | same, list element named `element` |
"""

import json
from typing import Any

import pyarrow as pa

from tailrace.changes import ConfigError, TailraceError

_TO_DELTA: dict[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.int16(): "short",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date",
    pa.timestamp("us"): "timestamp_ntz",
    pa.timestamp("us", tz="UTC"): "timestamp",
}
_TO_ARROW: dict[str, pa.DataType] = {name: arrow for arrow, name in _TO_DELTA.items()}


def stored_type(arrow: pa.DataType) -> pa.DataType:
    """The Arrow type in which a Delta table keeps a column; ConfigError when there is none."""
    if pa.types.is_time64(arrow):
        return pa.int64()
    if isinstance(arrow, pa.StructType):
        return pa.struct([pa.field(f.name, stored_type(f.type), f.nullable) for f in arrow.fields])
    if isinstance(arrow, pa.ListType):
        return pa.list_(pa.field("element", stored_type(arrow.value_type), arrow.value_field.nullable))
    if arrow not in _TO_DELTA and not isinstance(arrow, pa.Decimal128Type):
        raise ConfigError(f"Delta has no type for a column of Arrow type {arrow}", fix="carry it as_text")
    return arrow


def schema_json(schema: pa.Schema) -> str:
    """The `schemaString` of a table's metadata.

    ConfigError for two columns whose names differ in case only: Delta ignores case.
    """
    seen: dict[str, str] = {}
    for name in schema.names:
        if seen.setdefault(name.lower(), name) != name:
            raise ConfigError(f"columns '{seen[name.lower()]}' and '{name}' have the same name for Delta")
    return json.dumps({"type": "struct", "fields": [_field_json(field) for field in schema]})


def arrow_schema(schema_string: str) -> pa.Schema:
    """The Arrow schema of a `schemaString`; TailraceError for a type that no sink writes."""
    return pa.schema([_arrow_field(field) for field in json.loads(schema_string)["fields"]])


def uses_timestamp_ntz(schema: pa.Schema) -> bool:
    """Whether the table needs the `timestampNtz` feature."""
    return '"timestamp_ntz"' in schema_json(schema)


def _field_json(field: "pa.Field[Any]") -> dict[str, Any]:
    return {"name": field.name, "type": _type_json(field.type), "nullable": field.nullable, "metadata": {}}


def _type_json(arrow: pa.DataType) -> Any:
    if isinstance(arrow, pa.StructType):
        return {"type": "struct", "fields": [_field_json(field) for field in arrow.fields]}
    if isinstance(arrow, pa.ListType):
        element = arrow.value_field
        return {"type": "array", "elementType": _type_json(element.type), "containsNull": element.nullable}
    if isinstance(arrow, pa.Decimal128Type):
        return f"decimal({arrow.precision},{arrow.scale})"
    return _TO_DELTA[arrow]


def _arrow_field(field: dict[str, Any]) -> "pa.Field[Any]":
    return pa.field(field["name"], _arrow_type(field["type"]), field["nullable"])


def _arrow_type(delta: Any) -> pa.DataType:
    if isinstance(delta, dict) and delta["type"] == "struct":
        return pa.struct([_arrow_field(field) for field in delta["fields"]])
    if isinstance(delta, dict) and delta["type"] == "array":
        return pa.list_(pa.field("element", _arrow_type(delta["elementType"]), delta["containsNull"]))
    if isinstance(delta, str) and delta.startswith("decimal("):
        precision, scale = delta[len("decimal(") : -1].split(",")
        return pa.decimal128(int(precision), int(scale))
    if isinstance(delta, str) and delta in _TO_ARROW:
        return _TO_ARROW[delta]
    raise TailraceError(f"the Delta table has a column of type {delta}, which this sink does not write")
