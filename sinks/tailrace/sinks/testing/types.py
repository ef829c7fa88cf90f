"""One table with a column of every type of ARCHITECTURE.md's column table."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from tailrace.changes import TableId, TableSchema

_INTERVAL = pa.struct(
    [pa.field("months", pa.int32()), pa.field("days", pa.int32()), pa.field("micros", pa.int64())]
)
_COLUMNS: dict[str, tuple[pa.DataType, Any, Any]] = {
    "flag": (pa.bool_(), True, False),
    "int2": (pa.int16(), -32768, 32767),
    "int4": (pa.int32(), -(2**31), 2**31 - 1),
    "int8": (pa.int64(), -(2**63), 2**63 - 1),
    "float4": (pa.float32(), 0.5, float("-inf")),
    "float8": (pa.float64(), -1.0e300, 0.1),
    "small_numeric": (pa.decimal128(5, 2), Decimal("-999.99"), Decimal("0.01")),
    "big_numeric": (pa.decimal128(38, 10), Decimal("1234567890123456789012345678.0123456789"), Decimal(0)),
    "text": (pa.string(), "", "zürich \u2603 \U0001f600"),
    "bytes": (pa.binary(), b"", bytes(range(256))),
    "day": (pa.date32(), date(1, 1, 1), date(9999, 12, 31)),
    "clock": (pa.time64("us"), time(0, 0), time(23, 59, 59, 999999)),
    "local": (pa.timestamp("us"), datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(2262, 5, 1, 12)),  # noqa: DTZ001
    "instant": (
        pa.timestamp("us", tz="UTC"),
        datetime(2024, 2, 29, tzinfo=UTC),
        datetime(1800, 1, 1, tzinfo=UTC),
    ),
    "interval": (
        _INTERVAL,
        {"months": -1, "days": 31, "micros": 10**13},
        {"months": 0, "days": 0, "micros": 0},
    ),
    "ints": (pa.list_(pa.field("element", pa.int32())), [1, None, -3], []),
    "texts": (pa.list_(pa.field("element", pa.string())), ["a", ""], [None]),
}

KEY_COLUMNS = [name for name, (arrow, _a, _b) in _COLUMNS.items() if not pa.types.is_list(arrow)]
"""Columns whose type may be a key: all but arrays."""


def every_type() -> tuple[TableSchema, pa.RecordBatch]:
    """The table (key: `id`), and three rows: two of extreme values, one of nulls."""
    fields: list[Any] = [pa.field("id", pa.int64(), nullable=False)]
    fields += [pa.field(name, arrow) for name, (arrow, _a, _b) in _COLUMNS.items()]
    schema = pa.schema(fields)
    columns: list[Any] = [pa.array([1, 2, 3])]
    columns += [pa.array([one, other, None], arrow) for arrow, one, other in _COLUMNS.values()]
    return TableSchema(TableId("public", "types"), schema, ("id",)), pa.RecordBatch.from_arrays(
        columns, schema=schema
    )
