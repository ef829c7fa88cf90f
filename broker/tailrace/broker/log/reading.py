"""Batches by offset over all segments of one log."""

from bisect import bisect_right
from collections.abc import Callable

from tailrace.broker.log.segment import Segment
from tailrace.broker.log.unread import Unread

_KEPT_PLACES = 64
_WORTH_WAITING = 16 << 10  # fewer bytes are read as cheaply as they are looked up


class SegmentReader:
    """Looks up and reads; `segments` is the log's own list, ascending and never empty.

    Raises OSError, and struct.error where the files hold no batches.
    """

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments
        self._places: dict[int, tuple[Segment, int]] = {}

    def read(
        self, offset: int, max_bytes: int, *, upper: int, at_least_one: bool
    ) -> list[memoryview | bytes]:
        """Whole batches in order, from the one that contains `offset`, all below `upper` (exclusive)."""
        found: list[memoryview | bytes] = []
        segment, position = self._place_of(offset)
        while True:
            data, next_offset = segment.read(position, max_bytes, upper, at_least_one and not found)
            if data:
                found.append(data)
                max_bytes -= len(data)
                position += len(data)
                self._remember(next_offset, segment, position)
            following = self._after(segment) if position == segment.size else None
            if following is None or max_bytes <= 0 or following.base_offset >= upper:
                return found
            segment, position = following, 0

    def read_later(
        self, offset: int, max_bytes: int, *, upper: int, damaged: Callable[[], None]
    ) -> Unread | None:
        """The batches of `read` that stand in one segment, to be read when they are sent; None where `read` must do."""
        segment, position = self._place_of(offset)
        found = segment.whole_batches(position, max_bytes, upper)
        if found is None or found[0] < _WORTH_WAITING:
            return None
        size, next_offset = found
        self._remember(next_offset, segment, position + size)
        return Unread(segment.file, position, size, damaged)

    def segment_of(self, offset: int) -> Segment:
        """The segment that holds `offset`, or the first one when it lies before the log."""
        return self._segments[self._number_of(offset)]

    def aborted_transactions(self, start: int, upper: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of the aborted transactions with records in [start, upper)."""
        found = []
        for segment in self._segments[self._number_of(start) :]:
            for entry in segment.aborted.entries:
                if entry.last_offset >= start and entry.first_offset < upper:
                    found.append((entry.producer_id, entry.first_offset))
                if entry.last_stable_offset >= upper:
                    return found
        return found

    def forget_places(self) -> None:
        """Segments were exchanged: look everything up again."""
        self._places.clear()

    def _place_of(self, offset: int) -> tuple[Segment, int]:
        place = self._places.get(offset)
        if place is not None:
            return place
        segment = self.segment_of(offset)
        return segment, segment.position_of(offset)

    def _remember(self, offset: int, segment: Segment, position: int) -> None:
        """A consumer asks next for the offset after what it got: keep where that stands."""
        if len(self._places) >= _KEPT_PLACES:
            del self._places[next(iter(self._places))]
        self._places[offset] = segment, position

    def _number_of(self, offset: int) -> int:
        return max(bisect_right(self._segments, offset, key=lambda segment: segment.base_offset) - 1, 0)

    def _after(self, segment: Segment) -> Segment | None:
        number = self._number_of(segment.base_offset) + 1
        return self._segments[number] if number < len(self._segments) else None
