"""Groups and offsets on a real log: what a restart reads is what was there."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broker.log.harness import NOW_MS, ManualClock

from tailrace.broker.coordinator.consumer_group.catalog import TopicCatalog
from tailrace.broker.coordinator.consumer_group.coordinator import ConsumerGroupLimits, Timings
from tailrace.broker.coordinator.consumer_group.migration import MigrationPolicy
from tailrace.broker.coordinator.group import GroupState, JoinRequest, SyncRequest
from tailrace.broker.coordinator.group_log import GroupLog
from tailrace.broker.coordinator.internal_topic import CONSUMER_OFFSETS, InternalTopic
from tailrace.broker.coordinator.rebalance import GroupLimits
from tailrace.broker.coordinator.schemas import OffsetKey, OffsetValue
from tailrace.broker.coordinator.transaction_log import Markers
from tailrace.broker.log import Flusher, LogManager, StorageFailure
from tailrace.broker.topics import Topics

GROUPS = ("a", "b", "c")
PARTITIONS = 3


class Node:
    """The storage of one broker start, with its group log replayed."""

    def __init__(
        self,
        data_dir: Path,
        now_ms: int = NOW_MS,
        migration: MigrationPolicy = MigrationPolicy.BIDIRECTIONAL,
    ) -> None:
        self.clock = ManualClock(now_ms)
        self.logs = LogManager(data_dir, clock=self.clock)
        self.topics = Topics(data_dir, self.logs)
        self.flusher = Flusher(on_high_watermark=lambda _: None, on_failure=_raise)
        topic = InternalTopic(
            CONSUMER_OFFSETS,
            PARTITIONS,
            topics=self.topics,
            logs=self.logs,
            flusher=self.flusher,
            clock=self.clock,
        )
        self.log = GroupLog(
            topic,
            GroupLimits(),
            ConsumerGroupLimits(migration=migration),
            lambda _: Timings(),
            TopicCatalog(self.topics),
            self.clock,
        )
        self.markers = Markers(
            topics=self.topics,
            logs=self.logs,
            flusher=self.flusher,
            clock=self.clock,
            on_offsets_end=lambda partition, producer_id, commit: self.log.offsets.end_transaction(
                partition, producer_id, commit=commit
            ),
        )
        self.log.replay()

    async def close(self) -> None:
        await self.flusher.close()
        self.logs.close()
        self.topics.close()

    def offsets(self) -> dict[str, dict[tuple[str, int], OffsetValue]]:
        store = self.log.offsets
        return {
            group: {place: offset.value for place, offset in store.of_group(group).items()}
            for group in store.groups()
        }

    def unstable(self) -> set[tuple[str, int]]:
        return {(g, p) for g in GROUPS for p in range(2) if self.log.offsets.is_unstable(g, "t", p)}


def _raise(error: StorageFailure) -> None:
    raise error


def over_a_restart(story: Callable[[Node], Awaitable[None]], then: Callable[[Node, Node], None]) -> None:
    """Run the story, stop, start again on the same directory, compare."""

    async def run(data_dir: Path) -> None:
        before = Node(data_dir)
        await story(before)
        await before.close()
        after = Node(data_dir)
        then(before, after)
        await after.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["commit", "in transaction", "end commit", "end abort", "forget", "delete"]),
        st.sampled_from(GROUPS),
        st.integers(0, 1),
        st.integers(1, 2),
    ),
    max_size=25,
)


@settings(max_examples=20, deadline=None)
@given(_STEPS)
def test_offsets_are_after_a_restart_what_they_were_before(steps: list[tuple[str, str, int, int]]) -> None:
    async def story(node: Node) -> None:
        for number, (step, group, partition, producer_id) in enumerate(steps):
            offsets = {("t", partition): OffsetValue(number, -1, f"step {number}", number)}
            if step == "commit":
                await node.log.commit(group, offsets)
            elif step == "in transaction":
                await node.log.commit_in_transaction(group, producer_id, 0, offsets)
            elif step == "forget":
                await node.log.forget_offsets([OffsetKey(group, "t", partition)])
            elif step == "delete":
                await node.log.delete_group(group)
            else:
                place = (CONSUMER_OFFSETS, node.log.partition_of(group))
                await node.markers.write([place], producer_id, 0, commit=step == "end commit")

    def then(before: Node, after: Node) -> None:
        assert after.offsets() == before.offsets()
        assert after.unstable() == before.unstable()

    over_a_restart(story, then)


async def join(node: Node, metadata: bytes) -> None:
    """One static member, stable in group `a`."""
    groups, now_ms = node.log.groups, node.clock.now_ms()
    joined: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    request = JoinRequest(
        "a", "", "static", "me", "/here", 10_000, 10_000, "consumer", (("range", metadata),), False, True
    )
    groups.join(request, now_ms, lambda result: joined.set_result(result.member_id))
    member_id = await joined
    synced: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    groups.sync(
        SyncRequest("a", 1, member_id, "static", None, None, {member_id: b"mine"}),
        now_ms,
        lambda result: synced.set_result(result.assignment),
    )
    assert await synced == b"mine"


def test_a_stable_group_is_there_after_a_restart() -> None:
    async def story(node: Node) -> None:
        await join(node, b"topics")

    def then(before: Node, after: Node) -> None:
        group, restored = before.log.groups.get("a"), after.log.groups.get("a")
        assert group is not None
        assert restored is not None
        assert (restored.state, restored.generation, restored.leader) == (GroupState.STABLE, 1, group.leader)
        (member,), (kept,) = group.members.values(), restored.members.values()
        assert (kept.member_id, kept.instance_id, kept.assignment, kept.protocols) == (
            member.member_id,
            "static",
            b"mine",
            member.protocols,
        )

    over_a_restart(story, then)


DAY_MS = 86_400_000


def test_unused_groups_and_their_offsets_expire() -> None:
    async def story(node: Node) -> None:
        await node.log.commit("a", {("t", 0): OffsetValue(5, -1, "", node.clock.now_ms())})
        node.log.groups.ensure("a", node.clock.now_ms())
        node.clock.at_ms += DAY_MS - 1
        await node.log.expire(DAY_MS)
        assert node.log.groups.get("a") is not None
        node.clock.at_ms += 1
        await node.log.expire(DAY_MS)
        assert node.log.groups.get("a") is None

    def then(before: Node, after: Node) -> None:
        assert after.offsets() == before.offsets() == {}
        assert list(after.log.groups) == []

    over_a_restart(story, then)


@pytest.mark.parametrize("year_ms", [365 * DAY_MS, -365 * DAY_MS])
def test_a_clock_that_jumped_while_the_broker_was_down_expires_nothing(tmp_path: Path, year_ms: int) -> None:
    async def story() -> None:
        node = Node(tmp_path)
        await node.log.commit("a", {("t", 0): OffsetValue(5, -1, "", node.clock.now_ms())})
        await node.close()
        node = Node(tmp_path, NOW_MS + year_ms)
        await node.log.expire(DAY_MS)
        assert node.offsets().keys() == {"a"}
        node.clock.at_ms += DAY_MS
        await node.log.expire(DAY_MS)
        assert node.offsets() == {}
        await node.close()

    asyncio.run(story())


def test_no_offset_expires_while_a_transaction_may_move_it(tmp_path: Path) -> None:
    async def story() -> None:
        node = Node(tmp_path)
        now_ms = node.clock.now_ms()
        node.log.groups.ensure("a", now_ms)
        await node.log.commit("a", {("t", p): OffsetValue(5, -1, "", now_ms) for p in range(2)})
        await node.log.commit_in_transaction("a", 1, 0, {("t", 1): OffsetValue(6, -1, "", now_ms)})
        node.clock.at_ms += 2 * DAY_MS
        await node.log.expire(DAY_MS)
        assert node.offsets()["a"].keys() == {("t", 1)}
        await node.markers.write([(CONSUMER_OFFSETS, node.log.partition_of("a"))], 1, 0, commit=False)
        await node.log.expire(DAY_MS)
        assert node.log.groups.get("a") is None
        await node.close()

    asyncio.run(story())


def test_a_stable_group_keeps_the_offsets_of_what_it_reads(tmp_path: Path) -> None:
    async def story() -> None:
        node = Node(tmp_path)
        now_ms = node.clock.now_ms()
        await join(node, b"\0\0\0\0\0\1\0\1t")
        await node.log.commit("a", {(topic, 0): OffsetValue(5, -1, "", now_ms) for topic in "tu"})
        node.clock.at_ms += DAY_MS
        await node.log.expire(DAY_MS)
        assert node.offsets()["a"].keys() == {("t", 0)}
        await node.close()

    asyncio.run(story())
