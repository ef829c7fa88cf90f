"""A group with members becomes one of the other protocol.

    classic --first member of the consumer protocol joins--> consumer: classic members go on inside it
    consumer --last member of that protocol is gone, classic ones are left--> classic: they rebalance at once

Source: KIP-848, "Upgrade" and "Downgrade"; Kafka's option group.consumer.migration.policy.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from tailrace.broker.coordinator.consumer_group.errors import GroupRefusal
from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.heartbeat import Catalog
from tailrace.broker.coordinator.consumer_group.member import (
    NOTHING,
    ClassicSide,
    MemberState,
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
    TargetEpoch,
    by_topic,
)
from tailrace.broker.coordinator.group import Group, GroupState, Member
from tailrace.broker.protocol import ErrorCode, MalformedMessageError
from tailrace.broker.protocol import consumer_protocol as embedded

CONSUMER = "consumer"
"""The protocol type of classic groups whose members are consumers: only these can be turned."""


class MigrationPolicy(StrEnum):
    """Which ways a group with members may go."""

    BIDIRECTIONAL = "bidirectional"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    DISABLED = "disabled"

    @property
    def upgrades(self) -> bool:
        """Whether a classic group may become one of the consumer protocol."""
        return self in (MigrationPolicy.BIDIRECTIONAL, MigrationPolicy.UPGRADE)

    @property
    def downgrades(self) -> bool:
        """Whether a group may go back."""
        return self in (MigrationPolicy.BIDIRECTIONAL, MigrationPolicy.DOWNGRADE)


def upgraded(group: Group, catalog: Catalog) -> list[Change]:
    """What a classic group is as a consumer group: every member has what its last assignment gave it.

    A member that has said, when it joined last, to own more than that must give it up first.
    Raises GroupRefusal: GROUP_ID_NOT_FOUND.
    """
    if group.protocol_type != CONSUMER:
        raise _not_a_consumer_group(group.group_id, "its members are no consumers")
    assigned: dict[str, frozenset[Place]] = {}
    subscriptions: dict[str, embedded.ConsumerProtocolSubscription] = {}
    try:
        for member in group.members.values():
            subscriptions[member.member_id] = embedded.read_subscription(member.protocols[0][1])
            given = embedded.read_assignment(member.assignment).assigned_partitions
            assigned[member.member_id] = places_of(given, catalog)
    except MalformedMessageError as error:
        raise _not_a_consumer_group(group.group_id, str(error)) from error
    taken = frozenset().union(*assigned.values())
    if len(taken) != sum(map(len, assigned.values())):
        raise _not_a_consumer_group(group.group_id, "its assignor gives a partition to several members")
    epoch = group.generation
    changes: list[Change] = [GroupEpoch(epoch), TargetEpoch(epoch)]
    for member in group.members.values():
        said = subscriptions[member.member_id]
        places = assigned[member.member_id]
        leaving = places_of(said.owned_partitions, catalog) - taken
        taken |= leaving
        changes += [
            MemberSubscription(member.member_id, _subscription(member, said)),
            MemberTarget(member.member_id, places),
            MemberProgress(
                member.member_id,
                Progress(
                    epoch,
                    epoch,
                    MemberState.UNREVOKED if leaving else MemberState.STABLE,
                    dict.fromkeys(places, epoch),
                    dict.fromkeys(leaving, epoch) or NOTHING,
                ),
            ),
        ]
    return changes


def _subscription(member: Member, said: embedded.ConsumerProtocolSubscription) -> Subscription:
    return Subscription(
        member.instance_id,
        said.rack_id,
        member.client_id,
        member.client_host,
        member.rebalance_timeout_ms,
        frozenset(said.topics),
        classic=ClassicSide(member.session_timeout_ms, member.protocols),
    )


def downgraded(group: ConsumerGroup, now_ms: int) -> Group:
    """What a consumer group is as a classic one, when all of its members speak that protocol.

    Nobody leads it: its members must join for the next generation.  Raises MalformedMessageError.
    """
    classic = Group(group.group_id, GroupState.STABLE, now_ms, CONSUMER, generation=group.epoch)
    for member_id, said in group.subscriptions.items():
        if said.classic is None:
            raise ValueError(f"member {member_id} does not speak the classic protocol")
        progress = group.progress_of(member_id)
        classic.add(
            Member(
                member_id,
                said.instance_id,
                said.client_id,
                said.client_host,
                said.rebalance_timeout_ms,
                said.classic.session_timeout_ms,
                said.classic.protocols,
                assignment_for(group, said.classic, (*progress.assigned, *progress.revoking)),
            )
        )
    classic.leader = None
    classic.protocol = classic.vote()
    return classic


def assignment_for(group: ConsumerGroup, side: ClassicSide, places: Iterable[Place]) -> bytes:
    """Partitions as a classic member is told them; topics that are gone are left out."""
    names: Mapping[TopicId, str] = {topic_id: name for name, (topic_id, _) in group.topics.items()}
    topics = [
        embedded.ConsumerTopicPartitions(names[topic_id], numbers)
        for topic_id, numbers in by_topic(places).items()
        if topic_id in names
    ]
    return embedded.write_assignment(topics, side.protocols[0][1])


def places_of(topics: Iterable[embedded.ConsumerTopicPartitions], catalog: Catalog) -> frozenset[Place]:
    """Partitions as the group keeps them; what does not exist is left out."""
    shapes = ((catalog.shape(topic.topic), topic.partitions) for topic in topics)
    return frozenset(
        (shape[0], number)
        for shape, numbers in shapes
        if shape is not None
        for number in numbers
        if 0 <= number < shape[1]
    )


def _not_a_consumer_group(group_id: str, why: str) -> GroupRefusal:
    return GroupRefusal(
        ErrorCode.GROUP_ID_NOT_FOUND,
        f"Group {group_id} is not a consumer group and cannot become one: {why}.",
    )
