"""FindCoordinator (10) and the classic group protocol (11-16, 42)."""

from tailrace.broker.protocol.fields import array, binary, boolean, int8, int16, int32, message, string


@message
class FindCoordinatorRequest:
    """key_type: 0 group, 1 transaction, 2 share group; v4 asks for many keys."""

    key: str = string("0-3")
    key_type: int = int8("1+")
    coordinator_keys: list[str] = array("string", "4+")


@message
class Coordinator:
    key: str = string()
    node_id: int = int32()
    host: str = string()
    port: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")


@message
class FindCoordinatorResponse:
    """v0-3 one answer in the body, v4+ `coordinators`."""

    throttle_time_ms: int = int32("1+")
    error_code: int = int16("0-3")
    error_message: str | None = string("1-3", nullable="0+")
    node_id: int = int32("0-3")
    host: str = string("0-3")
    port: int = int32("0-3")
    coordinators: list[Coordinator] = array(Coordinator, "4+")


@message
class JoinGroupRequestProtocol:
    name: str = string()
    metadata: bytes = binary()


@message
class JoinGroupRequest:
    """v4 two-step join with MEMBER_ID_REQUIRED, v5 static members (KIP-345), v8 reason."""

    group_id: str = string()
    session_timeout_ms: int = int32()
    rebalance_timeout_ms: int = int32("1+", default=-1)
    member_id: str = string()
    group_instance_id: str | None = string("5+", nullable="0+", default=None)
    protocol_type: str = string()
    protocols: list[JoinGroupRequestProtocol] = array(JoinGroupRequestProtocol)
    reason: str | None = string("8+", nullable="0+", default=None)


@message
class JoinGroupResponseMember:
    member_id: str = string()
    group_instance_id: str | None = string("5+", nullable="0+", default=None)
    metadata: bytes = binary()


@message
class JoinGroupResponse:
    """The leader gets `members`; v9 tells it to skip the assignment (KIP-814)."""

    throttle_time_ms: int = int32("2+")
    error_code: int = int16()
    generation_id: int = int32(default=-1)
    protocol_type: str | None = string("7+", nullable="0+", default=None)
    protocol_name: str | None = string(nullable="7+")
    leader: str = string()
    skip_assignment: bool = boolean("9+")
    member_id: str = string()
    members: list[JoinGroupResponseMember] = array(JoinGroupResponseMember)


@message
class SyncGroupRequestAssignment:
    member_id: str = string()
    assignment: bytes = binary()


@message
class SyncGroupRequest:
    """The leader brings `assignments`, everyone else none."""

    group_id: str = string()
    generation_id: int = int32()
    member_id: str = string()
    group_instance_id: str | None = string("3+", nullable="0+", default=None)
    protocol_type: str | None = string("5+", nullable="0+", default=None)
    protocol_name: str | None = string("5+", nullable="0+", default=None)
    assignments: list[SyncGroupRequestAssignment] = array(SyncGroupRequestAssignment)


@message
class SyncGroupResponse:
    """This member's assignment, opaque to the broker."""

    throttle_time_ms: int = int32("1+")
    error_code: int = int16()
    protocol_type: str | None = string("5+", nullable="0+", default=None)
    protocol_name: str | None = string("5+", nullable="0+", default=None)
    assignment: bytes = binary()


@message
class HeartbeatRequest:
    """Keeps a member's session alive."""

    group_id: str = string()
    generation_id: int = int32()
    member_id: str = string()
    group_instance_id: str | None = string("3+", nullable="0+", default=None)


@message
class HeartbeatResponse:
    """REBALANCE_IN_PROGRESS asks the member to join again."""

    throttle_time_ms: int = int32("1+")
    error_code: int = int16()


@message
class LeaveGroupMember:
    member_id: str = string()
    group_instance_id: str | None = string(nullable="0+", default=None)
    reason: str | None = string("5+", nullable="0+", default=None)


@message
class LeaveGroupRequest:
    """v0-2 one member, v3+ `members`."""

    group_id: str = string()
    member_id: str = string("0-2")
    members: list[LeaveGroupMember] = array(LeaveGroupMember, "3+")


@message
class LeaveGroupMemberResponse:
    member_id: str = string()
    group_instance_id: str | None = string(nullable="0+")
    error_code: int = int16()


@message
class LeaveGroupResponse:
    """v3+ one error per member."""

    throttle_time_ms: int = int32("1+")
    error_code: int = int16()
    members: list[LeaveGroupMemberResponse] = array(LeaveGroupMemberResponse, "3+")


@message
class DescribeGroupsRequest:
    """v3 asks for authorized operations."""

    groups: list[str] = array("string")
    include_authorized_operations: bool = boolean("3+")


@message
class DescribedGroupMember:
    member_id: str = string()
    group_instance_id: str | None = string("4+", nullable="0+", default=None)
    client_id: str = string()
    client_host: str = string()
    member_metadata: bytes = binary()
    member_assignment: bytes = binary()


@message
class DescribedGroup:
    error_code: int = int16()
    error_message: str | None = string("6+", nullable="0+", default=None)
    group_id: str = string()
    group_state: str = string()
    protocol_type: str = string()
    protocol_data: str = string()
    members: list[DescribedGroupMember] = array(DescribedGroupMember)
    authorized_operations: int = int32("3+", default=-(2**31))


@message
class DescribeGroupsResponse:
    """Member metadata and assignment are the client's own bytes."""

    throttle_time_ms: int = int32("1+")
    groups: list[DescribedGroup] = array(DescribedGroup)


@message
class ListGroupsRequest:
    """v4 filters by state (KIP-518), v5 by type (KIP-848)."""

    states_filter: list[str] = array("string", "4+")
    types_filter: list[str] = array("string", "5+")


@message
class ListedGroup:
    group_id: str = string()
    protocol_type: str = string()
    group_state: str = string("4+")
    group_type: str = string("5+")


@message
class ListGroupsResponse:
    """protocol_type is empty for simple consumers."""

    throttle_time_ms: int = int32("1+")
    error_code: int = int16()
    groups: list[ListedGroup] = array(ListedGroup)


@message
class DeleteGroupsRequest:
    """Only groups without members can go."""

    groups_names: list[str] = array("string")


@message
class DeletableGroupResult:
    group_id: str = string()
    error_code: int = int16()


@message
class DeleteGroupsResponse:
    """One error per group."""

    throttle_time_ms: int = int32()
    results: list[DeletableGroupResult] = array(DeletableGroupResult)
