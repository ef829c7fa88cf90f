"""Messages written field by field from their tables, with a lie in one place or another.

Random damage seldom hits a length in the middle of a message; this hits nothing else.
"""

import struct
from random import Random
from typing import Any

from tailrace.broker.protocol.fields import FieldSpec, wire_fields
from tailrace.broker.protocol.source import NUMBERS, put_uvarint

_LIE = 0.04
_LENGTHS = (-1, -2, 0, 1, 127, 128, 32767, 2**31 - 1)


def forged(cls: type, version: int, flexible: bool, rng: Random) -> bytes:
    """The bytes of a message of random content; each length, count and tag is wrong once in 25 times."""
    out = bytearray()
    _message(out, cls, version, flexible, rng)
    return bytes(out)


def _message(out: bytearray, cls: type, version: int, flexible: bool, rng: Random) -> None:
    tagged: list[FieldSpec] = []
    for spec in wire_fields(cls):
        if version not in spec.versions:
            continue
        if spec.tag is not None:
            tagged.append(spec)
        else:
            _value(out, spec, version, flexible, rng)
    if flexible:
        _tags(out, tagged, version, rng)


def _value(out: bytearray, spec: FieldSpec, version: int, flexible: bool, rng: Random) -> None:
    if spec.is_array:
        count = rng.choice((0, 1, 1, 2))
        _length(out, count, ">i", flexible, rng)
        for _ in range(count):
            _item(out, spec, version, flexible, rng)
        return
    if not isinstance(spec.item, str) and version in spec.nullable:
        out.append(rng.choice((1, 1, 255, rng.randrange(256))))
    _item(out, spec, version, flexible, rng)


def _item(out: bytearray, spec: FieldSpec, version: int, flexible: bool, rng: Random) -> None:
    item: Any = spec.item
    if not isinstance(item, str):
        _message(out, item, version, flexible, rng)
    elif item in NUMBERS:
        out += rng.choice((bytes, rng.randbytes))(NUMBERS[item][1])
    elif item == "uuid":
        out += rng.randbytes(16)
    else:
        content = rng.choice((b"", b"orders", "día".encode(), b"x" * 130, rng.randbytes(8)))
        _length(out, len(content), ">h" if item == "string" else ">i", flexible, rng)
        out += content


def _length(out: bytearray, length: int, layout: str, flexible: bool, rng: Random) -> None:
    if rng.random() < _LIE:
        length = rng.choice((*_LENGTHS, length - 1, length + 1))
    if flexible:
        put_uvarint(out, (length + 1) & 0xFFFF_FFFF)
    else:
        bits = 8 * struct.calcsize(layout)
        out += (length & ((1 << bits) - 1)).to_bytes(bits // 8, "big")


def _tags(out: bytearray, tagged: list[FieldSpec], version: int, rng: Random) -> None:
    chosen = [spec for spec in tagged if rng.random() < 0.5]
    unknown = rng.choice((0, 0, 0, 0, 1, 2))
    count = len(chosen) + unknown
    put_uvarint(out, rng.choice((count + 1, 2**32 - 1)) if rng.random() < _LIE else count)
    for spec in chosen:
        body = bytearray()
        _value(body, spec, version, True, rng)
        put_uvarint(out, spec.tag or 0)
        put_uvarint(out, max(0, len(body) + rng.choice((-1, 1, 10**6))) if rng.random() < _LIE else len(body))
        out += body
    for _ in range(unknown):
        put_uvarint(out, rng.choice((0, 1, 99, 2**31)))
        put_uvarint(out, 3)
        out += b"abc"
