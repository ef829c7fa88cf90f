"""Committed offsets of all groups, built from the records of `__consumer_offsets` and from nothing else.

Live and replayed state are the same because both go through `apply`, `apply_transactional` and
`end_transaction`.  An offset counts only if its record stands behind that of the present one, so the order
in which concurrent commits become durable does not matter.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tailrace.broker.coordinator.schemas import OffsetKey, OffsetValue


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """A committed offset and where its record stands in `__consumer_offsets`."""

    record_offset: int
    value: OffsetValue


class OffsetStore:
    """Offsets by group, and those that wait for their transaction's end."""

    def __init__(self) -> None:
        self._committed: dict[str, dict[tuple[str, int], CommittedOffset]] = {}
        # (partition of the topic, producer id) -> what the open transaction will commit
        self._pending: dict[tuple[int, int], dict[OffsetKey, CommittedOffset]] = {}

    def apply(self, key: OffsetKey, record_offset: int, value: OffsetValue | None) -> None:
        """One record that is durable and not transactional; None forgets the offset."""
        offsets = self._committed.setdefault(key.group_id, {})
        place = (key.topic, key.partition)
        present = offsets.get(place)
        if present is not None and present.record_offset > record_offset:
            return
        if value is None:
            offsets.pop(place, None)
        else:
            offsets[place] = CommittedOffset(record_offset, value)
        if not offsets:
            del self._committed[key.group_id]

    def apply_transactional(
        self, partition: int, producer_id: int, key: OffsetKey, record_offset: int, value: OffsetValue
    ) -> None:
        """One record of an open transaction in `partition` of the topic: pending until its marker."""
        pending = self._pending.setdefault((partition, producer_id), {})
        present = pending.get(key)
        if present is None or present.record_offset < record_offset:
            pending[key] = CommittedOffset(record_offset, value)

    def end_transaction(self, partition: int, producer_id: int, *, commit: bool) -> None:
        """A marker in `partition` of the topic."""
        for key, offset in self._pending.pop((partition, producer_id), {}).items():
            if commit:
                self.apply(key, offset.record_offset, offset.value)

    def get(self, group_id: str, topic: str, partition: int) -> OffsetValue | None:
        """The committed offset, or None."""
        found = self._committed.get(group_id, {}).get((topic, partition))
        return None if found is None else found.value

    def of_group(self, group_id: str) -> Mapping[tuple[str, int], CommittedOffset]:
        """All committed offsets of a group."""
        return self._committed.get(group_id, {})

    def is_unstable(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether an open transaction may still move this offset (KIP-447)."""
        key = OffsetKey(group_id, topic, partition)
        return any(key in pending for pending in self._pending.values())

    def has_pending(self, group_id: str) -> bool:
        """Whether any open transaction holds offsets of this group."""
        return any(key.group_id == group_id for pending in self._pending.values() for key in pending)

    def groups(self) -> Iterator[str]:
        """Ids of the groups that have offsets."""
        return iter(self._committed)

    def keys_of_topics(self, topics: Iterable[str]) -> list[OffsetKey]:
        """Every committed offset of these topics: what to forget when topics are deleted."""
        names = frozenset(topics)
        return [
            OffsetKey(group_id, topic, partition)
            for group_id, offsets in self._committed.items()
            for topic, partition in offsets
            if topic in names
        ]

    def expired(self, group_id: str, unused_since_ms: int, retention_ms: int, now_ms: int) -> list[OffsetKey]:
        """Offsets of an unused group that are older than `retention_ms`; none while a transaction is open."""
        if self.has_pending(group_id):
            return []
        return [
            OffsetKey(group_id, topic, partition)
            for (topic, partition), offset in self.of_group(group_id).items()
            if now_ms - max(unused_since_ms, offset.value.committed_at_ms) >= retention_ms
        ]
