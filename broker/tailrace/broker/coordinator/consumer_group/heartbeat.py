"""One heartbeat: what a member says is checked, and becomes changes of its group and an answer.

Pure: nothing here waits, writes or asks for the time.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from tailrace.broker.coordinator.consumer_group.assignors import ASSIGNORS, Wish
from tailrace.broker.coordinator.consumer_group.draft import Draft
from tailrace.broker.coordinator.consumer_group.errors import GroupRefusal
from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.member import (
    AWAY_EPOCH,
    JOINING_EPOCH,
    LEAVING_EPOCH,
    NOTHING,
    ClassicSide,
    Place,
    Progress,
    Subscription,
)
from tailrace.broker.coordinator.consumer_group.patterns import matching
from tailrace.broker.coordinator.consumer_group.reconcile import Goal, next_step
from tailrace.broker.coordinator.consumer_group.records import (
    GroupEpoch,
    MemberProgress,
    MemberSubscription,
    MemberTarget,
    ResolvedPattern,
    SeenTopics,
    TargetEpoch,
    Topics,
)
from tailrace.broker.protocol import ErrorCode


class Catalog(Protocol):
    """The topics that there are; `version` changes with them."""

    @property
    def version(self) -> int:
        """Grows with every topic that comes, goes or gets partitions."""
        ...

    def names(self) -> Iterable[str]:
        """Every topic."""
        ...

    def shape(self, name: str) -> tuple[bytes, int] | None:
        """Topic id and number of partitions, None where there is no such topic."""
        ...


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """ConsumerGroupHeartbeat without its wire form; None: as before.

    `names_itself`: v1 and later, where the client makes the member id.  `may_see`: topics that the client may
    describe; a pattern finds only these.  `classic`: it is the JoinGroup of a member that speaks the classic protocol.
    """

    group_id: str
    member_id: str
    epoch: int
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    topics: frozenset[str] | None = None
    pattern: str | None = None
    assignor: str | None = None
    owned: frozenset[Place] | None = None
    client_id: str = ""
    client_host: str = ""
    names_itself: bool = True
    may_see: Callable[[str], bool] = lambda _: True
    classic: ClassicSide | None = None

    @property
    def is_full(self) -> bool:
        """Whether the member says everything: it shall then be told its assignment."""
        subscribes = self.topics is not None or self.pattern is not None
        return self.rebalance_timeout_ms != -1 and subscribes and self.owned is not None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a heartbeat; `assignment` None: as before."""

    error: ErrorCode
    text: str | None = None
    member_id: str = ""
    epoch: int = 0
    assignment: frozenset[Place] | None = None


def check(said: Heartbeat, assignors: Iterable[str]) -> None:
    """What can be seen without the group.  Raises GroupRefusal: INVALID_REQUEST, UNSUPPORTED_ASSIGNOR."""
    if (said.names_itself or said.epoch > 0 or said.epoch == LEAVING_EPOCH) and not said.member_id.strip():
        raise GroupRefusal(ErrorCode.INVALID_REQUEST, "MemberId can't be empty.")
    for name, value in (
        ("GroupId", said.group_id),
        ("InstanceId", said.instance_id),
        ("RackId", said.rack_id),
    ):
        if value is not None and not value.strip():
            raise GroupRefusal(ErrorCode.INVALID_REQUEST, f"{name} can't be empty.")
    if said.epoch == JOINING_EPOCH:
        _check_join(said)
    elif said.epoch == AWAY_EPOCH and said.instance_id is None:
        raise GroupRefusal(ErrorCode.INVALID_REQUEST, "InstanceId can't be null.")
    elif said.epoch < AWAY_EPOCH:
        raise GroupRefusal(ErrorCode.INVALID_REQUEST, "MemberEpoch is invalid.")
    if said.assignor is not None and said.assignor not in (known := tuple(assignors)):
        raise GroupRefusal(
            ErrorCode.UNSUPPORTED_ASSIGNOR,
            f"ServerAssignor {said.assignor} is not supported. Supported assignors: {', '.join(known)}.",
        )


def _check_join(said: Heartbeat) -> None:
    if said.rebalance_timeout_ms == -1:
        raise GroupRefusal(ErrorCode.INVALID_REQUEST, "RebalanceTimeoutMs must be provided in first request.")
    if said.owned is None or said.owned:
        raise GroupRefusal(ErrorCode.INVALID_REQUEST, "TopicPartitions must be empty when (re-)joining.")
    if said.topics is None and said.pattern is None:
        raise GroupRefusal(
            ErrorCode.INVALID_REQUEST,
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        )


def beat(
    draft: Draft, said: Heartbeat, catalog: Catalog, *, default_assignor: str, stale: bool, now_ms: int
) -> Answer:
    """A member joins or goes on.  `stale`: the catalog has changed since the group last looked.

    Raises GroupRefusal: UNKNOWN_MEMBER_ID, FENCED_MEMBER_EPOCH, UNRELEASED_INSTANCE_ID, FENCED_INSTANCE_ID,
    INVALID_REGULAR_EXPRESSION.
    """
    member_id = said.member_id or str(uuid.uuid4())
    _enter(draft, said, member_id)
    before = draft.group.progress.get(member_id)
    resubscribed = _subscribe(draft, said, member_id, catalog, now_ms)
    if resubscribed or stale:
        resolved = stale and _resolve_again(draft, catalog, said.may_see, now_ms)
        seen = see_topics(draft.group, catalog)
        changed = seen != draft.group.topics
        if changed:
            draft.put(SeenTopics(seen))
        if resubscribed or resolved or changed:
            draft.put(GroupEpoch(draft.group.epoch + 1))
    if draft.group.epoch > draft.group.target_epoch:
        _assign(draft, default_assignor)
    after = _reconcile(draft, said, member_id, resubscribed=resubscribed)
    moved = before is None or before.assigned.keys() != after.assigned.keys()
    return Answer(
        ErrorCode.NONE,
        None,
        member_id,
        after.epoch,
        frozenset(after.assigned) if said.is_full or moved else None,
    )


def _enter(draft: Draft, said: Heartbeat, member_id: str) -> None:
    """Check that the member may speak; a static member that comes back takes its former self's place."""
    group = draft.group
    joins = said.epoch == JOINING_EPOCH
    if said.instance_id is None:
        if member_id in group.subscriptions:
            _check_epoch(group.progress_of(member_id), said)
        elif not joins:
            raise GroupRefusal(
                ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {group.group_id}."
            )
        return
    holder = group.static_members.get(said.instance_id)
    if not joins:
        check_holder(group, said.instance_id, member_id)
        _check_epoch(group.progress_of(member_id), said)
    elif holder is not None:
        # only between two of the consumer protocol must the former process have left
        both = said.classic is None and group.subscriptions[holder].classic is None
        if both and not group.is_away(holder):
            raise GroupRefusal(
                ErrorCode.UNRELEASED_INSTANCE_ID,
                f"Static member {member_id} with instance id {said.instance_id} cannot join the group because "
                f"the instance id is owned by {holder} member.",
            )
        if said.classic is None or holder != member_id:
            draft.replace_member(holder, member_id)


def check_holder(group: ConsumerGroup, instance_id: str, member_id: str) -> None:
    """Raise GroupRefusal unless the static member is known and goes by this member id."""
    holder = group.static_members.get(instance_id)
    if holder is None:
        raise GroupRefusal(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
    if holder != member_id:
        raise GroupRefusal(
            ErrorCode.FENCED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} was fenced by member {holder}.",
        )


def _check_epoch(progress: Progress, said: Heartbeat) -> None:
    """The answer that brought the present epoch may be lost: its forerunner is fine with nothing extra owned."""
    if said.epoch in (JOINING_EPOCH, progress.epoch):
        return
    retries = said.epoch == progress.previous_epoch and said.epoch < progress.epoch
    if retries and said.owned is not None and said.owned <= progress.assigned.keys():
        return
    size = "greater" if said.epoch > progress.epoch else "smaller"
    raise GroupRefusal(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"The consumer group member has a {size} member epoch ({said.epoch}) than the one known by the group "
        f"coordinator ({progress.epoch}). The member must abandon all its partitions and rejoin.",
    )


def _subscribe(draft: Draft, said: Heartbeat, member_id: str, catalog: Catalog, now_ms: int) -> bool:
    """Note what the member says about itself; returns whether that makes a new group epoch."""
    known = draft.group.subscriptions.get(member_id)
    before = known or Subscription()
    after = replace(
        before,
        instance_id=before.instance_id if said.instance_id is None else said.instance_id,
        rack_id=before.rack_id if said.rack_id is None else said.rack_id,
        client_id=said.client_id,
        client_host=said.client_host,
        topics=before.topics if said.topics is None else said.topics,
        pattern=before.pattern if said.pattern is None else said.pattern or None,
        assignor=before.assignor if said.assignor is None else said.assignor,
        classic=said.classic,
    )
    if said.rebalance_timeout_ms != -1:
        after = replace(after, rebalance_timeout_ms=said.rebalance_timeout_ms)
    if after == known:
        return False
    if after.pattern and after.pattern not in draft.group.patterns:
        visible = (name for name in catalog.names() if said.may_see(name))
        draft.put(ResolvedPattern(after.pattern, matching(after.pattern, visible), catalog.version, now_ms))
    draft.put(MemberSubscription(member_id, after))
    draft.drop_unused_patterns()
    return known is None or (after.topics, after.pattern) != (before.topics, before.pattern)


def _resolve_again(draft: Draft, catalog: Catalog, may_see: Callable[[str], bool], now_ms: int) -> bool:
    """Topics came or went: look again what the group's patterns stand for; returns whether that has changed.

    As in Kafka, the member that calls next decides with its own rights what the patterns of all find.
    """
    visible = [name for name in catalog.names() if may_see(name)] if draft.group.patterns else []
    changed = False
    for pattern, resolved in list(draft.group.patterns.items()):
        topics = matching(pattern, visible)
        if topics != resolved.topics:
            draft.put(ResolvedPattern(pattern, topics, catalog.version, now_ms))
            changed = True
    return changed


def see_topics(group: ConsumerGroup, catalog: Catalog) -> Topics:
    """The topics that the members read and that exist."""
    shapes = ((name, catalog.shape(name)) for name in sorted(group.subscribed_topics()))
    return {name: shape for name, shape in shapes if shape is not None}


def _assign(draft: Draft, default_assignor: str) -> None:
    """Compute the target of the present group epoch."""
    group = draft.group
    wishes = {
        member_id: Wish(group.topic_ids_of(said), group.targets.get(member_id, frozenset()), said.instance_id)
        for member_id, said in group.subscriptions.items()
    }
    assigned = ASSIGNORS[group.assignor(default_assignor)](wishes, group.partitions())
    for member_id, places in assigned.items():
        if group.targets.get(member_id) != places:
            draft.put(MemberTarget(member_id, places))
    draft.put(TargetEpoch(group.epoch))


def _reconcile(draft: Draft, said: Heartbeat, member_id: str, *, resubscribed: bool) -> Progress:
    group = draft.group
    known = group.progress.get(member_id)
    goal = Goal(
        group.target_epoch,
        group.targets.get(member_id, frozenset()),
        group.topic_ids_of(group.subscriptions[member_id]),
        lambda place: group.owner(place) in (None, member_id),
    )
    after = next_step(known or Progress(), goal, said.owned, resubscribed=resubscribed)
    if after != known:
        draft.put(MemberProgress(member_id, after))
    return after


def go_away(draft: Draft, member_id: str) -> None:
    """A static member leaves for a while: it keeps its partitions until its session is over."""
    progress = draft.group.progress_of(member_id)
    draft.put(MemberProgress(member_id, replace(progress, epoch=AWAY_EPOCH, revoking=NOTHING)))
