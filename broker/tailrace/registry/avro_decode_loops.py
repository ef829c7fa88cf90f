"""The compiled loops of `avro_decode`: one column at a time out of rows.

An Avro record is its fields one after the other, so each row has a cursor, and every loop reads its value
at the cursor and moves it.  No loop reads at or behind a row's end.

    present  uint8[n]: 1 where the row has a value to read; its cursor stays where it is 0.

Each loop gives the index of the first row whose bytes are not Avro of the schema, -1 when there is none.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace.broker.records.columnar_varint import Int, copy_bytes, get_varint
from tailrace.changes.compiled import kernel

_Bytes = npt.NDArray[np.uint8]
_Ints = npt.NDArray[np.int32]
_Longs = npt.NDArray[np.int64]

# Codes of a skip program, which finds the end of a value of any layout.  A step is (code, a, b, c); a struct is
# the steps of its fields.  Steps, not recursion: Numba crashes on a recursive function from its cache.
SKIP_VARINT = 0
SKIP_WIDTH = 1
"""a: bytes."""
SKIP_STRING = 2
SKIP_UNION = 3
"""a: index of the null branch (-1: none), b: number of branches, c: the step after the value."""
SKIP_BLOCKS = 4
"""a: the step after the matching SKIP_NEXT; between them the steps of an element."""
SKIP_NEXT = 5
"""a: the step of its SKIP_BLOCKS."""


class Walk(NamedTuple):
    """n rows and how far each has been read."""

    data: _Bytes
    """uint8[...], all rows."""
    cursors: _Longs
    """int64[n], where the row continues; moved."""
    ends: _Longs
    """int64[n], where the row ends."""


@kernel
def read_branches(
    walk: Walk,
    present: _Bytes,
    null_branch: int,
    branches: int,
    valid: _Bytes,
) -> int:
    """The union around each value; `valid` becomes 1 where the value follows."""
    for row in range(present.size):
        valid[row] = 0
        if present[row]:
            branch, at = get_varint(walk.data, walk.cursors[row], walk.ends[row])
            if at < 0 or branch < 0 or branch >= branches:
                return row
            walk.cursors[row] = at
            valid[row] = branch != null_branch
    return -1


@kernel
def read_longs(
    walk: Walk,
    present: _Bytes,
    smallest: Int,
    largest: Int,
    values: _Longs,
) -> int:
    """int64[n]; 0 where not present."""
    for row in range(present.size):
        values[row] = 0
        if present[row]:
            value, at = get_varint(walk.data, walk.cursors[row], walk.ends[row])
            if at < 0 or value < smallest or value > largest:
                return row
            walk.cursors[row] = at
            values[row] = value
    return -1


@kernel
def read_fixed(walk: Walk, present: _Bytes, width: int, values: _Bytes) -> int:
    """uint8[n * width]; zeros where not present."""
    for row in range(present.size):
        at = walk.cursors[row]
        if present[row]:
            if width > walk.ends[row] - at:
                return row
            copy_bytes(values, row * width, walk.data, at, width)
            walk.cursors[row] = at + width
        else:
            for i in range(width):
                values[row * width + i] = 0
    return -1


@kernel
def read_booleans(walk: Walk, present: _Bytes, values: _Bytes) -> int:
    """uint8[n] of 0 and 1."""
    for row in range(present.size):
        values[row] = 0
        if present[row]:
            at = walk.cursors[row]
            if at >= walk.ends[row] or walk.data[at] > 1:
                return row
            values[row] = walk.data[at]
            walk.cursors[row] = at + 1
    return -1


@kernel
def read_strings(walk: Walk, present: _Bytes, starts: _Longs, offsets: _Longs) -> int:
    """Where each string stands in `data`, and int64[n + 1] offsets of the strings joined."""
    total: Int = 0
    offsets[0] = 0
    for row in range(present.size):
        starts[row] = 0
        if present[row]:
            length, at = get_varint(walk.data, walk.cursors[row], walk.ends[row])
            if at < 0 or length < 0 or length > walk.ends[row] - at:
                return row
            starts[row] = at
            walk.cursors[row] = at + length
            total += length
        offsets[row + 1] = total
    return -1


@kernel
def join_strings(data: _Bytes, starts: _Longs, offsets: _Longs, out: _Bytes) -> None:
    """Copy the strings together."""
    for row in range(starts.size):
        copy_bytes(out, offsets[row], data, starts[row], offsets[row + 1] - offsets[row])


@kernel
def has_wide(data: _Bytes) -> bool:
    """Whether a byte is not ASCII."""
    seen = np.uint8(0)
    for i in range(np.uint64(data.size)):
        seen |= data[i]
    return bool(seen > 127)


@kernel
def _is_within(low: Int, high: Int, limit_low: Int, limit_high: Int) -> bool:
    """Whether the 128-bit number lies strictly between -limit and limit."""
    magnitude_low, magnitude_high = np.uint64(low), np.uint64(high)
    if high < 0:
        magnitude_low = ~magnitude_low + np.uint64(1)
        magnitude_high = ~magnitude_high
        if magnitude_low == np.uint64(0):
            magnitude_high += np.uint64(1)
    if magnitude_high == np.uint64(limit_high):
        return bool(magnitude_low < np.uint64(limit_low))
    return bool(magnitude_high < np.uint64(limit_high))


@kernel
def read_decimals(
    data: _Bytes,
    starts: _Longs,
    lengths: _Longs,
    present: _Bytes,
    limit_low: Int,
    limit_high: Int,
    words: _Longs,
) -> int:
    """int64[2n], low and high half of each big-endian two's complement number; 0 where not present.

    limit  10 ** precision as two halves; a number beyond it is not of the schema.  Bytes in front of the
           last 16 may only repeat the sign.
    """
    for row in range(present.size):
        low, high = np.int64(0), np.int64(0)
        if present[row] and lengths[row] > 0:
            start = starts[row]
            length = lengths[row]
            fill = np.int64(-1) if data[start] > 127 else np.int64(0)
            low, high = fill, fill
            for i in range(length):
                if i + 16 < length and np.int64(data[start + i]) != fill & 0xFF:
                    return row
                high = (high << 8) | ((low >> 56) & 0xFF)
                low = (low << 8) | np.int64(data[start + i])
            if (high < 0) != (fill < 0) or not _is_within(low, high, limit_low, limit_high):
                return row
        words[2 * row] = low
        words[2 * row + 1] = high
    return -1


@kernel
def _block(data: _Bytes, at: Int, end: Int) -> tuple[Int, Int]:
    """Number of elements of the block at `at`, and where they start; position -1 when it is damaged.

    A negative count is followed by the block's size in bytes, which is not needed.
    """
    count, at = get_varint(data, at, end)
    if at >= 0 and count < 0:
        count = -count
        size, at = get_varint(data, at, end)
        if size < 0:
            at = -1
    # Every element has at least one byte: no count makes this loop for longer than the row.
    if at < 0 or count < 0 or count > end - at:
        return 0, -1
    return count, at


@kernel
def _skip(steps: _Longs, left: _Longs, data: _Bytes, at: Int, end: Int) -> Int:
    """The position after one value, -1 when it passes `end`.

    left  scratch: elements left in each open block, as long as the program.
    """
    step: Int = 0
    depth = 0
    while step < steps.shape[0]:
        code, a = steps[step, 0], steps[step, 1]
        step += 1
        if code == SKIP_VARINT:
            _, at = get_varint(data, at, end)
        elif code == SKIP_WIDTH:
            at = at + a if a <= end - at else -1
        elif code == SKIP_STRING:
            length, at = get_varint(data, at, end)
            at = at + length if at >= 0 and 0 <= length <= end - at else -1
        elif code == SKIP_UNION:
            branch, at = get_varint(data, at, end)
            if branch < 0 or branch >= steps[step - 1, 2]:
                return -1
            if branch == a:
                step = steps[step - 1, 3]
        elif code == SKIP_BLOCKS:
            count, at = _block(data, at, end)
            if count:
                left[depth] = count
                depth += 1
            else:
                step = a
        else:
            left[depth - 1] -= 1
            if left[depth - 1]:
                step = a + 1
            else:
                depth -= 1
                step = a
        if at < 0:
            return -1
    return at


@kernel
def count_elements(
    walk: Walk,
    present: _Bytes,
    steps: _Longs,
    offsets: _Longs,
) -> int:
    """int64[n + 1] offsets of the elements of all lists joined; the cursors stay."""
    left = np.empty(steps.shape[0], np.int64)
    total: Int = 0
    offsets[0] = 0
    for row in range(present.size):
        if present[row]:
            at: Int = walk.cursors[row]
            while True:
                count, at = _block(walk.data, at, walk.ends[row])
                for _ in range(count):
                    at = _skip(steps, left, walk.data, at, walk.ends[row])
                    if at < 0:
                        return row
                if at < 0:
                    return row
                if count == 0:
                    break
                total += count
        offsets[row + 1] = total
    return -1


@kernel
def find_elements(
    walk: Walk,
    present: _Bytes,
    steps: _Longs,
    element_starts: _Longs,
    element_ends: _Longs,
) -> None:
    """Where each element stands, checked by `count_elements`; moves the cursors past the lists."""
    left = np.empty(steps.shape[0], np.int64)
    element = 0
    for row in range(present.size):
        if present[row]:
            at: Int = walk.cursors[row]
            while True:
                count, at = _block(walk.data, at, walk.ends[row])
                if count == 0:
                    break
                for _ in range(count):
                    element_starts[element] = at
                    at = _skip(steps, left, walk.data, at, walk.ends[row])
                    element_ends[element] = at
                    element += 1
            walk.cursors[row] = at
