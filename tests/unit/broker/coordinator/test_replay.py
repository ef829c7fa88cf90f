"""Whatever clients did, a restart finds offsets, groups, producers, transactions and LSO as they were."""

import asyncio
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.unit.broker.coordinator.consumer_group.classic_client import assignment, subscription
from tests.unit.broker.coordinator.consumer_group.world import state_of
from tests.unit.broker.coordinator.test_group_log import Node
from tests.unit.broker.log.harness import NOW_MS

from tailrace.broker.coordinator.group import Group, GroupState, JoinRequest, JoinResult, SyncRequest
from tailrace.broker.coordinator.internal_topic import CONSUMER_OFFSETS, TRANSACTION_STATE, InternalTopic
from tailrace.broker.coordinator.rebalance import describe
from tailrace.broker.coordinator.schemas import (
    GroupMetadata,
    OffsetKey,
    OffsetValue,
    TxnMetadata,
    TxnStatus,
    decode_txn_key,
)
from tailrace.broker.coordinator.transaction import Partition, ProducerIdentity
from tailrace.broker.coordinator.transaction_log import Markers, ProducerIdBlocks, StateLog
from tailrace.broker.coordinator.transactions import TransactionCoordinator, TransactionLimits
from tailrace.broker.log import PartitionLog
from tailrace.broker.log.index import AbortedTransaction
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.records.record import Record, encode_batch

TOPIC = "t"
PARTITIONS = 2
TIMEOUT_MS = 60_000
SESSION_MS = 10_000
_T = TypeVar("_T")


class FullNode(Node):
    """Both coordinators on their logs, and a topic with data."""

    def __init__(self, data_dir: Path, now_ms: int, version: Callable[[], int]) -> None:
        super().__init__(data_dir, now_ms)
        if self.topics.find(TOPIC) is None:
            self.topics.create(TOPIC, PARTITIONS, {"retention.ms": "-1"})
        self.states = InternalTopic(
            TRANSACTION_STATE,
            1,
            topics=self.topics,
            logs=self.logs,
            flusher=self.flusher,
            clock=self.clock,
        )
        self.full: set[Partition] = set()
        self.transactions = TransactionCoordinator(
            TransactionLimits(),
            StateLog(self.states, version),
            _Markers(self),
            ProducerIdBlocks(self.topics),
            self.clock,
            version,
        )
        for batch in self.states.replay():
            for record in batch.records:
                value = None if record.value is None else TxnMetadata.decode(record.value)
                self.transactions.replay(decode_txn_key(record.key or b""), value)

    def crash(self) -> None:
        """The process dies; the kernel keeps what was written."""
        for log in self.logs.partitions():
            log.close()
        self.logs._lock.release()
        self.topics.close()

    def known(self) -> dict[str, Any]:
        """Everything that must be the same after a restart."""
        logs = {(log.topic, log.partition): log for log in self.logs.partitions()}
        return {
            "offsets": self.offsets(),
            "consumer groups": state_of(self.log.consumer_groups),
            "unstable": self.unstable(),
            "transactions": {
                txn.transactional_id: txn.state for txn in self.transactions if txn.state.epoch >= 0
            },
            "producers": {
                place: {producer.producer_id: producer for producer in log.producers()}
                for place, log in logs.items()
            },
            "stable": {place: log.last_stable_offset for place, log in logs.items()},
            "aborted": {place: aborted_with_records(log) for place, log in logs.items()},
        }


def aborted_with_records(log: PartitionLog) -> list[AbortedTransaction]:
    """What readers must be told of.  Where compaction has removed all records, an index built anew has no entry."""
    batches = [header for segment in log.segments for _, header in segment.headers()]
    return [
        entry
        for segment in log.segments
        for entry in segment.aborted.entries
        if any(
            header.producer_id == entry.producer_id
            and entry.first_offset <= header.base_offset < entry.last_offset
            and header.record_count
            for header in batches
        )
    ]


class _Markers(Markers):
    """Markers that fail in the partitions whose disk is `full`."""

    def __init__(self, node: FullNode) -> None:
        super().__init__(
            topics=node.topics,
            logs=node.logs,
            flusher=node.flusher,
            clock=node.clock,
            on_offsets_end=lambda partition, producer_id, commit: node.log.offsets.end_transaction(
                partition, producer_id, commit=commit
            ),
        )
        self._node = node

    async def write(self, partitions: Any, *arguments: Any, **named: Any) -> frozenset[Partition]:
        wanted = frozenset(partitions)
        failed = wanted & self._node.full
        return failed | await super().write(wanted - failed, *arguments, **named)


def settled(group: Group) -> GroupMetadata | None:
    """What the log must know of a group; None while its newest generation is not there yet."""
    if group.state not in (GroupState.STABLE, GroupState.EMPTY):
        return None
    return dataclasses.replace(describe(group), since_ms=0)


NAMES = st.sampled_from(["x", "y"])
GROUPS = st.sampled_from(["a", "b"])
PLACES = st.integers(0, PARTITIONS - 1)


class CoordinatorMachine(RuleBasedStateMachine):
    """Clients of both coordinators; `stop`, `crash` and compaction in between."""

    def __init__(self) -> None:
        super().__init__()
        # no power is cut here, so nothing is learnt from a slow disk
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="coordinator-machine-", dir=memory))
        self.runner = asyncio.Runner()
        self.version = 0
        self.count = 0
        self.who: dict[str, ProducerIdentity] = {}
        self.sequences: dict[tuple[int, int, int], int] = {}
        self.members: dict[str, dict[str, int]] = {"a": {}, "b": {}}
        self.parked: set[asyncio.Task[JoinResult]] = set()
        self.node: FullNode

    @initialize(version=st.sampled_from([0, 2]))
    def begin(self, version: int) -> None:
        self.version = version
        self.run(self.open(NOW_MS))

    def teardown(self) -> None:
        self.run(self.hang_up())
        self.run(self.node.close())
        self.runner.close()
        shutil.rmtree(self.root)

    def run(self, story: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(story)

    async def hang_up(self) -> None:
        """The connections of all who wait for a rebalance are gone."""
        for task in self.parked:
            task.cancel()
        await asyncio.gather(*self.parked, return_exceptions=True)
        self.parked.clear()

    async def open(self, now_ms: int) -> None:
        self.node = FullNode(self.root, now_ms, lambda: self.version)
        await self.node.transactions.recover()

    # -- transactions ----------------------------------------------------------------------------------

    @rule(name=NAMES, again=st.booleans())
    def init(self, name: str, again: bool) -> None:
        known = self.who.get(name)
        expected = (known.producer_id, known.epoch) if known and again else (-1, -1)
        made = self.run(self.node.transactions.init_producer_id(name, TIMEOUT_MS, *expected))
        if made.error is ErrorCode.NONE:
            self.who[name] = made

    @rule(name=NAMES, partition=PLACES, add=st.booleans())
    def produce(self, name: str, partition: int, add: bool) -> None:
        who = self.who.get(name)
        if who is None:
            return
        place = (TOPIC, partition)
        arguments = (name, who.producer_id, who.epoch)
        if add:
            self.run(self.node.transactions.join(*arguments, [place]))
        if self.node.transactions.verify(*arguments, place) is not ErrorCode.NONE:
            return

        async def append() -> None:
            self.count += 1
            key = (partition, who.producer_id, who.epoch)
            sequence = self.sequences.setdefault(key, 0)
            log = self.node.topics.log(*place)
            batch = encode_batch(
                [Record(b"k", b"%d" % self.count, self.node.clock.now_ms())],
                producer_id=who.producer_id,
                producer_epoch=who.epoch,
                base_sequence=sequence,
                transactional=True,
            )
            result = log.append(
                memoryview(bytes(batch)),
                now_ms=self.node.clock.now_ms(),
                leader_epoch=self.node.logs.leader_epoch,
                verified_transaction=True,
            )
            self.sequences[key] = sequence + 1
            await self.node.flusher.wait_durable([(log, result.last_offset + 1)])

        self.run(append())

    @rule(name=NAMES, commit=st.booleans(), stale=st.booleans(), full=st.sets(PLACES))
    def end(self, name: str, commit: bool, stale: bool, full: set[int]) -> None:
        who = self.who.get(name)
        if who is None:
            return
        self.node.full = {(TOPIC, partition) for partition in full}
        ended = self.run(
            self.node.transactions.end(
                name, who.producer_id, who.epoch - stale, commit=commit, bump=self.version == 2
            )
        )
        if ended.error is ErrorCode.NONE:
            self.who[name] = ended

    @rule(ms=st.sampled_from([1_000, TIMEOUT_MS, SESSION_MS, 8 * 86_400_000]))
    def wait(self, ms: int) -> None:
        self.node.clock.at_ms += ms
        self.run(self.tick())

    async def tick(self) -> None:
        self.node.full = set()
        await self.node.transactions.tick()
        self.node.log.groups.tick(self.node.clock.now_ms())
        self.node.log.consumer_groups.tick(self.node.clock.now_ms())
        await asyncio.gather(*self.node.log._writing)

    # -- offsets ---------------------------------------------------------------------------------------

    def _value(self) -> OffsetValue:
        self.count += 1
        return OffsetValue(self.count, -1, "", self.node.clock.now_ms())

    @rule(group=GROUPS, partition=PLACES)
    def commit_offset(self, group: str, partition: int) -> None:
        self.node.log.ensure(group, self.node.clock.now_ms())
        self.run(self.node.log.commit(group, {(TOPIC, partition): self._value()}))

    @rule(group=GROUPS, partition=PLACES, name=NAMES)
    def commit_offset_in_transaction(self, group: str, partition: int, name: str) -> None:
        who = self.who.get(name)
        if who is None:
            return
        place = (CONSUMER_OFFSETS, self.node.log.partition_of(group))
        arguments = (name, who.producer_id, who.epoch)

        async def commit() -> None:
            if await self.node.transactions.join(*arguments, [place]) is ErrorCode.NONE:
                self.node.log.ensure(group, self.node.clock.now_ms())
                offsets = {(TOPIC, partition): self._value()}
                await self.node.log.commit_in_transaction(group, who.producer_id, who.epoch, offsets)

        self.run(commit())

    @rule(group=GROUPS, partition=PLACES)
    def forget_offset(self, group: str, partition: int) -> None:
        self.run(self.node.log.forget_offsets([OffsetKey(group, TOPIC, partition)]))

    @rule(days=st.sampled_from([1, 7]))
    def expire(self, days: int) -> None:
        self.run(self.node.log.expire(days * 86_400_000))

    @rule(group=GROUPS)
    def delete_group(self, group: str) -> None:
        found = self.node.log.groups.get(group)
        if found is not None and found.state is GroupState.EMPTY:
            self.run(self.node.log.delete_group(group))

    # -- groups ----------------------------------------------------------------------------------------

    @rule(group=GROUPS, instance=st.sampled_from([None, None, "i"]), back=st.booleans())
    def join(self, group: str, instance: str | None, back: bool) -> None:
        dynamic = [who for who, instance_id in self.classic_members(group).items() if instance_id is None]
        old = dynamic[0] if dynamic and back and instance is None else ""
        request = JoinRequest(
            group,
            old,
            instance,
            "c",
            "/h",
            SESSION_MS,
            SESSION_MS,
            "consumer",
            (("range", subscription([TOPIC])),),
            False,
            True,
        )

        async def joined() -> None:
            self.parked.add(asyncio.create_task(self.node.log.join(request)))
            await asyncio.sleep(0)
            await asyncio.gather(*self.node.log._writing)
            await self.node.log.settled(group)

        self.run(joined())

    def classic_members(self, group: str) -> dict[str, str | None]:
        """Instance ids of the members that speak the classic protocol."""
        classic, other = self.node.log.groups.get(group), self.node.log.consumer_groups.get(group)
        if classic is not None:
            return {member.member_id: member.instance_id for member in classic.members.values()}
        said = other.subscriptions if other is not None else {}
        return {member_id: one.instance_id for member_id, one in said.items() if one.classic is not None}

    @rule(group=GROUPS)
    def sync(self, group: str) -> None:
        found = self.node.log.groups.get(group)
        if found is None or found.leader not in found.members:
            return
        leader = found.members[found.leader]
        shares: dict[str, set[tuple[str, int]]] = {member_id: set() for member_id in found.members}
        for number in range(PARTITIONS):
            shares[list(shares)[number % len(shares)]].add((TOPIC, number))
        assignments = {member_id: assignment(places) for member_id, places in shares.items()}
        request = SyncRequest(
            group, found.generation, leader.member_id, leader.instance_id, None, None, assignments
        )

        async def synced() -> None:
            self.node.log.groups.sync(request, self.node.clock.now_ms(), lambda _: None)
            await asyncio.gather(*self.node.log._writing)

        self.run(synced())

    @rule(group=GROUPS)
    def leave(self, group: str) -> None:
        found = self.node.log.groups.get(group)
        if found is not None and found.members:
            member = next(iter(found.members.values()))

            async def left() -> None:
                who = [(member.member_id, member.instance_id)]
                self.node.log.groups.leave(group, who, self.node.clock.now_ms())
                await asyncio.gather(*self.node.log._writing)

            self.run(left())

    # -- what a broker does ----------------------------------------------------------------------------

    @rule(version=st.sampled_from([0, 2]))
    def change_level(self, version: int) -> None:
        self.version = version

    @rule(topic=st.sampled_from([CONSUMER_OFFSETS, TRANSACTION_STATE]))
    def compact(self, topic: str) -> None:
        async def story() -> None:
            for log in list(self.node.logs.partitions()):
                if log.topic == topic:
                    log.roll()
                    await self.node.flusher.wait_durable([(log, log.log_end_offset)])
                    await self.node.logs.checkpoint()
                    log.config = dataclasses.replace(log.config, min_cleanable_dirty_ratio=0)
                    await self.node.logs.compact(log)

        self.run(story())

    @rule(crash=st.booleans(), year=st.sampled_from([-1, 0, 1]))
    def restart(self, crash: bool, year: int) -> None:
        self.run(self._restart(crash, NOW_MS + year * 365 * 86_400_000))

    async def _restart(self, crash: bool, now_ms: int) -> None:
        self.node.full = set()
        await self.hang_up()
        await self.node.transactions.tick()
        await self.node.flusher.wait_durable((log, log.log_end_offset) for log in self.node.logs.partitions())
        before, groups = self.node.known(), {group.group_id: settled(group) for group in self.node.log.groups}
        if crash:
            self.node.crash()
        else:
            await self.node.close()
        await self.open(now_ms)
        assert self.node.known() == before
        restored = {group.group_id: settled(group) for group in self.node.log.groups}
        for group_id, expected in groups.items():
            if expected is not None and expected.generation:
                assert restored[group_id] == expected
        for group_id in restored.keys() - groups.keys():
            raise AssertionError(f"group {group_id} was not there before")


TestLiveStateIsReplayedState = CoordinatorMachine.TestCase
TestLiveStateIsReplayedState.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_transaction_that_ends_while_the_level_goes_down_is_after_a_restart_what_it_was_before(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        level = 2
        node = FullNode(tmp_path, NOW_MS, lambda: level)
        who = await node.transactions.init_producer_id("x", TIMEOUT_MS)
        place = (TOPIC, 0)
        assert await node.transactions.add_partitions("x", who.producer_id, who.epoch, [place]) == 0
        node.full = {place}
        ended = await node.transactions.end("x", who.producer_id, who.epoch, commit=True, bump=True)
        assert ended.error is ErrorCode.CONCURRENT_TRANSACTIONS
        level = 0
        node.full = set()
        await node.transactions.tick()
        await node.flusher.wait_durable((log, log.log_end_offset) for log in node.logs.partitions())
        before = node.known()
        assert before["transactions"]["x"].status is TxnStatus.COMPLETE_COMMIT
        await node.close()
        node = FullNode(tmp_path, NOW_MS, lambda: level)
        assert node.known() == before
        await node.close()

    asyncio.run(story())
