"""Compiled loops that find the elements of one-dimensional arrays, in binary and in text form.

Binary (array_send): Int32 dimensions | Int32 flags | Int32 element OID | per dimension Int32 size, Int32 lower
bound | per element Int32 length (-1: null), binary form.  Text (array_out): {1,NULL,"with \\" and \\\\"}.
"""

import numpy as np
import numpy.typing as npt

from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.cells import GOOD, NULL, Reason
from tailrace.connectors.postgres.decode_binary import bad
from tailrace.connectors.postgres.wire import Bytes, Lengths, Offsets, read_i32, read_u8

_DIMENSIONS, _BOUNDS, _MALFORMED = int(Reason.DIMENSIONS), int(Reason.BOUNDS), int(Reason.MALFORMED)
_HEADER, _ELEMENTS = 12, 20
_OPEN, _CLOSE, _COMMA = ord("{"), ord("}"), ord(",")
_QUOTE, _ESCAPE, _BOUND = ord('"'), ord("\\"), ord("[")
_NULL_WORD = (78, 85, 76, 76)


@kernel
def array_sizes(data: Bytes, start: Offsets, length: Lengths, offsets: npt.NDArray[np.int64]) -> int:
    """List offsets of binary arrays."""
    total = 0
    for i in range(length.size):
        offsets[i] = total
        if length[i] < 0:
            continue
        if length[i] < _HEADER:
            return bad(i, _MALFORMED)
        rank = read_i32(data, start[i])
        if rank == 0:
            continue
        if rank != 1:
            return bad(i, _DIMENSIONS)
        if length[i] < _ELEMENTS:
            return bad(i, _MALFORMED)
        if read_i32(data, start[i] + 16) != 1:
            return bad(i, _BOUNDS)
        count = read_i32(data, start[i] + 12)
        if count < 0 or length[i] < _ELEMENTS + 4 * count:
            return bad(i, _MALFORMED)
        total += count
    offsets[length.size] = total
    return GOOD


@kernel
def array_elements(
    data: Bytes,
    start: Offsets,
    length: Lengths,
    offsets: npt.NDArray[np.int64],
    element_start: Offsets,
    element_length: Lengths,
) -> int:
    """Where the elements of binary arrays lie in `data`."""
    for i in range(length.size):
        at, end = start[i] + _ELEMENTS, start[i] + length[i]
        for k in range(offsets[i], offsets[i + 1]):
            if at + 4 > end:
                return bad(i, _MALFORMED)
            size = read_i32(data, at)
            at += 4
            if size < NULL or at + size > end:
                return bad(i, _MALFORMED)
            element_start[k] = at
            element_length[k] = size
            at += max(size, 0)
    return GOOD


@kernel
def array_sizes_of_text(data: Bytes, start: Offsets, length: Lengths, offsets: npt.NDArray[np.int64]) -> int:
    """List offsets of arrays in text form."""
    total = 0
    for i in range(length.size):
        offsets[i] = total
        if length[i] < 0:
            continue
        at, end = start[i], start[i] + length[i]
        if length[i] < 2 or data[end - 1] != _CLOSE:
            return bad(i, _MALFORMED)
        if data[at] == _BOUND:
            return bad(i, _BOUNDS)
        if length[i] == 2:
            continue
        count, quoted = 1, False
        at += 1
        while at < end - 1:
            byte = data[at]
            if byte == _ESCAPE:
                at += 1
            elif byte == _QUOTE:
                quoted = not quoted
            elif not quoted and byte == _OPEN:
                return bad(i, _DIMENSIONS)
            elif not quoted and byte == _CLOSE:
                return bad(i, _MALFORMED)
            elif not quoted and byte == _COMMA:
                count += 1
            at += 1
        if quoted or at != end - 1:
            return bad(i, _MALFORMED)
        total += count
    offsets[length.size] = total
    return GOOD


@kernel
def is_null_word(data: Bytes, at: int, end: int) -> bool:
    return end - at == 4 and (data[at], data[at + 1], data[at + 2], data[at + 3]) == _NULL_WORD


@kernel
def array_elements_of_text(
    data: Bytes,
    start: Offsets,
    length: Lengths,
    offsets: npt.NDArray[np.int64],
    element_start: Offsets,
    element_length: Lengths,
    plain: Bytes,
) -> None:
    """Write the elements without quotes and escapes to `plain`, which is as large as all arrays together."""
    target = 0
    for i in range(length.size):
        at = start[i] + 1
        for k in range(offsets[i], offsets[i + 1]):
            first, raw, quoted, was_quoted = target, at, False, False
            while True:
                byte = read_u8(data, at)
                if byte == _QUOTE:
                    quoted = not quoted
                    was_quoted = True
                elif not quoted and byte in (_COMMA, _CLOSE):
                    break
                else:
                    if byte == _ESCAPE:
                        at += 1
                    plain[target] = data[at]
                    target += 1
                at += 1
            element_start[k] = first
            is_null = not was_quoted and is_null_word(data, raw, at)
            element_length[k] = NULL if is_null else target - first
            at += 1
