"""Reading the wire's integers in compiled loops: big-endian, at any address."""

import numpy as np
import numpy.typing as npt

from tailrace.changes.compiled import kernel

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@kernel
def signed(value: int | np.uint8) -> int:
    """A byte as a signed 64-bit integer: Numba keeps uint8 unsigned and turns mixed sums into floats."""
    return np.int64(value)  # type: ignore[return-value]  # Numba's int64 is what Python calls int


@kernel
def read_u8(data: Bytes, at: int) -> int:
    return signed(data[at])


@kernel
def read_u16(data: Bytes, at: int) -> int:
    return signed(data[at]) << 8 | signed(data[at + 1])


@kernel
def read_i16(data: Bytes, at: int) -> int:
    return (read_u16(data, at) ^ 0x8000) - 0x8000


@kernel
def read_u32(data: Bytes, at: int) -> int:
    return read_u16(data, at) << 16 | read_u16(data, at + 2)


@kernel
def read_i32(data: Bytes, at: int) -> int:
    return (read_u32(data, at) ^ 0x80000000) - 0x80000000


@kernel
def read_i64(data: Bytes, at: int) -> int:
    return read_u32(data, at) << 32 | read_u32(data, at + 4)
