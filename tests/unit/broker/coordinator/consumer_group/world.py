"""Consumer groups without a broker: topics that a test makes, members that do what a client does, a log to replay."""

from collections.abc import Iterable, Sequence
from typing import Any

from tailrace.broker.coordinator.consumer_group.coordinator import (
    ConsumerGroupLimits,
    ConsumerGroups,
    Timings,
)
from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.heartbeat import Answer, Heartbeat
from tailrace.broker.coordinator.consumer_group.member import Place
from tailrace.broker.coordinator.consumer_group.records import Change, decode, encode
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.internal_topics import decode_offsets_key

GROUP = "g"
SESSION_MS = 45_000
REBALANCE_MS = 30_000


class Topics:
    """A catalog to change at will."""

    def __init__(self, **partitions: int) -> None:
        self.version = 0
        self._made = 0
        self._shapes: dict[str, tuple[bytes, int]] = {}
        for name, count in partitions.items():
            self.put(name, count)

    def put(self, name: str, count: int) -> None:
        """Make a topic, or grow it to `count` partitions."""
        self.version += 1
        self._made += 1
        topic_id = self._shapes[name][0] if name in self._shapes else self._made.to_bytes(16, "big")
        self._shapes[name] = (topic_id, count)

    def remove(self, name: str) -> None:
        self.version += 1
        self._shapes.pop(name, None)

    def names(self) -> Iterable[str]:
        return sorted(self._shapes)

    def shape(self, name: str) -> tuple[bytes, int] | None:
        return self._shapes.get(name)

    def places(self, *names: str) -> frozenset[Place]:
        shapes = (self._shapes.get(name) for name in names)
        return frozenset((shape[0], n) for shape in shapes if shape for n in range(shape[1]))


class World:
    """The coordinator with its log and its clock."""

    def __init__(self, limits: ConsumerGroupLimits | None = None, **partitions: int) -> None:
        self.limits = limits or ConsumerGroupLimits()
        self.topics = Topics(**partitions)
        self.log: list[tuple[bytes, bytes | None]] = []
        self.now_ms = 0
        self.disk_full = False
        self.timings: dict[str, Timings] = {}
        self.groups = self.replayed()

    def _write(self, group_id: str, changes: Sequence[Change]) -> None:
        if self.disk_full:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, "the disk is full")
        self.log += [encode(group_id, change) for change in changes]

    def _never_turned(self, group: ConsumerGroup, _: ConsumerGroup) -> None:
        raise AssertionError(f"group {group.group_id} has no classic members")

    @property
    def group(self) -> ConsumerGroup:
        group = self.groups.get(GROUP)
        assert group is not None
        return group

    def beat(self, member_id: str, epoch: int, **said: Any) -> Answer:
        return self.groups.heartbeat(Heartbeat(GROUP, member_id, epoch, **said), self.now_ms)

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.groups.tick(self.now_ms)

    def replayed(self) -> ConsumerGroups:
        """What a restart makes of the log."""
        groups = ConsumerGroups(
            self.limits,
            self.topics,
            self._write,
            self._never_turned,
            lambda group: self.timings.get(group, Timings()),
        )
        for raw_key, value in self.log:
            key = decode_offsets_key(raw_key)
            assert key is not None
            assert not hasattr(key, "group")
            groups.replay(key.group_id, decode(key, value))
        groups.resume(self.now_ms)
        return groups

    def restart(self) -> None:
        """The process dies and starts again."""
        self.groups = self.replayed()


def state_of(groups: ConsumerGroups) -> dict[str, Any]:
    """Everything that must be the same after a restart."""
    return {
        group.group_id: (
            group.epoch,
            group.target_epoch,
            dict(group.topics),
            group.subscriptions,
            group.targets,
            group.progress,
            {pattern: resolved.topics for pattern, resolved in group.patterns.items()},
            group.static_members,
        )
        for group in groups
    }


class Client:
    """A consumer: it uses what it is given, and gives up what it is told when `settle` or the next beat comes."""

    def __init__(self, world: World, member_id: str, *topics: str, **said: Any) -> None:
        self.world = world
        self.member_id = member_id
        self.topics = frozenset(topics)
        self.said = said
        self.epoch = 0
        self.owned: frozenset[Place] = frozenset()
        self.wanted: frozenset[Place] = frozenset()
        self.is_in = self.missed = False

    def join(self) -> Answer:
        self.epoch, self.owned, self.wanted = 0, frozenset(), frozenset()
        answer = self._say(topics=self.topics, rebalance_timeout_ms=REBALANCE_MS, owned=frozenset())
        return self._hear(answer)

    def beat(self, *, lost: bool = False, **said: Any) -> Answer:
        """One heartbeat with what it owns; `lost`: the answer does not arrive, so the next one says everything."""
        if self.missed:
            said = {"topics": self.topics, "rebalance_timeout_ms": REBALANCE_MS, **said}
        answer = self._say(owned=self.owned, **said)
        self.missed = lost
        return answer if lost else self._hear(answer)

    def subscribe(self, *topics: str) -> Answer:
        self.topics = frozenset(topics)
        return self.beat(topics=self.topics)

    def give_up(self) -> None:
        """Stop using what it was told to give up."""
        self.owned &= self.wanted

    def leave(self, epoch: int = -1) -> Answer:
        self.is_in, self.owned = False, frozenset()
        return self.world.beat(self.member_id, epoch, instance_id=self.said.get("instance_id"))

    def _say(self, **said: Any) -> Answer:
        return self.world.beat(self.member_id, self.epoch, **{**self.said, **said})

    def _hear(self, answer: Answer) -> Answer:
        if answer.error is not ErrorCode.NONE:
            self.is_in, self.owned, self.wanted = False, frozenset(), frozenset()
            return answer
        self.is_in, self.epoch = True, answer.epoch
        if answer.assignment is not None:
            self.wanted = answer.assignment
        if self.owned <= self.wanted:  # nothing to give up first
            self.owned = self.wanted
        return answer


def settle(clients: Sequence[Client], rounds: int = 12) -> None:
    """Heartbeats until nobody has anything to do."""
    for _ in range(rounds):
        for client in clients:
            client.give_up()
            if client.is_in:
                client.beat()
