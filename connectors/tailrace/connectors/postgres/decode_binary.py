"""Compiled loops that read the binary form of values, one loop per kind, a whole column per call.

Every kernel takes the cells of a column (data, start, length; a negative length is no value) and fills `out`;
it returns GOOD, or the first row that cannot be carried with its reason.  PostgreSQL sources: the `*_send`
functions of src/backend/utils/adt.
"""

import numpy as np
import numpy.typing as npt

from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.cells import GOOD, Reason
from tailrace.connectors.postgres.wire import (
    Bytes,
    Lengths,
    Offsets,
    read_i16,
    read_i32,
    read_i64,
    read_u8,
)

_INFINITE, _OUT_OF_RANGE, _END_OF_DAY = int(Reason.INFINITE), int(Reason.OUT_OF_RANGE), int(Reason.END_OF_DAY)
_MALFORMED = int(Reason.MALFORMED)

INT32_MAX, INT32_MIN = 2**31 - 1, -(2**31)
INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)
EPOCH_DAYS = 10957
"""Days from 1970-01-01 to Postgres' 2000-01-01."""
EPOCH_MICROS = EPOCH_DAYS * 86_400_000_000
DAY_MICROS = 86_400_000_000


@kernel
def bad(row: int, reason: int) -> int:
    return row * 16 + reason


@kernel
def bools(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.bool_]) -> int:
    for i in range(length.size):
        if length[i] < 0:
            out[i] = False
        elif length[i] != 1:
            return bad(i, _MALFORMED)
        else:
            out[i] = data[start[i]] != 0
    return GOOD


@kernel
def int16s(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int16]) -> int:
    for i in range(length.size):
        if length[i] < 0:
            out[i] = 0
        elif length[i] != 2:
            return bad(i, _MALFORMED)
        else:
            out[i] = read_i16(data, start[i])
    return GOOD


@kernel
def int32s(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int32]) -> int:
    """int4, and the bits of float4."""
    for i in range(length.size):
        if length[i] < 0:
            out[i] = 0
        elif length[i] != 4:
            return bad(i, _MALFORMED)
        else:
            out[i] = read_i32(data, start[i])
    return GOOD


@kernel
def int64s(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int64]) -> int:
    """int8, and the bits of float8."""
    for i in range(length.size):
        if length[i] < 0:
            out[i] = 0
        elif length[i] != 8:
            return bad(i, _MALFORMED)
        else:
            out[i] = read_i64(data, start[i])
    return GOOD


@kernel
def dates(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int32]) -> int:
    for i in range(length.size):
        if length[i] < 0:
            out[i] = 0
            continue
        if length[i] != 4:
            return bad(i, _MALFORMED)
        days = read_i32(data, start[i])
        if days in (INT32_MAX, INT32_MIN):
            return bad(i, _INFINITE)
        out[i] = days + EPOCH_DAYS
    return GOOD


@kernel
def times(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int64]) -> int:
    for i in range(length.size):
        if length[i] < 0:
            out[i] = 0
            continue
        if length[i] != 8:
            return bad(i, _MALFORMED)
        micros = read_i64(data, start[i])
        if micros >= DAY_MICROS:
            return bad(i, _END_OF_DAY)
        out[i] = micros
    return GOOD


@kernel
def timestamps(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int64]) -> int:
    for i in range(length.size):
        if length[i] < 0:
            out[i] = 0
            continue
        if length[i] != 8:
            return bad(i, _MALFORMED)
        micros = read_i64(data, start[i])
        if micros in (INT64_MAX, INT64_MIN):
            return bad(i, _INFINITE)
        if micros > INT64_MAX - EPOCH_MICROS:
            return bad(i, _OUT_OF_RANGE)
        out[i] = micros + EPOCH_MICROS
    return GOOD


@kernel
def intervals(
    data: Bytes,
    start: Offsets,
    length: Lengths,
    months: npt.NDArray[np.int32],
    days: npt.NDArray[np.int32],
    micros: npt.NDArray[np.int64],
) -> int:
    """Int64 microseconds, Int32 days, Int32 months; all at their largest or smallest is an infinity (17)."""
    for i in range(length.size):
        if length[i] < 0:
            months[i] = days[i] = 0
            micros[i] = 0
            continue
        if length[i] != 16:
            return bad(i, _MALFORMED)
        m, d, u = read_i32(data, start[i] + 12), read_i32(data, start[i] + 8), read_i64(data, start[i])
        if (m == INT32_MAX and d == INT32_MAX and u == INT64_MAX) or (
            m == INT32_MIN and d == INT32_MIN and u == INT64_MIN
        ):
            return bad(i, _INFINITE)
        months[i] = m
        days[i] = d
        micros[i] = u
    return GOOD


@kernel
def text_offsets(length: Lengths, skip: int, offsets: npt.NDArray[np.int64]) -> int:
    """Arrow offsets of values that are copied without their first `skip` bytes."""
    total = 0
    for i in range(length.size):
        offsets[i] = total
        if length[i] >= 0:
            if length[i] < skip:
                return bad(i, _MALFORMED)
            total += length[i] - skip
    offsets[length.size] = total
    return GOOD


@kernel
def copy_bytes(
    data: Bytes, start: Offsets, length: Lengths, skip: int, offsets: npt.NDArray[np.int64], out: Bytes
) -> None:
    for i in range(length.size):
        source, target = start[i] + skip, offsets[i]
        for j in range(length[i] - skip):
            out[target + j] = data[source + j]


@kernel
def hex_digit(value: int) -> int:
    return value + (48 if value < 10 else 87)


@kernel
def uuids(data: Bytes, start: Offsets, length: Lengths, out: Bytes) -> int:
    """36 characters each, packed one after another, none for a null."""
    at = 0
    for i in range(length.size):
        if length[i] < 0:
            continue
        if length[i] != 16:
            return bad(i, _MALFORMED)
        for j in range(16):
            if j == 4 or j == 6 or j == 8 or j == 10:
                out[at] = 45
                at += 1
            byte = read_u8(data, start[i] + j)
            out[at] = hex_digit(byte >> 4)
            out[at + 1] = hex_digit(byte & 15)
            at += 2
    return GOOD
