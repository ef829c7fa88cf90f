"""All consumer groups of this broker, and what time does to their members.

Pure: every call is told the time; changes go to `write` before anybody sees them, and what it refuses (LogError)
has not happened.  `tick` must be called a few times a second.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tailrace.broker.coordinator.consumer_group import classic
from tailrace.broker.coordinator.consumer_group.draft import Draft
from tailrace.broker.coordinator.consumer_group.errors import GroupRefusal
from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.heartbeat import (
    Answer,
    Catalog,
    Heartbeat,
    beat,
    check,
    check_holder,
    go_away,
)
from tailrace.broker.coordinator.consumer_group.member import (
    AWAY_EPOCH,
    JOINING_EPOCH,
    LEAVING_EPOCH,
    Place,
)
from tailrace.broker.coordinator.consumer_group.migration import CONSUMER, MigrationPolicy
from tailrace.broker.coordinator.consumer_group.records import Change, MemberSubscription
from tailrace.broker.coordinator.consumer_group.timers import Timers
from tailrace.broker.coordinator.group import JoinRequest, JoinResult, SyncRequest, SyncResult
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode

Write = Callable[[str, Sequence[Change]], None]
TurnClassic = Callable[[ConsumerGroup, ConsumerGroup], None]
"""Write that a group is a classic one from now on, and forget it here: as it was, and as its members leave it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConsumerGroupLimits:
    """Bounds that a broker sets (Kafka: group.consumer.*); the first assignor is the default one."""

    max_size: int = 2**31 - 1
    assignors: tuple[str, ...] = ("uniform", "range")
    migration: MigrationPolicy = MigrationPolicy.BIDIRECTIONAL
    classic_max_size: int = 10_000


@dataclass(frozen=True, slots=True)
class Timings:
    """What the members of one group obey."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000


TimingsOf = Callable[[str], Timings]


class ConsumerGroups:
    """Every group that has an epoch; `timings_of` tells what the members of a group obey."""

    def __init__(
        self,
        limits: ConsumerGroupLimits,
        catalog: Catalog,
        write: Write,
        turn_classic: TurnClassic,
        timings_of: TimingsOf,
    ) -> None:
        self.limits = limits
        self.timings_of = timings_of
        self._catalog = catalog
        self._write = write
        self._turn_classic = turn_classic
        self._groups: dict[str, ConsumerGroup] = {}
        self._timers: dict[str, Timers] = {}

    def __iter__(self) -> Iterator[ConsumerGroup]:
        return iter(self._groups.values())

    def get(self, group_id: str) -> ConsumerGroup | None:
        """The group, or None if it never was or is gone."""
        return self._groups.get(group_id)

    # -- from the log ----------------------------------------------------------------------------------

    def replay(self, group_id: str, change: Change) -> None:
        """Take over one record of the log."""
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = ConsumerGroup(group_id)
        group.apply(change)

    def resume(self, now_ms: int) -> None:
        """The log is read: members get all of their time to show up again."""
        for group_id, group in list(self._groups.items()):
            if not group.epoch:
                del self._groups[group_id]
                continue
            for member_id in group.subscriptions:
                self._keep_alive(group, member_id, now_ms)
                self._timers_of(group_id).watch_revocation(group, member_id, now_ms)

    # -- members ---------------------------------------------------------------------------------------

    def heartbeat(self, said: Heartbeat, now_ms: int, former: Sequence[Change] = ()) -> Answer:
        """ConsumerGroupHeartbeat; `former`: what a classic group becomes that the first such member joins.

        Raises LogError when the change could not be written: nothing has happened.
        """
        try:
            check(said, self.limits.assignors)
            if said.epoch in (LEAVING_EPOCH, AWAY_EPOCH):
                return self._leave(said)
            return self._beat(said, now_ms, former)
        except GroupRefusal as refusal:
            return Answer(refusal.code, str(refusal), said.member_id)

    def _beat(self, said: Heartbeat, now_ms: int, former: Sequence[Change] = ()) -> Answer:
        group = self._groups.get(said.group_id)
        if group is None:
            if said.epoch != JOINING_EPOCH:
                raise _unknown_group(said.group_id)
            group = ConsumerGroup(said.group_id)
        draft = Draft(group)
        for change in former:
            draft.put(change)
        members = draft.group.subscriptions
        if len(members) >= self.limits.max_size and said.member_id not in members:
            raise GroupRefusal(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {self.limits.max_size} members.",
            )
        timers = self._timers.get(said.group_id)
        version = self._catalog.version
        answer = beat(
            draft,
            said,
            self._catalog,
            default_assignor=self.limits.assignors[0],
            stale=timers is None or timers.seen_version != version,
            now_ms=now_ms,
        )
        before = group.progress.get(answer.member_id)
        self._adopt(draft)
        timers = self._timers_of(said.group_id)
        timers.seen_version = version
        for member_id in [answer.member_id, *draft.group.subscriptions] if former else [answer.member_id]:
            self._keep_alive(draft.group, member_id, now_ms)
        if draft.group.progress.get(answer.member_id) != before:
            timers.watch_revocation(draft.group, answer.member_id, now_ms)
        return answer

    def _leave(self, said: Heartbeat) -> Answer:
        group = self._groups.get(said.group_id)
        if group is None:
            raise _unknown_group(said.group_id)
        self._check_identity(group, said.member_id, said.instance_id)
        if said.epoch == AWAY_EPOCH:
            draft = Draft(group)
            go_away(draft, said.member_id)
            self._adopt(draft)
        else:
            self._remove(group, [said.member_id])
        return Answer(ErrorCode.NONE, None, said.member_id, said.epoch)

    def leave(self, group_id: str, leaving: Sequence[tuple[str, str | None]]) -> list[ErrorCode]:
        """LeaveGroup, which operators use to remove members: (member id, instance id) each.

        A static member may be named by its instance id alone.  Raises LogError: none of them has left.
        """
        group, errors, gone = self._groups[group_id], [], []
        for member_id, instance_id in leaving:
            found = member_id or group.static_members.get(instance_id or "", "")
            try:
                self._check_identity(group, found, instance_id)
                gone.append(found)
                errors.append(ErrorCode.NONE)
            except GroupRefusal as refusal:
                errors.append(refusal.code)
        if gone:
            self._remove(group, dict.fromkeys(gone))
        return errors

    def _check_identity(self, group: ConsumerGroup, member_id: str, instance_id: str | None) -> None:
        if instance_id is not None:
            check_holder(group, instance_id, member_id)
        elif member_id not in group.subscriptions:
            raise GroupRefusal(
                ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {group.group_id}."
            )

    def tick(self, now_ms: int) -> None:
        """Fence members whose session is over, or that did not give partitions up in time."""
        for group_id, timers in list(self._timers.items()):
            group = self._groups[group_id]
            late = timers.late(group, now_ms)
            if late:
                try:
                    self._remove(group, late)
                except LogError as error:  # the next round tries again
                    _log.warning("members of group %s could not be fenced: %s", group_id, error)

    # -- members of the classic protocol ---------------------------------------------------------------

    def join(self, request: JoinRequest, now_ms: int) -> JoinResult | None:
        """JoinGroup of a group with members; None: the group has become a classic one, and is joined there.

        Raises LogError when the change could not be written: nothing has happened.
        """
        group = self._groups[request.group_id]
        try:
            said = classic.joining(group, request, self._catalog)
            if request.require_known_member_id and not request.member_id and request.instance_id is None:
                return JoinResult(ErrorCode.MEMBER_ID_REQUIRED, said.member_id)
            if self._replaces_the_last(group, said):
                return None
            answer = self._beat(said, now_ms)
        except GroupRefusal as refusal:
            return JoinResult(refusal.code, request.member_id)
        self._timers_of(group.group_id).expect_sync(self._groups[group.group_id], answer.member_id, now_ms)
        return JoinResult(
            ErrorCode.NONE,
            answer.member_id,
            answer.epoch,
            CONSUMER,
            said.classic.favourite if said.classic else None,
        )

    def _replaces_the_last(self, group: ConsumerGroup, said: Heartbeat) -> bool:
        """A static member comes back as a classic one.  Was it the last of the consumer protocol, the group turns."""
        holder = group.static_members.get(said.instance_id or "")
        if holder is None or said.classic is None or holder == said.member_id:
            return False
        draft = Draft(group)
        draft.put(MemberSubscription(holder, replace(group.subscriptions[holder], classic=said.classic)))
        if not self._turns_classic(group, draft.group):
            return False
        self._turn_classic(group, draft.group)
        return True

    def sync(self, request: SyncRequest, now_ms: int) -> SyncResult:
        """SyncGroup of a group with members: what the broker has given to this one."""
        group = self._groups[request.group_id]
        timers = self._timers_of(group.group_id)
        try:
            side = classic.classic_side(group, request.member_id, request.instance_id, request.generation)
            assignment = classic.assignment_of(group, side, request)
        except GroupRefusal as refusal:
            if refusal.code is ErrorCode.REBALANCE_IN_PROGRESS:
                timers.expect_rejoin(group, request.member_id, now_ms)
            return SyncResult(refusal.code)
        timers.rejoins.pop(request.member_id, None)
        self._keep_alive(group, request.member_id, now_ms)
        return SyncResult(ErrorCode.NONE, request.protocol_type, request.protocol, assignment)

    def classic_heartbeat(
        self, group_id: str, generation: int, member_id: str, instance_id: str | None, now_ms: int
    ) -> ErrorCode:
        """Heartbeat of a classic member: REBALANCE_IN_PROGRESS tells it to join again."""
        group = self._groups[group_id]
        try:
            classic.classic_side(group, member_id, instance_id, generation)
        except GroupRefusal as refusal:
            return refusal.code
        self._keep_alive(group, member_id, now_ms)
        if not classic.must_rejoin(group, member_id):
            return ErrorCode.NONE
        self._timers_of(group_id).expect_rejoin(group, member_id, now_ms)
        return ErrorCode.REBALANCE_IN_PROGRESS

    # -- offsets ---------------------------------------------------------------------------------------

    def check_commit(
        self, group_id: str, member_id: str, instance_id: str | None, epoch: int, *, transactional: bool
    ) -> ErrorCode:
        """Whether these credentials may commit offsets at all; `check_place` judges each partition.

        STALE_MEMBER_EPOCH: the epoch is newer than the member's.  A classic member must name its very generation.
        """
        group = self._groups[group_id]
        if epoch < 0 and not group.subscriptions:
            return ErrorCode.NONE
        if transactional and epoch == -1 and not member_id and instance_id is None:
            return ErrorCode.NONE
        if member_id not in group.subscriptions:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if group.subscriptions[member_id].classic is not None:
            same = epoch == group.progress_of(member_id).epoch
            return ErrorCode.NONE if same else ErrorCode.ILLEGAL_GENERATION
        newer = epoch > group.progress_of(member_id).epoch
        return ErrorCode.STALE_MEMBER_EPOCH if newer else ErrorCode.NONE

    def check_place(self, group_id: str, member_id: str, epoch: int, place: Place) -> ErrorCode:
        """Whether a member may commit for this partition: with an older epoch only what was its own then.

        Source: KIP-1251.
        """
        progress = self._groups[group_id].progress.get(member_id)
        if progress is None or epoch == progress.epoch:
            return ErrorCode.NONE
        since = progress.assigned.get(place, progress.revoking.get(place))
        stale = since is None or epoch < since
        return ErrorCode.STALE_MEMBER_EPOCH if stale else ErrorCode.NONE

    def check_fetch(self, group_id: str, member_id: str | None, epoch: int) -> ErrorCode:
        """Whether the member that asks for offsets is a current one; without a member everybody may ask."""
        group = self._groups[group_id]
        if member_id is None and epoch < 0:
            return ErrorCode.NONE
        said = group.subscriptions.get(member_id or "")
        if said is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if epoch == group.progress_of(member_id or "").epoch:
            return ErrorCode.NONE
        return ErrorCode.STALE_MEMBER_EPOCH if said.classic is None else ErrorCode.ILLEGAL_GENERATION

    def forget(self, group_id: str) -> None:
        """Drop a group whose tombstones are in the log."""
        self._groups.pop(group_id, None)
        self._timers.pop(group_id, None)

    # -- inside ----------------------------------------------------------------------------------------

    def _adopt(self, draft: Draft) -> None:
        group = draft.group
        if not draft.changes:
            return
        self._write(group.group_id, draft.changes)
        self._groups[group.group_id] = group
        timers = self._timers.get(group.group_id)
        if timers is not None:
            timers.forget_all_but(group)

    def _remove(self, group: ConsumerGroup, member_ids: Iterable[str]) -> None:
        draft = Draft(group)
        draft.remove_members(member_ids)
        if self._turns_classic(group, draft.group):
            self._turn_classic(group, draft.group)
        else:
            self._adopt(draft)

    def _turns_classic(self, before: ConsumerGroup, after: ConsumerGroup) -> bool:
        """Whether the last member of the consumer protocol is gone, and only classic ones are left."""
        left = len(after.subscriptions)
        had_others = len(before.classic_members()) < len(before.subscriptions)
        return (
            self.limits.migration.downgrades
            and had_others
            and 0 < left == len(after.classic_members())
            and left <= self.limits.classic_max_size
        )

    def _timers_of(self, group_id: str) -> Timers:
        return self._timers.setdefault(group_id, Timers())

    def _keep_alive(self, group: ConsumerGroup, member_id: str, now_ms: int) -> None:
        session_timeout_ms = self.timings_of(group.group_id).session_timeout_ms
        self._timers_of(group.group_id).keep_alive(group, member_id, now_ms, session_timeout_ms)


def _unknown_group(group_id: str) -> GroupRefusal:
    return GroupRefusal(ErrorCode.GROUP_ID_NOT_FOUND, f"Consumer group {group_id} not found.")
