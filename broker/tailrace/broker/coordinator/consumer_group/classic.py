"""Members of a consumer group that speak the classic protocol: their JoinGroup, SyncGroup and Heartbeat.

    Heartbeat --REBALANCE_IN_PROGRESS: there is something new--> JoinGroup --> SyncGroup: what the member has now

The broker assigns, so nobody leads: every JoinGroup is answered at once, with the member's epoch as its generation.
Pure: nothing here waits, writes or asks for the time.
"""

import uuid
from collections.abc import Iterable

from tailrace.broker.coordinator.consumer_group.errors import GroupRefusal
from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.heartbeat import Catalog, Heartbeat, check_holder
from tailrace.broker.coordinator.consumer_group.member import JOINING_EPOCH, ClassicSide, MemberState
from tailrace.broker.coordinator.consumer_group.migration import CONSUMER, assignment_for, places_of
from tailrace.broker.coordinator.group import JoinRequest, Protocols, SyncRequest
from tailrace.broker.protocol import ErrorCode, MalformedMessageError
from tailrace.broker.protocol.consumer_protocol import read_subscription


def joining(group: ConsumerGroup, request: JoinRequest, catalog: Catalog) -> Heartbeat:
    """A JoinGroup in the terms of the consumer protocol.

    Raises GroupRefusal: INCONSISTENT_GROUP_PROTOCOL, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID.
    """
    if request.protocol_type != CONSUMER or not _supports(group, (name for name, _ in request.protocols)):
        raise GroupRefusal(
            ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
            f"The group {group.group_id} does not support the protocols.",
        )
    if request.instance_id is not None and request.member_id:
        check_holder(group, request.instance_id, request.member_id)
    protocols: Protocols = tuple((name, bytes(metadata)) for name, metadata in request.protocols)
    try:
        said = read_subscription(protocols[0][1])
    except MalformedMessageError as error:
        raise GroupRefusal(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, str(error)) from error
    return Heartbeat(
        group.group_id,
        request.member_id or str(uuid.uuid4()),
        JOINING_EPOCH,
        request.instance_id,
        said.rack_id,
        request.rebalance_timeout_ms,
        frozenset(said.topics),
        "",
        owned=places_of(said.owned_partitions, catalog),
        client_id=request.client_id,
        client_host=request.client_host,
        classic=ClassicSide(request.session_timeout_ms, protocols),
    )


def _supports(group: ConsumerGroup, names: Iterable[str]) -> bool:
    """Whether every classic member knows one of the names: they may be left with nothing but each other."""
    offers = [{name for name, _ in side.protocols} for side in group.classic_members()]
    return any(all(name in offer for offer in offers) for name in names)


def classic_side(
    group: ConsumerGroup, member_id: str, instance_id: str | None, generation: int
) -> ClassicSide:
    """The member that speaks.  Raises GroupRefusal: UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION."""
    if instance_id is not None:
        check_holder(group, instance_id, member_id)
    said = group.subscriptions.get(member_id)
    if said is None or said.classic is None:
        raise GroupRefusal(
            ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a classic member of {group.group_id}."
        )
    if generation != group.progress_of(member_id).epoch:
        raise GroupRefusal(
            ErrorCode.ILLEGAL_GENERATION, f"Generation {generation} is not the member's epoch."
        )
    return said.classic


def assignment_of(group: ConsumerGroup, side: ClassicSide, request: SyncRequest) -> bytes:
    """What a member is told by SyncGroup.

    Raises GroupRefusal: INCONSISTENT_GROUP_PROTOCOL; REBALANCE_IN_PROGRESS where there is something newer.
    """
    protocol = (request.protocol_type or CONSUMER, request.protocol or side.favourite)
    if protocol != (CONSUMER, side.favourite):
        raise GroupRefusal(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"The member did not join for {protocol}.")
    progress = group.progress_of(request.member_id)
    if progress.epoch < group.epoch and progress.state is not MemberState.UNREVOKED:
        raise GroupRefusal(ErrorCode.REBALANCE_IN_PROGRESS, "There is a newer epoch.")
    return assignment_for(group, side, progress.assigned)


def must_rejoin(group: ConsumerGroup, member_id: str) -> bool:
    """Whether joining again would bring a classic member further towards its target."""
    progress = group.progress_of(member_id)
    if progress.epoch < group.epoch or progress.state is MemberState.UNREVOKED:
        return True
    if progress.state is not MemberState.UNRELEASED:
        return False
    subscribed = group.topic_ids_of(group.subscriptions[member_id])
    missing = group.targets.get(member_id, frozenset()) - progress.assigned.keys()
    return all(group.owner(place) is None for place in missing if place[0] in subscribed)
