"""Clients of both protocols in one group on a real log; each of them uses only what it was given."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tests.unit.broker.coordinator.test_group_log import Node

from tailrace.broker.coordinator.consumer_group.heartbeat import Answer, Heartbeat
from tailrace.broker.coordinator.group import JoinRequest, JoinResult, SyncRequest, SyncResult
from tailrace.broker.protocol import ErrorCode

GROUP = "g"
SESSION_MS = 10_000
REBALANCE_MS = 30_000
Partition = tuple[str, int]


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def _partitions(owned: Iterable[Partition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(owned):
        topics.setdefault(topic, []).append(number)
    rows = [
        _text(topic) + len(numbers).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in numbers)
        for topic, numbers in topics.items()
    ]
    return len(rows).to_bytes(4, "big") + b"".join(rows)


def subscription(topics: Iterable[str], owned: Iterable[Partition] = ()) -> bytes:
    """ConsumerProtocolSubscription v1, written by hand."""
    names = sorted(topics)
    listed = len(names).to_bytes(4, "big") + b"".join(map(_text, names))
    return b"\0\1" + listed + b"\xff\xff\xff\xff" + _partitions(owned)


def assignment(places: Iterable[Partition]) -> bytes:
    """ConsumerProtocolAssignment v1, written by hand."""
    return b"\0\1" + _partitions(places) + b"\xff\xff\xff\xff"


def _read_partitions(data: bytes, at: int) -> set[Partition]:
    found = set()
    count, at = int.from_bytes(data[at : at + 4], "big"), at + 4
    for _ in range(count):
        size = int.from_bytes(data[at : at + 2], "big")
        topic, at = data[at + 2 : at + 2 + size].decode(), at + 2 + size
        numbers, at = int.from_bytes(data[at : at + 4], "big"), at + 4
        for _ in range(numbers):
            found.add((topic, int.from_bytes(data[at : at + 4], "big")))
            at += 4
    return found


def _read_subscription(data: bytes) -> tuple[set[str], set[Partition]]:
    topics, at = set(), 6
    for _ in range(int.from_bytes(data[2:6], "big")):
        size = int.from_bytes(data[at : at + 2], "big")
        topics.add(data[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return topics, _read_partitions(data, at + 4)


class ClassicClient:
    """A consumer of the classic protocol; `cooperative`: it keeps its partitions over a rebalance.

    What it waits for comes when the loop runs; `step` is one turn of its own loop.
    """

    def __init__(
        self,
        node: Callable[[], Node],
        topics: Iterable[str] = ("t",),
        *,
        cooperative: bool = False,
        instance_id: str | None = None,
    ) -> None:
        self._node = node
        self.topics = frozenset(topics)
        self.cooperative = cooperative
        self.instance_id = instance_id
        self.member_id = ""
        self.generation = -1
        self.owned: set[Partition] = set()
        self.must_join = True
        self.waiting: asyncio.Task[JoinResult] | asyncio.Task[SyncResult] | None = None
        self.gone = False

    @property
    def protocol(self) -> str:
        return "cooperative-sticky" if self.cooperative else "range"

    def step(self) -> None:
        """Hear what has come, then say what is to be said."""
        if self.gone:
            return
        if self.waiting is not None:
            if self.waiting.done():
                result, self.waiting = self.waiting.result(), None
                self._joined(result) if isinstance(result, JoinResult) else self._synced(result)
        elif self.must_join:
            self._join()
        else:
            self._heed(
                self._node().log.classic_heartbeat(GROUP, self.generation, self.member_id, self.instance_id)
            )

    def _join(self) -> None:
        if not self.cooperative:
            self.owned = set()
        request = JoinRequest(
            GROUP,
            self.member_id,
            self.instance_id,
            "c",
            "/h",
            SESSION_MS,
            REBALANCE_MS,
            "consumer",
            ((self.protocol, subscription(self.topics, self.owned)),),
            True,
            True,
        )
        self.waiting = asyncio.get_running_loop().create_task(self._node().log.join(request))

    def _joined(self, result: JoinResult) -> None:
        if result.error is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = result.member_id
            self._join()
        elif result.error is not ErrorCode.NONE:
            self._heed(result.error)
        else:
            self.must_join = False
            self.member_id, self.generation = result.member_id, result.generation
            assigned: Mapping[str, set[Partition]] = {}
            if result.leader == self.member_id and not result.skip_assignment:
                assigned = self._assign({m.member_id: bytes(m.metadata) for m in result.members})
            request = SyncRequest(
                GROUP,
                self.generation,
                self.member_id,
                self.instance_id,
                result.protocol_type,
                result.protocol,
                {member_id: assignment(places) for member_id, places in assigned.items()},
            )
            self.waiting = asyncio.get_running_loop().create_task(self._node().log.sync(request))

    def _assign(self, members: Mapping[str, bytes]) -> Mapping[str, set[Partition]]:
        """Equal shares; a cooperative leader gives away only what nobody owns."""
        said = {member_id: _read_subscription(metadata) for member_id, metadata in members.items()}
        ranked = sorted(said)
        shares: dict[str, set[Partition]] = {member_id: set() for member_id in ranked}
        owner = {place: member_id for member_id in ranked for place in said[member_id][1]}
        for topic in sorted(set().union(*(topics for topics, _ in said.values()))):
            readers = [member_id for member_id in ranked if topic in said[member_id][0]]
            found = self._node().topics.find(topic)
            for number in range(found.partitions if found else 0):
                wanted = readers[number % len(readers)]
                if not self.cooperative or owner.get((topic, number), wanted) == wanted:
                    shares[wanted].add((topic, number))
        return shares

    def _synced(self, result: SyncResult) -> None:
        if result.error is not ErrorCode.NONE:
            self._heed(result.error)
            return
        given = _read_partitions(result.assignment, 2) if result.assignment else set()
        self.must_join = bool(self.owned - given) and self.cooperative
        self.owned = given

    def _heed(self, error: ErrorCode) -> None:
        """What Kafka's client does with an error of its group."""
        if error is ErrorCode.NONE:
            return
        self.must_join = True
        if error is ErrorCode.FENCED_INSTANCE_ID:
            self.gone, self.owned = True, set()
        elif error is ErrorCode.UNKNOWN_MEMBER_ID:
            self.member_id, self.owned = "", set()
        elif error is ErrorCode.ILLEGAL_GENERATION:
            self.owned = set()

    async def leave(self) -> None:
        """A dynamic member says so; a static one is just not there any more."""
        self.owned, self.gone = set(), True
        self.cancel()
        if self.instance_id is None and self.member_id:
            await self._node().log.leave(GROUP, [(self.member_id, None)])

    def cancel(self) -> None:
        """The connection is gone, and what it waited for with it."""
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting, self.must_join = None, True


class ModernClient:
    """A consumer of the consumer protocol."""

    def __init__(
        self,
        node: Callable[[], Node],
        member_id: str,
        topics: Iterable[str] = ("t",),
        *,
        instance_id: str | None = None,
    ) -> None:
        self._node = node
        self.member_id = member_id
        self.topics = frozenset(topics)
        self.instance_id = instance_id
        self.epoch = 0
        self.owned: set[Partition] = set()
        self.gone = False
        self.error = ErrorCode.NONE

    async def step(self) -> None:
        """One heartbeat; what is taken away is given up before it."""
        if self.gone:
            return
        said = Heartbeat(GROUP, self.member_id, self.epoch, self.instance_id)
        topics = self._node().topics
        places = {(found.topic_id.bytes, n) for t, n in self.owned if (found := topics.find(t)) is not None}
        if self.epoch == 0:
            self.owned, places = set(), set()
            said = replace(said, rebalance_timeout_ms=REBALANCE_MS, topics=self.topics)
        answer: Answer = await self._node().log.heartbeat(replace(said, owned=frozenset(places)))
        self.error = answer.error
        if answer.error is not ErrorCode.NONE:
            was_in, self.epoch, self.owned = self.epoch > 0, 0, set()
            lost = answer.error is ErrorCode.GROUP_ID_NOT_FOUND and was_in  # a classic group by now
            self.gone = lost or answer.error is ErrorCode.FENCED_INSTANCE_ID
            return
        self.epoch = answer.epoch
        if answer.assignment is not None:
            names = {topic.topic_id.bytes: topic.name for topic in topics.all()}
            self.owned = {(names[topic_id], n) for topic_id, n in answer.assignment if topic_id in names}

    async def leave(self, epoch: int = -1) -> None:
        self.owned, self.gone = set(), True
        if self.epoch > 0:
            await self._node().log.heartbeat(Heartbeat(GROUP, self.member_id, epoch, self.instance_id))


AnyClient = ClassicClient | ModernClient


async def turn(node: Node, *clients: AnyClient, times: int = 1) -> None:
    """Let everybody say something, and hear what comes of it."""
    for _ in range(times):
        for client in clients:
            stepped: Any = client.step()
            if stepped is not None:
                await stepped
            for _ in range(3):
                await asyncio.sleep(0)
            await asyncio.gather(*node.log._writing)
            await node.log.settled(GROUP)


async def settle(node: Node, *clients: AnyClient) -> None:
    """Long enough for everybody to get what they shall have."""
    await turn(node, *clients, times=40)
