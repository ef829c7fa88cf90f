"""The transaction coordinator against a log and markers in memory."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.broker.coordinator.schemas import TxnMetadata, TxnStatus
from tailrace.broker.coordinator.transaction import Partition, ProducerIdentity
from tailrace.broker.coordinator.transactions import (
    CoordinatorLogError,
    TransactionCoordinator,
    TransactionLimits,
)
from tailrace.broker.protocol import ErrorCode

TIMEOUT_MS = 60_000
ID = "tx"
A, B = ("a", 0), ("b", 3)


class World:
    """What a coordinator is given, in memory: clock, log, markers; `gate` holds durability back."""

    def __init__(
        self,
        log: "list[tuple[str, TxnMetadata | None]] | None" = None,
        *,
        now: int = 1_000_000_000_000,
        version: int = 0,
    ) -> None:
        self.now = now
        self.log = list(log or [])
        self.markers: list[tuple[Partition, int, int, bool]] = []
        self.events: list[str] = []
        self.full = False
        self.unreachable: set[Partition] = set()
        self.gate: asyncio.Event | None = None
        self.next_id = 100 * (1 + len(self.log))
        self.coordinator = TransactionCoordinator(
            TransactionLimits(max_timeout_ms=900_000),
            self,
            MemoryMarkers(self),
            self._allocate,
            self,
            lambda: version,
        )
        for transactional_id, value in self.log:
            self.coordinator.replay(transactional_id, value)

    def now_ms(self) -> int:
        return self.now

    def _allocate(self) -> int:
        if self.full:
            raise CoordinatorLogError("disk full")
        self.next_id += 1
        return self.next_id

    async def write(self, transactional_id: str, value: TxnMetadata) -> None:
        self.write_soon(transactional_id, value)
        if self.gate is not None:
            await self.gate.wait()
        else:
            await asyncio.sleep(0)

    def write_soon(self, transactional_id: str, value: TxnMetadata | None) -> None:
        if self.full:
            raise CoordinatorLogError("disk full")
        self.log.append((transactional_id, value))
        self.events.append(value.status.name if value else "forget")

    async def init(self, pid: int = -1, epoch: int = -1) -> ProducerIdentity:
        return await self.coordinator.init_producer_id(ID, TIMEOUT_MS, pid, epoch)

    async def begin(self, *partitions: Partition) -> ProducerIdentity:
        made = await self.init()
        assert made.error is ErrorCode.NONE
        added = await self.coordinator.add_partitions(ID, made.producer_id, made.epoch, partitions or (A, B))
        assert added is ErrorCode.NONE
        return made

    async def end(self, who: ProducerIdentity, *, commit: bool = True) -> ErrorCode:
        return (await self.coordinator.end(ID, who.producer_id, who.epoch, commit=commit)).error

    @property
    def state(self) -> TxnMetadata:
        txn = self.coordinator.get(ID)
        assert txn is not None
        return txn.state

    def states(self) -> dict[str, TxnMetadata]:
        """Everything that the log must be able to tell; an id that was never written is not in it."""
        return {t.transactional_id: t.state for t in self.coordinator if t.state.epoch >= 0}


class MemoryMarkers:
    """Markers into a list."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def write(
        self, partitions: Iterable[Partition], producer_id: int, epoch: int, *, commit: bool, version: int
    ) -> frozenset[Partition]:
        wanted = frozenset(partitions)
        failed = wanted & self._world.unreachable
        await asyncio.sleep(0)
        self._world.markers += [(p, producer_id, epoch, commit) for p in sorted(wanted - failed)]
        self._world.events.append("markers")
        return failed


def run(story: Callable[[World], Awaitable[None]]) -> World:
    world = World()
    asyncio.run(story(world))  # type: ignore[arg-type]
    return world


def test_a_commit_is_answered_after_prepare_and_markers_in_this_order() -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        assert await world.end(who) is ErrorCode.NONE
        assert world.markers == [(A, who.producer_id, 0, True), (B, who.producer_id, 0, True)]

    world = run(story)
    assert world.events == ["EMPTY", "ONGOING", "PREPARE_COMMIT", "markers", "COMPLETE_COMMIT"]


def test_no_marker_is_written_before_the_outcome_is_durable() -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        world.gate = asyncio.Event()
        ending = asyncio.create_task(world.end(who))
        await asyncio.sleep(0.01)
        assert world.events[-1] == "PREPARE_COMMIT"
        assert await world.end(who) is ErrorCode.CONCURRENT_TRANSACTIONS
        world.gate.set()
        assert await ending is ErrorCode.NONE

    run(story)


def test_a_repeated_end_is_answered_alike_and_a_crossed_one_is_refused() -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        await world.end(who)
        assert await world.end(who) is ErrorCode.NONE
        assert await world.end(who, commit=False) is ErrorCode.INVALID_TXN_STATE
        assert len(world.markers) == 2

    run(story)


def test_ending_what_never_began_is_refused() -> None:
    async def story(world: World) -> None:
        who = await world.init()
        assert await world.end(who) is ErrorCode.INVALID_TXN_STATE
        assert await world.end(who, commit=False) is ErrorCode.INVALID_TXN_STATE

    run(story)


def test_each_init_raises_the_epoch_and_keeps_the_producer_id() -> None:
    async def story(world: World) -> None:
        first, second = await world.init(), await world.init()
        assert (second.producer_id, second.epoch) == (first.producer_id, first.epoch + 1)
        add = world.coordinator.add_partitions
        assert await add(ID, first.producer_id, first.epoch, [A]) is ErrorCode.PRODUCER_FENCED
        assert await add(ID, first.producer_id + 1, 1, [A]) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
        assert await add("other", first.producer_id, 1, [A]) is ErrorCode.INVALID_PRODUCER_ID_MAPPING

    run(story)


def test_init_aborts_an_open_transaction_under_a_higher_epoch() -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        assert (await world.init()).error is ErrorCode.CONCURRENT_TRANSACTIONS
        assert world.markers == [(A, who.producer_id, 1, False), (B, who.producer_id, 1, False)]
        assert (await world.init()).epoch == 2
        assert await world.end(who) is ErrorCode.PRODUCER_FENCED

    run(story)


def test_a_producer_that_names_itself_bumps_its_own_epoch_and_may_retry() -> None:
    async def story(world: World) -> None:
        made = await world.init()
        bumped = await world.init(made.producer_id, made.epoch)
        assert bumped.epoch == 1
        assert await world.init(made.producer_id, made.epoch) == bumped
        assert (await world.init(bumped.producer_id, bumped.epoch)).epoch == 2
        assert (await world.init(made.producer_id, made.epoch)).error is ErrorCode.PRODUCER_FENCED
        assert (await world.init(made.producer_id + 1, 2)).error is ErrorCode.PRODUCER_FENCED

    run(story)


def test_an_exhausted_epoch_gives_a_new_producer_id() -> None:
    old = TxnMetadata(7, 32766, TIMEOUT_MS, TxnStatus.EMPTY, frozenset(), 0, -1)

    async def story() -> None:
        world = World([(ID, old)])
        made = await world.init()
        assert made.producer_id != 7
        assert made.epoch == 0
        world = World([(ID, old)])
        made = await world.init(7, 32766)
        assert await world.init(7, 32766) == made

    asyncio.run(story())


def test_adding_a_known_partition_writes_nothing() -> None:
    async def story(world: World) -> None:
        who = await world.begin(A)
        written = len(world.log)
        add = world.coordinator.add_partitions
        assert await add(ID, who.producer_id, who.epoch, [A]) is ErrorCode.NONE
        assert len(world.log) == written
        assert await add(ID, who.producer_id, who.epoch, [B]) is ErrorCode.NONE
        assert world.state.partitions == {A, B}

    run(story)


def test_only_records_of_an_open_transaction_of_the_newest_epoch_are_let_in() -> None:
    async def story(world: World) -> None:
        verify = world.coordinator.verify
        who = await world.begin(A)
        pid, epoch = who.producer_id, who.epoch
        assert verify(ID, pid, epoch, A) is ErrorCode.NONE
        assert verify(ID, pid, epoch, B) is ErrorCode.INVALID_TXN_STATE
        assert verify(ID, pid, epoch - 1, A) is ErrorCode.PRODUCER_FENCED
        assert verify(ID, pid + 1, epoch, A) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
        world.gate = asyncio.Event()
        ending = asyncio.create_task(world.end(who))
        await asyncio.sleep(0)
        assert verify(ID, pid, epoch, A) is ErrorCode.CONCURRENT_TRANSACTIONS
        world.gate.set()
        await ending
        assert verify(ID, pid, epoch, A) is ErrorCode.INVALID_TXN_STATE

    run(story)


def test_a_partition_counts_only_once_its_entry_is_durable() -> None:
    async def story(world: World) -> None:
        who = await world.init()
        world.gate = asyncio.Event()
        adding = asyncio.create_task(world.coordinator.add_partitions(ID, who.producer_id, who.epoch, [A]))
        await asyncio.sleep(0)
        assert world.coordinator.verify(ID, who.producer_id, 0, A) is ErrorCode.INVALID_TXN_STATE
        assert (await world.init()).error is ErrorCode.CONCURRENT_TRANSACTIONS
        world.gate.set()
        await adding
        assert world.coordinator.verify(ID, who.producer_id, 0, A) is ErrorCode.NONE

    run(story)


def test_a_transaction_that_outlives_its_timeout_is_aborted_and_its_producer_fenced() -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        world.now += TIMEOUT_MS
        await world.coordinator.tick()
        assert world.events[-1] == "ONGOING"
        world.now += 1
        await world.coordinator.tick()
        assert world.events[-1] == "COMPLETE_ABORT"
        assert [commit for *_, commit in world.markers] == [False, False]
        assert await world.end(who) is ErrorCode.PRODUCER_FENCED

    run(story)


@pytest.mark.parametrize("commit", [True, False])
def test_a_prepared_transaction_is_finished_after_a_restart(commit: bool) -> None:
    async def story() -> None:
        before = World()
        who = await before.begin()
        await before.end(who, commit=commit)
        (cut,) = [i for i, (_, v) in enumerate(before.log) if v and v.status.name.startswith("PREPARE")]
        after = World(before.log[: cut + 1])
        await after.coordinator.recover()
        assert after.markers == before.markers
        assert after.states().keys() == before.states().keys()
        assert dataclasses.replace(after.state, updated_at_ms=0) == dataclasses.replace(
            before.state, updated_at_ms=0
        )

    asyncio.run(story())


@pytest.mark.parametrize("by_itself", [True, False])
def test_an_end_is_not_confirmed_before_every_marker_is_there(by_itself: bool) -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        world.unreachable = {B}
        assert await world.end(who) is ErrorCode.CONCURRENT_TRANSACTIONS
        assert await world.end(who) is ErrorCode.CONCURRENT_TRANSACTIONS
        await world.coordinator.tick()
        assert world.markers == [(A, who.producer_id, who.epoch, True)]
        world.unreachable = set()
        if by_itself:
            await world.coordinator.tick()
            assert world.state.status is TxnStatus.COMPLETE_COMMIT
        assert await world.end(who) is ErrorCode.NONE
        assert world.markers == [(p, who.producer_id, who.epoch, True) for p in (A, B)]

    run(story)


def test_a_full_disk_changes_nothing_and_can_be_retried() -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        world.full = True
        assert await world.end(who) is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert world.state.status is TxnStatus.ONGOING
        world.full = False
        assert await world.end(who) is ErrorCode.NONE

    run(story)


def test_a_timeout_that_meets_a_commit_leaves_it_alone() -> None:
    async def story(world: World) -> None:
        who = await world.begin()
        world.now += TIMEOUT_MS + 1
        _, ended = await asyncio.gather(world.coordinator.tick(), world.end(who))
        assert ended is ErrorCode.NONE
        assert world.state.status is TxnStatus.COMPLETE_COMMIT
        assert [commit for *_, commit in world.markers] == [True, True]

    run(story)


def test_a_producer_id_that_cannot_be_reserved_is_asked_for_again() -> None:
    async def story(world: World) -> None:
        world.full = True
        assert (await world.init()).error is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert (
            await world.coordinator.init_producer_id(None, 0)
        ).error is ErrorCode.COORDINATOR_NOT_AVAILABLE
        world.full = False
        assert (await world.init()).error is ErrorCode.NONE

    run(story)


@pytest.mark.parametrize("year_ms", [365 * 86_400_000, -365 * 86_400_000])
def test_a_clock_that_jumped_while_the_broker_was_down_ends_nothing_and_delays_nothing(year_ms: int) -> None:
    async def story() -> None:
        before = World()
        await before.begin()
        after = World(before.log, now=before.now + year_ms)
        after.now += TIMEOUT_MS
        await after.coordinator.tick()
        assert after.events[-1:] != ["COMPLETE_ABORT"]
        after.now += 1
        await after.coordinator.tick()
        assert after.events[-1] == "COMPLETE_ABORT"
        idle = World(after.log, now=after.now + year_ms)
        await idle.coordinator.tick()
        assert idle.states()

    asyncio.run(story())


def test_an_idle_id_is_forgotten_but_never_an_open_one() -> None:
    async def story(world: World) -> None:
        world.coordinator.replay(
            "open", TxnMetadata(5, 0, 2**31 - 1, TxnStatus.ONGOING, frozenset({A}), 0, 0)
        )
        await world.init()
        world.now += 7 * 24 * 3_600_000 + 1
        await world.coordinator.tick()
        assert [txn.transactional_id for txn in world.coordinator] == ["open"]
        assert world.log[-1] == (ID, None)

    run(story)


@pytest.mark.parametrize(
    ("transactional_id", "timeout_ms", "error"),
    [
        ("", 1000, ErrorCode.INVALID_REQUEST),
        (ID, 900_001, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
        (ID, 0, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
        (None, 0, ErrorCode.NONE),
    ],
)
def test_init_checks_what_it_is_asked(
    transactional_id: str | None, timeout_ms: int, error: ErrorCode
) -> None:
    async def story(world: World) -> None:
        made = await world.coordinator.init_producer_id(transactional_id, timeout_ms)
        assert made.error is error
        assert (made.producer_id >= 0) is (error is ErrorCode.NONE)

    run(story)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["init", "reinit", "add", "commit", "abort", "old commit", "late", "fail"]),
        st.sampled_from(["x", "y"]),
        st.sampled_from([A, B]),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(_STEPS, st.sampled_from([0, 2]))
def test_live_state_is_what_a_restart_replays(steps: list[tuple[str, str, Partition]], version: int) -> None:
    async def story() -> None:
        world = World(version=version)
        coordinator = world.coordinator
        newest: dict[str, ProducerIdentity] = {}
        for step, name, partition in steps:
            who = newest.get(name, ProducerIdentity(ErrorCode.NONE, 1, 0))
            world.now += 10
            if step in ("init", "reinit"):
                expected = (who.producer_id, who.epoch) if step == "reinit" and name in newest else (-1, -1)
                made = await coordinator.init_producer_id(name, TIMEOUT_MS, *expected)
                if made.error is ErrorCode.NONE:
                    newest[name] = made
            elif step == "add":
                await coordinator.add_partitions(name, who.producer_id, who.epoch, [partition])
            elif step == "late":
                world.now += TIMEOUT_MS
                await coordinator.tick()
            elif step == "fail":
                world.full = not world.full
            else:
                epoch = who.epoch - (step == "old commit")
                ended = await coordinator.end(
                    name, who.producer_id, epoch, commit=step != "abort", bump=version == 2
                )
                if version == 2 and ended.error is ErrorCode.NONE:
                    newest[name] = ended
        assert World(world.log).states() == world.states()
        decoded = [
            (name, value and TxnMetadata.decode(value.encode(version // 2))) for name, value in world.log
        ]
        assert World(decoded).states() == world.states()

    asyncio.run(story())
