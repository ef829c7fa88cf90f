"""The pipeline's control topic as a sink reads it: positions to commit at, barriers on the way there.

A position says: the raw topics up to these offsets are exactly the source up to this LSN.  A segment is the way
from one position to a later one, with the TRUNCATEs that lie between, in order.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.broker.client import FetchedPartition
from tailrace.broker.records.record import decode_records
from tailrace.changes import Lsn
from tailrace.registry.envelope import ControlMark, SourcePosition, TruncateMark, parse_control
from tailrace.sinks.checkpoint import TopicPartition


@dataclass(frozen=True, slots=True)
class Segment:
    """Where the next commit stands.

    position     its LSN and the offsets (exclusive) to which every raw partition must be read.
    truncates    barriers to be applied before, in source order.
    next_offset  of the control topic, once the commit has landed.
    """

    position: SourcePosition
    truncates: tuple[TruncateMark, ...]
    next_offset: int

    def offsets(self, topic: str) -> dict[int, int]:
        """End offset (exclusive) per partition of one topic."""
        return dict(self.position.offsets.get(topic, {}))


class ControlLog:
    """Positions and barriers that were read and are not yet passed."""

    def __init__(self, topic: str, lsn: Lsn) -> None:
        """`lsn`: positions up to it are behind every table."""
        self.place = (topic, 0)
        self._lsn = lsn
        self._marks: deque[tuple[int, ControlMark]] = deque()

    def arrive(self, fetched: FetchedPartition) -> None:
        """Take what one poll brought of the control topic."""
        for batch in fetched.batches:
            for record in decode_records(batch):
                if record.offset < fetched.start_offset:
                    continue
                mark = parse_control(record.value, where=f"{self.place[0]}, offset {record.offset},")
                if isinstance(mark, SourcePosition | TruncateMark):
                    self._marks.append((record.offset, mark))

    def pending(self) -> bool:
        """Whether a position beyond the last segment is known."""
        return any(isinstance(mark, SourcePosition) and mark.lsn > self._lsn for _at, mark in self._marks)

    def take(self, read: Mapping[TopicPartition, int], max_rows: int) -> Segment | None:
        """The way to the newest position that is about `max_rows` ahead of `read`, at least to the next one.

        None while no new position is known.
        """
        chosen = -1
        for index, (_offset, mark) in enumerate(self._marks):
            if not isinstance(mark, SourcePosition) or mark.lsn <= self._lsn:
                continue
            if chosen >= 0 and _ahead(mark, read) > max_rows:
                break
            chosen = index
        if chosen < 0:
            return None
        passed = [self._marks.popleft() for _ in range(chosen + 1)]
        offset, position = passed[-1]
        assert isinstance(position, SourcePosition)
        self._lsn = position.lsn
        truncates = tuple(mark for _at, mark in passed if isinstance(mark, TruncateMark))
        return Segment(position, truncates, offset + 1)


def _ahead(position: SourcePosition, read: Mapping[TopicPartition, int]) -> int:
    """Records between what is read and a position."""
    return sum(
        max(0, offset - read[topic, partition])
        for topic, offsets in position.offsets.items()
        for partition, offset in offsets.items()
        if (topic, partition) in read
    )
