"""How a row of an Avro schema is laid out, and which Arrow column each part of it becomes.

A plan is made once per schema and drives the compiled loops of `avro_encode` and `avro_decode`.  It reads
what Tailrace writes (`avro_schema.arrow_to_avro`) and what others write: Flink's avro-confluent format,
Confluent's serializers, Debezium (Avro 1.12 specification, "Schema Declaration", "Logical Types").

    Avro                                   Arrow
    null, boolean, float, double           null, bool, float32, float64
    int; with connect.type int8 / int16    int32; int8 / int16
    long                                   int64
    string, enum                           string
    bytes, fixed                           binary, fixed_size_binary
    bytes or fixed with decimal            decimal128(precision, scale)
    date, time-millis, time-micros         date32, time32[ms], time64[us]
    timestamp-millis, -micros, -nanos      timestamp[ms, UTC], [us, UTC], [ns, UTC]
    local-timestamp-millis and so on       timestamp[ms] and so on
    array, map, record                     list, map<string, ...>, struct
    union of null and one type             the same type, nullable

Other unions and recursive records have no column form: ConfigError.
"""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from tailrace.changes import ConfigError

NAME_PROPERTY = "tailrace.name"
"""On an Avro field: the column's name where it is not a legal Avro name."""
ELEMENT_PROPERTY = "tailrace.element"
"""On an Avro array: the Arrow name of the list's element where it is not `element`."""
PG_TYPE = "pg_type"
"""On an Avro field, and in Arrow field metadata: the Postgres type, as `format_type` renders it."""
CONNECT_TYPE = "connect.type"
"""On an Avro int: the smaller integer that it carries (Kafka Connect's Avro converter)."""

MAX_DECIMAL_DIGITS = 38


class Kind(enum.Enum):
    """How the bytes of one value are read."""

    NULL = enum.auto()
    BOOLEAN = enum.auto()
    LONG = enum.auto()
    """Zigzag varint: int, long and every time."""
    NATIVE = enum.auto()
    """`width` little-endian bytes, as Arrow holds them: float and double."""
    FIXED = enum.auto()
    """`width` bytes."""
    BYTES = enum.auto()
    """Length and bytes: string, bytes."""
    DECIMAL = enum.auto()
    """Length and a big-endian two's complement number."""
    FIXED_DECIMAL = enum.auto()
    """A big-endian two's complement number of `width` bytes."""
    ENUM = enum.auto()
    """Index into `symbols`."""
    LIST = enum.auto()
    """Blocks of `children[0]`."""
    MAP = enum.auto()
    """Blocks of `children[0]`, a struct of key and value: the bytes of an array of such records."""
    STRUCT = enum.auto()
    """`children` one after the other."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a row: a column, a list's element, a struct's field."""

    path: str
    """The column's name, for messages; nested: `column.field`."""
    kind: Kind
    arrow: pa.DataType
    null_branch: int = -1
    """Index of null in the union around the value; -1: there is none, the value is never null."""
    branches: int = 0
    """Number of branches of that union; 0: no union."""
    width: int = 0
    symbols: tuple[str, ...] = ()
    children: tuple["Node", ...] = ()

    @property
    def nullable(self) -> bool:
        """Whether the value may be null."""
        return self.null_branch >= 0 or self.kind is Kind.NULL


@dataclass(frozen=True, slots=True)
class RowPlan:
    """The layout of a row: `columns[i]` is how `schema.field(i)` is carried."""

    schema: pa.Schema
    columns: tuple[Node, ...]


def plan_rows(schema: str | Mapping[str, Any]) -> RowPlan:
    """The plan of a record schema, given as JSON text or as the parsed document.

    Raises ConfigError for text that is not an Avro record schema or has a part without a column form.
    """
    try:
        document = json.loads(schema) if isinstance(schema, str) else schema
        root = _SchemaReader().read(document, "", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable("", f"is not a valid Avro schema ({error})") from None
    if root.kind is not Kind.STRUCT or root.branches:
        raise _unreadable("", "is not a record")
    return RowPlan(pa.schema([root.arrow.field(i) for i in range(root.arrow.num_fields)]), root.children)


# Avro type -> kind, Arrow type, width, where no logical type says otherwise.
_PRIMITIVES: dict[str, tuple[Kind, pa.DataType, int]] = {
    "null": (Kind.NULL, pa.null(), 0),
    "boolean": (Kind.BOOLEAN, pa.bool_(), 1),
    "int": (Kind.LONG, pa.int32(), 0),
    "long": (Kind.LONG, pa.int64(), 0),
    "float": (Kind.NATIVE, pa.float32(), 4),
    "double": (Kind.NATIVE, pa.float64(), 8),
    "bytes": (Kind.BYTES, pa.binary(), 0),
    "string": (Kind.BYTES, pa.string(), 0),
}
_LOGICAL: dict[tuple[str, str], pa.DataType] = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}
_CONNECT_INTEGERS: dict[str, pa.DataType] = {"int8": pa.int8(), "int16": pa.int16()}
# Milliseconds and microseconds of a day: a time of day lies below.
_DAY = {pa.time32("ms"): 86_400_000, pa.time64("us"): 86_400_000_000}
_NAMED = ("record", "error", "enum", "fixed")
_OF_WIDTH = (Kind.NULL, Kind.NATIVE, Kind.FIXED, Kind.FIXED_DECIMAL)
_MAX_NODES = 10_000


class _SchemaReader:
    """Reads one schema document; knows the named types met so far."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[Mapping[str, Any], str]] = {}
        self._open: list[str] = []
        self._nodes = 0

    def read(self, document: Any, namespace: str, path: str) -> Node:
        """The node of a schema that stands in `namespace`."""
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _unreadable("", f"has more than {_MAX_NODES} parts")
        if isinstance(document, list):
            return self._union(document, namespace, path)
        if isinstance(document, str):
            if document in _PRIMITIVES:
                kind, arrow, width = _PRIMITIVES[document]
                return Node(path, kind, arrow, width=width)
            return self._reference(document, namespace, path)
        if not isinstance(document, Mapping) or "type" not in document:
            raise _unreadable(path, "is not an Avro schema")
        kind_of = document["type"]
        if not isinstance(kind_of, str):
            return self.read(kind_of, namespace, path)
        if kind_of in _NAMED:
            return self._define(document, kind_of, namespace, path)
        if kind_of == "array":
            return self._array(document, namespace, path)
        if kind_of == "map":
            return self._map(document, namespace, path)
        if kind_of not in _PRIMITIVES:
            return self._reference(kind_of, namespace, path)
        return _primitive(document, kind_of, path)

    def _union(self, branches: list[Any], namespace: str, path: str) -> Node:
        values = [branch for branch in branches if branch != "null"]
        if len(values) != 1 or len(branches) > 2:
            raise _unreadable(
                path, f"is a union of {len(branches)} types; only null and one type have a column"
            )
        node = self.read(values[0], namespace, path)
        if node.branches:
            raise _unreadable(path, "is a union inside a union")
        null_branch = branches.index("null") if "null" in branches else -1
        return replace(node, null_branch=null_branch, branches=len(branches))

    def _reference(self, name: str, namespace: str, path: str) -> Node:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        full = full if full in self._named else name
        if full in self._open:
            raise _unreadable(path, f"contains itself (record {name})")
        if full not in self._named:
            raise _unreadable(path, f"has the type '{name}', which the schema does not define")
        document, outer = self._named[full]
        return self._build(document, str(document["type"]), outer, full, path)

    def _define(self, document: Mapping[str, Any], kind_of: str, namespace: str, path: str) -> Node:
        name = str(document.get("name", ""))
        if "." in name:
            full = name
        else:
            inner = str(document.get("namespace", namespace) or "")
            full = f"{inner}.{name}" if inner else name
        self._named[full] = (document, namespace)
        return self._build(document, kind_of, namespace, full, path)

    def _build(self, document: Mapping[str, Any], kind_of: str, namespace: str, full: str, path: str) -> Node:
        inner = full.rpartition(".")[0]
        if kind_of == "enum":
            return Node(path, Kind.ENUM, pa.string(), symbols=tuple(map(str, document.get("symbols", ()))))
        if kind_of == "fixed":
            width = int(document.get("size", 0))
            decimal = _decimal(document, path)
            if decimal is not None:
                return Node(path, Kind.FIXED_DECIMAL, decimal, width=width)
            return Node(path, Kind.FIXED, pa.binary(width), width=width)
        self._open.append(full)
        fields, children = [], []
        for field in document.get("fields", ()):
            name = str(field.get(NAME_PROPERTY, field["name"]))
            child = self.read(field["type"], inner, f"{path}.{name}" if path else name)
            metadata = {PG_TYPE: str(field[PG_TYPE])} if PG_TYPE in field else None
            fields.append(pa.field(name, child.arrow, child.nullable, metadata))
            children.append(child)
        self._open.pop()
        return Node(path, Kind.STRUCT, pa.struct(fields), children=tuple(children))

    def _array(self, document: Mapping[str, Any], namespace: str, path: str) -> Node:
        name = str(document.get(ELEMENT_PROPERTY, "element"))
        child = self.read(document.get("items"), namespace, f"{path}.{name}")
        if smallest_size(child) == 0:
            raise _unreadable(path, "is an array of values without bytes")
        arrow = pa.list_(pa.field(name, child.arrow, child.nullable))
        return Node(path, Kind.LIST, arrow, children=(child,))

    def _map(self, document: Mapping[str, Any], namespace: str, path: str) -> Node:
        key = Node(f"{path}.key", Kind.BYTES, pa.string())
        value = self.read(document.get("values"), namespace, f"{path}.value")
        item: Any = pa.field("value", value.arrow, value.nullable)
        arrow = pa.map_(pa.string(), item)
        entry = pa.struct([arrow.key_field, arrow.item_field])
        return Node(path, Kind.MAP, arrow, children=(Node(path, Kind.STRUCT, entry, children=(key, value)),))


def _primitive(document: Mapping[str, Any], kind_of: str, path: str) -> Node:
    kind, arrow, width = _PRIMITIVES[kind_of]
    if kind_of == "bytes" and (decimal := _decimal(document, path)) is not None:
        return Node(path, Kind.DECIMAL, decimal)
    # A logical type that does not belong to its Avro type is to be ignored, says the specification.
    arrow = _LOGICAL.get((kind_of, str(document.get("logicalType"))), arrow)
    if kind_of == "int" and arrow == pa.int32():
        arrow = _CONNECT_INTEGERS.get(str(document.get(CONNECT_TYPE)), arrow)
    return Node(path, kind, arrow, width=width)


def _decimal(document: Mapping[str, Any], path: str) -> pa.DataType | None:
    if document.get("logicalType") != "decimal":
        return None
    precision, scale = int(document.get("precision", 0)), int(document.get("scale", 0))
    if precision < 1 or not 0 <= scale <= precision:
        return None
    if precision > MAX_DECIMAL_DIGITS:
        raise _unreadable(path, f"is a decimal of {precision} digits; a column holds {MAX_DECIMAL_DIGITS}")
    return pa.decimal128(precision, scale)


def long_bounds(node: Node) -> tuple[int, int]:
    """The smallest and the largest number that the Arrow type of a LONG takes."""
    if node.arrow in _DAY:
        return 0, _DAY[node.arrow] - 1
    largest = (1 << (node.arrow.bit_width - 1)) - 1
    return ~largest, largest


def smallest_size(node: Node) -> int:
    """Bytes that a value of this layout has at least."""
    if node.branches:
        return 1
    if node.kind is Kind.STRUCT:
        return sum(smallest_size(child) for child in node.children)
    return node.width if node.kind in _OF_WIDTH else 1


def _unreadable(path: str, why: str) -> ConfigError:
    return ConfigError(
        f"Avro schema: {f'field {path!r}' if path else 'the schema'} {why}",
        fix="write the topic with another schema, or leave the field out where it is produced",
    )
