"""Arrow arrays as NumPy arrays over their buffers, slices included (Arrow columnar format, "Physical Memory
Layout").  Views where the layout allows it, all of the array's own length n."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.broker.records.columnar_varint import frozen
from tailrace.registry.avro_decode_loops import join_strings

_WIDTH_DTYPES: dict[int, type[np.generic]] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def mask_of(array: pa.Array[Any]) -> npt.NDArray[np.uint8] | None:
    """uint8[n], 1 where the array has a value; None where it has no nulls."""
    if array.null_count == 0:
        return None
    buffer = array.buffers()[0]
    if buffer is None:  # an array of type null has no bitmap
        return np.zeros(len(array), np.uint8)
    return _bits(buffer, array)


def truths_of(array: pa.Array[Any]) -> npt.NDArray[np.uint8]:
    """uint8[n] of 0 and 1: the values of a bool array, anything under nulls."""
    buffer = array.buffers()[1]
    return np.zeros(len(array), np.uint8) if buffer is None else _bits(buffer, array)


def fixed_of(array: pa.Array[Any]) -> npt.NDArray[Any]:
    """The values of a fixed-width array: int8..64[n] for integers and times, uint8[n * width] for others."""
    width = array.type.bit_width // 8
    dtype: type[np.generic] = np.uint8 if _is_opaque(array.type) else _WIDTH_DTYPES[width]
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(0, dtype)
    count = len(array) * width // np.dtype(dtype).itemsize
    return np.frombuffer(memoryview(buffer), dtype, count, array.offset * width)


def offsets_of(array: pa.Array[Any]) -> npt.NDArray[np.int64]:
    """int64[n + 1]: where each string or list starts in the array's data or child."""
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(len(array) + 1, np.int64)
    return np.frombuffer(memoryview(buffer), np.int32, len(array) + 1, array.offset * 4).astype(np.int64)


def data_of(array: pa.Array[Any]) -> npt.NDArray[np.uint8]:
    """The bytes that the offsets of a string or binary array point into."""
    buffer = array.buffers()[2]
    return np.zeros(0, np.uint8) if buffer is None else np.frombuffer(memoryview(buffer), np.uint8)


def joined(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> pa.BinaryArray:
    """The n byte strings at `starts` in `data` as a binary array; at most 2 GiB together."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    out = np.empty(int(offsets[-1]), np.uint8)
    join_strings(frozen(data), frozen(starts), frozen(offsets), out)
    buffers = [None, buffer_of(offsets.astype(np.int32)), buffer_of(out)]
    return cast(pa.BinaryArray, pa.Array.from_buffers(pa.binary(), len(starts), buffers))


def bitmap(mask: npt.NDArray[np.uint8]) -> pa.Buffer | None:
    """An Arrow validity bitmap of uint8[n] 0 and 1; None where no row is null."""
    return None if mask.all() else buffer_of(np.packbits(mask, bitorder="little"))


def buffer_of(array: npt.NDArray[Any]) -> pa.Buffer:
    """An Arrow buffer over the array's memory, which it keeps alive."""
    return pa.py_buffer(cast(Any, np.ascontiguousarray(array)))


def _is_opaque(arrow: pa.DataType) -> bool:
    return isinstance(arrow, pa.FixedSizeBinaryType | pa.Decimal128Type)


def _bits(buffer: pa.Buffer, array: pa.Array[Any]) -> npt.NDArray[np.uint8]:
    first, skip = divmod(array.offset, 8)
    size = (skip + len(array) + 7) // 8
    packed = np.frombuffer(memoryview(buffer), np.uint8, size, first)
    return np.unpackbits(packed, count=skip + len(array), bitorder="little")[skip:]
