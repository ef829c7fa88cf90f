"""Record schemas of `__consumer_offsets` and `__transaction_state`: int16 version, then the fields.

    __consumer_offsets    key v0/v1  OffsetCommitKey     value OffsetCommitValue
                          key v2     GroupMetadataKey    value GroupMetadataValue
    __transaction_state   key v0     TransactionLogKey   value TransactionLogValue

A null value is a tombstone.  Written versions: offset commit key 1 and value 3, group metadata key 2 and
value 3, transaction log key 0 and value 0 (what Kafka writes while `transaction.version` is 0); values up
to the newest known version are read.

Sources: the record schemas of Kafka's group and transaction coordinators, KIP-915.
"""

import struct
from typing import Any, TypeVar

from tailrace.broker.protocol.codec import decoder, encoder
from tailrace.broker.protocol.errors import MalformedMessageError
from tailrace.broker.protocol.fields import (
    Buffer,
    Versions,
    array,
    binary,
    int8,
    int16,
    int32,
    int64,
    message,
    string,
)

_VERSION = struct.Struct(">h")
_Record = TypeVar("_Record")


@message
class OffsetCommitKey:
    """Where a group has committed an offset."""

    group: str = string()
    topic: str = string()
    partition: int = int32()


@message
class OffsetCommitValue:
    """The committed offset; v3 leader epoch, expire timestamp in v1 only."""

    offset: int = int64()
    leader_epoch: int = int32("3+", default=-1)
    metadata: str = string()
    commit_timestamp: int = int64()
    expire_timestamp: int = int64("1", default=-1)


@message
class GroupMetadataKey:
    """A classic group."""

    group: str = string()


@message
class GroupMember:
    """One member of a stable group."""

    member_id: str = string()
    group_instance_id: str | None = string("3+", nullable="3+", default=None)
    client_id: str = string()
    client_host: str = string()
    rebalance_timeout: int = int32("1+")
    session_timeout: int = int32()
    subscription: bytes = binary()
    assignment: bytes = binary()


@message
class GroupMetadataValue:
    """A group after a completed rebalance."""

    protocol_type: str = string()
    generation: int = int32()
    protocol: str | None = string(nullable="0+")
    leader: str | None = string(nullable="0+")
    current_state_timestamp: int = int64("2+", default=-1)
    members: list[GroupMember] = array(GroupMember)


@message
class TransactionLogKey:
    """A transactional id."""

    transactional_id: str = string()


@message
class TransactionLogPartitions:
    """Partitions of one topic that take part in a transaction."""

    topic: str = string()
    partition_ids: list[int] = array("int32")


@message
class TransactionLogValue:
    """State of a transactional id; `transaction_status` is Kafka's TransactionState (0 Empty ... 7)."""

    producer_id: int = int64()
    previous_producer_id: int = int64("1+", default=-1, tag=0)
    next_producer_id: int = int64("1+", default=-1, tag=1)
    producer_epoch: int = int16()
    transaction_timeout_ms: int = int32()
    transaction_status: int = int8()
    transaction_partitions: list[TransactionLogPartitions] | None = array(
        TransactionLogPartitions, nullable="0+"
    )
    transaction_last_update_timestamp_ms: int = int64()
    transaction_start_timestamp_ms: int = int64()
    client_transaction_version: int = int16("1+", tag=2)


# message: (versions read, version written, first flexible version)
_SCHEMAS: dict[type, tuple[Versions, int, Versions]] = {
    OffsetCommitKey: (Versions(0, 1), 1, Versions.parse("")),
    OffsetCommitValue: (Versions(0, 4), 3, Versions.parse("4+")),
    GroupMetadataKey: (Versions(2, 2), 2, Versions.parse("")),
    GroupMetadataValue: (Versions(0, 4), 3, Versions.parse("4+")),
    TransactionLogKey: (Versions(0, 0), 0, Versions.parse("")),
    TransactionLogValue: (Versions(0, 1), 0, Versions.parse("1+")),
}


def encode_record(record: Any, version: int | None = None) -> bytes:
    """The bytes of a key or value of an internal topic; `version` None means the one that is written."""
    _, written, flexible = _SCHEMAS[type(record)]
    version = written if version is None else version
    out = bytearray(_VERSION.pack(version))
    parts: list[Buffer] = []
    return bytes(encoder(type(record), version, version in flexible)(record, out, parts))


def decode_offsets_key(key: Buffer) -> OffsetCommitKey | GroupMetadataKey | None:
    """The key of a `__consumer_offsets` record, None for a kind newer than these."""
    version = _version(key)
    if version in _SCHEMAS[OffsetCommitKey][0]:
        return _decode(OffsetCommitKey, key)
    if version in _SCHEMAS[GroupMetadataKey][0]:
        return _decode(GroupMetadataKey, key)
    return None


def decode_offset_commit_value(value: Buffer) -> OffsetCommitValue:
    """The value of an offset commit record."""
    return _decode(OffsetCommitValue, value)


def decode_group_metadata_value(value: Buffer) -> GroupMetadataValue:
    """The value of a group metadata record."""
    return _decode(GroupMetadataValue, value)


def decode_transaction_log_key(key: Buffer) -> TransactionLogKey:
    """The key of a `__transaction_state` record."""
    return _decode(TransactionLogKey, key)


def decode_transaction_log_value(value: Buffer) -> TransactionLogValue:
    """The value of a `__transaction_state` record."""
    return _decode(TransactionLogValue, value)


def _version(data: Buffer) -> int:
    try:
        version: int = _VERSION.unpack_from(data, 0)[0]
    except struct.error as error:
        raise MalformedMessageError(f"internal record: {error}") from error
    return version


def _decode(cls: type[_Record], data: Buffer) -> _Record:
    version = _version(data)
    readable, _, flexible = _SCHEMAS[cls]
    if version not in readable:
        raise MalformedMessageError(f"{cls.__name__} version {version} is unknown")
    record: _Record
    record, _ = decoder(cls, version, version in flexible)(memoryview(data), _VERSION.size, len(data))
    return record
