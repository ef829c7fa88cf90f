"""All consumer groups of this broker, and what time does to their members.

Pure: every call is told the time; changes go to `write` before anybody sees them, and what it refuses (LogError)
has not happened.  `tick` must be called a few times a second.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

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
    MemberState,
    Place,
)
from tailrace.broker.coordinator.consumer_group.records import Change
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode

Write = Callable[[str, Sequence[Change]], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConsumerGroupLimits:
    """Bounds that a broker sets (Kafka: group.consumer.*); the first assignor is the default one."""

    max_size: int = 2**31 - 1
    assignors: tuple[str, ...] = ("uniform", "range")


@dataclass(frozen=True, slots=True)
class Timings:
    """What the members of one group obey."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000


TimingsOf = Callable[[str], Timings]


@dataclass(slots=True)
class _Timers:
    """What is not in the log: a restart gives every member all of its time again."""

    sessions: dict[str, int] = field(default_factory=dict)  # member id -> when it ends
    revocations: dict[str, tuple[int, int]] = field(default_factory=dict)  # -> (epoch, until when)
    seen_version: int | None = None  # of the catalog


class ConsumerGroups:
    """Every group that has an epoch; `timings_of` tells what the members of a group obey."""

    def __init__(
        self, limits: ConsumerGroupLimits, catalog: Catalog, write: Write, timings_of: TimingsOf
    ) -> None:
        self.limits = limits
        self.timings_of = timings_of
        self._catalog = catalog
        self._write = write
        self._groups: dict[str, ConsumerGroup] = {}
        self._timers: dict[str, _Timers] = {}

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
                self._watch_revocation(group, member_id, now_ms)

    # -- members ---------------------------------------------------------------------------------------

    def heartbeat(self, said: Heartbeat, now_ms: int) -> Answer:
        """ConsumerGroupHeartbeat.  Raises LogError when the change could not be written: nothing has happened."""
        try:
            check(said, self.limits.assignors)
            if said.epoch in (LEAVING_EPOCH, AWAY_EPOCH):
                return self._leave(said)
            return self._beat(said, now_ms)
        except GroupRefusal as refusal:
            return Answer(refusal.code, str(refusal), said.member_id)

    def _beat(self, said: Heartbeat, now_ms: int) -> Answer:
        group = self._groups.get(said.group_id)
        if group is None:
            if said.epoch != JOINING_EPOCH:
                raise _unknown_group(said.group_id)
            group = ConsumerGroup(said.group_id)
        if len(group.subscriptions) >= self.limits.max_size and said.member_id not in group.subscriptions:
            raise GroupRefusal(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {self.limits.max_size} members.",
            )
        timers = self._timers.get(said.group_id)
        version = self._catalog.version
        draft = Draft(group)
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
        self._timers.setdefault(said.group_id, _Timers()).seen_version = version
        self._keep_alive(draft.group, answer.member_id, now_ms)
        if draft.group.progress.get(answer.member_id) != before:
            self._watch_revocation(draft.group, answer.member_id, now_ms)
        return answer

    def _leave(self, said: Heartbeat) -> Answer:
        group = self._groups.get(said.group_id)
        if group is None:
            raise _unknown_group(said.group_id)
        self._check_identity(group, said.member_id, said.instance_id)
        draft = Draft(group)
        if said.epoch == AWAY_EPOCH:
            go_away(draft, said.member_id)
        else:
            draft.remove_members([said.member_id])
        self._adopt(draft)
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
            draft = Draft(group)
            draft.remove_members(dict.fromkeys(gone))
            self._adopt(draft)
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
            late = {member_id for member_id, until in timers.sessions.items() if now_ms >= until}
            for member_id, (epoch, until) in timers.revocations.items():
                if now_ms >= until and group.progress_of(member_id).epoch == epoch:
                    late.add(member_id)
            if late:
                draft = Draft(group)
                draft.remove_members(sorted(late))
                try:
                    self._adopt(draft)
                except LogError as error:  # the next round tries again
                    _log.warning("members of group %s could not be fenced: %s", group_id, error)

    # -- offsets ---------------------------------------------------------------------------------------

    def check_commit(
        self, group_id: str, member_id: str, instance_id: str | None, epoch: int, *, transactional: bool
    ) -> ErrorCode:
        """Whether these credentials may commit offsets at all; `check_place` judges each partition.

        STALE_MEMBER_EPOCH: the epoch is newer than the member's.
        """
        group = self._groups[group_id]
        if epoch < 0 and not group.subscriptions:
            return ErrorCode.NONE
        if transactional and epoch == -1 and not member_id and instance_id is None:
            return ErrorCode.NONE
        if member_id not in group.subscriptions:
            return ErrorCode.UNKNOWN_MEMBER_ID
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
        if member_id not in group.subscriptions:
            return ErrorCode.UNKNOWN_MEMBER_ID
        current = epoch == group.progress_of(member_id or "").epoch
        return ErrorCode.NONE if current else ErrorCode.STALE_MEMBER_EPOCH

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
            for member_id in timers.sessions.keys() - group.subscriptions.keys():
                timers.sessions.pop(member_id)
                timers.revocations.pop(member_id, None)

    def _keep_alive(self, group: ConsumerGroup, member_id: str, now_ms: int) -> None:
        timers = self._timers.setdefault(group.group_id, _Timers())
        timers.sessions[member_id] = now_ms + self.timings_of(group.group_id).session_timeout_ms

    def _watch_revocation(self, group: ConsumerGroup, member_id: str, now_ms: int) -> None:
        timers = self._timers.setdefault(group.group_id, _Timers())
        progress = group.progress_of(member_id)
        if progress.state is MemberState.UNREVOKED:
            until = now_ms + group.subscriptions[member_id].rebalance_timeout_ms
            timers.revocations[member_id] = (progress.epoch, until)
        else:
            timers.revocations.pop(member_id, None)


def _unknown_group(group_id: str) -> GroupRefusal:
    return GroupRefusal(ErrorCode.GROUP_ID_NOT_FOUND, f"Consumer group {group_id} not found.")
