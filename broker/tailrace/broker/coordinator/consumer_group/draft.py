"""Changes of one group that belong together: tried on a copy, then written as one batch or not at all."""

from collections.abc import Iterable
from dataclasses import replace

from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup, removal_of
from tailrace.broker.coordinator.consumer_group.member import JOINING_EPOCH
from tailrace.broker.coordinator.consumer_group.records import (
    Change,
    GroupEpoch,
    MemberProgress,
    MemberSubscription,
    MemberTarget,
    ResolvedPattern,
    SeenTopics,
)


class Draft:
    """`group` is as it will be once `changes` are written."""

    def __init__(self, group: ConsumerGroup) -> None:
        self.group = group
        self.changes: list[Change] = []

    def put(self, change: Change) -> None:
        """One more change; the group that the draft began with stays as it was."""
        if not self.changes:
            self.group = self.group.copy()
        self.changes.append(change)
        self.group.apply(change)

    def replace_member(self, old_id: str, new_id: str) -> None:
        """A static member's new process takes over what the old one had, and begins at epoch 0."""
        group = self.group
        subscription, target = group.subscriptions[old_id], group.targets.get(old_id, frozenset())
        progress = group.progress_of(old_id)
        for change in removal_of(old_id):
            self.put(change)
        self.put(MemberSubscription(new_id, subscription))
        self.put(MemberTarget(new_id, target))
        self.put(MemberProgress(new_id, replace(progress, epoch=JOINING_EPOCH, previous_epoch=JOINING_EPOCH)))

    def remove_members(self, member_ids: Iterable[str]) -> None:
        """Members are gone: the group epoch rises, the next heartbeat of another one shares their partitions."""
        for member_id in member_ids:
            for change in removal_of(member_id):
                self.put(change)
        self.drop_unused_patterns()
        read = self.group.subscribed_topics()
        left = {name: shape for name, shape in self.group.topics.items() if name in read}
        if left != self.group.topics:
            self.put(SeenTopics(left))
        self.put(GroupEpoch(self.group.epoch + 1))

    def drop_unused_patterns(self) -> None:
        """Forget patterns that no member subscribes to any more."""
        for pattern in sorted(self.group.patterns.keys() - self.group.patterns_in_use()):
            self.put(ResolvedPattern(pattern, None))
