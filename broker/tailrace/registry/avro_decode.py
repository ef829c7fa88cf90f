"""Rows of Avro binary -> Arrow columns (Avro 1.12 specification, "Binary Encoding"), by compiled loops.

The rows may hold anything: whatever is not Avro of the schema ends in a TailraceError that names the row,
and no byte outside a row is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.broker.records.columnar_varint import frozen
from tailrace.changes import TailraceError
from tailrace.registry import avro_decode_loops as loops
from tailrace.registry.arrow_buffers import bitmap, buffer_of
from tailrace.registry.avro_decode_loops import Walk
from tailrace.registry.avro_plan import Kind, Node, RowPlan, long_bounds

_Bytes = npt.NDArray[np.uint8]
_Longs = npt.NDArray[np.int64]

_MAX_STRING_BYTES = (1 << 31) - 1
_LONG_DTYPES: dict[int, type[np.signedinteger[Any]]] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}


def decode_rows(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    plan: RowPlan,
    *,
    present: npt.NDArray[np.uint8] | None = None,
    where: Callable[[int], str] = "row {}".format,
) -> pa.RecordBatch:
    """n Avro records as an Arrow batch of `plan.schema`.

    data      uint8[...], holds every row; not kept, so it may go away afterwards.
    starts    int64[n], where the row's Avro binary begins (behind the registry's frame).
    lengths   int64[n], its bytes.
    present   uint8[n], 0 where there is no row: all columns are null there, also those that are not nullable.
    where     names row i in errors, as "topic t, partition 0, offset 17".

    Raises TailraceError for a row that is not Avro of the schema, ends early or late, or holds text that is
    not UTF-8 or a decimal of more digits than its type; and for 2 GiB of text in one column.
    """
    count = len(starts)
    last = starts + lengths
    if count and (min(int(starts.min()), int(lengths.min())) < 0 or int(last.max()) > len(data)):
        raise ValueError("a row lies outside the data")
    rows = frozen(np.ones(count, np.uint8) if present is None else present)
    walk = Walk(frozen(data), starts.astype(np.int64), frozen(last))
    try:
        columns = [_read(node, walk, rows) for node in plan.columns]
        late = np.flatnonzero((walk.cursors != walk.ends) & (rows == 1))
        if len(late):
            raise _MalformedError(int(late[0]), "its last field")
    except _MalformedError as error:
        raise TailraceError(
            f"{where(error.row)}: the bytes are not Avro of the row's schema, at {error.path}",
            fix="find the producer that wrote them with another schema, or start after this offset",
        ) from None
    return pa.RecordBatch.from_arrays(columns, schema=plan.schema)


class _MalformedError(Exception):
    def __init__(self, row: int, path: str) -> None:
        super().__init__(row, path)
        self.row, self.path = row, path


def _check(node: Node, bad: int) -> None:
    if bad >= 0:
        raise _MalformedError(bad, f"column '{node.path}'")


def _read(node: Node, walk: Walk, present: _Bytes) -> pa.Array[Any]:
    """The column of a node, and every cursor moved past it."""
    if not node.branches:
        return _read_value(node, walk, present)
    valid = np.empty(len(walk.cursors), np.uint8)
    bad = loops.read_branches(walk, present, node.null_branch, node.branches, valid)
    _check(node, bad)
    return _read_value(node, walk, frozen(valid))


def _read_value(node: Node, walk: Walk, present: _Bytes) -> pa.Array[Any]:
    match node.kind:
        case Kind.NULL:
            return pa.nulls(len(walk.cursors))
        case Kind.LONG:
            return _read_longs(node, walk, present)
        case Kind.BOOLEAN:
            values = np.empty(len(walk.cursors), np.uint8)
            _check(node, loops.read_booleans(walk, present, values))
            return _array(node, present, buffer_of(np.packbits(values, bitorder="little")))
        case Kind.NATIVE | Kind.FIXED:
            return _array(node, present, buffer_of(_read_fixed(node, walk, present)))
        case Kind.BYTES:
            return _read_strings(node, walk, present)
        case Kind.DECIMAL | Kind.FIXED_DECIMAL:
            return _read_decimals(node, walk, present)
        case Kind.ENUM:
            return _read_enum(node, walk, present)
        case Kind.LIST | Kind.MAP:
            return _read_list(node, walk, present)
        case Kind.STRUCT:
            children = [_read(child, walk, present) for child in node.children]
            return pa.Array.from_buffers(node.arrow, len(walk.cursors), [bitmap(present)], children=children)


def _array(node: Node, present: _Bytes, *buffers: pa.Buffer) -> pa.Array[Any]:
    return pa.Array.from_buffers(node.arrow, len(present), [bitmap(present), *buffers])


def _read_longs(node: Node, walk: Walk, present: _Bytes) -> pa.Array[Any]:
    width = node.arrow.bit_width
    smallest, largest = long_bounds(node)
    values = np.empty(len(walk.cursors), np.int64)
    bad = loops.read_longs(walk, present, smallest, largest, values)
    _check(node, bad)
    return _array(node, present, buffer_of(values.astype(_LONG_DTYPES[width], copy=False)))


def _read_fixed(node: Node, walk: Walk, present: _Bytes) -> _Bytes:
    values = np.empty(len(walk.cursors) * node.width, np.uint8)
    _check(node, loops.read_fixed(walk, present, node.width, values))
    return values


def _read_strings(node: Node, walk: Walk, present: _Bytes) -> pa.Array[Any]:
    starts, offsets = np.empty(len(walk.cursors), np.int64), np.empty(len(walk.cursors) + 1, np.int64)
    _check(node, loops.read_strings(walk, present, starts, offsets))
    if offsets[-1] > _MAX_STRING_BYTES:
        raise TailraceError(
            f"column '{node.path}' holds more than 2 GiB of text in one fetch",
            fix="fetch fewer bytes at a time",
        )
    joined = np.empty(int(offsets[-1]), np.uint8)
    loops.join_strings(walk.data, frozen(starts), frozen(offsets), joined)
    array = _array(node, present, buffer_of(offsets.astype(np.int32)), buffer_of(joined))
    if node.arrow == pa.string() and loops.has_wide(frozen(joined)):
        _check_utf8(node, array)
    return array


def _check_utf8(node: Node, array: pa.Array[Any]) -> None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        for row in range(len(array)):
            try:
                array[row].as_py()
            except UnicodeDecodeError:
                raise _MalformedError(row, f"column '{node.path}', which is not UTF-8") from None
        raise


def _read_decimals(node: Node, walk: Walk, present: _Bytes) -> pa.Array[Any]:
    count = len(walk.cursors)
    if node.kind is Kind.DECIMAL:
        starts, offsets = np.empty(count, np.int64), np.empty(count + 1, np.int64)
        _check(node, loops.read_strings(walk, present, starts, offsets))
        data, lengths = walk.data, np.diff(offsets)
    else:
        data = frozen(_read_fixed(node, walk, present))
        starts, lengths = np.arange(count) * node.width, np.full(count, node.width)
    limit = 10 ** cast("pa.Decimal128Type[Any, Any]", node.arrow).precision
    low, high = np.array([limit & ((1 << 64) - 1), limit >> 64], np.uint64).view(np.int64).tolist()
    words = np.empty(2 * count, np.int64)
    _check(node, loops.read_decimals(data, frozen(starts), frozen(lengths), present, low, high, words))
    return _array(node, present, buffer_of(words))


def _read_enum(node: Node, walk: Walk, present: _Bytes) -> pa.Array[Any]:
    values = np.empty(len(walk.cursors), np.int64)
    largest = len(node.symbols) - 1
    _check(node, loops.read_longs(walk, present, 0, largest, values))
    indexes = pa.Array.from_buffers(pa.int64(), len(walk.cursors), [bitmap(present), buffer_of(values)])
    return pa.array(node.symbols, pa.string()).take(indexes)


def _read_list(node: Node, walk: Walk, present: _Bytes) -> pa.Array[Any]:
    (element,) = node.children
    program: list[tuple[int, int, int, int]] = []
    _add_skips(element, program)
    steps = frozen(np.array(program, np.int64))
    offsets = np.empty(len(walk.cursors) + 1, np.int64)
    _check(node, loops.count_elements(walk, present, steps, offsets))
    count = int(offsets[-1])
    inner = Walk(walk.data, np.empty(count, np.int64), np.empty(count, np.int64))
    loops.find_elements(walk, present, steps, inner.cursors, inner.ends)
    inner = Walk(walk.data, inner.cursors, frozen(inner.ends))
    try:
        values = _read(element, inner, frozen(np.ones(count, np.uint8)))
    except _MalformedError as error:
        raise _MalformedError(int(np.searchsorted(offsets, error.row, "right")) - 1, error.path) from None
    buffers = [bitmap(present), buffer_of(offsets.astype(np.int32))]
    return pa.Array.from_buffers(node.arrow, len(walk.cursors), buffers, children=[values])


def _add_skips(node: Node, program: list[tuple[int, int, int, int]]) -> None:
    """Append the steps over a value: the skip program of `avro_decode_loops`."""
    union = len(program)
    if node.branches:
        program.append((loops.SKIP_UNION, node.null_branch, node.branches, 0))
    match node.kind:
        case Kind.LONG | Kind.ENUM:
            program.append((loops.SKIP_VARINT, 0, 0, 0))
        case Kind.BYTES | Kind.DECIMAL:
            program.append((loops.SKIP_STRING, 0, 0, 0))
        case Kind.LIST | Kind.MAP:
            blocks = len(program)
            program.append((loops.SKIP_BLOCKS, 0, 0, 0))
            _add_skips(node.children[0], program)
            program.append((loops.SKIP_NEXT, blocks, 0, 0))
            program[blocks] = (loops.SKIP_BLOCKS, len(program), 0, 0)
        case Kind.STRUCT:
            for child in node.children:
                _add_skips(child, program)
        case _:
            program.append((loops.SKIP_WIDTH, node.width, 0, 0))
    if node.branches:
        program[union] = (loops.SKIP_UNION, node.null_branch, node.branches, len(program))
