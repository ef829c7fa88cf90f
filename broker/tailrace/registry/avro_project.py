"""Rows of one schema as rows of another: what an older record looks like under the table's newer columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tailrace.changes import TailraceError

_WIDTHS: list[pa.DataType] = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]


def project_rows(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch under `schema`: columns by name, a missing one null, a narrower type widened.

    Widened without loss: integers, integers of at most 32 bits and float32 to float64, a decimal to one with
    no fewer digits before and behind the point, times and timestamps to a finer unit.  Columns that `schema`
    does not have are dropped.  Raises TailraceError for a type that cannot be widened so, and for a value
    that leaves the range of a finer unit.
    """
    columns = [_column(batch, field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(batch: pa.RecordBatch, field: pa.Field[Any]) -> pa.Array[Any]:
    index = batch.schema.get_field_index(field.name)
    if index < 0:
        missing: pa.Array[Any] = pa.nulls(batch.num_rows, field.type)
        return missing
    column: pa.Array[Any] = batch.column(index)
    if column.type == field.type:
        return column
    if not _widens(column.type, field.type):
        raise TailraceError(
            f"column '{field.name}' was {column.type} and is now {field.type}: older records cannot be read so",
            fix="take a new initial snapshot of the table, or give the changed column another name",
        )
    try:
        widened: pa.Array[Any] = pc.cast(column, field.type)
    except pa.ArrowInvalid:
        raise TailraceError(
            f"column '{field.name}' holds a {column.type} outside the range of {field.type}",
            fix="carry the column as text",
        ) from None
    return widened


def _widens(old: Any, new: Any) -> bool:
    if old in _WIDTHS:
        if new == pa.float64():
            return bool(old != pa.int64())
        return new in _WIDTHS and _WIDTHS.index(old) < _WIDTHS.index(new)
    if isinstance(old, pa.Decimal128Type) and isinstance(new, pa.Decimal128Type):
        return bool(new.scale >= old.scale and new.precision - new.scale >= old.precision - old.scale)
    if pa.types.is_timestamp(old) and pa.types.is_timestamp(new):
        return bool(old.tz == new.tz and _is_finer(old.unit, new.unit))
    if pa.types.is_time(old) and pa.types.is_time(new):
        return _is_finer(old.unit, new.unit)
    return bool(old == pa.float32() and new == pa.float64())


def _is_finer(old: str, new: str) -> bool:
    units = ["s", "ms", "us", "ns"]
    return units.index(old) < units.index(new)
