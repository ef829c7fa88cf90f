"""ConsumerGroupHeartbeat (68) and ConsumerGroupDescribe (69): groups whose partitions the broker assigns (KIP-848)."""

from tailrace.broker.protocol.fields import array, boolean, int8, int16, int32, message, string, struct, uuid


@message
class ConsumerGroupTopicPartitions:
    topic_id: bytes = uuid()
    partitions: list[int] = array("int32")


@message
class ConsumerGroupHeartbeatRequest:
    """member_epoch: 0 joins, -1 leaves, -2 leaves for a while; null and -1: not changed since the last one."""

    group_id: str = string()
    member_id: str = string()
    member_epoch: int = int32()
    instance_id: str | None = string(nullable="0+", default=None)
    rack_id: str | None = string(nullable="0+", default=None)
    rebalance_timeout_ms: int = int32(default=-1)
    subscribed_topic_names: list[str] | None = array("string", nullable="0+", null_default=True)
    subscribed_topic_regex: str | None = string("1+", nullable="1+", default=None)
    server_assignor: str | None = string(nullable="0+", default=None)
    topic_partitions: list[ConsumerGroupTopicPartitions] | None = array(
        ConsumerGroupTopicPartitions, nullable="0+", null_default=True
    )


@message
class ConsumerGroupAssignment:
    topic_partitions: list[ConsumerGroupTopicPartitions] = array(ConsumerGroupTopicPartitions)


@message
class ConsumerGroupHeartbeatResponse:
    """assignment: what the member may use from now on; null: as before."""

    throttle_time_ms: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+", default=None)
    member_id: str | None = string(nullable="0+", default=None)
    member_epoch: int = int32()
    heartbeat_interval_ms: int = int32()
    assignment: ConsumerGroupAssignment | None = struct(ConsumerGroupAssignment, nullable="0+")


@message
class ConsumerGroupDescribeRequest:
    """Groups of the consumer protocol only; v1 adds the members' type."""

    group_ids: list[str] = array("string")
    include_authorized_operations: bool = boolean()


@message
class NamedTopicPartitions:
    topic_id: bytes = uuid()
    topic_name: str = string()
    partitions: list[int] = array("int32")


@message
class NamedAssignment:
    topic_partitions: list[NamedTopicPartitions] = array(NamedTopicPartitions)


@message
class ConsumerGroupMember:
    member_id: str = string()
    instance_id: str | None = string(nullable="0+", default=None)
    rack_id: str | None = string(nullable="0+", default=None)
    member_epoch: int = int32()
    client_id: str = string()
    client_host: str = string()
    subscribed_topic_names: list[str] = array("string")
    subscribed_topic_regex: str | None = string(nullable="0+", default=None)
    assignment: NamedAssignment = struct(NamedAssignment)
    target_assignment: NamedAssignment = struct(NamedAssignment)
    member_type: int = int8("1+", default=-1)


@message
class DescribedConsumerGroup:
    error_code: int = int16()
    error_message: str | None = string(nullable="0+", default=None)
    group_id: str = string()
    group_state: str = string()
    group_epoch: int = int32()
    assignment_epoch: int = int32()
    assignor_name: str = string()
    members: list[ConsumerGroupMember] = array(ConsumerGroupMember)
    authorized_operations: int = int32(default=-(2**31))


@message
class ConsumerGroupDescribeResponse:
    """member_type: 0 classic, 1 consumer."""

    throttle_time_ms: int = int32()
    groups: list[DescribedConsumerGroup] = array(DescribedConsumerGroup)
