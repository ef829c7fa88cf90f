"""What classic consumers put into the opaque fields of the group protocol: int16 version, then the fields.

    JoinGroup, metadata of a protocol    ConsumerProtocolSubscription
    SyncGroup, assignment of a member    ConsumerProtocolAssignment

A version newer than the known ones is read as the newest, as Kafka does: fields are only ever added at the end.
Source: ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json of Kafka's clients.
"""

import struct
from collections.abc import Iterable
from typing import TypeVar

from tailrace.broker.protocol.codec import decoder, encoder
from tailrace.broker.protocol.errors import MalformedMessageError
from tailrace.broker.protocol.fields import Buffer, array, binary, int32, message, string

_NEWEST = 3
_VERSION = struct.Struct(">h")
_Message = TypeVar("_Message")


@message
class ConsumerTopicPartitions:
    topic: str = string()
    partitions: list[int] = array("int32")


@message
class ConsumerProtocolSubscription:
    """What a member reads; `owned_partitions` is what it has kept over the rebalance."""

    topics: list[str] = array("string")
    user_data: bytes | None = binary(nullable="0+", default=None)
    owned_partitions: list[ConsumerTopicPartitions] = array(ConsumerTopicPartitions, "1+")
    generation_id: int = int32("2+", default=-1)
    rack_id: str | None = string("3+", nullable="3+", default=None)


@message
class ConsumerProtocolAssignment:
    """What a member shall read."""

    assigned_partitions: list[ConsumerTopicPartitions] = array(ConsumerTopicPartitions)
    user_data: bytes | None = binary(nullable="0+", default=None)


def read_subscription(data: Buffer) -> ConsumerProtocolSubscription:
    """Raises MalformedMessageError."""
    return _read(ConsumerProtocolSubscription, data)


def read_assignment(data: Buffer) -> ConsumerProtocolAssignment:
    """Raises MalformedMessageError; no bytes at all are an assignment of nothing."""
    return _read(ConsumerProtocolAssignment, data) if data else ConsumerProtocolAssignment()


def write_assignment(topics: Iterable[ConsumerTopicPartitions], subscription: Buffer) -> bytes:
    """An assignment in the version that the member subscribed with.  Raises MalformedMessageError."""
    version = min(_version(subscription), _NEWEST)
    out = bytearray(_VERSION.pack(version))
    parts: list[Buffer] = []
    write = encoder(ConsumerProtocolAssignment, version, False)
    return bytes(write(ConsumerProtocolAssignment(list(topics)), out, parts))


def _read(kind: type[_Message], data: Buffer) -> _Message:
    found: _Message
    found, _ = decoder(kind, min(_version(data), _NEWEST), False)(memoryview(data), _VERSION.size, len(data))
    return found


def _version(data: Buffer) -> int:
    try:
        version: int = _VERSION.unpack_from(data, 0)[0]
    except struct.error as error:
        raise MalformedMessageError(f"consumer protocol: {error}") from error
    if version < 0:
        raise MalformedMessageError(f"consumer protocol: version {version}")
    return version
