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
Holdings = dict[TopicId, dict[str, list[Place]]]


def uniform(wishes: Wishes, partitions: Mapping[TopicId, int]) -> Assignment:
    """Equally many partitions for each member as far as subscriptions allow; as few as possible move."""
    subscribers = _subscribers(wishes, partitions)
    held: Holdings = {topic_id: {member_id: [] for member_id in ids} for topic_id, ids in subscribers.items()}
    load = dict.fromkeys(wishes, 0)
    taken: set[Place] = set()
    for member_id in sorted(wishes):
        for place in sorted(wishes[member_id].target - taken):
            holders = held.get(place[0], {})
            if member_id in holders and place[1] < partitions[place[0]]:
                holders[member_id].append(place)
                load[member_id] += 1
                taken.add(place)
    for topic_id, holders in held.items():
        free = [(topic_id, n) for n in range(partitions[topic_id]) if (topic_id, n) not in taken]
        least = [(load[member_id], member_id) for member_id in holders]
        heapq.heapify(least)
        for place in free:
            count, member_id = least[0]
            holders[member_id].append(place)
            load[member_id] += 1
            heapq.heapreplace(least, (count + 1, member_id))
    fair, rest = divmod(sum(load.values()), max(len(load), 1))
    for enough in (fair + bool(rest), fair):  # who has too much gives first: that needs the fewest moves
        for holders in held.values():
            _balance(holders, load, enough)
    for _ in range(_MOST_ROUNDS):
        if not sum(_balance(holders, load) for holders in held.values()):
            break
    assigned: dict[str, set[Place]] = {member_id: set() for member_id in wishes}
    for holders in held.values():
        for member_id, places in holders.items():
            assigned[member_id].update(places)
    return {member_id: frozenset(places) for member_id, places in assigned.items()}


def _balance(holders: dict[str, list[Place]], load: dict[str, int], enough: int = 0) -> int:
    """Move partitions of one topic from who has most, and more than enough, to who has least; returns how many."""
    moved = 0
    while True:
        most = max((name for name, places in holders.items() if places), key=load.__getitem__)
        least = min(holders, key=load.__getitem__)
        if load[most] <= enough or load[most] - load[least] < 2:
            return moved
        holders[least].append(holders[most].pop())
        load[most] -= 1
        load[least] += 1
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
