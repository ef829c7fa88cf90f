"""Zigzag varints inside compiled loops: Kafka's varint/varlong and Avro's int/long are the same bytes.

    zigzag(v) = (v << 1) ^ (v >> 63), then groups of 7 bits, lowest first; bit 7 of a byte: another follows

(Kafka protocol guide, "Protocol Primitive Types"; Avro 1.12 specification, "Binary Encoding".)  Numba caches
a kernel by its own file: after a change here delete the `__pycache__` of the files that call these.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tailrace.changes.compiled import kernel

Int = int | np.int64
"""An int64 inside a kernel."""

_Scalar = TypeVar("_Scalar", bound=np.generic)
_SEVEN = np.uint64(7)
_LOW_BITS = np.uint64(0x7F)
_TOP_SHIFT = np.uint64(63)


@kernel
def varint_size(value: Int) -> Int:
    """Bytes of `value` as a varint, 1 to 10."""
    rest = np.uint64((value << 1) ^ (value >> 63)) >> _SEVEN
    size: Int = 1
    while rest:
        rest >>= _SEVEN
        size += 1
    return size


@kernel
def put_varint(out: npt.NDArray[np.uint8], position: Int, value: Int) -> Int:
    """Write `value` at `position`; the position after it."""
    rest = np.uint64((value << 1) ^ (value >> 63))
    while rest > _LOW_BITS:
        out[position] = np.uint8(rest & _LOW_BITS) | np.uint8(0x80)
        rest >>= _SEVEN
        position += 1
    out[position] = np.uint8(rest)
    return position + 1


@kernel
def get_varint(data: npt.NDArray[np.uint8], position: Int, end: Int) -> tuple[Int, Int]:
    """The value at `position` and the position after it; position -1 when it passes `end` or 64 bits."""
    bits = np.uint64(0)
    shift = np.uint64(0)
    while position < end:
        byte = data[position]
        position += 1
        bits |= (np.uint64(byte) & _LOW_BITS) << shift
        if byte < 128:
            if shift == _TOP_SHIFT and byte > 1:
                break
            return np.int64(bits >> np.uint64(1)) ^ -np.int64(bits & np.uint64(1)), position
        shift += _SEVEN
        if shift > _TOP_SHIFT:
            break
    return 0, -1


@kernel
def copy_bytes(
    out: npt.NDArray[np.uint8], position: Int, data: npt.NDArray[np.uint8], start: Int, length: Int
) -> Int:
    """Copy `length` bytes; the position after them in `out`."""
    # Unsigned indexes: a signed one may count from the end, and that test keeps the loop from being vectorised.
    to, first = np.uint64(position), np.uint64(start)
    for i in range(np.uint64(length)):
        out[to + i] = data[first + i]
    return position + length


def frozen(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """A contiguous read-only view: a kernel is compiled once for Arrow's buffers and for NumPy's arrays."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
