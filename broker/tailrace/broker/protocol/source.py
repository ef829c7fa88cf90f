"""Generated source: what the writers of decoders and encoders share.

Varints follow KIP-482: seven bits a byte, the lowest first.
"""

import struct
from functools import cache
from typing import Any

from tailrace.broker.protocol.errors import MalformedMessageError
from tailrace.broker.protocol.fields import FieldSpec, Versions, wire_fields

NUMBERS = {
    "bool": ("?", 1),
    "int8": ("b", 1),
    "int16": ("h", 2),
    "uint16": ("H", 2),
    "int32": ("i", 4),
    "int64": ("q", 8),
    "float64": ("d", 8),
}


_NEVER = Versions.parse("")


class Source:
    """Generated lines, the names they use, and fresh temporaries."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count = 0
        self.names: dict[str, Any] = {
            "uvarint": read_uvarint,
            "put_uvarint": put_uvarint,
            "skip_tags": skip_tags,
            "short": _too_short,
            "many": _too_many,
            "null": _unexpected_null,
        }

    def line(self, text: str) -> None:
        self._lines.append(text)

    def fresh(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def bind(self, prefix: str, value: Any) -> str:
        """A name under which the generated code sees `value`."""
        for name, bound in self.names.items():
            if bound is value:
                return name
        self._count += 1
        name = f"{prefix}{self._count}"
        self.names[name] = value
        return name

    def packed(self, formats: str) -> str:
        return self.bind("S", _struct(">" + formats))

    def compile(self, name: str, title: str) -> Any:
        exec(compile("\n".join(self._lines), f"<{title}>", "exec"), self.names)
        return self.names[name]


@cache
def _struct(layout: str) -> struct.Struct:
    return struct.Struct(layout)


def smallest_size(item: str | type, version: int, flexible: bool) -> int:
    """The fewest bytes that one item can take on the wire, at least 1 so that counts stay bounded."""
    if isinstance(item, str):
        if item in NUMBERS:
            return NUMBERS[item][1]
        if item == "uuid":
            return 16
        return 1 if flexible else (2 if item == "string" else 4)
    size = 1 if flexible else 0
    for spec in wire_fields(item):
        if version not in spec.versions or spec.tag is not None:
            continue
        if spec.is_array:
            size += 1 if flexible else 4
        elif not isinstance(spec.item, str) and version in spec.nullable:
            size += 1
        else:
            size += smallest_size(spec.item, version, flexible)
    return max(size, 1)


def item_of(spec: FieldSpec) -> FieldSpec:
    """The field table's view of one item of an array of scalars: never null."""
    return FieldSpec(
        spec.name, spec.item, False, spec.versions, nullable=_NEVER, tag=None, default=spec.default
    )


def read_uvarint(buffer: memoryview, position: int) -> tuple[int, int]:
    """An unsigned varint of at most 5 bytes, and the position after it."""
    value = 0
    for shift in (0, 7, 14, 21, 28):
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedMessageError("a varint is longer than 5 bytes")


def put_uvarint(out: bytearray, value: int) -> None:
    """Append an unsigned varint."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def skip_tags(buffer: memoryview, position: int, end: int, most: int) -> tuple[int, int]:
    """The position after a tagged section that starts at `position`, and what it leaves of `most` items."""
    count, position = read_uvarint(buffer, position)
    if count > most:
        _too_many()
    for _ in range(count):
        _, position = read_uvarint(buffer, position)
        size, position = read_uvarint(buffer, position)
        position += size
        if position > end:
            _too_short()
    return position, most - count


def _too_short() -> None:
    raise MalformedMessageError("a length runs past the end of the frame")


def _too_many() -> None:
    raise MalformedMessageError("there are more array items than one message may have")


def _unexpected_null(field: str = "") -> None:
    if field:
        raise ValueError(f"{field} cannot be null in this version")
    raise MalformedMessageError("a field is null that cannot be")
