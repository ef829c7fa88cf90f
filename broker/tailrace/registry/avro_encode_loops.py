"""The compiled loops of `avro_encode`: one column at a time into rows.

An Avro record is its fields one after the other, so a column can be written without the others: each row
has a cursor, and every loop writes its value at the cursor and moves it.

    present  uint8[n]: 1 where the row has a value to write; nothing is written where it is 0.
    sizes    int64[n], bytes of each row; the size loops add to it.
    cursors  int64[n], where in `out` the row continues; the write loops move it.
"""

import numpy as np
import numpy.typing as npt

from tailrace.broker.records.columnar_varint import Int, copy_bytes, put_varint, varint_size
from tailrace.changes.compiled import kernel

_Bytes = npt.NDArray[np.uint8]
_Longs = npt.NDArray[np.int64]


@kernel
def add_long_sizes(values: _Longs, present: _Bytes, sizes: _Longs) -> None:
    for row in range(values.size):
        if present[row]:
            sizes[row] += varint_size(values[row])


@kernel
def write_longs(values: _Longs, present: _Bytes, cursors: _Longs, out: _Bytes) -> None:
    for row in range(values.size):
        if present[row]:
            cursors[row] = put_varint(out, cursors[row], values[row])


@kernel
def write_branches(
    present: _Bytes, valid: _Bytes, null_byte: int, value_byte: int, cursors: _Longs, out: _Bytes
) -> None:
    """The index of the union's branch, a varint of one byte."""
    for row in range(present.size):
        if present[row]:
            out[cursors[row]] = value_byte if valid[row] else null_byte
            cursors[row] += 1


@kernel
def write_fixed(values: _Bytes, width: int, present: _Bytes, cursors: _Longs, out: _Bytes) -> None:
    """`width` bytes of each row as they are."""
    for row in range(present.size):
        if present[row]:
            cursors[row] = copy_bytes(out, cursors[row], values, row * width, width)


@kernel
def write_prefix(prefix: _Bytes, present: _Bytes, cursors: _Longs, out: _Bytes) -> None:
    """The same bytes in front of every row."""
    for row in range(present.size):
        if present[row]:
            cursors[row] = copy_bytes(out, cursors[row], prefix, 0, prefix.size)


@kernel
def add_bytes_sizes(offsets: _Longs, present: _Bytes, sizes: _Longs) -> None:
    for row in range(present.size):
        if present[row]:
            length = offsets[row + 1] - offsets[row]
            sizes[row] += varint_size(length) + length


@kernel
def write_bytes(offsets: _Longs, data: _Bytes, present: _Bytes, cursors: _Longs, out: _Bytes) -> None:
    for row in range(present.size):
        if present[row]:
            start = offsets[row]
            length = offsets[row + 1] - start
            cursors[row] = copy_bytes(out, put_varint(out, cursors[row], length), data, start, length)


@kernel
def _decimal_size(low: Int, high: Int) -> int:
    """Bytes of the shortest two's complement of a 128-bit number, 1 to 16."""
    word, size = (low, 1) if high == low >> 63 else (high, 9)
    rest = word ^ (word >> 63)
    while rest > 127:
        rest >>= 8
        size += 1
    return size


@kernel
def _put_decimal(out: _Bytes, position: Int, low: Int, high: Int, size: Int) -> Int:
    """The number as `size` big-endian bytes, sign-extended beyond 16."""
    for i in range(size):
        place = size - 1 - i
        if place < 8:
            byte = low >> (8 * place)
        elif place < 16:
            byte = high >> (8 * (place - 8))
        else:
            byte = high >> 63
        out[position + i] = np.uint8(byte & 0xFF)
    return position + size


@kernel
def add_decimal_sizes(words: _Longs, present: _Bytes, sizes: _Longs) -> None:
    """words  int64[2n], each number's low and high half, as Arrow's decimal128 holds them."""
    for row in range(present.size):
        if present[row]:
            sizes[row] += 1 + _decimal_size(words[2 * row], words[2 * row + 1])


@kernel
def write_decimals(words: _Longs, present: _Bytes, cursors: _Longs, out: _Bytes) -> None:
    for row in range(present.size):
        if present[row]:
            low, high = words[2 * row], words[2 * row + 1]
            size = _decimal_size(low, high)
            cursors[row] = _put_decimal(out, put_varint(out, cursors[row], size), low, high, size)


@kernel
def decimals_fit(words: _Longs, present: _Bytes, width: int) -> bool:
    fit = True
    for row in range(present.size):
        fit = fit and (not present[row] or _decimal_size(words[2 * row], words[2 * row + 1]) <= width)
    return fit


@kernel
def write_fixed_decimals(words: _Longs, width: int, present: _Bytes, cursors: _Longs, out: _Bytes) -> None:
    for row in range(present.size):
        if present[row]:
            cursors[row] = _put_decimal(out, cursors[row], words[2 * row], words[2 * row + 1], width)


@kernel
def add_list_sizes(offsets: _Longs, present: _Bytes, element_sizes: _Longs, sizes: _Longs) -> None:
    """One block of all elements, then the empty block; an empty list is the empty block alone."""
    for row in range(present.size):
        if present[row]:
            count = offsets[row + 1] - offsets[row]
            size: Int = 1
            if count:
                size += varint_size(count)
            for element in range(offsets[row], offsets[row + 1]):
                size += element_sizes[element]
            sizes[row] += size


@kernel
def mark_elements(offsets: _Longs, present: _Bytes, element_present: _Bytes) -> None:
    """Elements of lists that are written are written."""
    for row in range(present.size):
        for element in range(offsets[row], offsets[row + 1]):
            element_present[element] = present[row]


@kernel
def write_lists(
    offsets: _Longs,
    present: _Bytes,
    element_sizes: _Longs,
    cursors: _Longs,
    element_cursors: _Longs,
    out: _Bytes,
) -> None:
    """Counts and terminators; the cursors of the elements point into the gaps left for them."""
    for row in range(present.size):
        if not present[row]:
            continue
        at = cursors[row]
        count = offsets[row + 1] - offsets[row]
        if count:
            at = put_varint(out, at, count)
            for element in range(offsets[row], offsets[row + 1]):
                element_cursors[element] = at
                at += element_sizes[element]
        out[at] = 0
        cursors[row] = at + 1
