"""Arrow columns -> rows of Avro binary (Avro 1.12 specification, "Binary Encoding"), by compiled loops.

Two passes over the columns: one adds up the size of every row, one writes every column at the rows' cursors.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tailrace.broker.records.columnar import BytesColumn
from tailrace.broker.records.columnar_varint import frozen
from tailrace.changes import TailraceError
from tailrace.registry import avro_encode_loops as loops
from tailrace.registry.arrow_buffers import data_of, fixed_of, mask_of, offsets_of, truths_of
from tailrace.registry.avro_plan import Kind, Node, RowPlan, long_bounds

_Bytes = npt.NDArray[np.uint8]
_Longs = npt.NDArray[np.int64]


def encode_rows(
    batch: pa.RecordBatch,
    plan: RowPlan,
    *,
    prefix: bytes = b"",
    present: npt.NDArray[np.uint8] | None = None,
) -> BytesColumn:
    """Each row of the batch as one Avro record.

    batch    n rows; its columns have the names and types of `plan.schema`, in that order.
    prefix   bytes in front of every row, such as the registry's frame.
    present  uint8[n], 0 where there is no row: it becomes a null; None: every row is there.

    Raises TailraceError for a null in a column that is not nullable, and for a batch of another schema.
    """
    if not batch.schema.equals(plan.schema):
        raise TailraceError(
            f"an Arrow batch has the schema [{_brief(batch.schema)}], its Avro schema needs"
            f" [{_brief(plan.schema)}]",
            fix="make the plan of this batch's own schema",
        )
    count = batch.num_rows
    rows = frozen(np.ones(count, np.uint8) if present is None else present)
    sizes = rows.astype(np.int64) * len(prefix)
    parts = [_part(node, batch.column(i), rows) for i, node in enumerate(plan.columns)]
    for part in parts:
        part.measure(sizes)
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    data = np.empty(int(offsets[-1]), np.uint8)
    cursors = offsets[:-1].copy()
    loops.write_prefix(frozen(np.frombuffer(prefix, np.uint8)), rows, cursors, data)
    for part in parts:
        part.write(cursors, data)
    return BytesColumn(offsets, data, present)


def _brief(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}{'' if field.nullable else ' not null'}" for field in schema)


class _Part(Protocol):
    """A column made ready: measured once, then written once."""

    def measure(self, sizes: _Longs) -> None:
        """Add the bytes of each row's value."""

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        """Write each row's value at its cursor and move the cursor."""


def _part(node: Node, array: pa.Array[Any], present: _Bytes) -> _Part:
    if node.kind is Kind.NULL and not node.branches:
        return _Nothing()
    valid = mask_of(array)
    if valid is None:
        value = _value(node, array, present)
        return _Union(node, value, present, present) if node.branches else value
    inner = frozen(present & valid)
    if node.null_branch < 0 and not np.array_equal(inner, present):
        raise TailraceError(
            f"column '{node.path}' holds a null, but its Avro schema has none",
            fix="declare the column nullable where the schema is made",
        )
    value = _value(node, array, inner)
    return _Union(node, value, present, inner) if node.branches else value


def _value(node: Node, array: pa.Array[Any], present: _Bytes) -> _Part:
    match node.kind:
        case Kind.LONG:
            return _LongValues(_longs(node, array, present), present)
        case Kind.BOOLEAN:
            return _FixedValues(truths_of(array), 1, present)
        case Kind.NATIVE | Kind.FIXED:
            return _FixedValues(fixed_of(array).view(np.uint8), node.width, present)
        case Kind.BYTES:
            return _BytesValues(array, present)
        case Kind.DECIMAL:
            return _DecimalValues(fixed_of(array).view(np.int64), present)
        case Kind.FIXED_DECIMAL:
            return _FixedDecimalValues(node, fixed_of(array).view(np.int64), present)
        case Kind.ENUM:
            return _LongValues(_symbol_indexes(node, array, present), present)
        case Kind.LIST | Kind.MAP:
            return _ListValues(node, cast("pa.ListArray[Any]", array), present)
        case Kind.STRUCT:
            fields = cast(pa.StructArray, array)
            return _Struct([_part(child, fields.field(i), present) for i, child in enumerate(node.children)])
        case Kind.NULL:
            return _Nothing()


def _longs(node: Node, array: pa.Array[Any], present: _Bytes) -> _Longs:
    values: _Longs = fixed_of(array).astype(np.int64)
    if pa.types.is_time(node.arrow):
        smallest, largest = long_bounds(node)
        if bool((((values < smallest) | (values > largest)) & (present == 1)).any()):
            raise TailraceError(
                f"column '{node.path}' holds a time of 24:00 or later, which no time of day is",
                fix="carry the column as text",
            )
    return values


def _symbol_indexes(node: Node, array: pa.Array[Any], present: _Bytes) -> _Longs:
    symbols = pc.index_in(array, value_set=pa.array(node.symbols, pa.string()))
    numbers = np.asarray(symbols.fill_null(-1)).astype(np.int64)
    if bool(((numbers < 0) & (present == 1)).any()):
        raise TailraceError(
            f"column '{node.path}' holds a value that its Avro enum does not list",
            fix="add the symbol to the enum's schema, or carry the column as a string",
        )
    return numbers


class _Nothing:
    def measure(self, sizes: _Longs) -> None:
        """A null has no bytes."""

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        """A null has no bytes."""


class _Union:
    def __init__(self, node: Node, value: _Part, present: _Bytes, valid: _Bytes) -> None:
        self._value, self._present, self._valid = value, present, valid
        self._null_byte = 2 * max(node.null_branch, 0)
        self._value_byte = 2 if node.null_branch == 0 else 0

    def measure(self, sizes: _Longs) -> None:
        sizes += self._present
        self._value.measure(sizes)

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        loops.write_branches(self._present, self._valid, self._null_byte, self._value_byte, cursors, out)
        self._value.write(cursors, out)


class _LongValues:
    def __init__(self, values: _Longs, present: _Bytes) -> None:
        self._values, self._present = frozen(values), present

    def measure(self, sizes: _Longs) -> None:
        loops.add_long_sizes(self._values, self._present, sizes)

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        loops.write_longs(self._values, self._present, cursors, out)


class _FixedValues:
    def __init__(self, values: _Bytes, width: int, present: _Bytes) -> None:
        self._values, self._width, self._present = frozen(values), width, present

    def measure(self, sizes: _Longs) -> None:
        sizes += self._present.astype(np.int64) * self._width

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        loops.write_fixed(self._values, self._width, self._present, cursors, out)


class _BytesValues:
    def __init__(self, array: pa.Array[Any], present: _Bytes) -> None:
        self._offsets, self._data, self._present = frozen(offsets_of(array)), frozen(data_of(array)), present

    def measure(self, sizes: _Longs) -> None:
        loops.add_bytes_sizes(self._offsets, self._present, sizes)

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        loops.write_bytes(self._offsets, self._data, self._present, cursors, out)


class _DecimalValues:
    def __init__(self, words: _Longs, present: _Bytes) -> None:
        self._words, self._present = frozen(words), present

    def measure(self, sizes: _Longs) -> None:
        loops.add_decimal_sizes(self._words, self._present, sizes)

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        loops.write_decimals(self._words, self._present, cursors, out)


class _FixedDecimalValues:
    def __init__(self, node: Node, words: _Longs, present: _Bytes) -> None:
        self._words, self._width, self._present = frozen(words), node.width, present
        if not loops.decimals_fit(self._words, present, node.width):
            raise TailraceError(
                f"column '{node.path}' holds a number that does not fit its {node.width} bytes in Avro",
                fix="make the fixed type larger where the schema is made",
            )

    def measure(self, sizes: _Longs) -> None:
        sizes += self._present.astype(np.int64) * self._width

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        loops.write_fixed_decimals(self._words, self._width, self._present, cursors, out)


class _ListValues:
    """Lists and maps: a map's entries are structs of key and value."""

    def __init__(self, node: Node, array: pa.ListArray[Any], present: _Bytes) -> None:
        offsets = offsets_of(array)
        first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
        self._offsets = frozen(offsets - first)
        self._present = present
        marks = np.zeros(count, np.uint8)
        loops.mark_elements(self._offsets, present, marks)
        self._sizes = np.zeros(count, np.int64)
        element_marks = frozen(marks)
        if node.kind is Kind.LIST:
            self._element = _part(node.children[0], array.values.slice(first, count), element_marks)
        else:
            entries = cast("pa.MapArray[Any, Any]", array)
            key, value = node.children[0].children
            self._element = _Struct(
                [
                    _part(key, entries.keys.slice(first, count), element_marks),
                    _part(value, entries.items.slice(first, count), element_marks),
                ]
            )

    def measure(self, sizes: _Longs) -> None:
        self._element.measure(self._sizes)
        loops.add_list_sizes(self._offsets, self._present, frozen(self._sizes), sizes)

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        elements = np.zeros(len(self._sizes), np.int64)
        loops.write_lists(self._offsets, self._present, frozen(self._sizes), cursors, elements, out)
        self._element.write(elements, out)


class _Struct:
    def __init__(self, parts: list[_Part]) -> None:
        self._parts = parts

    def measure(self, sizes: _Longs) -> None:
        for part in self._parts:
            part.measure(sizes)

    def write(self, cursors: _Longs, out: _Bytes) -> None:
        for part in self._parts:
            part.write(cursors, out)
