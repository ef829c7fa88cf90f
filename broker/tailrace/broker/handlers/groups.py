"""FindCoordinator (10) and the classic group protocol: JoinGroup (11) to ListGroups (16), DeleteGroups (42).

Groups of the consumer protocol can have classic members, so that only DescribeGroups is for classic groups alone.
"""

from tailrace.broker.coordinator.group import (
    Group,
    GroupState,
    JoinRequest,
    SyncRequest,
)
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    Coordinator,
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
    LeaveGroupMember,
    LeaveGroupMemberResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

_GROUP, _TRANSACTION = 0, 1
_FIRST_VERSION_WITH_KEYS = 4
_GROUP_OPERATIONS = sum(1 << operation for operation in (3, 6, 8))
_NOT_ASKED = -(2**31)
_CLASSIC, _CONSUMER = "classic", "consumer"


def find_coordinator(context: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
    """This broker coordinates every group and every transactional id."""
    node, (host, port) = context.broker.config.node_id, context.address
    batched = context.version >= _FIRST_VERSION_WITH_KEYS
    keys = request.coordinator_keys if batched else [request.key]
    found = [
        Coordinator(key, node, host, port, ErrorCode.NONE, None)
        if request.key_type in (_GROUP, _TRANSACTION)
        else Coordinator(key, -1, "", -1, ErrorCode.INVALID_REQUEST, "only groups and transactions")
        for key in keys
    ]
    if batched:
        return FindCoordinatorResponse(coordinators=found)
    one = found[0]
    return FindCoordinatorResponse(0, one.error_code, one.error_message, one.node_id, one.host, one.port)


async def join_group(context: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse:
    """Answered when the rebalance completes, or at once where there is none."""
    rebalance_ms = request.rebalance_timeout_ms
    join = JoinRequest(
        request.group_id,
        request.member_id,
        request.group_instance_id,
        context.client_id,
        context.client_host,
        request.session_timeout_ms,
        request.session_timeout_ms if rebalance_ms < 0 else rebalance_ms,
        request.protocol_type,
        tuple((protocol.name, protocol.metadata) for protocol in request.protocols),
        require_known_member_id=context.version >= 4,
        can_skip_assignment=context.version >= 9,
    )
    result = await context.broker.group_log.join(join)
    # before v7 the protocol name cannot be null
    protocol = result.protocol if result.protocol is not None or context.version >= 7 else ""
    return JoinGroupResponse(
        0,
        result.error,
        result.generation,
        result.protocol_type,
        protocol,
        result.leader,
        result.skip_assignment,
        result.member_id,
        [JoinGroupResponseMember(m.member_id, m.instance_id, m.metadata) for m in result.members],
    )


async def sync_group(context: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse:
    """Answered when the leader's assignment is durable."""
    sync = SyncRequest(
        request.group_id,
        request.generation_id,
        request.member_id,
        request.group_instance_id,
        request.protocol_type,
        request.protocol_name,
        {entry.member_id: entry.assignment for entry in request.assignments},
    )
    result = await context.broker.group_log.sync(sync)
    return SyncGroupResponse(0, result.error, result.protocol_type, result.protocol, result.assignment)


def heartbeat(context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse:
    """REBALANCE_IN_PROGRESS: join again."""
    error = context.broker.group_log.classic_heartbeat(
        request.group_id, request.generation_id, request.member_id, request.group_instance_id
    )
    return HeartbeatResponse(0, error)


async def leave_group(context: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse:
    """One member before v3, several after; each with its own error.  Members of both protocols can be removed."""
    log = context.broker.group_log
    if not request.group_id:
        return LeaveGroupResponse(0, ErrorCode.INVALID_GROUP_ID)
    single = context.version < 3
    members = [LeaveGroupMember(request.member_id)] if single else request.members
    leaving = [(member.member_id, member.group_instance_id) for member in members]
    errors = await log.leave(request.group_id, leaving)
    if single:
        return LeaveGroupResponse(0, errors[0])
    return LeaveGroupResponse(
        members=[
            LeaveGroupMemberResponse(member.member_id, member.group_instance_id, error)
            for member, error in zip(members, errors, strict=True)
        ]
    )


def describe_groups(context: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse:
    """State, protocol and members of classic groups; a group that does not exist is Dead."""
    operations = _GROUP_OPERATIONS if request.include_authorized_operations else _NOT_ASKED
    described = []
    for group_id in request.groups:
        group = context.broker.group_log.groups.get(group_id)
        if group is None:
            missing = ErrorCode.GROUP_ID_NOT_FOUND if context.version >= 6 else ErrorCode.NONE
            other = context.broker.group_log.consumer_groups.get(group_id) is not None
            text = f"Group {group_id} is not a classic group." if other else f"Group {group_id} not found."
            described.append(
                DescribedGroup(
                    missing,
                    text if missing else None,
                    group_id,
                    GroupState.DEAD.value,
                    authorized_operations=operations,
                )
            )
        else:
            described.append(_described(group, operations))
    return DescribeGroupsResponse(groups=described)


def _described(group: Group, operations: int) -> DescribedGroup:
    stable = group.state is GroupState.STABLE
    return DescribedGroup(
        0,
        None,
        group.group_id,
        group.state.value,
        group.protocol_type or "",
        (group.protocol or "") if stable else "",
        [
            DescribedGroupMember(
                member.member_id,
                member.instance_id,
                member.client_id,
                member.client_host,
                member.metadata_of(group.protocol or "") if stable else b"",
                member.assignment if stable else b"",
            )
            for member in group.members.values()
        ],
        operations,
    )


def list_groups(context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse:
    """Every group, or those in the given states (any letter case) and of the given types."""
    states = {state.lower() for state in request.states_filter}
    types = {kind.lower() for kind in request.types_filter}
    log = context.broker.group_log
    listed = [
        ListedGroup(group.group_id, group.protocol_type or "", group.state.value, _CLASSIC)
        for group in log.groups
    ]
    listed += [
        ListedGroup(group.group_id, _CONSUMER, group.state.value, _CONSUMER) for group in log.consumer_groups
    ]
    return ListGroupsResponse(
        groups=[
            group
            for group in listed
            if (not states or group.group_state.lower() in states)
            and (not types or group.group_type.lower() in types)
        ]
    )


async def delete_groups(context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse:
    """Forget groups without members, with their offsets."""
    return DeleteGroupsResponse(
        results=[
            DeletableGroupResult(group_id, await _delete(context, group_id))
            for group_id in request.groups_names
        ]
    )


async def _delete(context: RequestContext, group_id: str) -> ErrorCode:
    log = context.broker.group_log
    log.groups.settle(group_id, context.broker.clock.now_ms())
    classic, consumer = log.groups.get(group_id), log.consumer_groups.get(group_id)
    if not group_id:
        return ErrorCode.INVALID_GROUP_ID
    if classic is None and consumer is None:
        return ErrorCode.GROUP_ID_NOT_FOUND
    if (classic and classic.state is not GroupState.EMPTY) or (consumer and consumer.subscriptions):
        return ErrorCode.NON_EMPTY_GROUP
    try:
        await log.delete_group(group_id)
    except LogError as error:
        return error.code
    return ErrorCode.NONE
