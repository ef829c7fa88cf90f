"""`transaction.version` 2 (KIP-890): every end raises the epoch."""

import asyncio

import pytest
from tests.unit.broker.coordinator.test_transactions import ID, TIMEOUT_MS, A, B, World

from tailrace.broker.coordinator.schemas import TxnMetadata, TxnStatus
from tailrace.broker.coordinator.transaction import ProducerIdentity
from tailrace.broker.protocol import ErrorCode

LAST = 32766


async def end(world: World, who: ProducerIdentity, *, commit: bool = True) -> ProducerIdentity:
    return await world.coordinator.end(ID, who.producer_id, who.epoch, commit=commit, bump=True)


async def add(world: World, who: ProducerIdentity) -> ErrorCode:
    return await world.coordinator.add_partitions(ID, who.producer_id, who.epoch, [A])


@pytest.mark.parametrize("commit", [True, False])
def test_an_end_raises_the_epoch_and_its_retry_is_answered_alike(commit: bool) -> None:
    async def story() -> None:
        world = World(version=2)
        who = await world.begin(A)
        after = await end(world, who, commit=commit)
        assert after == ProducerIdentity(ErrorCode.NONE, who.producer_id, who.epoch + 1)
        assert world.markers == [(A, who.producer_id, who.epoch + 1, commit)]
        assert await end(world, who, commit=commit) == after
        assert len(world.markers) == 1
        assert world.state.client_version == 2

    asyncio.run(story())


def test_a_late_end_never_touches_the_next_transaction() -> None:
    async def story() -> None:
        world = World(version=2)
        first = await world.begin(A)
        second = await end(world, first)
        assert await add(world, second) is ErrorCode.NONE
        for commit in (True, False):
            assert (await end(world, first, commit=commit)).error is ErrorCode.PRODUCER_FENCED
        assert world.coordinator.verify(ID, first.producer_id, first.epoch, A) is ErrorCode.PRODUCER_FENCED
        assert world.state.status is TxnStatus.ONGOING
        assert (await end(world, second)).epoch == first.epoch + 2

    asyncio.run(story())


def test_a_commit_that_comes_after_the_coordinator_aborted_is_fenced() -> None:
    async def story() -> None:
        world = World(version=2)
        who = await world.begin(A)
        world.now += TIMEOUT_MS + 1
        await world.coordinator.tick()
        assert world.markers == [(A, who.producer_id, who.epoch + 1, False)]
        assert (await end(world, who)).error is ErrorCode.PRODUCER_FENCED
        after = await end(world, who, commit=False)
        assert after == ProducerIdentity(ErrorCode.NONE, who.producer_id, who.epoch + 1)

    asyncio.run(story())


def test_a_transaction_without_partitions_can_be_aborted_but_not_committed() -> None:
    async def story() -> None:
        world = World(version=2)
        who = await world.init()
        assert (await end(world, who)).error is ErrorCode.INVALID_TXN_STATE
        for _ in range(2):
            aborted = await end(world, who, commit=False)
            assert aborted == ProducerIdentity(ErrorCode.NONE, who.producer_id, who.epoch + 1)
            who = aborted
            assert (await end(world, who)).error is ErrorCode.INVALID_TXN_STATE
        assert world.markers == []

    asyncio.run(story())


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
def test_an_exhausted_epoch_rolls_over_to_a_new_producer_id(commit: bool, restarted: bool) -> None:
    async def story() -> None:
        ongoing = TxnMetadata(7, LAST, TIMEOUT_MS, TxnStatus.ONGOING, frozenset({A}), 0, 0)
        world = World([(ID, ongoing)], version=2)
        who = ProducerIdentity(ErrorCode.NONE, 7, LAST)
        if restarted:
            world.unreachable = {A}
            assert (await end(world, who, commit=commit)).error is ErrorCode.CONCURRENT_TRANSACTIONS
            world = World(world.log, version=2)
            await world.coordinator.recover()
        after = await end(world, who, commit=commit)
        assert world.markers == [(A, 7, LAST + 1, commit)]
        assert (after.error, after.epoch) == (ErrorCode.NONE, 0)
        assert after.producer_id not in (7, -1)
        assert await end(world, who, commit=commit) == after
        assert world.state.previous_producer_id == 7
        assert await add(world, after) is ErrorCode.NONE

    asyncio.run(story())


def test_a_timeout_at_the_last_epoch_rolls_over_as_well() -> None:
    async def story() -> None:
        world = World(
            [(ID, TxnMetadata(7, LAST, TIMEOUT_MS, TxnStatus.ONGOING, frozenset({A}), 0, 0))], version=2
        )
        world.now += TIMEOUT_MS + 1
        await world.coordinator.tick()
        assert world.markers == [(A, 7, LAST + 1, False)]
        assert (world.state.status, world.state.epoch) == (TxnStatus.COMPLETE_ABORT, 0)
        assert (await world.init()).error is ErrorCode.NONE

    asyncio.run(story())


def test_clients_of_the_classic_protocol_work_beside_it() -> None:
    async def story() -> None:
        world = World(version=2)
        who = await world.begin(A, B)
        assert await world.end(who) is ErrorCode.NONE
        assert await world.end(who) is ErrorCode.NONE
        assert {epoch for _, _, epoch, _ in world.markers} == {who.epoch}
        assert await add(world, who) is ErrorCode.NONE

    asyncio.run(story())


def test_what_version_2_adds_is_in_the_log() -> None:
    value = TxnMetadata(9, 0, 1, TxnStatus.PREPARE_ABORT, frozenset({A}), 3, 2, 7, 11, 2)
    assert TxnMetadata.decode(value.encode(1)) == value


def test_partitions_that_come_with_the_records_join_in_the_order_of_the_requests() -> None:
    async def story() -> None:
        world = World(version=2)
        who = await world.init()
        appended: list[int] = []

        async def produce(number: int, partition: tuple[str, int]) -> None:
            assert not world.coordinator.has_joined(ID, who.producer_id, who.epoch, [partition])
            error = await world.coordinator.join(ID, who.producer_id, who.epoch, [partition])
            assert error is ErrorCode.NONE
            assert partition in world.state.partitions
            appended.append(number)

        await asyncio.gather(produce(1, A), produce(2, B), produce(3, A), produce(4, B))
        assert appended == [1, 2, 3, 4]
        assert world.coordinator.has_joined(ID, who.producer_id, who.epoch, [A, B])
        assert world.events == ["EMPTY", "ONGOING", "ONGOING"]

    asyncio.run(story())
