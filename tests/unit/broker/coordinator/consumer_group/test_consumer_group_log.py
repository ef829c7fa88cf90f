"""Consumer groups and their offsets on a real log: what expires, and how a group changes its kind."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.unit.broker.coordinator.test_group_log import Node

from tailrace.broker.coordinator.consumer_group.heartbeat import Heartbeat
from tailrace.broker.coordinator.group import JoinRequest
from tailrace.broker.coordinator.schemas import OffsetValue
from tailrace.broker.protocol import ErrorCode

DAY_MS = 86_400_000


def on_a_log(folder: Path, story: Callable[[Node], Awaitable[None]]) -> None:
    async def run() -> None:
        node = Node(folder)
        await story(node)
        await node.close()

    asyncio.run(run())


async def join(node: Node, *topics: str) -> None:
    said = Heartbeat("g", "m", 0, rebalance_timeout_ms=1000, topics=frozenset(topics), owned=frozenset())
    assert (await node.log.heartbeat(said)).error is ErrorCode.NONE


async def commit(node: Node, *topics: str) -> None:
    value = OffsetValue(5, -1, "", node.clock.now_ms())
    await node.log.commit("g", {(topic, 0): value for topic in topics})


def test_offsets_expire_by_their_age_unless_a_member_reads_the_topic_and_then_the_empty_group(
    tmp_path: Path,
) -> None:
    async def story(node: Node) -> None:
        await join(node, "t")
        await commit(node, "t", "u")
        node.clock.at_ms += 7 * DAY_MS
        await node.log.expire(7 * DAY_MS)
        assert set(node.offsets()["g"]) == {("t", 0)}
        await node.log.heartbeat(Heartbeat("g", "m", -1))
        await node.log.expire(8 * DAY_MS)
        assert node.log.consumer_groups.get("g") is not None
        await node.log.expire(7 * DAY_MS)
        assert (node.offsets(), node.log.consumer_groups.get("g")) == ({}, None)

    on_a_log(tmp_path, story)


def test_a_classic_join_takes_an_empty_group_over_with_its_offsets(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        await join(node, "t")
        await commit(node, "t")
        await node.log.heartbeat(Heartbeat("g", "m", -1))
        request = JoinRequest(
            "g", "", None, "c", "/h", 10_000, 10_000, "consumer", (("range", b""),), False, True
        )
        assert (await node.log.join(request)).error is ErrorCode.NONE
        assert node.log.consumer_groups.get("g") is None
        refused = await node.log.heartbeat(Heartbeat("g", "m", 0))
        assert refused.error is ErrorCode.GROUP_ID_NOT_FOUND
        assert set(node.offsets()["g"]) == {("t", 0)}

    on_a_log(tmp_path, story)

    async def later(node: Node) -> None:
        assert node.log.consumer_groups.get("g") is None
        assert node.log.groups.get("g") is not None
        await join(node, "t")
        assert node.log.groups.get("g") is None
        assert set(node.offsets()["g"]) == {("t", 0)}

    on_a_log(tmp_path, later)


def test_a_deleted_group_is_gone_with_everything_that_it_wrote(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        await join(node, "t")
        await commit(node, "t")
        await node.log.heartbeat(Heartbeat("g", "m", -1))
        await node.log.delete_group("g")

    async def later(node: Node) -> None:
        assert (list(node.log.consumer_groups), list(node.log.groups), node.offsets()) == ([], [], {})

    on_a_log(tmp_path, story)
    on_a_log(tmp_path, later)
