"""ConsumerGroupHeartbeat (68) and ConsumerGroupDescribe (69): the consumer protocol (KIP-848)."""

from collections.abc import Iterable
from uuid import UUID

from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.heartbeat import Heartbeat
from tailrace.broker.coordinator.consumer_group.member import Place, Subscription
from tailrace.broker.coordinator.consumer_group.records import by_topic
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    ConsumerGroupAssignment,
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    ConsumerGroupMember,
    ConsumerGroupTopicPartitions,
    DescribedConsumerGroup,
    NamedAssignment,
    NamedTopicPartitions,
)
from tailrace.security.acls import Operation, ResourceType

_FIRST_VERSION_WITH_OWN_IDS = 1
_GROUP_OPERATIONS = sum(1 << operation for operation in (3, 6, 8))
_NOT_ASKED = -(2**31)
_CLASSIC, _CONSUMER = 0, 1


async def consumer_group_heartbeat(
    context: RequestContext, request: ConsumerGroupHeartbeatRequest
) -> ConsumerGroupHeartbeatResponse:
    """Join, go on, leave; what the answer says is durable."""
    if not context.broker.features.consumer_protocol:
        return ConsumerGroupHeartbeatResponse(0, ErrorCode.UNSUPPORTED_VERSION)
    access = context.access

    def may_see(topic: str) -> bool:
        return access is None or access.may(Operation.DESCRIBE, ResourceType.TOPIC, topic)

    log = context.broker.group_log
    answer = await log.heartbeat(
        Heartbeat(
            request.group_id,
            request.member_id,
            request.member_epoch,
            request.instance_id,
            request.rack_id,
            request.rebalance_timeout_ms,
            None if request.subscribed_topic_names is None else frozenset(request.subscribed_topic_names),
            request.subscribed_topic_regex,
            request.server_assignor,
            None if request.topic_partitions is None else _places(request.topic_partitions),
            context.client_id,
            context.client_host,
            names_itself=context.version >= _FIRST_VERSION_WITH_OWN_IDS,
            may_see=may_see,
        )
    )
    if answer.error:
        return ConsumerGroupHeartbeatResponse(0, answer.error, answer.text)
    leaves = request.member_epoch < 0
    return ConsumerGroupHeartbeatResponse(
        0,
        ErrorCode.NONE,
        None,
        answer.member_id,
        answer.epoch,
        0 if leaves else log.consumer_groups.timings_of(request.group_id).heartbeat_interval_ms,
        None if answer.assignment is None else _assignment(answer.assignment),
    )


def _places(topics: Iterable[ConsumerGroupTopicPartitions]) -> frozenset[Place]:
    return frozenset((topic.topic_id, number) for topic in topics for number in topic.partitions)


def _assignment(places: Iterable[Place]) -> ConsumerGroupAssignment:
    return ConsumerGroupAssignment(
        [ConsumerGroupTopicPartitions(topic_id, numbers) for topic_id, numbers in by_topic(places).items()]
    )


async def consumer_group_describe(
    context: RequestContext, request: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse:
    """State, epochs and members; a classic group is not found."""
    log, described = context.broker.group_log, []
    for group_id in request.group_ids:
        await log.settled(group_id)
        group = log.consumer_groups.get(group_id)
        if not context.broker.features.consumer_protocol:
            one = DescribedConsumerGroup(ErrorCode.UNSUPPORTED_VERSION, None, group_id)
        elif not group_id:
            one = DescribedConsumerGroup(ErrorCode.INVALID_GROUP_ID, None, group_id)
        elif group is None:
            there = log.groups.get(group_id) is not None
            text = f"Group {group_id} is not a consumer group." if there else f"Group {group_id} not found."
            one = DescribedConsumerGroup(ErrorCode.GROUP_ID_NOT_FOUND, text, group_id)
        else:
            one = _described(context, group)
        one.authorized_operations = _GROUP_OPERATIONS if request.include_authorized_operations else _NOT_ASKED
        described.append(one)
    return ConsumerGroupDescribeResponse(groups=described)


def _described(context: RequestContext, group: ConsumerGroup) -> DescribedConsumerGroup:
    default = context.broker.group_log.consumer_groups.limits.assignors[0]
    return DescribedConsumerGroup(
        ErrorCode.NONE,
        None,
        group.group_id,
        group.state.value,
        group.epoch,
        group.target_epoch,
        group.assignor(default),
        [_member(context, group, member_id, said) for member_id, said in group.subscriptions.items()],
    )


def _member(
    context: RequestContext, group: ConsumerGroup, member_id: str, said: Subscription
) -> ConsumerGroupMember:
    progress = group.progress_of(member_id)
    return ConsumerGroupMember(
        member_id,
        said.instance_id,
        said.rack_id,
        progress.epoch,
        said.client_id,
        said.client_host,
        sorted(said.topics),
        said.pattern,
        _named(context, progress.assigned),
        _named(context, group.targets.get(member_id, frozenset())),
        _CONSUMER if said.classic is None else _CLASSIC,
    )


def _named(context: RequestContext, places: Iterable[Place]) -> NamedAssignment:
    """Partitions by topic; a topic that was deleted meanwhile is left out."""
    named = NamedAssignment()
    for topic_id, numbers in by_topic(places).items():
        try:
            topic = context.broker.topics.by_id(UUID(bytes=topic_id))
        except LogError:
            continue
        named.topic_partitions.append(NamedTopicPartitions(topic_id, topic.name, numbers))
    return named
