"""Arrow schemas as Avro schemas and back (ARCHITECTURE.md, "Columns").

What Arrow says and Avro cannot travels as properties, which Avro keeps and readers ignore: the Postgres
type (`pg_type`), a column name that is not a legal Avro name (`tailrace.name`), int16 (`connect.type`), the
name of a list's element (`tailrace.element`).  So `avro_to_arrow(arrow_to_avro(schema))` is the schema again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from tailrace.changes import ConfigError
from tailrace.registry.avro_plan import CONNECT_TYPE, ELEMENT_PROPERTY, NAME_PROPERTY, PG_TYPE, plan_rows

_PLAIN: dict[pa.DataType, Any] = {
    pa.null(): "null",
    pa.bool_(): "boolean",
    pa.int8(): {"type": "int", CONNECT_TYPE: "int8"},
    pa.int16(): {"type": "int", CONNECT_TYPE: "int16"},
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "bytes",
    pa.date32(): {"type": "int", "logicalType": "date"},
    pa.time32("ms"): {"type": "int", "logicalType": "time-millis"},
    pa.time64("us"): {"type": "long", "logicalType": "time-micros"},
    pa.timestamp("ms", "UTC"): {"type": "long", "logicalType": "timestamp-millis"},
    pa.timestamp("us", "UTC"): {"type": "long", "logicalType": "timestamp-micros"},
    pa.timestamp("ns", "UTC"): {"type": "long", "logicalType": "timestamp-nanos"},
    pa.timestamp("ms"): {"type": "long", "logicalType": "local-timestamp-millis"},
    pa.timestamp("us"): {"type": "long", "logicalType": "local-timestamp-micros"},
    pa.timestamp("ns"): {"type": "long", "logicalType": "local-timestamp-nanos"},
}
_UUID = {"type": "string", "logicalType": "uuid"}


def avro_to_arrow(schema: str | Mapping[str, Any]) -> pa.Schema:
    """The Arrow schema of an Avro record schema (JSON text or document); the types are those of `avro_plan`.

    Raises ConfigError for what has no column form.
    """
    return plan_rows(schema).schema


def arrow_to_avro(schema: pa.Schema, *, name: str, namespace: str, pg_types: bool = True) -> dict[str, Any]:
    """The Avro record schema of an Arrow schema.

    name, namespace  of the record; made legal where they are not.
    pg_types         whether to carry `pg_type`: not in a record key, whose schema must not change with a
                     column's varchar length, because its id is part of the key's bytes.

    A nullable field is a union with null first and default null.  Raises ConfigError for an Arrow type that
    is not in ARCHITECTURE.md's table and for two columns of one name.
    """
    writer = _SchemaWriter(pg_types)
    full = ".".join(_legal(part) for part in namespace.split(".") if part)
    return writer.record(schema, _legal(name), "", {"namespace": full} if full else {})


class _SchemaWriter:
    """Writes one schema document; keeps the names of nested types apart."""

    def __init__(self, pg_types: bool) -> None:
        self._pg_types = pg_types
        self._taken: set[str] = set()

    def record(
        self, fields: Iterable[pa.Field[Any]], name: str, path: str, properties: dict[str, Any]
    ) -> dict[str, Any]:
        fields = list(fields)
        name = _unique(name, self._taken)
        legal = _legal_names([field.name for field in fields], path)
        members = [
            self._field(
                field, legal_name, f"{name}_{legal_name}", f"{path}.{field.name}" if path else field.name
            )
            for field, legal_name in zip(fields, legal, strict=True)
        ]
        return {"type": "record", "name": name, **properties, "fields": members}

    def _field(self, field: pa.Field[Any], name: str, type_name: str, path: str) -> dict[str, Any]:
        pg_type = (field.metadata or {}).get(PG_TYPE.encode())
        member: dict[str, Any] = {"name": name, "type": self._value(field, type_name, path)}
        if field.nullable and field.type != pa.null():
            member["default"] = None
        if field.name != name:
            member[NAME_PROPERTY] = field.name
        if pg_type is not None and self._pg_types:
            member[PG_TYPE] = pg_type.decode()
        return member

    def _value(self, field: pa.Field[Any], type_name: str, path: str) -> Any:
        if field.type == pa.string() and (field.metadata or {}).get(PG_TYPE.encode()) == b"uuid":
            avro: Any = _UUID
        else:
            avro = self._type(field.type, type_name, path)
        return ["null", avro] if field.nullable and field.type != pa.null() else avro

    def _type(self, arrow: pa.DataType, type_name: str, path: str) -> Any:
        if arrow in _PLAIN:
            return _PLAIN[arrow]
        if isinstance(arrow, pa.Decimal128Type) and 0 <= arrow.scale <= arrow.precision:
            return {
                "type": "bytes",
                "logicalType": "decimal",
                "precision": arrow.precision,
                "scale": arrow.scale,
            }
        if isinstance(arrow, pa.FixedSizeBinaryType):
            name = _unique(type_name, self._taken)
            return {"type": "fixed", "name": name, "size": arrow.byte_width}
        if isinstance(arrow, pa.MapType) and arrow.key_type == pa.string():
            return {
                "type": "map",
                "values": self._value(arrow.item_field, f"{type_name}_value", f"{path}.value"),
            }
        if isinstance(arrow, pa.ListType):
            element = arrow.value_field
            items = self._value(element, f"{type_name}_element", f"{path}.{element.name}")
            named = {} if element.name == "element" else {ELEMENT_PROPERTY: element.name}
            return {"type": "array", "items": items, **named}
        if isinstance(arrow, pa.StructType):
            fields = [arrow.field(i) for i in range(arrow.num_fields)]
            return self.record(fields, type_name, path, {})
        raise ConfigError(
            f"column '{path}' has the Arrow type {arrow}, which topics do not carry",
            fix="cast it to a type of the table in ARCHITECTURE.md, for example to string",
        )


def _legal(name: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


def _legal_names(names: list[str], path: str) -> list[str]:
    """An Avro name for each column; one that is legal already stays as it is."""
    if len(set(names)) < len(names):
        raise ConfigError(
            f"{f'struct {path!r}' if path else 'the table'} has two columns of one name",
            fix="give each column its own name",
        )
    taken = {name for name in names if _legal(name) == name}
    return [
        name if name in taken and _legal(name) == name else _unique(_legal(name), taken) for name in names
    ]


def _unique(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
