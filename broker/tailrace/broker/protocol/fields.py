"""Field tables: how a message class states what it looks like on the wire.

A message is a plain slotted dataclass; the right-hand side of each field says the wire type and the
versions that carry it, in the notation of Kafka's protocol guide (`"3+"`, `"0-12"`, `"9"`):

    @message
    class HeartbeatRequest:
        group_id: str = string()
        generation_id: int = int32()
        member_id: str = string()
        group_instance_id: str | None = string("3+", nullable="3+", default=None)

Every field has a default, which is also what a decoder leaves where a version does not carry the
field.  An encoder drops a field that the version does not carry.  A field with a `tag` travels in the
tagged section of flexible versions, and only where it differs from its default.  `codec` compiles these
tables.

Sources: https://kafka.apache.org/protocol (types), KIP-482 (compact and tagged), KIP-893 (null structs).
"""

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, dataclass_transform

Buffer = bytes | bytearray | memoryview

NULL_UUID = bytes(16)
"""A topic id on the wire is 16 raw bytes; this one means "none"."""

Scalar = Literal[
    "bool", "int8", "int16", "uint16", "int32", "int64", "float64", "string", "bytes", "records", "uuid"
]


_Message = TypeVar("_Message")


@dataclass_transform()
def message(cls: type[_Message]) -> type[_Message]:
    """Make a class of field specifiers a message: a slotted, mutable, comparable dataclass."""
    return dataclass(slots=True)(cls)


@dataclass(frozen=True, slots=True)
class Versions:
    """An inclusive range of versions; empty when `last < first`."""

    first: int
    last: int

    LATEST = 32767

    @classmethod
    def parse(cls, text: str) -> "Versions":
        """Read `"3+"`, `"0-12"`, `"9"` or `""` (none)."""
        if not text:
            return cls(0, -1)
        if text.endswith("+"):
            return cls(int(text[:-1]), cls.LATEST)
        first, _, last = text.partition("-")
        return cls(int(first), int(last or first))

    def __contains__(self, version: int) -> bool:
        return self.first <= version <= self.last


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """The wire form of one field: `item` is a scalar's name or a message class."""

    name: str
    item: Scalar | type
    is_array: bool
    versions: Versions
    nullable: Versions
    tag: int | None
    default: Any


def _field(
    item: Scalar | type,
    versions: str,
    nullable: str,
    default: Any,
    *,
    is_array: bool = False,
    tag: int | None = None,
) -> Any:
    spec = FieldSpec(
        "",
        item,
        is_array,
        Versions.parse(versions),
        Versions.parse(nullable),
        tag,
        default,
    )
    metadata = {"wire": spec}
    if default is list or isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def boolean(versions: str = "0+", *, default: bool = False, tag: int | None = None) -> Any:
    """BOOLEAN: one byte."""
    return _field("bool", versions, "", default, tag=tag)


def int8(versions: str = "0+", *, default: int = 0, tag: int | None = None) -> Any:
    """INT8."""
    return _field("int8", versions, "", default, tag=tag)


def int16(versions: str = "0+", *, default: int = 0, tag: int | None = None) -> Any:
    """INT16, big endian like every number of the protocol."""
    return _field("int16", versions, "", default, tag=tag)


def uint16(versions: str = "0+", *, default: int = 0, tag: int | None = None) -> Any:
    """UINT16: ports."""
    return _field("uint16", versions, "", default, tag=tag)


def int32(versions: str = "0+", *, default: int = 0, tag: int | None = None) -> Any:
    """INT32."""
    return _field("int32", versions, "", default, tag=tag)


def int64(versions: str = "0+", *, default: int = 0, tag: int | None = None) -> Any:
    """INT64."""
    return _field("int64", versions, "", default, tag=tag)


def float64(versions: str = "0+", *, default: float = 0.0, tag: int | None = None) -> Any:
    """FLOAT64, IEEE 754."""
    return _field("float64", versions, "", default, tag=tag)


def string(
    versions: str = "0+",
    *,
    nullable: str = "",
    default: str | None = "",
    tag: int | None = None,
) -> Any:
    """STRING, NULLABLE_STRING, COMPACT_STRING: UTF-8 after its length."""
    return _field("string", versions, nullable, default, tag=tag)


def binary(versions: str = "0+", *, nullable: str = "", default: bytes | None = b"") -> Any:
    """BYTES and its variants; decoded into bytes of its own, so it may outlive the frame."""
    return _field("bytes", versions, nullable, default)


def records(versions: str = "0+", *, nullable: str = "0+") -> Any:
    """RECORDS: record batches; decoded into a memoryview of the frame, encoded without a copy."""
    return _field("records", versions, nullable, None)


def uuid(versions: str = "0+", *, tag: int | None = None) -> Any:
    """UUID: 16 raw bytes."""
    return _field("uuid", versions, "", NULL_UUID, tag=tag)


def array(
    item: Scalar | type,
    versions: str = "0+",
    *,
    nullable: str = "",
    null_default: bool = False,
    tag: int | None = None,
) -> Any:
    """ARRAY or COMPACT_ARRAY of a scalar (by name) or of a message class; empty by default."""
    default = None if null_default else list
    return _field(item, versions, nullable, default, is_array=True, tag=tag)


def struct(item: type, versions: str = "0+", *, nullable: str = "", tag: int | None = None) -> Any:
    """A nested message; None by default where it may be null."""
    return _field(item, versions, nullable, None if nullable else item, tag=tag)


@cache
def wire_fields(cls: type) -> tuple[FieldSpec, ...]:
    """The field table of the message class `cls`, in wire order."""
    return tuple(
        dataclasses.replace(field.metadata["wire"], name=field.name) for field in dataclasses.fields(cls)
    )
