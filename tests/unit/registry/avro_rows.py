"""Arrow schemas and rows of every type that topics carry, for Hypothesis; and values as plain Avro sees them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

import pyarrow as pa
from hypothesis import strategies as st

INTERVAL = pa.struct(
    [
        pa.field("months", pa.int32(), nullable=False),
        pa.field("days", pa.int32(), nullable=False),
        pa.field("micros", pa.int64(), nullable=False),
    ]
)


def integers_of(bits: int) -> st.SearchStrategy[int]:
    """Signed integers with their extremes well represented."""
    largest = (1 << (bits - 1)) - 1
    return st.one_of(
        st.sampled_from([0, 1, -1, 63, 64, -64, -65, largest, ~largest]), st.integers(~largest, largest)
    )


def decimals(precision: int) -> st.SearchStrategy[int]:
    """Unscaled numbers of at most `precision` digits."""
    largest = 10**precision - 1
    edges = [
        0,
        1,
        -1,
        127,
        128,
        -128,
        -129,
        largest,
        -largest,
        (1 << 63) - 1,
        -(1 << 63),
        1 << 64,
        -(1 << 64),
    ]
    return st.one_of(st.sampled_from([e for e in edges if abs(e) <= largest]), st.integers(-largest, largest))


_PLAIN: st.SearchStrategy[Any] = st.sampled_from(
    [
        pa.bool_(),
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.binary(),
        pa.binary(3),
        pa.date32(),
        pa.time32("ms"),
        pa.time64("us"),
        pa.timestamp("us"),
        pa.timestamp("us", "UTC"),
        pa.timestamp("ms"),
        pa.timestamp("ms", "UTC"),
        pa.timestamp("ns"),
        INTERVAL,
    ]
)
_DECIMALS: st.SearchStrategy[Any] = st.integers(1, 38).flatmap(
    lambda precision: st.integers(0, precision).map(lambda scale: pa.decimal128(precision, scale))
)
_SCALARS = st.one_of(_PLAIN, _DECIMALS)
_COLUMN_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5)


@st.composite
def _nested(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Any:
    match draw(st.sampled_from(["list", "struct", "map"])):
        case "list":
            name = draw(st.sampled_from(["element", "item"]))
            return pa.list_(pa.field(name, draw(inner), draw(st.booleans())))
        case "map":
            item: Any = pa.field("value", draw(inner), draw(st.booleans()))
            return pa.map_(pa.string(), item)
        case _:
            return pa.struct(draw(fields(inner, max_size=3)))


def types() -> st.SearchStrategy[pa.DataType]:
    """Every type of the table in ARCHITECTURE.md, and nested ones."""
    return st.recursive(_SCALARS, _nested, max_leaves=4)


@st.composite
def fields(
    draw: st.DrawFn, of: st.SearchStrategy[pa.DataType], max_size: int = 6
) -> list[pa.Field[pa.DataType]]:
    names = draw(st.lists(_COLUMN_NAMES, min_size=1, max_size=max_size, unique=True))
    return [
        pa.field(name, arrow, draw(st.booleans()), draw(_metadata(arrow)))
        for name, arrow in ((name, draw(of)) for name in names)
    ]


def _metadata(arrow: pa.DataType) -> st.SearchStrategy[dict[str, str] | None]:
    kinds = ["text", "uuid", "citext"] if arrow == pa.string() else ["integer", "numeric(12,2)"]
    return st.one_of(st.none(), st.sampled_from(kinds).map(lambda kind: {"pg_type": kind}))


def schemas() -> st.SearchStrategy[pa.Schema]:
    """Table schemas with awkward names."""
    return fields(types()).map(pa.schema)


def values(arrow: Any, nullable: bool) -> st.SearchStrategy[Any]:
    """Values of a type in the plain form: what Avro reads without logical types."""
    strategy = _values(arrow)
    return st.one_of(st.none(), strategy) if nullable else strategy


def _values(arrow: Any) -> st.SearchStrategy[Any]:
    if isinstance(arrow, pa.ListType):
        return st.lists(values(arrow.value_type, arrow.value_field.nullable), max_size=4)
    if isinstance(arrow, pa.MapType):
        items = values(arrow.item_type, arrow.item_field.nullable)
        return st.dictionaries(st.text(max_size=3), items, max_size=3)
    if isinstance(arrow, pa.StructType):
        parts = [arrow.field(i) for i in range(arrow.num_fields)]
        return st.fixed_dictionaries({part.name: values(part.type, part.nullable) for part in parts})
    if isinstance(arrow, pa.Decimal128Type):
        return decimals(arrow.precision)
    if isinstance(arrow, pa.FixedSizeBinaryType):
        return st.binary(min_size=arrow.byte_width, max_size=arrow.byte_width)
    if arrow == pa.bool_():
        return st.booleans()
    if arrow == pa.string():
        return st.text(max_size=40)
    if arrow == pa.binary():
        return st.binary(max_size=40)
    if pa.types.is_floating(arrow):
        return st.floats(width=32 if arrow == pa.float32() else 64, allow_nan=False)
    if pa.types.is_time(arrow):
        return st.integers(0, (86_400_000 if arrow == pa.time32("ms") else 86_400_000_000) - 1)
    return integers_of(arrow.bit_width)


def column(arrow: Any, plain: list[Any]) -> pa.Array[Any]:
    """An Arrow array of plain values; numbers under dates and times are taken as they are stored."""
    if isinstance(arrow, pa.ListType):
        inner = column(arrow.value_type, [item for row in plain for item in row or ()])
        lists: Any = pa.ListArray
        return cast("pa.Array[Any]", lists.from_arrays(_offsets(plain), inner, type=arrow))
    if isinstance(arrow, pa.MapType):
        entries = [item for row in plain for item in (row or {}).items()]
        keys = pa.array([key for key, _ in entries], pa.string())
        items = column(arrow.item_type, [value for _, value in entries])
        maps: Any = pa.MapArray
        return cast("pa.Array[Any]", maps.from_arrays(_offsets(plain), keys, items, type=arrow))
    if isinstance(arrow, pa.StructType):
        parts = [arrow.field(i) for i in range(arrow.num_fields)]
        children = [
            column(part.type, [None if row is None else row[part.name] for row in plain]) for part in parts
        ]
        mask = pa.array([row is None for row in plain], pa.bool_())
        structs: Any = pa.StructArray
        return cast("pa.Array[Any]", structs.from_arrays(children, fields=parts, mask=mask))
    if isinstance(arrow, pa.Decimal128Type):
        numbers = [None if n is None else Decimal((int(n < 0), _digits(n), -arrow.scale)) for n in plain]
        return pa.array(numbers, arrow)
    if pa.types.is_temporal(arrow):
        numbers_of: pa.DataType = pa.int32() if arrow.bit_width == 32 else pa.int64()
        return cast("pa.Array[Any]", pa.array(plain, numbers_of).view(arrow))
    made: pa.Array[Any] = pa.array(plain, arrow)
    return made


def _digits(number: int) -> tuple[int, ...]:
    return tuple(map(int, str(abs(number))))


def _offsets(plain: list[Any]) -> pa.Array[Any]:
    """List offsets, null where the row is null."""
    offsets: list[int | None] = []
    total = 0
    for row in plain:
        offsets.append(None if row is None else total)
        total += len(row or ())
    return pa.array([*offsets, total], pa.int32())


@st.composite
def batches(draw: st.DrawFn, max_rows: int = 6) -> tuple[pa.RecordBatch, list[dict[str, Any]]]:
    """A batch and its rows in the plain form."""
    schema = draw(schemas())
    row = st.fixed_dictionaries({field.name: values(field.type, field.nullable) for field in schema})
    rows = draw(st.lists(row, max_size=max_rows))
    return batch_of(schema, rows), rows


def batch_of(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """An Arrow batch of plain rows."""
    columns = [column(field.type, [row[field.name] for row in rows]) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
