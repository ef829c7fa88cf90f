"""Groups and offsets on `__consumer_offsets`: what is committed, from the log and into it."""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Mapping

from tailrace.broker.coordinator.elapsed import Elapsed
from tailrace.broker.coordinator.group import Group, GroupState
from tailrace.broker.coordinator.groups import GroupCoordinator
from tailrace.broker.coordinator.internal_topic import InternalTopic, Receipt
from tailrace.broker.coordinator.offsets import OffsetStore
from tailrace.broker.coordinator.rebalance import GroupLimits
from tailrace.broker.coordinator.schemas import (
    GroupMetadata,
    OffsetKey,
    OffsetValue,
    decode_consumer_offsets_key,
    encode_group_key,
)
from tailrace.broker.log import Clock, LogError
from tailrace.changes import crash_point

_log = logging.getLogger(__name__)


class GroupLog:
    """The group coordinator with its log: `groups` and `offsets` hold what is durable."""

    def __init__(self, topic: InternalTopic, limits: GroupLimits, clock: Clock) -> None:
        self.groups = GroupCoordinator(limits, self._persist_group)
        self.offsets = OffsetStore()
        self._topic = topic
        self._clock = clock
        self._elapsed = Elapsed(clock)
        self._writing: set[asyncio.Task[None]] = set()

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
                elif key is not None:
                    value = None if record.value is None else OffsetValue.decode(record.value)
                    if header.is_transactional and value is not None:
                        self.offsets.apply_transactional(
                            batch.partition, header.producer_id, key, record.offset, value
                        )
                    else:
                        self.offsets.apply(key, record.offset, value)
        now_ms = self._clock.now_ms()
        for group_id, stored in groups.items():
            if stored is not None:
                self.groups.restore(group_id, stored, now_ms)
        for group_id in self.offsets.groups():
            self.groups.ensure(group_id, now_ms)

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
        """Forget an empty group with all its offsets, pending ones too, durably.  Raises LogError."""
        keys = self.offsets.keys_of_group(group_id)
        tombstones = [*(key.encode() for key in keys), encode_group_key(group_id)]
        receipt = self._topic.append(self.partition_of(group_id), [(key, None) for key in tombstones])
        self.groups.forget(group_id)  # who joins from here on makes a new group, behind these records
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

    def _unused_for(self, group: Group) -> int | None:
        """For how long offsets of unread topics have been out of use at least; None: not known (a rebalance)."""
        if group.state is GroupState.EMPTY:
            return self._elapsed.since(group.since_ms)
        settled = group.state is GroupState.STABLE and group.subscribed_topics() is not None
        return sys.maxsize if settled else None

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
