"""The state of one consumer group: what its records amount to, live and replayed alike."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from tailrace.broker.coordinator.consumer_group.member import (
    AWAY_EPOCH,
    ClassicSide,
    Place,
    Progress,
    Subscription,
    TopicId,
)
from tailrace.broker.coordinator.consumer_group.records import (
    Change,
    GroupEpoch,
    MemberProgress,
    MemberSubscription,
    MemberTarget,
    ResolvedPattern,
    SeenTopics,
    TargetEpoch,
    Topics,
)

_Value = TypeVar("_Value")


class ConsumerGroupState(StrEnum):
    """States under the names that ConsumerGroupDescribe and ListGroups give to clients."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"  # the target is older than the group
    RECONCILING = "Reconciling"  # members are on their way to the target
    STABLE = "Stable"


class ConsumerGroup:
    """One group.  `apply` is the only way to change it; the order of records of different keys does not matter.

    `subscriptions` are the members; what the log kept of others stays without effect.
    """

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.epoch = 0
        self.target_epoch = 0
        self.topics: Topics = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.targets: dict[str, frozenset[Place]] = {}
        self.progress: dict[str, Progress] = {}
        self.patterns: dict[str, ResolvedPattern] = {}
        self.static_members: dict[str, str] = {}  # instance id -> member id
        self._owners: dict[Place, str] = {}

    def copy(self) -> "ConsumerGroup":
        """A group to try changes on."""
        other = ConsumerGroup(self.group_id)
        other.epoch, other.target_epoch, other.topics = self.epoch, self.target_epoch, self.topics
        for name in ("subscriptions", "targets", "progress", "patterns", "static_members", "_owners"):
            setattr(other, name, getattr(self, name).copy())
        return other

    def apply(self, change: Change) -> None:
        """Take over one record."""
        match change:
            case GroupEpoch(epoch):
                self.epoch = epoch or 0
            case SeenTopics(topics):
                self.topics = topics or {}
            case MemberSubscription(member_id, subscription):
                self._subscribe(member_id, subscription)
            case TargetEpoch(epoch):
                self.target_epoch = epoch or 0
            case MemberTarget(member_id, places):
                _put(self.targets, member_id, places)
            case MemberProgress(member_id, progress):
                self._move(member_id, progress)
            case ResolvedPattern(pattern, names):
                _put(self.patterns, pattern, None if names is None else change)

    def _subscribe(self, member_id: str, subscription: Subscription | None) -> None:
        instance_id = self.subscriptions.get(member_id, Subscription()).instance_id
        if instance_id is not None and self.static_members.get(instance_id) == member_id:
            del self.static_members[instance_id]
        _put(self.subscriptions, member_id, subscription)
        if subscription is not None and subscription.instance_id is not None:
            self.static_members[subscription.instance_id] = member_id

    def _move(self, member_id: str, progress: Progress | None) -> None:
        before = self.progress.get(member_id)
        if before is not None:
            for place in (*before.assigned, *before.revoking):
                if self._owners.get(place) == member_id:
                    del self._owners[place]
        _put(self.progress, member_id, progress)
        if progress is not None:
            self._owners.update(dict.fromkeys((*progress.assigned, *progress.revoking), member_id))

    @property
    def state(self) -> ConsumerGroupState:
        """Told to whoever describes or lists the group."""
        if not self.subscriptions:
            return ConsumerGroupState.EMPTY
        if self.epoch > self.target_epoch:
            return ConsumerGroupState.ASSIGNING
        reached = all(
            self.progress_of(member_id).reached(self.target_epoch) for member_id in self.subscriptions
        )
        return ConsumerGroupState.STABLE if reached else ConsumerGroupState.RECONCILING

    def progress_of(self, member_id: str) -> Progress:
        """Where the member stands; at the beginning when nothing is known."""
        return self.progress.get(member_id) or Progress()

    def owner(self, place: Place) -> str | None:
        """The member that has the partition, or has not given it up yet."""
        return self._owners.get(place)

    def is_away(self, member_id: str) -> bool:
        """Whether it is a static member that left for a while."""
        return self.progress_of(member_id).epoch == AWAY_EPOCH

    def classic_members(self) -> list[ClassicSide]:
        """Of the members that speak the classic protocol, what only they have."""
        return [said.classic for said in self.subscriptions.values() if said.classic is not None]

    def topics_of(self, subscription: Subscription) -> frozenset[str]:
        """Names that a member subscribes to, by itself and by its pattern."""
        resolved = self.patterns.get(subscription.pattern or "")
        return subscription.topics | (resolved.topics or frozenset() if resolved else frozenset())

    def topic_ids_of(self, subscription: Subscription) -> frozenset[TopicId]:
        """Those of them that exist."""
        return frozenset(self.topics[name][0] for name in self.topics_of(subscription) if name in self.topics)

    def subscribed_topics(self) -> frozenset[str]:
        """Names that any member subscribes to."""
        return frozenset().union(*map(self.topics_of, self.subscriptions.values()))

    def patterns_in_use(self) -> set[str]:
        """Patterns that a member subscribes to."""
        return {said.pattern for said in self.subscriptions.values() if said.pattern}

    def partitions(self) -> Mapping[TopicId, int]:
        """Number of partitions by topic id."""
        return dict(self.topics.values())

    def assignor(self, default: str) -> str:
        """The assignor that most of the members who name one ask for."""
        votes: dict[str, int] = {}
        for said in self.subscriptions.values():
            if said.assignor is not None:
                votes[said.assignor] = votes.get(said.assignor, 0) + 1
        return max(sorted(votes), key=votes.__getitem__, default=default)

    def tombstones(self) -> list[Change]:
        """What removes the group from the log."""
        members = self.subscriptions.keys() | self.targets.keys() | self.progress.keys()
        gone: list[Change] = []
        for member_id in sorted(members):
            gone += removal_of(member_id)
        gone += [ResolvedPattern(pattern, None) for pattern in sorted(self.patterns)]
        return [*gone, TargetEpoch(None), SeenTopics(None), GroupEpoch(None)]


def removal_of(member_id: str) -> list[Change]:
    """What removes a member from the log."""
    return [
        MemberProgress(member_id, None),
        MemberTarget(member_id, None),
        MemberSubscription(member_id, None),
    ]


def _put(values: dict[str, _Value], key: str, value: _Value | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
