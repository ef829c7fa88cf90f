"""Rebalances: from the first join that asks for one to the assignment that every member gets.

Pure: told the time; answers parked requests through callbacks; `persist` comes before any answer of a sync.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tailrace.broker.coordinator.group import Group, GroupState, Member, SyncResult
from tailrace.broker.coordinator.schemas import GroupMetadata, MemberMetadata
from tailrace.broker.protocol import ErrorCode

# write one generation of a group; the callback is told whether it is durable now (False: no disk takes it)
Persist = Callable[[str, GroupMetadata, Callable[[bool], None]], None]

NEW_MEMBER_JOIN_TIMEOUT_MS = 5 * 60_000


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """Bounds that a broker sets to its groups (Kafka: group.*)."""

    initial_rebalance_delay_ms: int = 0
    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 30 * 60_000
    max_size: int = 10_000


class Rebalances:
    """Moves groups through PREPARING, COMPLETING and STABLE."""

    def __init__(self, limits: GroupLimits, persist: Persist) -> None:
        self._limits = limits
        self._persist = persist

    def start(self, group: Group, now_ms: int) -> None:
        """Start a rebalance, or see whether the running one is complete."""
        if group.state is not GroupState.PREPARING:
            initial = group.state is GroupState.EMPTY
            if group.state is GroupState.COMPLETING:
                for member in group.members.values():
                    member.answer_sync(SyncResult(ErrorCode.REBALANCE_IN_PROGRESS))
            group.pending_syncs.clear()
            group.move(GroupState.PREPARING, now_ms)
            timeout_ms = group.rebalance_timeout_ms()
            delay_ms = min(self._limits.initial_rebalance_delay_ms, timeout_ms)
            if initial and delay_ms:
                group.initial_newcomer = False
                group.initial_remaining_ms = timeout_ms - delay_ms
                group.join_deadline_ms = now_ms + delay_ms
            else:
                group.join_deadline_ms = now_ms + timeout_ms
        self.complete_if_all_joined(group, now_ms)

    def complete_if_all_joined(self, group: Group, now_ms: int) -> None:
        """End the joining once nobody is missing; the initial delay runs to its end all the same."""
        waiting = group.state is GroupState.PREPARING and group.initial_remaining_ms is None
        if waiting and group.all_joined():
            self._complete(group, now_ms)

    def join_time_over(self, group: Group, now_ms: int) -> None:
        """The deadline of the joining has come: go on with who is there, or grow the initial delay."""
        if group.initial_remaining_ms and group.initial_newcomer:
            delay_ms = min(self._limits.initial_rebalance_delay_ms, group.initial_remaining_ms)
            group.initial_newcomer = False
            group.initial_remaining_ms -= delay_ms
            group.join_deadline_ms = now_ms + delay_ms
        else:
            group.initial_remaining_ms = None
            self._complete(group, now_ms)

    def _complete(self, group: Group, now_ms: int) -> None:
        for member in [m for m in group.members.values() if m.join_reply is None and m.instance_id is None]:
            group.remove(member)
        joined = [m for m in group.members.values() if m.join_reply is not None]
        if group.members and not joined:
            # only absent static members are left: wait on
            group.join_deadline_ms = now_ms + group.rebalance_timeout_ms()
            return
        group.generation += 1
        if not group.members:
            group.protocol = group.leader = None
            group.move(GroupState.EMPTY, now_ms)
            self._persist(group.group_id, describe(group), _nothing)
            return
        leader = group.members.get(group.leader or "")
        if leader is None or leader.join_reply is None:
            group.leader = joined[0].member_id
        group.protocol = group.vote()
        group.move(GroupState.COMPLETING, now_ms)
        group.pending_syncs = set(group.members)
        group.sync_deadline_ms = now_ms + group.rebalance_timeout_ms()
        for member in list(group.members.values()):
            member.is_new = False
            keep_alive(member, now_ms)
            member.answer_join(group.join_result(member))

    def store_assignment(self, group: Group, assignments: Mapping[str, bytes], now_ms: int) -> None:
        """The leader's assignment: durable first, then told to every member; who is not in it gets nothing."""
        generation = group.generation
        assigned = {member_id: bytes(assignments.get(member_id, b"")) for member_id in group.members}

        def stored(durable: bool) -> None:
            if group.state is not GroupState.COMPLETING or group.generation != generation:
                return
            if not durable:
                for member in group.members.values():
                    member.answer_sync(SyncResult(ErrorCode.COORDINATOR_NOT_AVAILABLE))
                self.start(group, now_ms)
                return
            group.move(GroupState.STABLE, now_ms)
            for member in group.members.values():
                member.assignment = assigned.get(member.member_id, b"")
                keep_alive(member, now_ms)
                member.answer_sync(
                    SyncResult(ErrorCode.NONE, group.protocol_type, group.protocol, member.assignment)
                )

        self._persist(group.group_id, describe(group, assigned), stored)

    def remove(self, group: Group, member: Member, now_ms: int) -> None:
        """A member left or its session ended: the others share its partitions."""
        group.remove(member)
        self.lost(group, now_ms)

    def lost(self, group: Group, now_ms: int) -> None:
        """Members are gone: the others share their partitions."""
        if group.state in (GroupState.STABLE, GroupState.COMPLETING):
            self.start(group, now_ms)
        else:
            self.complete_if_all_joined(group, now_ms)


def keep_alive(member: Member, now_ms: int) -> None:
    """Start the member's session anew."""
    timeout_ms = NEW_MEMBER_JOIN_TIMEOUT_MS if member.is_new else member.session_timeout_ms
    member.expires_at_ms = now_ms + timeout_ms


def describe(group: Group, assignments: Mapping[str, bytes] | None = None) -> GroupMetadata:
    """What the log keeps of a group; `assignments` replace those of the members."""
    return GroupMetadata(
        group.protocol_type or "",
        group.generation,
        group.protocol,
        group.leader,
        group.since_ms,
        tuple(
            MemberMetadata(
                member.member_id,
                member.instance_id,
                member.client_id,
                member.client_host,
                member.rebalance_timeout_ms,
                member.session_timeout_ms,
                member.metadata_of(group.protocol or ""),
                member.assignment if assignments is None else assignments.get(member.member_id, b""),
            )
            for member in group.members.values()
        ),
    )


def _nothing(_: bool) -> None:
    """What follows a write that nobody waits for: an older generation in the log has no living members."""
