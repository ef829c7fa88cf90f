"""The changes of a consumer group, and how they become records of `__consumer_offsets` and come back.

A value of None is a tombstone.  The bytes are Kafka's (`tailrace.broker.protocol.consumer_group_records`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tailrace.broker.coordinator.consumer_group.member import (
    ClassicSide,
    MemberState,
    Place,
    Progress,
    Subscription,
    TopicId,
)
from tailrace.broker.protocol import MalformedMessageError
from tailrace.broker.protocol import consumer_group_records as wire
from tailrace.broker.protocol.internal_topics import ConsumerGroupKey, decode_record, encode_record

Topics = Mapping[str, tuple[TopicId, int]]
"""Topics by name: id and number of partitions."""


@dataclass(frozen=True, slots=True)
class GroupEpoch:
    """The group epoch; the group exists exactly while it has one."""

    epoch: int | None


@dataclass(frozen=True, slots=True)
class SeenTopics:
    """The topics that the members read."""

    topics: Topics | None


@dataclass(frozen=True, slots=True)
class MemberSubscription:
    """A member and its subscription; the member exists exactly while it has one."""

    member_id: str
    subscription: Subscription | None


@dataclass(frozen=True, slots=True)
class TargetEpoch:
    """The group epoch that the targets are for."""

    epoch: int | None


@dataclass(frozen=True, slots=True)
class MemberTarget:
    """What a member shall have."""

    member_id: str
    places: frozenset[Place] | None


@dataclass(frozen=True, slots=True)
class MemberProgress:
    """What a member has."""

    member_id: str
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class ResolvedPattern:
    """The topics that a pattern stands for."""

    pattern: str
    topics: frozenset[str] | None
    catalog_version: int = 0
    at_ms: int = 0


Change = (
    GroupEpoch
    | SeenTopics
    | MemberSubscription
    | TargetEpoch
    | MemberTarget
    | MemberProgress
    | ResolvedPattern
)


def encode(group_id: str, change: Change) -> tuple[bytes, bytes | None]:
    """Key and value of the record."""
    key, value = _wire(group_id, change)
    return encode_record(key), None if value is None else encode_record(value)


def _wire(group_id: str, change: Change) -> tuple[ConsumerGroupKey, Any]:
    match change:
        case GroupEpoch(epoch):
            value: Any = None if epoch is None else wire.ConsumerGroupMetadataValue(epoch)
            return wire.ConsumerGroupMetadataKey(group_id), value
        case SeenTopics(topics):
            return wire.ConsumerGroupPartitionMetadataKey(group_id), None if topics is None else _topics(
                topics
            )
        case MemberSubscription(member_id, subscription):
            value = None if subscription is None else _subscription(subscription)
            return wire.ConsumerGroupMemberMetadataKey(group_id, member_id), value
        case TargetEpoch(epoch):
            value = None if epoch is None else wire.ConsumerGroupTargetAssignmentMetadataValue(epoch)
            return wire.ConsumerGroupTargetAssignmentMetadataKey(group_id), value
        case MemberTarget(member_id, places):
            value = None if places is None else _target(places)
            return wire.ConsumerGroupTargetAssignmentMemberKey(group_id, member_id), value
        case MemberProgress(member_id, progress):
            value = None if progress is None else _progress(progress)
            return wire.ConsumerGroupCurrentMemberAssignmentKey(group_id, member_id), value
        case ResolvedPattern(pattern, names, version, at_ms):
            value = None
            if names is not None:
                value = wire.ConsumerGroupRegularExpressionValue(sorted(names), version, at_ms)
            return wire.ConsumerGroupRegularExpressionKey(group_id, pattern), value


def _topics(topics: Topics) -> wire.ConsumerGroupPartitionMetadataValue:
    return wire.ConsumerGroupPartitionMetadataValue(
        [wire.TopicMetadata(topic_id, name, count) for name, (topic_id, count) in sorted(topics.items())]
    )


def _subscription(said: Subscription) -> wire.ConsumerGroupMemberMetadataValue:
    return wire.ConsumerGroupMemberMetadataValue(
        said.instance_id,
        said.rack_id,
        said.client_id,
        said.client_host,
        sorted(said.topics),
        said.pattern,
        said.rebalance_timeout_ms,
        said.assignor,
        None if said.classic is None else _classic_side(said.classic),
    )


def _classic_side(side: ClassicSide) -> wire.ClassicMemberMetadata:
    return wire.ClassicMemberMetadata(
        side.session_timeout_ms, [wire.ClassicProtocol(name, metadata) for name, metadata in side.protocols]
    )


def _target(places: Iterable[Place]) -> wire.ConsumerGroupTargetAssignmentMemberValue:
    topics = by_topic(places)
    return wire.ConsumerGroupTargetAssignmentMemberValue(
        [wire.TargetPartitions(topic_id, numbers) for topic_id, numbers in topics.items()]
    )


def _progress(progress: Progress) -> wire.ConsumerGroupCurrentMemberAssignmentValue:
    return wire.ConsumerGroupCurrentMemberAssignmentValue(
        progress.epoch,
        progress.previous_epoch,
        progress.state.value,
        _with_epochs(progress.assigned),
        _with_epochs(progress.revoking),
    )


def _with_epochs(places: Mapping[Place, int]) -> list[wire.CurrentPartitions]:
    return [
        wire.CurrentPartitions(topic_id, numbers, [places[topic_id, number] for number in numbers])
        for topic_id, numbers in by_topic(places).items()
    ]


def decode(key: ConsumerGroupKey, value: bytes | None) -> Change:
    """Inverse of `encode`."""
    match key:
        case wire.ConsumerGroupMetadataKey():
            epoch = None if value is None else decode_record(wire.ConsumerGroupMetadataValue, value).epoch
            return GroupEpoch(epoch)
        case wire.ConsumerGroupPartitionMetadataKey():
            return SeenTopics(None if value is None else _read_topics(value))
        case wire.ConsumerGroupMemberMetadataKey():
            return MemberSubscription(key.member_id, None if value is None else _read_subscription(value))
        case wire.ConsumerGroupTargetAssignmentMetadataKey():
            if value is None:
                return TargetEpoch(None)
            read = decode_record(wire.ConsumerGroupTargetAssignmentMetadataValue, value)
            return TargetEpoch(read.assignment_epoch)
        case wire.ConsumerGroupTargetAssignmentMemberKey():
            return MemberTarget(key.member_id, None if value is None else _read_target(value))
        case wire.ConsumerGroupCurrentMemberAssignmentKey():
            return MemberProgress(key.member_id, None if value is None else _read_progress(value))
        case wire.ConsumerGroupRegularExpressionKey():
            if value is None:
                return ResolvedPattern(key.regular_expression, None)
            found = decode_record(wire.ConsumerGroupRegularExpressionValue, value)
            return ResolvedPattern(
                key.regular_expression, frozenset(found.topics), found.version, found.timestamp
            )


def _read_topics(raw: bytes) -> Topics:
    value = decode_record(wire.ConsumerGroupPartitionMetadataValue, raw)
    return {topic.topic_name: (topic.topic_id, topic.num_partitions) for topic in value.topics}


def _read_subscription(raw: bytes) -> Subscription:
    value = decode_record(wire.ConsumerGroupMemberMetadataValue, raw)
    return Subscription(
        value.instance_id,
        value.rack_id,
        value.client_id,
        value.client_host,
        value.rebalance_timeout_ms,
        frozenset(value.subscribed_topic_names),
        value.subscribed_topic_regex,
        value.server_assignor,
        None if value.classic_member_metadata is None else _read_classic_side(value.classic_member_metadata),
    )


def _read_classic_side(value: wire.ClassicMemberMetadata) -> ClassicSide:
    if not value.supported_protocols:
        raise MalformedMessageError("a member's record: a classic member without a protocol")
    return ClassicSide(
        value.session_timeout_ms,
        tuple((protocol.name, protocol.metadata) for protocol in value.supported_protocols),
    )


def _read_target(raw: bytes) -> frozenset[Place]:
    value = decode_record(wire.ConsumerGroupTargetAssignmentMemberValue, raw)
    return frozenset(
        (topic.topic_id, number) for topic in value.topic_partitions for number in topic.partitions
    )


def _read_progress(raw: bytes) -> Progress:
    value = decode_record(wire.ConsumerGroupCurrentMemberAssignmentValue, raw)
    try:
        state = MemberState(value.state)
    except ValueError as error:
        raise MalformedMessageError(f"a member's record: {error}") from error
    return Progress(
        value.member_epoch,
        value.previous_member_epoch,
        state,
        _read_epochs(value.assigned_partitions),
        _read_epochs(value.partitions_pending_revocation),
    )


def _read_epochs(topics: list[wire.CurrentPartitions]) -> dict[Place, int]:
    if any(len(topic.assignment_epochs or topic.partitions) != len(topic.partitions) for topic in topics):
        raise MalformedMessageError("a member's record: not as many epochs as partitions")
    return {
        (topic.topic_id, number): epoch
        for topic in topics
        for number, epoch in zip(
            topic.partitions, topic.assignment_epochs or [0] * len(topic.partitions), strict=True
        )
    }


def by_topic(places: Iterable[Place]) -> dict[TopicId, list[int]]:
    """Partition numbers by topic id, both sorted."""
    topics: dict[TopicId, list[int]] = {}
    for topic_id, number in sorted(places):
        topics.setdefault(topic_id, []).append(number)
    return topics
