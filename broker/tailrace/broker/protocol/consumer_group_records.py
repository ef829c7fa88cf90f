"""Record schemas of consumer groups (KIP-848) in `__consumer_offsets`; `internal_topics` writes and reads them.

    key v3   ConsumerGroupMetadataKey                  group epoch
    key v4   ConsumerGroupPartitionMetadataKey         the topics that the members read, as they were last seen
    key v5   ConsumerGroupMemberMetadataKey            a member and what it subscribes to
    key v6   ConsumerGroupTargetAssignmentMetadataKey  epoch of the target assignment
    key v7   ConsumerGroupTargetAssignmentMemberKey    what a member shall have
    key v8   ConsumerGroupCurrentMemberAssignmentKey   what a member has, and its epoch
    key v16  ConsumerGroupRegularExpressionKey         the topics that a pattern stood for when it was resolved

All values are version 0 and flexible.  Source: the record schemas of Kafka 4.3's group coordinator.
"""

from tailrace.broker.protocol.fields import array, binary, int8, int32, int64, message, string, struct, uuid


@message
class ConsumerGroupMetadataKey:
    """A consumer group."""

    group_id: str = string()


@message
class ConsumerGroupMetadataValue:
    """The group epoch rises with every change of members, subscriptions or topics."""

    epoch: int = int32()
    metadata_hash: int = int64(tag=0)


@message
class ConsumerGroupPartitionMetadataKey:
    """The topics of a consumer group."""

    group_id: str = string()


@message
class PartitionRacks:
    partition: int = int32()
    racks: list[str] = array("string")


@message
class TopicMetadata:
    topic_id: bytes = uuid()
    topic_name: str = string()
    num_partitions: int = int32()
    partition_metadata: list[PartitionRacks] = array(PartitionRacks)


@message
class ConsumerGroupPartitionMetadataValue:
    """Kafka up to 4.0 writes it; newer ones read it and keep a hash in the group's record instead."""

    topics: list[TopicMetadata] = array(TopicMetadata)


@message
class ConsumerGroupMemberMetadataKey:
    """A member."""

    group_id: str = string()
    member_id: str = string()


@message
class ClassicProtocol:
    name: str = string()
    metadata: bytes = binary()


@message
class ClassicMemberMetadata:
    session_timeout_ms: int = int32()
    supported_protocols: list[ClassicProtocol] = array(ClassicProtocol)


@message
class ConsumerGroupMemberMetadataValue:
    """A member's subscription; `classic_member_metadata` marks one of the classic protocol."""

    instance_id: str | None = string(nullable="0+", default=None)
    rack_id: str | None = string(nullable="0+", default=None)
    client_id: str = string()
    client_host: str = string()
    subscribed_topic_names: list[str] = array("string")
    subscribed_topic_regex: str | None = string(nullable="0+", default=None)
    rebalance_timeout_ms: int = int32(default=-1)
    server_assignor: str | None = string(nullable="0+", default=None)
    classic_member_metadata: ClassicMemberMetadata | None = struct(
        ClassicMemberMetadata, nullable="0+", tag=0
    )


@message
class ConsumerGroupTargetAssignmentMetadataKey:
    """The target assignment of a group."""

    group_id: str = string()


@message
class ConsumerGroupTargetAssignmentMetadataValue:
    """The group epoch for which the target was computed."""

    assignment_epoch: int = int32()
    assignment_timestamp: int = int64(tag=0)


@message
class ConsumerGroupTargetAssignmentMemberKey:
    """The target of a member."""

    group_id: str = string()
    member_id: str = string()


@message
class TargetPartitions:
    topic_id: bytes = uuid()
    partitions: list[int] = array("int32")


@message
class ConsumerGroupTargetAssignmentMemberValue:
    """The partitions that a member shall have."""

    topic_partitions: list[TargetPartitions] = array(TargetPartitions)


@message
class ConsumerGroupCurrentMemberAssignmentKey:
    """The assignment of a member."""

    group_id: str = string()
    member_id: str = string()


@message
class CurrentPartitions:
    """`assignment_epochs`: since which member epoch each partition is the member's (KIP-1251)."""

    topic_id: bytes = uuid()
    partitions: list[int] = array("int32")
    assignment_epochs: list[int] | None = array("int32", nullable="0+", null_default=True, tag=0)


@message
class ConsumerGroupCurrentMemberAssignmentValue:
    """The partitions that a member has, and those that it is told to give up; `state` is Kafka's MemberState."""

    member_epoch: int = int32()
    previous_member_epoch: int = int32()
    state: int = int8()
    assigned_partitions: list[CurrentPartitions] = array(CurrentPartitions)
    partitions_pending_revocation: list[CurrentPartitions] = array(CurrentPartitions)


@message
class ConsumerGroupRegularExpressionKey:
    """A pattern that members subscribe to."""

    group_id: str = string()
    regular_expression: str = string()


@message
class ConsumerGroupRegularExpressionValue:
    """The topics that matched; `version` is that of the catalog, `timestamp` in ms."""

    topics: list[str] = array("string")
    version: int = int64()
    timestamp: int = int64()
