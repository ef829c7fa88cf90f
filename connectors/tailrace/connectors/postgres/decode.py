"""One column of cells -> one Arrow array: picks the compiled loop for a kind and a wire format.

Both wire formats of a value give the same Arrow value.  Text is taken as it comes: the session's
client_encoding is UTF8, and the server checks it (preflight refuses a SQL_ASCII database).
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tailrace.connectors.postgres import decode_array, decode_binary, decode_numeric, decode_text
from tailrace.connectors.postgres.arrow_types import INTERVAL, Kind, ValueType
from tailrace.connectors.postgres.cells import BINARY, NULL, BadCell, Cells, Reason, check

Array: TypeAlias = "pa.Array[Any]"

_OFFSET_LIMIT = 2**31 - 1


class ColumnTooLarge(Exception):
    """The values of a column exceed the 2 GiB that 32-bit Arrow offsets can address."""


def decode_column(cells: Cells, value: ValueType) -> Array:
    """Decode cells that all have one wire format; null where a cell has no value.

    Raises BadCell for a value that `value` cannot hold, ColumnTooLarge when the rows must be halved.
    """
    if not len(cells):
        return pa.array([], value.arrow)
    if value.kind is Kind.ARRAY:
        return _arrays(cells, value)
    if value.kind is Kind.DECIMAL:
        return _decimals(cells, value.arrow)
    binary, text = _DECODERS[value.kind]
    return (binary if cells.format == BINARY else text)(cells, value.arrow)


def merge_formats(first: Array, second: Array, from_second: npt.NDArray[np.bool_]) -> Array:
    """Join two decodings of one column, each with nulls where the other wire format was used."""
    n = len(first)
    return pa.concat_arrays([first, second]).take(np.arange(n) + np.where(from_second, n, 0))


_Decoder = Callable[[Cells, pa.DataType], Array]


def _fixed(kernel: Callable[..., int], dtype: npt.DTypeLike) -> _Decoder:
    """A kernel whose output is the Arrow array's values."""

    def decode(cells: Cells, arrow: pa.DataType) -> Array:
        out = np.empty(len(cells), dtype)
        check(kernel(cells.data, cells.start, cells.length, out))
        return _array(arrow, cells, out)

    return decode


def _bools(kernel: Callable[..., int]) -> _Decoder:
    def decode(cells: Cells, arrow: pa.DataType) -> Array:
        out = np.empty(len(cells), np.bool_)
        check(kernel(cells.data, cells.start, cells.length, out))
        return _array(arrow, cells, np.packbits(out, bitorder="little"))

    return decode


def _integers_of_text(cells: Cells, arrow: pa.DataType) -> Array:
    out = np.empty(len(cells), np.int64)
    check(decode_text.integers(cells.data, cells.start, cells.length, out))
    return _array(pa.int64(), cells, out).cast(arrow)


def _floats_of_text(cells: Cells, arrow: pa.DataType) -> Array:
    """Arrow's parser rounds correctly and knows NaN and Infinity."""
    texts = _texts(cells, pa.string())
    try:
        return pc.cast(texts, arrow)
    except pa.ArrowInvalid:
        row = next(row for row in range(len(texts)) if not _is_castable(texts[row : row + 1], arrow))
        raise BadCell(row, Reason.MALFORMED) from None


def _is_castable(texts: Array, arrow: pa.DataType) -> bool:
    try:
        pc.cast(texts, arrow)
    except pa.ArrowInvalid:
        return False
    return True


def _texts(cells: Cells, arrow: pa.DataType) -> Array:
    return _copied(cells, arrow, 0)


def _jsonb(cells: Cells, arrow: pa.DataType) -> Array:
    """jsonb_send puts a version byte before the text."""
    return _copied(cells, arrow, 1)


def _copied(cells: Cells, arrow: pa.DataType, skip: int) -> Array:
    offsets = np.empty(len(cells) + 1, np.int64)
    check(decode_binary.text_offsets(cells.length, skip, offsets))
    out = _variable(offsets)
    decode_binary.copy_bytes(cells.data, cells.start, cells.length, skip, offsets, out)
    return _array(arrow, cells, offsets.astype(np.int32), out)


def _bytea_of_text(cells: Cells, arrow: pa.DataType) -> Array:
    offsets = np.empty(len(cells) + 1, np.int64)
    check(decode_text.hex_offsets(cells.data, cells.start, cells.length, offsets))
    out = _variable(offsets)
    decode_text.from_hex(cells.data, cells.start, offsets, out)
    return _array(arrow, cells, offsets.astype(np.int32), out)


def _uuids(cells: Cells, arrow: pa.DataType) -> Array:
    offsets = np.zeros(len(cells) + 1, np.int64)
    np.cumsum(np.where(cells.valid(), 36, 0), out=offsets[1:])
    out = _variable(offsets)
    check(decode_binary.uuids(cells.data, cells.start, cells.length, out))
    return _array(arrow, cells, offsets.astype(np.int32), out)


def _numeric_texts(cells: Cells, arrow: pa.DataType) -> Array:
    where = (cells.data, cells.start, cells.length)
    offsets = np.empty(len(cells) + 1, np.int64)
    check(decode_numeric.numeric_text_offsets(*where, offsets))
    out = _variable(offsets)
    decode_numeric.numeric_texts(*where, offsets, decode_numeric.SPECIAL_NUMBERS, out)
    return _array(arrow, cells, offsets.astype(np.int32), out)


def _decimals(cells: Cells, arrow: Any) -> Array:
    binary = cells.format == BINARY
    kernel = decode_numeric.decimals if binary else decode_numeric.decimals_from_text
    out = np.empty(2 * len(cells), np.int64)
    check(kernel(cells.data, cells.start, cells.length, arrow.precision, arrow.scale, out))
    return _array(arrow, cells, out)


def _intervals(kernel: Callable[..., int]) -> _Decoder:
    def decode(cells: Cells, arrow: pa.DataType) -> Array:
        n = len(cells)
        months, days, micros = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int64)
        check(kernel(cells.data, cells.start, cells.length, months, days, micros))
        mask = pa.array(~cells.valid()) if cells.nulls else None
        children = [pa.array(months), pa.array(days), pa.array(micros)]
        return pa.StructArray.from_arrays(children, fields=list(INTERVAL), mask=mask)

    return decode


def _arrays(cells: Cells, value: ValueType) -> Array:
    assert value.element is not None
    where = (cells.data, cells.start, cells.length)
    offsets = np.empty(len(cells) + 1, np.int64)
    binary = cells.format == BINARY
    sizes = decode_array.array_sizes if binary else decode_array.array_sizes_of_text
    check(sizes(*where, offsets))
    count = int(offsets[-1])
    if count > _OFFSET_LIMIT:
        raise ColumnTooLarge
    start, length = np.empty(count, np.int64), np.empty(count, np.int32)
    data = cells.data
    if binary:
        check(decode_array.array_elements(*where, offsets, start, length))
    else:
        plain = np.empty(int(cells.length[cells.valid()].sum(dtype=np.int64)), np.uint8)
        decode_array.array_elements_of_text(*where, offsets, start, length, plain)
        plain.flags.writeable = False
        data = plain
    elements = Cells(data, start, length, cells.format, bool((length == NULL).any()))
    try:
        values = decode_column(elements, value.element)
    except BadCell as bad:
        row = int(np.searchsorted(offsets, bad.row, side="right")) - 1
        raise BadCell(row, bad.reason) from None
    return pa.Array.from_buffers(
        value.arrow,
        len(cells),
        [cells.validity(), pa.py_buffer(offsets.astype(np.int32).data)],
        children=[values],
    )


def _variable(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Room for the bytes that `offsets` lays out."""
    size = int(offsets[-1])
    if size > _OFFSET_LIMIT:
        raise ColumnTooLarge
    return np.empty(size, np.uint8)


def _array(arrow: pa.DataType, cells: Cells, *buffers: npt.NDArray[Any]) -> Array:
    return pa.Array.from_buffers(
        arrow, len(cells), [cells.validity(), *(pa.py_buffer(buffer.data) for buffer in buffers)]
    )


_DECODERS: dict[Kind, tuple[_Decoder, _Decoder]] = {
    Kind.BOOL: (_bools(decode_binary.bools), _bools(decode_text.bools)),
    Kind.INT2: (_fixed(decode_binary.int16s, np.int16), _integers_of_text),
    Kind.INT4: (_fixed(decode_binary.int32s, np.int32), _integers_of_text),
    Kind.INT8: (_fixed(decode_binary.int64s, np.int64), _integers_of_text),
    Kind.FLOAT4: (_fixed(decode_binary.int32s, np.int32), _floats_of_text),
    Kind.FLOAT8: (_fixed(decode_binary.int64s, np.int64), _floats_of_text),
    Kind.NUMERIC_TEXT: (_numeric_texts, _texts),
    Kind.TEXT: (_texts, _texts),
    Kind.JSONB: (_jsonb, _texts),
    Kind.BYTEA: (_texts, _bytea_of_text),
    Kind.DATE: (_fixed(decode_binary.dates, np.int32), _fixed(decode_text.dates, np.int32)),
    Kind.TIME: (_fixed(decode_binary.times, np.int64), _fixed(decode_text.times, np.int64)),
    Kind.TIMESTAMP: (
        _fixed(decode_binary.timestamps, np.int64),
        _fixed(decode_text.timestamps, np.int64),
    ),
    Kind.INTERVAL: (_intervals(decode_binary.intervals), _intervals(decode_text.intervals)),
    Kind.UUID: (_uuids, _texts),
    Kind.RAW_TEXT: (_texts, _texts),
}
"""(binary, text) per kind.  RAW_TEXT's first: COPY sends a value cast to text in "binary" too."""
