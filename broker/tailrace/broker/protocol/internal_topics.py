"""Record schemas of `__consumer_offsets` and `__transaction_state`: int16 version, then the fields.

    __consumer_offsets    key v0/v1  OffsetCommitKey     value OffsetCommitValue
                          key v2     GroupMetadataKey    value GroupMetadataValue
                          key v3-8, v16                  see `consumer_group_records`
    __transaction_state   key v0     TransactionLogKey   value TransactionLogValue

A null value is a tombstone.  Written versions: offset commit key 1 and value 3, group metadata key 2 and
value 3, transaction log key 0 and value 0 (what Kafka writes while `transaction.version` is 0); values up
to the newest known version are read.

Sources: the record schemas of Kafka's group and transaction coordinators, KIP-915.
"""

import struct
from typing import Any, TypeVar, get_args

from tailrace.broker.protocol import consumer_group_records as g
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
    g.ConsumerGroupMetadataKey: (Versions(3, 3), 3, Versions.parse("")),
    g.ConsumerGroupMetadataValue: (Versions(0, 0), 0, Versions.parse("0+")),
    g.ConsumerGroupPartitionMetadataKey: (Versions(4, 4), 4, Versions.parse("")),
    g.ConsumerGroupPartitionMetadataValue: (Versions(0, 0), 0, Versions.parse("0+")),
    g.ConsumerGroupMemberMetadataKey: (Versions(5, 5), 5, Versions.parse("")),
    g.ConsumerGroupMemberMetadataValue: (Versions(0, 0), 0, Versions.parse("0+")),
    g.ConsumerGroupTargetAssignmentMetadataKey: (Versions(6, 6), 6, Versions.parse("")),
    g.ConsumerGroupTargetAssignmentMetadataValue: (Versions(0, 0), 0, Versions.parse("0+")),
    g.ConsumerGroupTargetAssignmentMemberKey: (Versions(7, 7), 7, Versions.parse("")),
    g.ConsumerGroupTargetAssignmentMemberValue: (Versions(0, 0), 0, Versions.parse("0+")),
    g.ConsumerGroupCurrentMemberAssignmentKey: (Versions(8, 8), 8, Versions.parse("")),
    g.ConsumerGroupCurrentMemberAssignmentValue: (Versions(0, 0), 0, Versions.parse("0+")),
    g.ConsumerGroupRegularExpressionKey: (Versions(16, 16), 16, Versions.parse("")),
    g.ConsumerGroupRegularExpressionValue: (Versions(0, 0), 0, Versions.parse("0+")),
    TransactionLogKey: (Versions(0, 0), 0, Versions.parse("")),
    TransactionLogValue: (Versions(0, 1), 0, Versions.parse("1+")),
}


ConsumerGroupKey = (
    g.ConsumerGroupMetadataKey
    | g.ConsumerGroupPartitionMetadataKey
    | g.ConsumerGroupMemberMetadataKey
    | g.ConsumerGroupTargetAssignmentMetadataKey
    | g.ConsumerGroupTargetAssignmentMemberKey
    | g.ConsumerGroupCurrentMemberAssignmentKey
    | g.ConsumerGroupRegularExpressionKey
)

_OFFSETS_KEYS: tuple[type, ...] = (OffsetCommitKey, GroupMetadataKey, *get_args(ConsumerGroupKey))


def encode_record(record: Any, version: int | None = None) -> bytes:
    """The bytes of a key or value of an internal topic; `version` None means the one that is written."""
    _, written, flexible = _SCHEMAS[type(record)]
    version = written if version is None else version
    out = bytearray(_VERSION.pack(version))
    parts: list[Buffer] = []
    return bytes(encoder(type(record), version, version in flexible)(record, out, parts))


def decode_offsets_key(key: Buffer) -> OffsetCommitKey | GroupMetadataKey | ConsumerGroupKey | None:
    """The key of a `__consumer_offsets` record, None for a kind newer than these."""
    version = _version(key)
    kind = next((cls for cls in _OFFSETS_KEYS if version in _SCHEMAS[cls][0]), None)
    return None if kind is None else decode_record(kind, key)


def decode_offset_commit_value(value: Buffer) -> OffsetCommitValue:
    """The value of an offset commit record."""
    return decode_record(OffsetCommitValue, value)


def decode_group_metadata_value(value: Buffer) -> GroupMetadataValue:
    """The value of a group metadata record."""
    return decode_record(GroupMetadataValue, value)


def decode_transaction_log_key(key: Buffer) -> TransactionLogKey:
    """The key of a `__transaction_state` record."""
    return decode_record(TransactionLogKey, key)


def decode_transaction_log_value(value: Buffer) -> TransactionLogValue:
    """The value of a `__transaction_state` record."""
    return decode_record(TransactionLogValue, value)


def _version(data: Buffer) -> int:
    try:
        version: int = _VERSION.unpack_from(data, 0)[0]
    except struct.error as error:
        raise MalformedMessageError(f"internal record: {error}") from error
    return version


def decode_record(cls: type[_Record], data: Buffer) -> _Record:
    """The key or value of an internal topic's record, of the given kind."""
    version = _version(data)
    readable, _, flexible = _SCHEMAS[cls]
    if version not in readable:
        raise MalformedMessageError(f"{cls.__name__} version {version} is unknown")
    record: _Record
    record, _ = decoder(cls, version, version in flexible)(memoryview(data), _VERSION.size, len(data))
    return record
