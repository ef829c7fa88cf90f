"""Server-side assignors: which member shall have which partition.

Both give every partition to exactly one of the members that subscribe to its topic, if there is one.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tailrace.broker.coordinator.consumer_group.member import Place, TopicId

_MOST_ROUNDS = 16  # of balancing; one is enough where all members subscribe to the same topics


@dataclass(frozen=True, slots=True)
class Wish:
    """What a member subscribes to, and what it shall have so far."""

    topics: frozenset[TopicId]
    target: frozenset[Place]
    instance_id: str | None = None


Wishes = Mapping[str, Wish]
Assignment = dict[str, frozenset[Place]]


def uniform(wishes: Wishes, partitions: Mapping[TopicId, int]) -> Assignment:
    """Equally many partitions for each member as far as subscriptions allow; as few as possible move."""
    held: dict[str, set[Place]] = {}
    taken: set[Place] = set()
    for member_id in sorted(wishes):
        wish = wishes[member_id]
        kept = {p for p in wish.target - taken if p[0] in wish.topics and p[1] < partitions.get(p[0], 0)}
        held[member_id] = kept
        taken |= kept
    subscribers = _subscribers(wishes, partitions)
    for topic_id, members in subscribers.items():
        free = [(topic_id, n) for n in range(partitions[topic_id]) if (topic_id, n) not in taken]
        load = [(len(held[member_id]), member_id) for member_id in members]
        heapq.heapify(load)
        for place in free:
            count, member_id = load[0]
            held[member_id].add(place)
            heapq.heapreplace(load, (count + 1, member_id))
    for _ in range(_MOST_ROUNDS):
        if not sum(_balance(topic_id, members, held) for topic_id, members in subscribers.items()):
            break
    return {member_id: frozenset(places) for member_id, places in held.items()}


def _balance(topic_id: TopicId, members: list[str], held: Mapping[str, set[Place]]) -> int:
    """Move partitions of one topic from who has most to who has least; returns how many moved."""
    spare = {
        member_id: sorted((place for place in held[member_id] if place[0] == topic_id), reverse=True)
        for member_id in members
    }
    moved = 0
    while True:
        donors = [member_id for member_id in members if spare[member_id]]
        if not donors:
            return moved
        most = max(donors, key=lambda member_id: len(held[member_id]))
        least = min(members, key=lambda member_id: len(held[member_id]))
        if len(held[most]) - len(held[least]) < 2:
            return moved
        place = spare[most].pop(0)
        held[most].remove(place)
        held[least].add(place)
        moved += 1


def range_(wishes: Wishes, partitions: Mapping[TopicId, int]) -> Assignment:
    """Of each topic one run of partitions per member, in the order of the members.

    Topics with equally many partitions and the same members are cut alike, so that they can be joined.
    """
    shares: dict[str, set[Place]] = {member_id: set() for member_id in wishes}
    for topic_id, members in _subscribers(wishes, partitions).items():
        members.sort(key=lambda member_id: _rank(member_id, wishes[member_id]))
        quota, extra = divmod(partitions[topic_id], len(members))
        start = 0
        for index, member_id in enumerate(members):
            end = start + quota + (index < extra)
            shares[member_id].update((topic_id, number) for number in range(start, end))
            start = end
    return {member_id: frozenset(places) for member_id, places in shares.items()}


def _rank(member_id: str, wish: Wish) -> tuple[bool, str]:
    """Static members first, by instance id: a new process of one keeps its place in the order."""
    return (False, wish.instance_id) if wish.instance_id is not None else (True, member_id)


def _subscribers(wishes: Wishes, partitions: Mapping[TopicId, int]) -> dict[TopicId, list[str]]:
    found: dict[TopicId, list[str]] = {}
    for member_id in sorted(wishes):
        for topic_id in wishes[member_id].topics:
            if topic_id in partitions:
                found.setdefault(topic_id, []).append(member_id)
    return dict(sorted(found.items()))


ASSIGNORS: Mapping[str, Callable[[Wishes, Mapping[TopicId, int]], Assignment]] = {
    "uniform": uniform,
    "range": range_,
}
"""By the names that members ask for and that `group.consumer.assignors` lists."""
