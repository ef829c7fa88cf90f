"""What the coordinators keep in `__consumer_offsets` and `__transaction_state`, and how it becomes records.

The bytes are Kafka's (`tailrace.broker.protocol.internal_topics`), so `kafka-dump-log` reads them; these
classes are what the state machines work on: immutable, comparable, without wire detail.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from tailrace.broker.protocol import MalformedMessageError
from tailrace.broker.protocol.internal_topics import (
    ConsumerGroupKey,
    GroupMember,
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
    TransactionLogKey,
    TransactionLogPartitions,
    TransactionLogValue,
    decode_group_metadata_value,
    decode_offset_commit_value,
    decode_offsets_key,
    decode_transaction_log_key,
    decode_transaction_log_value,
    encode_record,
)


class TxnStatus(IntEnum):
    """Status byte of a transaction log value (KIP-98; 7: KIP-890's fence)."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def label(self) -> str:
        """The name that DescribeTransactions and ListTransactions show: `PrepareCommit`."""
        return self.name.title().replace("_", "")


@dataclass(frozen=True, slots=True, order=True)
class OffsetKey:
    """Which offset a record of `__consumer_offsets` is about."""

    group_id: str
    topic: str
    partition: int

    def encode(self) -> bytes:
        """OffsetCommitKey v1."""
        return encode_record(OffsetCommitKey(self.group_id, self.topic, self.partition))


@dataclass(frozen=True, slots=True)
class OffsetValue:
    """A committed offset."""

    offset: int
    leader_epoch: int
    metadata: str
    committed_at_ms: int

    def encode(self) -> bytes:
        """OffsetCommitValue v3."""
        return encode_record(
            OffsetCommitValue(self.offset, self.leader_epoch, self.metadata, self.committed_at_ms)
        )

    @classmethod
    def decode(cls, raw: bytes) -> "OffsetValue":
        """Inverse of `encode`."""
        value = decode_offset_commit_value(raw)
        return cls(value.offset, value.leader_epoch, value.metadata, value.commit_timestamp)


@dataclass(frozen=True, slots=True)
class MemberMetadata:
    """One member inside a GroupMetadata."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """One generation of a group."""

    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    since_ms: int
    members: tuple[MemberMetadata, ...] = ()

    def encode(self) -> bytes:
        """GroupMetadataValue v3."""
        members = [
            GroupMember(
                member.member_id,
                member.instance_id,
                member.client_id,
                member.client_host,
                member.rebalance_timeout_ms,
                member.session_timeout_ms,
                member.subscription,
                member.assignment,
            )
            for member in self.members
        ]
        return encode_record(
            GroupMetadataValue(
                self.protocol_type, self.generation, self.protocol, self.leader, self.since_ms, members
            )
        )

    @classmethod
    def decode(cls, raw: bytes) -> "GroupMetadata":
        """Inverse of `encode`."""
        value = decode_group_metadata_value(raw)
        members = tuple(
            MemberMetadata(
                member.member_id,
                member.group_instance_id,
                member.client_id,
                member.client_host,
                member.rebalance_timeout,
                member.session_timeout,
                member.subscription,
                member.assignment,
            )
            for member in value.members
        )
        return cls(
            value.protocol_type,
            value.generation,
            value.protocol,
            value.leader,
            value.current_state_timestamp,
            members,
        )


@dataclass(frozen=True, slots=True)
class TxnMetadata:
    """State of one transactional id; `partitions` are those of the open (or ending) transaction."""

    producer_id: int
    epoch: int
    timeout_ms: int
    status: TxnStatus
    partitions: frozenset[tuple[str, int]]
    updated_at_ms: int
    started_at_ms: int
    # value v1 only
    previous_producer_id: int = -1
    next_producer_id: int = -1
    client_version: int = 0  # the transaction version (KIP-890) that ended it

    @property
    def needs_version_1(self) -> bool:
        """Whether value v0 would lose something."""
        return (self.previous_producer_id, self.next_producer_id, self.client_version) != (-1, -1, 0)

    def encode(self, version: int = 0) -> bytes:
        """TransactionLogValue v0 or v1; EMPTY has a null partition list, as Kafka writes it."""
        empty = self.status is TxnStatus.EMPTY
        return encode_record(
            TransactionLogValue(
                producer_id=self.producer_id,
                previous_producer_id=self.previous_producer_id,
                next_producer_id=self.next_producer_id,
                producer_epoch=self.epoch,
                transaction_timeout_ms=self.timeout_ms,
                transaction_status=self.status.value,
                transaction_partitions=None
                if empty
                else [
                    TransactionLogPartitions(topic, ids) for topic, ids in by_topic(self.partitions).items()
                ],
                transaction_last_update_timestamp_ms=self.updated_at_ms,
                transaction_start_timestamp_ms=self.started_at_ms,
                client_transaction_version=self.client_version,
            ),
            version,
        )

    @classmethod
    def decode(cls, raw: bytes) -> "TxnMetadata":
        """Inverse of `encode`."""
        value = decode_transaction_log_value(raw)
        try:
            status = TxnStatus(value.transaction_status)
        except ValueError as error:
            raise MalformedMessageError(f"a transaction's record: {error}") from error
        return cls(
            value.producer_id,
            value.producer_epoch,
            value.transaction_timeout_ms,
            status,
            frozenset(
                (topic.topic, partition)
                for topic in value.transaction_partitions or ()
                for partition in topic.partition_ids
            ),
            value.transaction_last_update_timestamp_ms,
            value.transaction_start_timestamp_ms,
            value.previous_producer_id,
            value.next_producer_id,
            value.client_transaction_version,
        )


def by_topic(partitions: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Partition numbers by topic, both sorted."""
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    return topics


def encode_group_key(group_id: str) -> bytes:
    """GroupMetadataKey v2."""
    return encode_record(GroupMetadataKey(group_id))


def decode_consumer_offsets_key(raw: bytes) -> OffsetKey | str | ConsumerGroupKey | None:
    """An OffsetKey, the id of a classic group, the key of a consumer group, or None for a newer kind."""
    key = decode_offsets_key(raw)
    if isinstance(key, OffsetCommitKey):
        return OffsetKey(key.group, key.topic, key.partition)
    return key.group if isinstance(key, GroupMetadataKey) else key


def encode_txn_key(transactional_id: str) -> bytes:
    """TransactionLogKey v0."""
    return encode_record(TransactionLogKey(transactional_id))


def decode_txn_key(raw: bytes) -> str:
    """Inverse of encode_txn_key."""
    return decode_transaction_log_key(raw).transactional_id
