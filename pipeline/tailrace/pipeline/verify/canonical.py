"""One text for one value: how `verify` compares a table with the source.

`as_text` turns typed Arrow columns into the text that a source's fenced read renders; `typed` goes the
other way, for the SQL of a transform that is computed again.  Both follow one table:

    boolean 0|1    date days    time, timestamp microseconds    float the bits as an integer
    binary hex     interval months,days,microseconds    list [V<length>:<element>,N,...]    else the value's text
"""

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc


def as_text(table: pa.Table) -> pa.Table:
    """The same rows with every column as large_string (null stays null)."""
    plain = pa.table({name: _plain(table.column(name)) for name in table.column_names})
    if not plain.column_names:
        return plain
    with duckdb.connect() as database:
        database.register("plain", plain)
        columns = ", ".join(
            f"{_text(plain.schema.field(name).type, quoted(name))} AS {quoted(name)}"
            for name in plain.column_names
        )
        text = database.execute(f"SELECT {columns} FROM plain").to_arrow_table()
    return text.cast(pa.schema([(name, pa.large_string()) for name in text.column_names]))


def typed(text: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns of `schema` made from canonical text; columns of nested and binary types are left out."""
    columns = {
        field.name: _from_text(text.column(field.name), field.type)
        for field in schema
        if field.name in text.column_names
        and not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))
    }
    return pa.table(columns)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _plain(column: Any) -> Any:
    chunks = [_plain_array(chunk) for chunk in column.chunks]
    return pa.chunked_array(chunks) if chunks else pa.chunked_array([_plain_array(pa.array([], column.type))])


def _plain_array(array: Any) -> Any:
    """Dates, times and floats as the integers behind them, also inside lists and structs."""
    kind = array.type
    if pa.types.is_float32(kind) or pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return array.view(pa.int32())
    if pa.types.is_float64(kind):
        return array.view(pa.int64())
    if pa.types.is_timestamp(kind):
        return array.cast(pa.timestamp("us", kind.tz)).view(pa.int64())
    if pa.types.is_time64(kind):
        return array.cast(pa.time64("us")).view(pa.int64())
    if pa.types.is_boolean(kind):
        return array.cast(pa.int8())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        whole = array if array.offset == 0 else pa.concat_arrays([array])
        make = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
        return make.from_arrays(whole.offsets, _plain_array(whole.values), mask=whole.is_null())
    if pa.types.is_struct(kind):
        parts = [_plain_array(part) for part in array.flatten()]
        return pa.StructArray.from_arrays(parts, names=[field.name for field in kind], mask=array.is_null())
    return array


def _text(kind: pa.DataType, column: str) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value = _text(kind.value_type, "x")
        return (
            f"CASE WHEN {column} IS NULL THEN NULL ELSE '[' || array_to_string(list_transform({column}, x -> "
            f"CASE WHEN x IS NULL THEN 'N' ELSE 'V' || length({value}) || ':' || {value} END), ',') || ']' END"
        )
    if pa.types.is_struct(kind):
        parts = [_text(field.type, f"{column}.{quoted(field.name)}") for field in kind]
        return f"CASE WHEN {column} IS NULL THEN NULL ELSE concat_ws(',', {', '.join(parts)}) END"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return f"lower(hex({column}))"
    return f"CAST({column} AS VARCHAR)"


def _from_text(column: Any, kind: Any) -> Any:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(kind)
    if pa.types.is_boolean(kind):
        return pc.equal(column, pa.scalar("1", pa.large_string()))
    if pa.types.is_date32(kind) or pa.types.is_float32(kind):
        return _viewed(column.cast(pa.int32()), kind)
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind) or pa.types.is_float64(kind):
        return _viewed(column.cast(pa.int64()), kind)
    return column.cast(kind)


def _viewed(column: Any, kind: Any) -> Any:
    return pa.chunked_array([chunk.view(kind) for chunk in column.chunks], kind)
