"""Groups and offsets on `__consumer_offsets`: what is committed, from the log and into it.

A group is of one kind: classic, or of the consumer protocol (KIP-848).  While it has no members it becomes of the
other kind with the first member that joins so, and with members as the migration policy allows; its offsets stay.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from tailrace.broker.coordinator.consumer_group.coordinator import (
    ConsumerGroupLimits,
    ConsumerGroups,
    TimingsOf,
)
from tailrace.broker.coordinator.consumer_group.errors import GroupRefusal
from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.heartbeat import Answer, Catalog, Heartbeat
from tailrace.broker.coordinator.consumer_group.member import JOINING_EPOCH
from tailrace.broker.coordinator.consumer_group.migration import downgraded, upgraded
from tailrace.broker.coordinator.consumer_group.records import Change, decode, encode
from tailrace.broker.coordinator.elapsed import Elapsed
from tailrace.broker.coordinator.group import (
    Group,
    GroupState,
    JoinRequest,
    JoinResult,
    SyncRequest,
    SyncResult,
)
from tailrace.broker.coordinator.groups import GroupCoordinator
from tailrace.broker.coordinator.internal_topic import InternalTopic, KeyValue, Receipt
from tailrace.broker.coordinator.offsets import OffsetStore
from tailrace.broker.coordinator.rebalance import GroupLimits, describe
from tailrace.broker.coordinator.schemas import (
    GroupMetadata,
    OffsetKey,
    OffsetValue,
    decode_consumer_offsets_key,
    encode_group_key,
)
from tailrace.broker.log import Clock, LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.changes import crash_point

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class GroupLog:
    """The group coordinator with its log.

    `groups` (classic) and `offsets` hold what is durable; of `consumer_groups` an answer may be told once
    `settled` has returned.
    """

    def __init__(
        self,
        topic: InternalTopic,
        limits: GroupLimits,
        consumer_limits: ConsumerGroupLimits,
        timings_of: TimingsOf,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self.groups = GroupCoordinator(limits, self._persist_group)
        self.consumer_groups = ConsumerGroups(
            consumer_limits, catalog, self._write_consumer_group, self._turn_classic, timings_of
        )
        self._catalog = catalog
        self.offsets = OffsetStore()
        self._topic = topic
        self._clock = clock
        self._elapsed = Elapsed(clock)
        self._writing: set[asyncio.Task[None]] = set()
        self._unsettled: dict[str, Receipt] = {}  # consumer group -> its newest change, if not durable yet

    def partition_of(self, group_id: str) -> int:
        """Partition of `__consumer_offsets` that holds the group."""
        return self._topic.partition_of(group_id)

    def replay(self) -> None:
        """Read the whole log; the groups' members get one session to show up again."""
        groups: dict[str, GroupMetadata | None] = {}
        for batch in self._topic.replay():
            header = batch.header
            if batch.committed is not None:
                self.offsets.end_transaction(batch.partition, header.producer_id, commit=batch.committed)
                continue
            for record in batch.records:
                key = decode_consumer_offsets_key(record.key or b"")
                if isinstance(key, str):
                    groups[key] = None if record.value is None else GroupMetadata.decode(record.value)
                elif isinstance(key, OffsetKey):
                    value = None if record.value is None else OffsetValue.decode(record.value)
                    if header.is_transactional and value is not None:
                        self.offsets.apply_transactional(
                            batch.partition, header.producer_id, key, record.offset, value
                        )
                    else:
                        self.offsets.apply(key, record.offset, value)
                elif key is not None:
                    self.consumer_groups.replay(key.group_id, decode(key, record.value))
        now_ms = self._clock.now_ms()
        for group_id, stored in groups.items():
            if stored is not None:
                self.groups.restore(group_id, stored, now_ms)
        self.consumer_groups.resume(now_ms)
        for group_id in self.offsets.groups():
            self.ensure(group_id, now_ms)

    def ensure(self, group_id: str, now_ms: int) -> None:
        """Have a group for the offsets: an empty classic one if there is none."""
        if self.consumer_groups.get(group_id) is None:
            self.groups.ensure(group_id, now_ms)

    async def heartbeat(self, said: Heartbeat) -> Answer:
        """ConsumerGroupHeartbeat; a classic group becomes one of the consumer protocol with who joins it so."""
        try:
            former = self._upgraded(said)
            answer = self.consumer_groups.heartbeat(said, self._clock.now_ms(), former)
        except GroupRefusal as refusal:
            return Answer(refusal.code, str(refusal), said.member_id)
        except LogError as error:
            return Answer(ErrorCode.COORDINATOR_NOT_AVAILABLE, str(error), said.member_id)
        await self.settled(said.group_id)
        return answer

    def _upgraded(self, said: Heartbeat) -> Sequence[Change]:
        """What a classic group with members becomes, if it may.  Raises GroupRefusal: GROUP_ID_NOT_FOUND."""
        classic, limits = self.groups.get(said.group_id), self.consumer_groups.limits
        joins = said.epoch == JOINING_EPOCH
        if classic is None or (joins and classic.state is GroupState.EMPTY):
            return ()
        if not joins or not limits.migration.upgrades or len(classic.members) > limits.max_size:
            raise GroupRefusal(
                ErrorCode.GROUP_ID_NOT_FOUND, f"Group {said.group_id} is not a consumer group."
            )
        return upgraded(classic, self._catalog)

    def _turn_classic(self, group: ConsumerGroup, left: ConsumerGroup) -> None:
        now_ms = self._clock.now_ms()
        classic = downgraded(left, now_ms)
        records = [*_tombstones(group), (encode_group_key(group.group_id), describe(classic).encode())]
        receipt = self._topic.append(self.partition_of(group.group_id), records)
        self._forget_consumer_group(group.group_id)
        self.groups.take_over(classic, now_ms)
        self._unsettled[group.group_id] = receipt
        self._topic.flush_soon(receipt)

    async def join(self, request: JoinRequest) -> JoinResult:
        """JoinGroup, of a group of either protocol; what the answer says is durable."""
        now_ms = self._clock.now_ms()
        if error := self.groups.check_join(request):
            return JoinResult(error, request.member_id)
        try:
            if self._has_members(request.group_id):
                result = self.consumer_groups.join(request, now_ms)
                if result is not None:
                    await self.settled(request.group_id)
                    return result
            else:
                self._make_way_for_classic(request.group_id)
        except LogError:
            return JoinResult(ErrorCode.COORDINATOR_NOT_AVAILABLE, request.member_id)
        return await _parked(lambda reply: self.groups.join(request, now_ms, reply))

    async def sync(self, request: SyncRequest) -> SyncResult:
        """SyncGroup: answered when the assignment is durable."""
        now_ms = self._clock.now_ms()
        if self._has_members(request.group_id):
            return self.consumer_groups.sync(request, now_ms)
        return await _parked(lambda reply: self.groups.sync(request, now_ms, reply))

    def classic_heartbeat(
        self, group_id: str, generation: int, member_id: str, instance_id: str | None
    ) -> ErrorCode:
        """Heartbeat of a classic member: REBALANCE_IN_PROGRESS tells it to join again."""
        in_consumer_group = self._has_members(group_id)
        beat = self.consumer_groups.classic_heartbeat if in_consumer_group else self.groups.heartbeat
        return beat(group_id, generation, member_id, instance_id, self._clock.now_ms())

    async def leave(self, group_id: str, leaving: Sequence[tuple[str, str | None]]) -> list[ErrorCode]:
        """LeaveGroup; on a consumer group durable on return."""
        if self.consumer_groups.get(group_id) is None:
            return self.groups.leave(group_id, leaving, self._clock.now_ms())
        try:
            errors = self.consumer_groups.leave(group_id, leaving)
        except LogError:
            return [ErrorCode.COORDINATOR_NOT_AVAILABLE for _ in leaving]
        await self.settled(group_id)
        return errors

    def _has_members(self, group_id: str) -> bool:
        """Whether it is a consumer group with members: then classic ones join in."""
        group = self.consumer_groups.get(group_id)
        return group is not None and bool(group.subscriptions)

    def _make_way_for_classic(self, group_id: str) -> None:
        """Before a classic join a consumer group without members becomes an empty classic one.  Raises LogError."""
        group = self.consumer_groups.get(group_id)
        if group is not None:
            self._topic.append(self.partition_of(group_id), _tombstones(group))
            self._forget_consumer_group(group_id)
            self.groups.ensure(group_id, self._clock.now_ms())

    async def settled(self, group_id: str) -> None:
        """Return when all changes of the consumer group so far are durable."""
        receipt = self._unsettled.get(group_id)
        if receipt is not None:
            await self._topic.durable(receipt)
            if self._unsettled.get(group_id) is receipt:
                del self._unsettled[group_id]

    def _write_consumer_group(self, group_id: str, changes: Sequence[Change]) -> None:
        records = [encode(group_id, change) for change in changes]
        replaces = self.groups.get(group_id) is not None
        if replaces:
            records.insert(0, (encode_group_key(group_id), None))
        receipt = self._topic.append(self.partition_of(group_id), records)
        if replaces:
            self.groups.hand_over(group_id)
        self._unsettled[group_id] = receipt
        self._topic.flush_soon(receipt)

    async def commit(self, group_id: str, offsets: Mapping[tuple[str, int], OffsetValue]) -> None:
        """Commit offsets durably; readers see them when they are.  Raises LogError."""
        keys = [OffsetKey(group_id, topic, partition) for topic, partition in offsets]
        values = list(offsets.values())
        crash_point("broker.before_offset_commit")
        receipt = self._topic.append(
            self.partition_of(group_id),
            [(key.encode(), value.encode()) for key, value in zip(keys, values, strict=True)],
        )
        await self._topic.durable(receipt)
        for index, (key, value) in enumerate(zip(keys, values, strict=True)):
            self.offsets.apply(key, receipt.base_offset + index, value)

    async def commit_in_transaction(
        self,
        group_id: str,
        producer_id: int,
        epoch: int,
        offsets: Mapping[tuple[str, int], OffsetValue],
    ) -> None:
        """Write offsets as part of a producer transaction: pending until its marker.  Raises LogError."""
        partition = self.partition_of(group_id)
        keys = [OffsetKey(group_id, topic, number) for topic, number in offsets]
        values = list(offsets.values())
        receipt = self._topic.append(
            partition,
            [(key.encode(), value.encode()) for key, value in zip(keys, values, strict=True)],
            producer_id=producer_id,
            epoch=epoch,
        )
        for index, (key, value) in enumerate(zip(keys, values, strict=True)):
            self.offsets.apply_transactional(partition, producer_id, key, receipt.base_offset + index, value)
        await self._topic.durable(receipt)

    async def forget_offsets(self, keys: Iterable[OffsetKey]) -> None:
        """Tombstones for these offsets, durable on return.  Raises LogError."""
        by_partition: dict[int, list[OffsetKey]] = {}
        for key in keys:
            by_partition.setdefault(self.partition_of(key.group_id), []).append(key)
        for partition, forgotten in by_partition.items():
            receipt = self._topic.append(partition, [(key.encode(), None) for key in forgotten])
            await self._topic.durable(receipt)
            for index, key in enumerate(forgotten):
                self.offsets.apply(key, receipt.base_offset + index, None)

    async def delete_group(self, group_id: str) -> None:
        """Forget a group without members, with all its offsets, pending ones too, durably.  Raises LogError."""
        keys = self.offsets.keys_of_group(group_id)
        group = self.consumer_groups.get(group_id)
        tombstones: list[KeyValue] = [(key.encode(), None) for key in keys]
        tombstones += [(encode_group_key(group_id), None)] if group is None else _tombstones(group)
        receipt = self._topic.append(self.partition_of(group_id), tombstones)
        self.groups.forget(group_id)  # who joins from here on makes a new group, behind these records
        self._forget_consumer_group(group_id)
        await self._topic.durable(receipt)
        for index, key in enumerate(keys):
            self.offsets.apply(key, receipt.base_offset + index, None)

    async def expire(self, retention_ms: int) -> None:
        """Forget offsets that nobody has used for `retention_ms`, and groups with nothing left."""
        for group in list(self.groups):
            unused_for = self._unused_for(group)
            if unused_for is None:
                continue
            await self.forget_offsets(
                key
                for key, offset in self.offsets.settled(group.group_id)
                if min(unused_for, self._elapsed.since(offset.value.committed_at_ms)) >= retention_ms
                and not group.is_subscribed(key.topic)
            )
            idle = group.state is GroupState.EMPTY and not group.pending_joins
            if idle and unused_for >= retention_ms and not self.offsets.keys_of_group(group.group_id):
                await self.delete_group(group.group_id)
        for consumer_group in list(self.consumer_groups):
            await self._expire_consumer_group(consumer_group, retention_ms)

    async def _expire_consumer_group(self, group: ConsumerGroup, retention_ms: int) -> None:
        """Here an offset's age is that of its commit, whether the group has members or not."""
        read = group.subscribed_topics()
        await self.forget_offsets(
            key
            for key, offset in self.offsets.settled(group.group_id)
            if key.topic not in read and self._elapsed.since(offset.value.committed_at_ms) >= retention_ms
        )
        there = self.consumer_groups.get(group.group_id)  # nobody joined while the offsets went
        if there and not there.subscriptions and not self.offsets.keys_of_group(group.group_id):
            await self.delete_group(group.group_id)

    def _unused_for(self, group: Group) -> int | None:
        """For how long offsets of unread topics have been out of use at least; None: not known (a rebalance)."""
        if group.state is GroupState.EMPTY:
            return self._elapsed.since(group.since_ms)
        settled = group.state is GroupState.STABLE and group.subscribed_topics() is not None
        return sys.maxsize if settled else None

    def _forget_consumer_group(self, group_id: str) -> None:
        self.consumer_groups.forget(group_id)
        self._unsettled.pop(group_id, None)

    def _persist_group(self, group_id: str, value: GroupMetadata, done: Callable[[bool], None]) -> None:
        try:
            receipt = self._topic.append(
                self.partition_of(group_id), [(encode_group_key(group_id), value.encode())]
            )
        except LogError as error:
            _log.warning(
                "generation %d of group %s could not be written: %s", value.generation, group_id, error
            )
            done(False)
            return
        task = asyncio.get_running_loop().create_task(self._finish_group(receipt, done))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _finish_group(self, receipt: Receipt, done: Callable[[bool], None]) -> None:
        await self._topic.durable(receipt)
        done(True)


async def _parked(start: Callable[[Callable[[_Result], None]], None]) -> _Result:
    """What the coordinator answers through its callback, whenever that is."""
    answer: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()

    def reply(result: _Result) -> None:
        if not answer.done():
            answer.set_result(result)

    start(reply)
    return await answer


def _tombstones(group: ConsumerGroup) -> list[KeyValue]:
    return [encode(group.group_id, change) for change in group.tombstones()]
