"""A group with members changes its protocol: who was in it stays, and no partition has two members meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.broker.coordinator.consumer_group.classic_client import (
    GROUP,
    REBALANCE_MS,
    SESSION_MS,
    AnyClient,
    ClassicClient,
    ModernClient,
    assignment,
    settle,
    subscription,
    turn,
)
from tests.unit.broker.coordinator.test_group_log import Node

from tailrace.broker.coordinator.consumer_group.heartbeat import Heartbeat
from tailrace.broker.coordinator.consumer_group.migration import MigrationPolicy
from tailrace.broker.coordinator.group import Group, GroupState, JoinRequest, Member
from tailrace.broker.coordinator.group_log import GroupLog
from tailrace.broker.coordinator.schemas import OffsetValue, decode_consumer_offsets_key
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode

PARTITIONS = 4
ALL = {("t", number) for number in range(PARTITIONS)}


class Stage:
    """A node that can be started again, and what its clients hold on to."""

    def __init__(self, folder: Path, migration: MigrationPolicy) -> None:
        self.folder = folder
        self.migration = migration
        self.node = Node(folder, migration=migration)
        self.node.topics.create("t", PARTITIONS, {})

    @property
    def log(self) -> GroupLog:
        return self.node.log

    def classic(self, *, cooperative: bool = False, instance_id: str | None = None) -> ClassicClient:
        return ClassicClient(lambda: self.node, cooperative=cooperative, instance_id=instance_id)

    def modern(self, member_id: str, *, instance_id: str | None = None) -> ModernClient:
        return ModernClient(lambda: self.node, member_id, instance_id=instance_id)

    async def mixed(self) -> tuple[ClassicClient, ModernClient]:
        """A classic member, then one of the consumer protocol, each with its share."""
        old, new = self.classic(), self.modern("m")
        await self.settle(old)
        await self.settle(old, new)
        return old, new

    async def settle(self, *clients: AnyClient) -> None:
        await settle(self.node, *clients)

    async def wait(self, ms: int) -> None:
        self.node.clock.at_ms += ms
        self.log.groups.tick(self.node.clock.now_ms())
        self.log.consumer_groups.tick(self.node.clock.now_ms())
        await asyncio.gather(*self.log._writing)

    async def restart(self) -> None:
        await self.node.close()
        self.node = Node(self.folder, self.node.clock.now_ms(), migration=self.migration)

    def kind(self) -> str:
        assert (self.log.groups.get(GROUP) is None) != (self.log.consumer_groups.get(GROUP) is None)
        return "classic" if self.log.consumer_groups.get(GROUP) is None else "consumer"


def on_stage(
    folder: Path,
    story: Callable[[Stage], Awaitable[None]],
    migration: MigrationPolicy = MigrationPolicy.BIDIRECTIONAL,
) -> None:
    async def run() -> None:
        stage = Stage(folder, migration)
        await story(stage)
        await stage.node.close()

    asyncio.run(run())


def shares(*clients: AnyClient) -> list[int]:
    """How many partitions each has, given that all are had once."""
    held = [place for client in clients for place in client.owned]
    assert sorted(held) == sorted(ALL)
    return sorted(len(client.owned) for client in clients)


@pytest.mark.parametrize("cooperative", [False, True], ids=["eager", "cooperative"])
def test_members_roll_to_the_consumer_protocol_and_back_one_by_one(tmp_path: Path, cooperative: bool) -> None:
    async def story(stage: Stage) -> None:
        old = [stage.classic(cooperative=cooperative) for _ in range(2)]
        await stage.settle(*old)
        assert (stage.kind(), shares(*old)) == ("classic", [2, 2])
        await stage.log.commit(GROUP, {("t", 0): OffsetValue(5, -1, "", 0)})
        new = [stage.modern("m")]
        await stage.settle(*old, *new)
        assert (stage.kind(), shares(*old, *new)) == ("consumer", [1, 1, 2])
        for member_id in ("n", "o"):
            await old.pop().leave()
            new.append(stage.modern(member_id))
            await stage.settle(*old, *new)
            assert (stage.kind(), shares(*old, *new)) == ("consumer", [1, 1, 2])
        while new:
            old.append(stage.classic(cooperative=cooperative))
            await new.pop().leave()
            await stage.settle(*old, *new)
            assert shares(*old, *new) == [1, 1, 2]
            assert stage.kind() == ("consumer" if new else "classic")
        assert stage.node.offsets() == {GROUP: {("t", 0): OffsetValue(5, -1, "", 0)}}

    on_stage(tmp_path, story)


def test_a_mixed_group_is_after_a_restart_what_it_was(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        old, new = await stage.mixed()
        owned = (set(old.owned), set(new.owned))
        before = stage.log.consumer_groups.get(GROUP)
        assert before is not None
        await stage.restart()
        after = stage.log.consumer_groups.get(GROUP)
        assert after is not None
        assert (after.subscriptions, after.progress) == (before.subscriptions, before.progress)
        await stage.settle(old, new)
        assert (old.owned, new.owned) == owned
        assert stage.kind() == "consumer"

    on_stage(tmp_path, story)


def test_a_group_that_turned_classic_shares_the_partitions_of_who_left_even_if_the_broker_dies_at_once(
    tmp_path: Path,
) -> None:
    async def story(stage: Stage) -> None:
        old, new = await stage.mixed()
        await new.leave()
        await stage.restart()
        assert stage.kind() == "classic"
        await stage.settle(old)
        assert old.owned == ALL

    on_stage(tmp_path, story)


@pytest.mark.parametrize("policy", list(MigrationPolicy))
def test_each_policy_allows_the_ways_that_it_names(tmp_path: Path, policy: MigrationPolicy) -> None:
    async def story(stage: Stage) -> None:
        old, new = stage.classic(), stage.modern("m")
        await stage.settle(old)
        await turn(stage.node, new)
        assert (new.error is ErrorCode.NONE) == policy.upgrades
        assert new.error in (ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND)
        if not policy.upgrades:
            assert stage.kind() == "classic"
            await old.leave()
            await turn(stage.node, new)
            old = stage.classic()  # into a group of the other protocol classic members may always come
        await stage.settle(old, new)
        assert shares(old, new) == [2, 2]
        await new.leave()
        assert stage.kind() == ("classic" if policy.downgrades else "consumer")
        await stage.settle(old)
        assert old.owned == ALL

    on_stage(tmp_path, story, policy)


@pytest.mark.parametrize("away", [False, True])
def test_a_static_member_changes_its_protocol_and_keeps_its_partitions(tmp_path: Path, away: bool) -> None:
    async def story(stage: Stage) -> None:
        other, old = stage.classic(), stage.classic(instance_id="i")
        await stage.settle(other, old)
        owned = (set(other.owned), set(old.owned))
        new = stage.modern("m", instance_id="i")
        await turn(stage.node, new)
        assert new.owned == owned[1]
        await stage.settle(other, old, new)
        assert old.gone  # fenced
        assert (other.owned, new.owned) == owned
        if away:
            await new.leave(-2)
        back = stage.classic(instance_id="i")
        await stage.settle(other, new, back)
        assert (stage.kind(), shares(other, back)) == ("classic", [2, 2])
        assert new.gone

    on_stage(tmp_path, story)


def test_the_group_turns_classic_when_the_last_member_of_the_consumer_protocol_is_silent(
    tmp_path: Path,
) -> None:
    async def story(stage: Stage) -> None:
        old, _new = await stage.mixed()
        for _ in range(5):
            await stage.wait(SESSION_MS - 1)
            await stage.settle(old)
        assert (stage.kind(), old.owned) == ("classic", ALL)

    on_stage(tmp_path, story)


def test_a_classic_member_that_is_silent_or_does_not_rejoin_is_out(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        silent, deaf, new = stage.classic(), stage.classic(), stage.modern("m")
        await stage.settle(silent, deaf)
        await stage.settle(silent, deaf, new)
        assert shares(silent, deaf, new) == [1, 1, 2]
        await stage.wait(SESSION_MS - 1)
        await turn(stage.node, deaf, new)
        await stage.wait(1)
        beat = stage.log.classic_heartbeat
        assert beat(GROUP, silent.generation, silent.member_id, None) is ErrorCode.UNKNOWN_MEMBER_ID
        for _ in range(-(-REBALANCE_MS // (SESSION_MS - 1))):
            answer = beat(GROUP, deaf.generation, deaf.member_id, None)
            assert answer is ErrorCode.REBALANCE_IN_PROGRESS
            await turn(stage.node, new)
            await stage.wait(SESSION_MS - 1)
        assert beat(GROUP, deaf.generation, deaf.member_id, None) is ErrorCode.UNKNOWN_MEMBER_ID
        await turn(stage.node, new, times=3)
        assert new.owned == ALL

    on_stage(tmp_path, story)


def test_the_turn_is_one_batch_of_tombstones_and_records(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        old, new = stage.classic(), stage.modern("m")
        await stage.settle(old)
        end = len(batches(stage))
        await turn(stage.node, new)
        (upgrade,) = batches(stage)[end:]
        assert upgrade[0] == ("classic", False)
        assert {("consumer", True), ("classic", False)} == set(upgrade)
        await stage.settle(old, new)
        end = len(batches(stage))
        await new.leave()
        downgrade = batches(stage)[end]
        assert downgrade[-1] == ("classic", True)
        assert set(downgrade) == {("consumer", False), ("classic", True)}

    on_stage(tmp_path, story)


def batches(stage: Stage) -> list[list[tuple[str, bool]]]:
    """Of each batch in the log its records: of which kind of group, and whether they are no tombstones."""
    return [
        [
            (
                "classic" if isinstance(decode_consumer_offsets_key(record.key or b""), str) else "consumer",
                record.value is not None,
            )
            for record in batch.records
        ]
        for batch in stage.log._topic.replay()
    ]


def test_a_turn_that_cannot_be_written_has_not_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, "the disk is full")

    async def story(stage: Stage) -> None:
        old, new = stage.classic(), stage.modern("m")
        await stage.settle(old)
        with monkeypatch.context() as patch:
            patch.setattr(stage.log._topic, "append", full)
            await turn(stage.node, new)
            assert (new.error, stage.kind()) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, "classic")
        await stage.settle(old, new)
        assert shares(old, new) == [2, 2]
        with monkeypatch.context() as patch:
            patch.setattr(stage.log._topic, "append", full)
            assert await stage.log.leave(GROUP, [("m", None)]) == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
            assert stage.kind() == "consumer"
        assert await stage.log.leave(GROUP, [("m", None)]) == [ErrorCode.NONE]
        assert stage.kind() == "classic"

    on_stage(tmp_path, story)


def test_classic_members_commit_with_their_own_generation_only(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        old, _new = await stage.mixed()
        groups = stage.log.consumer_groups
        for generation, expected in (
            (old.generation, ErrorCode.NONE),
            (old.generation - 1, ErrorCode.ILLEGAL_GENERATION),
            (old.generation + 1, ErrorCode.ILLEGAL_GENERATION),
        ):
            code = groups.check_commit(GROUP, old.member_id, None, generation, transactional=False)
            assert code is expected
            assert groups.check_fetch(GROUP, old.member_id, generation) is expected

    on_stage(tmp_path, story)


def test_who_waits_for_a_rebalance_is_told_to_join_the_group_that_it_has_become(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        first, late, new = stage.classic(), stage.classic(), stage.modern("m")
        await stage.settle(first)
        await turn(stage.node, late, times=2)  # it waits for `first` to join again
        assert late.waiting is not None
        assert not late.waiting.done()
        await turn(stage.node, new)
        await turn(stage.node, late)
        await stage.settle(first, late, new)
        assert (stage.kind(), shares(first, late, new)) == ("consumer", [1, 1, 2])

    on_stage(tmp_path, story)


@pytest.mark.parametrize(
    ("protocol_type", "metadata", "assignments"),
    [
        ("connect", subscription(["t"]), [assignment([("t", 0)]), assignment([("t", 1)])]),
        ("consumer", b"\0", [assignment([("t", 0)]), assignment([("t", 1)])]),
        ("consumer", subscription(["t"]), [assignment([("t", 0)]), assignment([("t", 0)])]),
        ("consumer", subscription(["t"]), [assignment([("t", 0)]), b"\0\1\0\0"]),
    ],
    ids=["no consumers", "no subscription", "a partition with two members", "no assignment"],
)
def test_a_group_that_cannot_be_understood_stays_what_it_is(
    tmp_path: Path, protocol_type: str, metadata: bytes, assignments: list[bytes]
) -> None:
    async def story(stage: Stage) -> None:
        stage.log.groups.take_over(classic_group(assignments, metadata, protocol_type), 0)
        said = Heartbeat(GROUP, "m", 0, rebalance_timeout_ms=1, topics=frozenset({"t"}), owned=frozenset())
        answer = await stage.log.heartbeat(said)
        assert (answer.error, stage.kind()) == (ErrorCode.GROUP_ID_NOT_FOUND, "classic")

    on_stage(tmp_path, story)


def classic_group(
    assignments: Iterable[bytes], metadata: bytes, protocol_type: str = "consumer", epoch: int = 3
) -> Group:
    group = Group(GROUP, GroupState.STABLE, 0, protocol_type, "range", epoch)
    for number, assigned in enumerate(assignments):
        protocols = (("range", metadata),)
        group.add(Member(str(number), None, "c", "/h", REBALANCE_MS, SESSION_MS, protocols, assigned))
    return group


def test_what_a_member_still_owns_beyond_its_assignment_is_given_to_nobody_yet(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        metadata = subscription(["t"], [("t", 0), ("t", 1)])
        group = classic_group([assignment([("t", 0)])], metadata)
        stage.log.groups.take_over(group, stage.node.clock.now_ms())
        new = stage.modern("m")
        await turn(stage.node, new, times=5)
        assert new.owned == {("t", 3)}
        request = JoinRequest(
            GROUP, "0", None, "c", "/h", 10_000, 10_000, "consumer", (("range", metadata),), True, True
        )
        assert (await stage.log.join(request)).error is ErrorCode.NONE
        await turn(stage.node, new, times=5)
        assert new.owned == {("t", 3)}
        kept = (("range", subscription(["t"], [("t", 0)])),)
        assert (await stage.log.join(replace(request, protocols=kept))).error is ErrorCode.NONE
        await turn(stage.node, new, times=5)
        assert new.owned == {("t", 1), ("t", 3)}

    on_stage(tmp_path, story)


@pytest.mark.parametrize("protocols", [(), (("other", subscription(["t"])),)])
def test_a_classic_member_must_share_a_protocol_with_the_others(
    tmp_path: Path, protocols: tuple[tuple[str, bytes], ...]
) -> None:
    async def story(stage: Stage) -> None:
        await stage.mixed()
        request = JoinRequest(GROUP, "", None, "c", "/h", 10_000, 10_000, "consumer", protocols, True, True)
        assert (await stage.log.join(request)).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        other = replace(request, protocol_type="connect", protocols=(("range", subscription(["t"])),))
        assert (await stage.log.join(other)).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL

    on_stage(tmp_path, story)
