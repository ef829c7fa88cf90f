"""Guards of consumer groups: READ to take part, DESCRIBE to look, DELETE to remove."""

from typing import Any

from tailrace.broker.guards.answers import DENIED, Answer, Guard, judge, refused, split, then
from tailrace.broker.handlers.context import Handler, RequestContext
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.security.acls import Operation, ResourceType
from tailrace.security.authorizer import Access

_GROUP, _TOPIC, _TXN = ResourceType.GROUP, ResourceType.TOPIC, ResourceType.TRANSACTIONAL_ID
_KEY_TYPES = {0: _GROUP, 1: _TXN}
_FIRST_VERSION_WITH_KEYS = 4
_FIRST_VERSION_WITH_GROUPS = 8
_NOT_ASKED = -(2**31)


def member_of_group(key: ApiKey) -> Guard:
    """READ on the group: JoinGroup, SyncGroup, Heartbeat, LeaveGroup."""

    def guard(context: RequestContext, access: Access, request: Any, handler: Handler) -> Answer:
        error = judge(access, Operation.READ, _GROUP, request.group_id)
        return refused(context, key, request, error) if error else handler(context, request)

    return guard


def find_coordinator(
    context: RequestContext, access: Access, request: m.FindCoordinatorRequest, handler: Handler
) -> Answer:
    """DESCRIBE on each group or transactional id."""
    kind = _KEY_TYPES.get(request.key_type)
    if kind is None:
        return handler(context, request)  # refused by the handler: there is no such type
    if context.version < _FIRST_VERSION_WITH_KEYS:
        error = judge(access, Operation.DESCRIBE, kind, request.key)
        if error:
            return m.FindCoordinatorResponse(0, error, error.name, -1, "", -1)
        return handler(context, request)
    errors = {key: judge(access, Operation.DESCRIBE, kind, key) for key in request.coordinator_keys}
    refusals = [m.Coordinator(key, -1, "", -1, error, error.name) for key, error in errors.items() if error]
    request.coordinator_keys = [key for key in request.coordinator_keys if not errors[key]]

    def merge(answer: m.FindCoordinatorResponse) -> m.FindCoordinatorResponse:
        answer.coordinators += refusals
        return answer

    return then(handler(context, request), merge)


def describe_groups(
    context: RequestContext, access: Access, request: m.DescribeGroupsRequest, handler: Handler
) -> Answer:
    """DESCRIBE on each group."""

    def finish(answer: m.DescribeGroupsResponse) -> m.DescribeGroupsResponse:
        for group in answer.groups:
            if group.error_code != DENIED[_GROUP]:
                _tell_operations(access, group)
        return answer

    return then(
        split(
            context,
            ApiKey.DESCRIBE_GROUPS,
            request,
            handler,
            items="groups",
            answers="groups",
            error_of=lambda group: judge(access, Operation.DESCRIBE, _GROUP, group),
        ),
        finish,
    )


def list_groups(
    context: RequestContext, access: Access, request: m.ListGroupsRequest, handler: Handler
) -> Answer:
    """DESCRIBE on the cluster shows all; else only groups with DESCRIBE."""

    def leave_out(answer: m.ListGroupsResponse) -> m.ListGroupsResponse:
        answer.groups = [
            group for group in answer.groups if access.may(Operation.DESCRIBE, _GROUP, group.group_id)
        ]
        return answer

    answer = handler(context, request)
    return answer if access.may_cluster(Operation.DESCRIBE) else then(answer, leave_out)


def delete_groups(
    context: RequestContext, access: Access, request: m.DeleteGroupsRequest, handler: Handler
) -> Answer:
    """DELETE on each group."""
    return split(
        context,
        ApiKey.DELETE_GROUPS,
        request,
        handler,
        items="groups_names",
        answers="results",
        error_of=lambda group: judge(access, Operation.DELETE, _GROUP, group),
    )


def consumer_group_heartbeat(
    context: RequestContext, access: Access, request: m.ConsumerGroupHeartbeatRequest, handler: Handler
) -> Answer:
    """READ on the group, DESCRIBE on each topic that is named; a pattern finds only topics with DESCRIBE."""
    error = judge(access, Operation.READ, _GROUP, request.group_id)
    for topic in request.subscribed_topic_names or ():
        error = error or judge(access, Operation.DESCRIBE, _TOPIC, topic)
    if error:
        return refused(context, ApiKey.CONSUMER_GROUP_HEARTBEAT, request, error)
    return handler(context, request)


def consumer_group_describe(
    context: RequestContext, access: Access, request: m.ConsumerGroupDescribeRequest, handler: Handler
) -> Answer:
    """DESCRIBE on each group, and on every topic that its members read: else its members are not told."""

    def finish(answer: m.ConsumerGroupDescribeResponse) -> m.ConsumerGroupDescribeResponse:
        for group in answer.groups:
            if group.error_code == DENIED[_GROUP]:
                continue
            if not all(access.may(Operation.DESCRIBE, _TOPIC, name) for name in _topics_of(group)):
                group.error_code, group.members = ErrorCode.TOPIC_AUTHORIZATION_FAILED, []
                group.error_message = (
                    "The group has described topic(s) that the client is not authorized to describe."
                )
            _tell_operations(access, group)
        return answer

    return then(
        split(
            context,
            ApiKey.CONSUMER_GROUP_DESCRIBE,
            request,
            handler,
            items="group_ids",
            answers="groups",
            error_of=lambda group: judge(access, Operation.DESCRIBE, _GROUP, group),
        ),
        finish,
    )


def _tell_operations(access: Access, group: m.DescribedGroup | m.DescribedConsumerGroup) -> None:
    """What the principal may do with a group, where it asked for that."""
    if group.authorized_operations != _NOT_ASKED:
        group.authorized_operations = access.operations(_GROUP, group.group_id)


def _topics_of(group: m.DescribedConsumerGroup) -> set[str]:
    names = set()
    for member in group.members:
        names.update(member.subscribed_topic_names)
        for assignment in (member.assignment, member.target_assignment):
            names.update(topic.topic_name for topic in assignment.topic_partitions)
    return names


def offset_commit(
    context: RequestContext, access: Access, request: m.OffsetCommitRequest, handler: Handler
) -> Answer:
    """READ on the group and on each topic."""
    error = judge(access, Operation.READ, _GROUP, request.group_id)
    if error:
        return refused(context, ApiKey.OFFSET_COMMIT, request, error)

    def error_of(topic: m.OffsetCommitRequestTopic) -> ErrorCode:
        name = context.topic_name(topic.name, topic.topic_id)
        return ErrorCode.NONE if name is None else judge(access, Operation.READ, _TOPIC, name)

    return split(
        context,
        ApiKey.OFFSET_COMMIT,
        request,
        handler,
        items="topics",
        answers="topics",
        error_of=error_of,
    )


def offset_fetch(
    context: RequestContext, access: Access, request: m.OffsetFetchRequest, handler: Handler
) -> Answer:
    """DESCRIBE on the group and on each topic; of all topics those without DESCRIBE are left out."""
    if context.version < _FIRST_VERSION_WITH_GROUPS:
        error = judge(access, Operation.DESCRIBE, _GROUP, request.group_id)
        if error:
            return refused(context, ApiKey.OFFSET_FETCH, request, error)
        every = {request.group_id: request.topics is None}
    else:
        every = {group.group_id: group.topics is None for group in request.groups}

    def finish(answer: m.OffsetFetchResponse) -> m.OffsetFetchResponse:
        if context.version < _FIRST_VERSION_WITH_GROUPS:
            answer.topics = _seen(context, access, answer.topics, every[request.group_id])
        for group in answer.groups:
            group.topics = _seen(context, access, group.topics, every[group.group_id])
        return answer

    if context.version < _FIRST_VERSION_WITH_GROUPS:
        return then(handler(context, request), finish)
    errors = {name: judge(access, Operation.DESCRIBE, _GROUP, name) for name in every}
    refusals = [m.OffsetFetchResponseGroup(name, [], error) for name, error in errors.items() if error]
    request.groups = [group for group in request.groups if not errors[group.group_id]]

    def merge(answer: m.OffsetFetchResponse) -> m.OffsetFetchResponse:
        finish(answer).groups += refusals
        return answer

    return then(handler(context, request), merge)


def _seen(context: RequestContext, access: Access, topics: list[Any], every: bool) -> list[Any]:
    seen = []
    for topic in topics:
        name = context.topic_name(topic.name, getattr(topic, "topic_id", bytes(16)))
        error = judge(access, Operation.DESCRIBE, _TOPIC, name) if name is not None else ErrorCode.NONE
        if error and every:
            continue
        if error:
            for row in topic.partitions:
                row.committed_offset, row.committed_leader_epoch = -1, -1
                row.metadata, row.error_code = "", error
        seen.append(topic)
    return seen


def offset_delete(
    context: RequestContext, access: Access, request: m.OffsetDeleteRequest, handler: Handler
) -> Answer:
    """DELETE on the group, READ on each topic."""
    error = judge(access, Operation.DELETE, _GROUP, request.group_id)
    if error:
        return refused(context, ApiKey.OFFSET_DELETE, request, error)
    errors = {topic.name: judge(access, Operation.READ, _TOPIC, topic.name) for topic in request.topics}
    refusals = [
        m.OffsetDeleteResponseTopic(
            topic.name,
            [
                m.OffsetDeleteResponsePartition(part.partition_index, errors[topic.name])
                for part in topic.partitions
            ],
        )
        for topic in request.topics
        if errors[topic.name]
    ]
    request.topics = [topic for topic in request.topics if not errors[topic.name]]

    def merge(answer: m.OffsetDeleteResponse) -> m.OffsetDeleteResponse:
        answer.topics += refusals
        return answer

    return then(handler(context, request), merge)
