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
            for (
                pending
            ) in self._pending.values():  # forgotten is forgotten: a later commit brings nothing back
                if key in pending and pending[key].record_offset < record_offset:
                    del pending[key]
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

    def keys_of_group(self, group_id: str) -> list[OffsetKey]:
        """Every offset of a group, committed or waiting for its transaction's end."""
        keys = {OffsetKey(group_id, topic, partition) for topic, partition in self.of_group(group_id)}
        for pending in self._pending.values():
            keys.update(key for key in pending if key.group_id == group_id)
        return sorted(keys)

    def settled(self, group_id: str) -> list[tuple[OffsetKey, CommittedOffset]]:
        """The committed offsets that no open transaction may still move."""
        return [
            (OffsetKey(group_id, topic, partition), offset)
            for (topic, partition), offset in self.of_group(group_id).items()
            if not self.is_unstable(group_id, topic, partition)
        ]
