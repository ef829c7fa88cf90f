"""The classic group protocol: join, sync, heartbeat, leave, and what time does to members.

Pure: every call is told the time, parked requests are answered through callbacks, and a generation is
handed to `persist` before anybody learns its assignment.  `tick` must be called a few times a second.
"""

import dataclasses
import uuid
from collections.abc import Iterator, Sequence

from tailrace.broker.coordinator.group import (
    Group,
    GroupState,
    JoinReply,
    JoinRequest,
    JoinResult,
    Member,
    SyncReply,
    SyncRequest,
    SyncResult,
)
from tailrace.broker.coordinator.rebalance import (
    GroupLimits,
    Persist,
    Rebalances,
    describe,
    keep_alive,
)
from tailrace.broker.coordinator.schemas import GroupMetadata
from tailrace.broker.protocol import ErrorCode


class GroupCoordinator:
    """All groups of this broker."""

    def __init__(self, limits: GroupLimits, persist: Persist) -> None:
        self._limits = limits
        self._persist = persist
        self._rebalances = Rebalances(limits, persist)
        self._groups: dict[str, Group] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def get(self, group_id: str) -> Group | None:
        """The group, or None if it never was or is gone."""
        return self._groups.get(group_id)

    def ensure(self, group_id: str, now_ms: int) -> Group:
        """The group, made EMPTY if unknown: what a commit without membership works on."""
        return self._groups.setdefault(group_id, Group(group_id, since_ms=now_ms))

    def restore(self, group_id: str, stored: GroupMetadata, now_ms: int) -> None:
        """Take over a group from the log; its members get one session to show up again."""
        group = Group(
            group_id,
            GroupState.STABLE if stored.members else GroupState.EMPTY,
            stored.since_ms,
            stored.protocol_type or None,
            stored.protocol,
            stored.generation,
        )
        for kept in stored.members:
            member = Member(
                kept.member_id,
                kept.instance_id,
                kept.client_id,
                kept.client_host,
                kept.rebalance_timeout_ms,
                kept.session_timeout_ms,
                ((stored.protocol or "", kept.subscription),),
                kept.assignment,
                expires_at_ms=now_ms + kept.session_timeout_ms,
            )
            group.add(member)
        group.leader = stored.leader
        self._groups[group_id] = group

        if stored.members and stored.leader is None:  # it was a consumer group until now (`take_over`)
            self._rebalances.start(group, now_ms)

    def take_over(self, group: Group, now_ms: int) -> None:
        """A consumer group has become a classic one, and the log says so: its members rebalance at once."""
        self._groups[group.group_id] = group
        for member in group.members.values():
            keep_alive(member, now_ms)
        self._rebalances.start(group, now_ms)

    def hand_over(self, group_id: str) -> None:
        """Drop a group that is one of the consumer protocol now: who is parked shall join it there."""
        group = self._groups.get(group_id)
        self.forget(group_id)
        if group is not None:
            group.release(ErrorCode.REBALANCE_IN_PROGRESS)

    def forget(self, group_id: str) -> None:
        """Drop a group whose deletion is in the log."""
        group = self._groups.pop(group_id, None)
        if group is not None:
            group.state = GroupState.DEAD

    def join(self, request: JoinRequest, now_ms: int, reply: JoinReply) -> None:
        """JoinGroup: `reply` is called now, or when the rebalance completes."""
        error = self._refuse_join(request, now_ms)
        if error is not ErrorCode.NONE:
            reply(JoinResult(error, request.member_id))
            return
        group = self.ensure(request.group_id, now_ms)
        if request.member_id:
            self._join_known(group, request, now_ms, reply)
        elif request.instance_id is not None:
            member_id = f"{request.instance_id}-{uuid.uuid4()}"
            if request.instance_id in group.static_members:
                self._replace_static(group, request, member_id, now_ms, reply)
            else:
                self._add(group, request, member_id, now_ms, reply)
        else:
            member_id = f"{request.client_id}-{uuid.uuid4()}"
            if request.require_known_member_id:
                group.pending_joins[member_id] = now_ms + request.session_timeout_ms
                reply(JoinResult(ErrorCode.MEMBER_ID_REQUIRED, member_id))
            else:
                self._add(group, request, member_id, now_ms, reply)

    def sync(self, request: SyncRequest, now_ms: int, reply: SyncReply) -> None:
        """SyncGroup: parked until the leader's assignment is durable."""
        error = self._check_member(
            request.group_id, request.member_id, request.instance_id, request.generation
        )
        group = self._groups.get(request.group_id)
        if error is not ErrorCode.NONE or group is None:
            reply(SyncResult(error))
            return
        if (request.protocol_type not in (None, group.protocol_type)) or (
            request.protocol not in (None, group.protocol)
        ):
            reply(SyncResult(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
            return
        member = group.members[request.member_id]
        if group.state is GroupState.COMPLETING:
            group.pending_syncs.discard(member.member_id)
            member.answer_sync(SyncResult(ErrorCode.REBALANCE_IN_PROGRESS))  # a retry replaces the parked one
            member.sync_reply = reply
            if member.member_id == group.leader:
                self._rebalances.store_assignment(group, request.assignments, now_ms)
        elif group.state is GroupState.STABLE:
            group.pending_syncs.discard(member.member_id)
            keep_alive(member, now_ms)
            reply(SyncResult(ErrorCode.NONE, group.protocol_type, group.protocol, member.assignment))
        elif group.state is GroupState.PREPARING:
            reply(SyncResult(ErrorCode.REBALANCE_IN_PROGRESS))
        else:
            reply(SyncResult(ErrorCode.UNKNOWN_MEMBER_ID))

    def heartbeat(
        self, group_id: str, generation: int, member_id: str, instance_id: str | None, now_ms: int
    ) -> ErrorCode:
        """Heartbeat: REBALANCE_IN_PROGRESS tells the member to join again."""
        error = self._check_member(group_id, member_id, instance_id, generation)
        group = self._groups.get(group_id)
        if error is not ErrorCode.NONE or group is None:
            return error
        if group.state not in (GroupState.PREPARING, GroupState.COMPLETING, GroupState.STABLE):
            return ErrorCode.UNKNOWN_MEMBER_ID
        keep_alive(group.members[member_id], now_ms)
        preparing = group.state is GroupState.PREPARING
        return ErrorCode.REBALANCE_IN_PROGRESS if preparing else ErrorCode.NONE

    def leave(self, group_id: str, leaving: Sequence[tuple[str, str | None]], now_ms: int) -> list[ErrorCode]:
        """LeaveGroup of (member id, instance id) each; one rebalance for all of them.

        A static member may be named by its instance id alone.
        """
        group = self._groups.get(group_id)
        if group is None:
            return [ErrorCode.UNKNOWN_MEMBER_ID for _ in leaving]
        errors = [self._leave(group, member_id, instance_id) for member_id, instance_id in leaving]
        if ErrorCode.NONE in errors:
            self._rebalances.lost(group, now_ms)
        return errors

    def _leave(self, group: Group, member_id: str, instance_id: str | None) -> ErrorCode:
        if member_id in group.pending_joins:
            del group.pending_joins[member_id]
            return ErrorCode.NONE
        if not member_id:
            member_id = group.static_members.get(instance_id or "", "")
        error = self._check_member(group.group_id, member_id, instance_id, None)
        if error is ErrorCode.NONE:
            group.remove(group.members[member_id])
        return error

    def check_commit(
        self,
        group_id: str,
        member_id: str,
        instance_id: str | None,
        generation: int,
        now_ms: int,
        *,
        transactional: bool,
    ) -> ErrorCode:
        """Whether these credentials may commit offsets; a member's session is renewed by it."""
        group = self._groups.get(group_id)
        if group is None:
            return ErrorCode.NONE if generation < 0 else ErrorCode.ILLEGAL_GENERATION
        if generation < 0 and group.state is GroupState.EMPTY:
            return ErrorCode.NONE
        if generation >= 0 or member_id or instance_id is not None:
            error = self._check_member(group_id, member_id, instance_id, generation)
            if error is not ErrorCode.NONE:
                return error
            keep_alive(group.members[member_id], now_ms)
        elif not transactional and group.state is not GroupState.EMPTY:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if not transactional and group.state is GroupState.COMPLETING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def release_parked(self) -> None:
        """Answer every parked request with NOT_COORDINATOR: the broker stops."""
        for group in self._groups.values():
            group.release(ErrorCode.NOT_COORDINATOR)

    def tick(self, now_ms: int) -> None:
        """Expire sessions, handed-out member ids and deadlines of rebalances."""
        for group in list(self._groups.values()):
            self._expire(group, now_ms)

    def settle(self, group_id: str, now_ms: int) -> None:
        """Expire what is due in one group: who asks whether it has members does not wait for the next tick."""
        group = self._groups.get(group_id)
        if group is not None:
            self._expire(group, now_ms)

    def _expire(self, group: Group, now_ms: int) -> None:
        for member_id in [key for key, due in group.pending_joins.items() if now_ms >= due]:
            del group.pending_joins[member_id]
            self._rebalances.complete_if_all_joined(group, now_ms)
        for member in [m for m in group.members.values() if m.expired(now_ms)]:
            self._rebalances.remove(group, member, now_ms)
        if group.state is GroupState.PREPARING and now_ms >= group.join_deadline_ms:
            self._rebalances.join_time_over(group, now_ms)
        elif (
            group.state in (GroupState.COMPLETING, GroupState.STABLE)
            and group.pending_syncs
            and now_ms >= group.sync_deadline_ms
        ):
            for member_id in list(group.pending_syncs):
                group.remove(group.members[member_id])
            self._rebalances.start(group, now_ms)

    # -- joining ---------------------------------------------------------------------------------------

    def check_join(self, request: JoinRequest) -> ErrorCode:
        """What can be seen of a JoinGroup without the group."""
        if not request.group_id:
            return ErrorCode.INVALID_GROUP_ID
        low, high = self._limits.min_session_timeout_ms, self._limits.max_session_timeout_ms
        if not low <= request.session_timeout_ms <= high:
            return ErrorCode.INVALID_SESSION_TIMEOUT
        return ErrorCode.NONE

    def _refuse_join(self, request: JoinRequest, now_ms: int) -> ErrorCode:
        if error := self.check_join(request):
            return error
        group = self._groups.get(request.group_id)
        if group is None:
            if request.member_id:
                return ErrorCode.UNKNOWN_MEMBER_ID
            group = Group(request.group_id)
        if not group.accepts(request.member_id, request.instance_id, self._limits.max_size):
            group.pending_joins.pop(request.member_id, None)
            if request.member_id in group.members:
                group.remove(group.members[request.member_id])
                self._rebalances.lost(group, now_ms)
            return ErrorCode.GROUP_MAX_SIZE_REACHED
        if not group.supports(request.protocol_type, [name for name, _ in request.protocols]):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return ErrorCode.NONE

    def _join_known(self, group: Group, request: JoinRequest, now_ms: int, reply: JoinReply) -> None:
        if request.member_id in group.pending_joins and request.instance_id is None:
            self._add(group, request, request.member_id, now_ms, reply)
            return
        error = self._check_member(group.group_id, request.member_id, request.instance_id, None)
        if error is ErrorCode.NONE and group.state is GroupState.EMPTY:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        if error is not ErrorCode.NONE:
            reply(JoinResult(error, request.member_id))
            return
        member = group.members[request.member_id]
        unchanged = member.protocols == request.protocols
        settled = (group.state is GroupState.COMPLETING and unchanged) or (
            group.state is GroupState.STABLE and unchanged and member.member_id != group.leader
        )
        if settled:
            keep_alive(member, now_ms)
            reply(group.join_result(member))
        else:
            self._park_join(group, member, request, now_ms, reply)
            self._rebalances.start(group, now_ms)

    def _add(self, group: Group, request: JoinRequest, member_id: str, now_ms: int, reply: JoinReply) -> None:
        if not group.members:
            group.protocol_type = request.protocol_type
        member = Member(
            member_id,
            request.instance_id,
            request.client_id,
            request.client_host,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            request.protocols,
            is_new=True,
        )
        group.add(member)
        self._park_join(group, member, request, now_ms, reply)
        group.initial_newcomer = True
        self._rebalances.start(group, now_ms)

    def _replace_static(
        self, group: Group, request: JoinRequest, member_id: str, now_ms: int, reply: JoinReply
    ) -> None:
        old_id = group.static_members[request.instance_id or ""]
        leader_before = group.leader
        member = group.rename(group.members[old_id], member_id)
        before = (member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms)
        self._park_join(group, member, request, now_ms, reply)
        if group.state is not GroupState.STABLE or group.vote() != group.protocol:
            self._rebalances.start(group, now_ms)
            return
        result = group.join_result(member, skip_assignment=group.leader == member_id)
        if not request.can_skip_assignment:
            # an older client would assign again: name the old id as leader, so that it follows
            result = dataclasses.replace(
                result, leader=leader_before or "", members=(), skip_assignment=False
            )

        def stored(durable: bool) -> None:
            if durable:
                member.answer_join(result)
                return
            # the log names the old member: so does the group, and the client joins again
            member.answer_join(JoinResult(ErrorCode.COORDINATOR_NOT_AVAILABLE, ""))
            if group.members.get(member_id) is member:
                group.rename(member, old_id)
                member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms = before

        self._persist(group.group_id, describe(group), stored)

    def _park_join(
        self, group: Group, member: Member, request: JoinRequest, now_ms: int, reply: JoinReply
    ) -> None:
        member.answer_join(JoinResult(ErrorCode.UNKNOWN_MEMBER_ID, ""))  # a retry replaces the parked one
        member.client_id, member.client_host = request.client_id, request.client_host
        member.protocols = request.protocols
        member.rebalance_timeout_ms = request.rebalance_timeout_ms
        member.session_timeout_ms = request.session_timeout_ms
        member.join_reply = reply
        keep_alive(member, now_ms)

    # -- members ---------------------------------------------------------------------------------------

    def _check_member(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int | None
    ) -> ErrorCode:
        group = self._groups.get(group_id)
        if group is None or not group_id:
            return ErrorCode.UNKNOWN_MEMBER_ID if group_id else ErrorCode.INVALID_GROUP_ID
        if instance_id is not None:
            known = group.static_members.get(instance_id)
            if known is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if known != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        if member_id not in group.members:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if generation is not None and generation != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return ErrorCode.NONE
