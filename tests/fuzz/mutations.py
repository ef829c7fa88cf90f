"""Damage: valid bytes with something wrong in them."""

import struct
from collections.abc import Callable
from random import Random

_COUNTS = (0, 1, -1, -2, 2**31 - 1, -(2**31), 0x7FFF, 0x1_0000, 255, 2**24)
_BYTES = (0, 1, 0x7F, 0x80, 0xFF)
_VARINTS = (
    b"\x00",
    b"\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\xff",
    b"\xff" * 9 + b"\x01",
    b"\xff" * 11,
)
_LARGEST = 1 << 16


def _flip_bits(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] = rng.choice((*_BYTES, rng.randrange(256)))


def _set_count(data: bytearray, rng: Random) -> None:
    layout = rng.choice((">h", ">i"))
    size = struct.calcsize(layout)
    if len(data) < size:
        return
    at = rng.randrange(len(data) - size + 1)
    value = rng.choice((*_COUNTS, len(data) - at, len(data) - at - size, len(data) + 1))
    bits = 8 * size
    data[at : at + size] = (value & ((1 << bits) - 1)).to_bytes(size, "big")


def _set_varint(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    new = rng.choice(_VARINTS)
    data[at : at + rng.choice((1, len(new)))] = new


def _cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def _drop(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 8, 61))]


def _repeat(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    piece = data[at : at + rng.choice((1, 4, 16, 200))]
    times = rng.choice((1, 1, 2, 40))
    if len(data) + len(piece) * times <= _LARGEST:
        data[at:at] = piece * times


def _insert(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 5, 30)))


def _append(data: bytearray, rng: Random) -> None:
    data += rng.randbytes(rng.choice((1, 10, 100)))


_KINDS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip_bits,
    _set_byte,
    _set_count,
    _set_count,
    _set_varint,
    _set_varint,
    _cut,
    _drop,
    _repeat,
    _insert,
    _append,
)


def damaged(data: bytes, rng: Random) -> bytes:
    """The bytes after one to four kinds of damage."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not changed:
            break
        rng.choice(_KINDS)(changed, rng)
    return bytes(changed)
