"""Schema change of a stream -> allowed change of its table.

| in the stream | in the table |
|---|---|
| column added | column added at the end, nullable; old rows hold null |
| column dropped | kept; new rows hold null |
| type widened: int2 < int4 < int8, float4 < float8, numeric(p, s) to larger p | widened; the values stay |
| anything else (other type, narrowed, other key) | stops with an error that names the column |

Every column but the key is nullable in the table: a dropped column has no values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from tailrace.changes import TableSchema, TailraceError

_WIDTHS = ((pa.int16(), pa.int32(), pa.int64()), (pa.float32(), pa.float64()))


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """The table's schema after the change, and which columns got a wider type."""

    schema: pa.Schema
    widened: tuple[str, ...]


def stored_schema(
    stream: TableSchema, stored_type: Callable[[pa.DataType], pa.DataType], *, keyed: bool
) -> pa.Schema:
    """The schema of a new table for `stream`; key columns are required when `keyed`."""
    return pa.schema(
        [
            pa.field(
                field.name,
                stored_type(_usual_type(field.type)),
                nullable=not (keyed and field.name in stream.key),
            )
            for field in stream.arrow
        ]
    )


def evolve(table: pa.Schema, stream: pa.Schema, *, location: str) -> SchemaChange | None:
    """What `table` must become to hold rows of `stream` (both in stored types); None for no change.

    TailraceError when it cannot without loss.
    """
    fields = {field.name: field for field in table}
    widened = []
    for field in stream:
        have = fields.get(field.name)
        if have is None:
            fields[field.name] = field.with_nullable(True)
        elif not (have.type.equals(field.type) or _is_wider(have.type, field.type)):
            if not _is_wider(field.type, have.type):
                raise TailraceError(
                    f"column '{field.name}' is {field.type} in the stream, {have.type} in table {location}",
                    fix="rename the column at the source, or rebuild the table under another name",
                )
            fields[field.name] = have.with_type(field.type)
            widened.append(field.name)
    schema = pa.schema(list(fields.values()))
    return None if schema.equals(table) else SchemaChange(schema, tuple(widened))


def conform(rows: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` with exactly the columns and types of `schema`: absent columns null, stored types cast.

    Buffers are shared where the type is the same.  Columns that `schema` lacks are left out.
    """
    columns = []
    for field in schema:
        index = rows.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows.column(index)
        if pa.types.is_time32(column.type):
            column = column.cast(pa.time64("us"))
        columns.append(column if column.type.equals(field.type) else column.cast(field.type))
    return pa.table(columns, schema=schema)


def _usual_type(arrow: pa.DataType) -> pa.DataType:
    """The type of ARCHITECTURE.md's column table for what foreign topics carry (Flink: milliseconds)."""
    if pa.types.is_timestamp(arrow):
        return pa.timestamp("us", arrow.tz)
    if pa.types.is_time(arrow):
        return pa.time64("us")
    return pa.int16() if pa.types.is_int8(arrow) else arrow


def _is_wider(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether every value of `narrow` is a value of `wide`, by the rules of both formats."""
    if pa.types.is_decimal128(wide) and pa.types.is_decimal128(narrow):
        return bool(wide.scale == narrow.scale and wide.precision > narrow.precision)
    for row in _WIDTHS:
        if wide in row and narrow in row:
            return row.index(wide) > row.index(narrow)
    return False
