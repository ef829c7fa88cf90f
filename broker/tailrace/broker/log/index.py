"""The three index files of a segment; all can be rebuilt from the segment.

    .index      entries of  8 bytes: relative offset i32, position i32     one per 4096 bytes of log
    .timeindex  entries of 12 bytes: timestamp i64, relative offset i32    greatest timestamp so far
    .txnindex   entries of 34 bytes: version i16 (0), producer id, first offset, last offset (of the
                abort marker), last stable offset when it was written      one per aborted transaction

Look-ups are binary searches by pread: no memory per segment, no mapping to keep alive.
"""

import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import read_file, write_whole
from tailrace.broker.log.producers import EndedTransaction

INDEX_INTERVAL_BYTES = 4096
UNWRITTEN_BYTES = 2048

_OFFSET = struct.Struct(">ii")
_TIME = struct.Struct(">qi")
_ABORTED = struct.Struct(">hqqqq")
ENTRY_BYTES = (_OFFSET.size, _TIME.size, _ABORTED.size)


class EntryFile:
    """A file of fixed-size entries in ascending order, opened on first use.

    The newest entries are written many at a time, and are in memory until then: the index of a segment that grows
    is built anew after a crash in any case.
    """

    def __init__(self, disk: Disk, path: Path, entry: struct.Struct) -> None:
        self._disk = disk
        self.path = path
        self.count = 0
        self._entry = entry
        self._unwritten = bytearray()
        self._fd = -1

    def load(self, count: int | None = None) -> bool:
        """Take over what is on disk, or its first `count` entries.

        False when the file is missing, holds fewer, or its size is not whole entries.
        """
        self._unwritten.clear()
        if not self._disk.exists(self.path):
            self.count = 0
            return False
        size = self._disk.size(self._descriptor())
        self.count, rest = divmod(size, self._entry.size)
        if count is None:
            return rest == 0
        whole, self.count = self.count, count
        return count <= whole

    def add(self, *fields: int) -> None:
        """Append one entry.  After an OSError it does not exist."""
        if len(self._unwritten) >= UNWRITTEN_BYTES:
            self._write()
        self._unwritten += self._entry.pack(*fields)
        self.count += 1

    def entry(self, number: int) -> tuple[int, ...]:
        at = number * self._entry.size - self._written_bytes
        if at >= 0:
            return self._entry.unpack_from(self._unwritten, at)
        data = self._disk.read(self._descriptor(), self._entry.size, number * self._entry.size)
        return self._entry.unpack(data)

    def floor(self, column: int, wanted: int) -> tuple[int, ...] | None:
        """The last entry whose `column` is at most `wanted`."""
        return self._last(lambda entry: entry[column] <= wanted)

    def _last(self, holds: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...] | None:
        low, high, found = 0, self.count, None
        while low < high:
            middle = (low + high) // 2
            entry = self.entry(middle)
            if holds(entry):
                low, found = middle + 1, entry
            else:
                high = middle
        return found

    def rewind(self) -> None:
        """Count nothing; what is in the file is written over, and `finish` cuts the rest."""
        self.count = 0
        self._unwritten.clear()

    def clear(self) -> None:
        self.count = 0
        self._unwritten.clear()
        self._disk.truncate(self._descriptor(), 0)

    def finish(self) -> None:
        """Write every entry, and cut what does not count: of a failed write, or before `rewind`.  Raises OSError."""
        self._write()
        self._disk.truncate(self._descriptor(), self._written_bytes)

    @property
    def _written_bytes(self) -> int:
        return self.count * self._entry.size - len(self._unwritten)

    def _write(self) -> None:
        if self._unwritten:
            write_whole(self._disk, self._descriptor(), bytes(self._unwritten), self._written_bytes)
            self._unwritten.clear()

    def close(self) -> None:
        """Give the descriptor back; the next use opens the file again."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1

    def _descriptor(self) -> int:
        if self._fd < 0:
            self._fd = self._disk.open(self.path, create=True)
        return self._fd


class OffsetIndex:
    """Offset to file position; an entry names a batch by its last offset."""

    def __init__(self, disk: Disk, path: Path, base_offset: int) -> None:
        self.file = EntryFile(disk, path, _OFFSET)
        self._base = base_offset

    def add(self, last_offset: int, position: int) -> None:
        self.file.add(last_offset - self._base, position)

    def entry_before(self, offset: int) -> tuple[int, int] | None:
        """(last offset, position) of a batch that starts at or before the one that holds `offset`."""
        entry = self.file.floor(0, offset - self._base)
        return (self._base + entry[0], entry[1]) if entry else None

    def entry_at(self, position: int) -> tuple[int, int] | None:
        """(last offset, position) of the last batch with an entry that starts at or before `position`."""
        entry = self.file.floor(1, position)
        return (self._base + entry[0], entry[1]) if entry else None

    def is_full(self, size: int) -> bool:
        """Whether a file of `size` bytes has no room for another entry."""
        return (self.file.count + 1) * _OFFSET.size > size

    def last_position(self) -> int:
        """Position of the last batch that has an entry, 0 for none."""
        return self.file.entry(self.file.count - 1)[1] if self.file.count else 0

    def is_sane(self, log_size: int, count: int | None = None) -> bool:
        """Load the file (its first `count` entries); whether it can belong to a segment of `log_size` bytes."""
        if not self.file.load(count):
            return False
        if not self.file.count:
            return True
        relative, position = self.file.entry(self.file.count - 1)
        return relative >= 0 and 0 <= position < log_size


class TimeIndex:
    """Greatest timestamp so far to the last offset of the batch that brought it."""

    def __init__(self, disk: Disk, path: Path, base_offset: int) -> None:
        self.file = EntryFile(disk, path, _TIME)
        self._base = base_offset
        self.last_timestamp = -1

    def add(self, timestamp_ms: int, offset: int) -> None:
        """Append when the timestamp grew since the last entry."""
        if timestamp_ms > self.last_timestamp:
            self.file.add(timestamp_ms, offset - self._base)
            self.last_timestamp = timestamp_ms

    def entry_before(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(timestamp, last offset) of a batch before the first record that is as late as `timestamp_ms`."""
        entry = self.file.floor(0, timestamp_ms - 1)
        return (entry[0], self._base + entry[1]) if entry else None

    def is_sane(self, count: int | None = None) -> bool:
        """Load the file (its first `count` entries); whether it can belong to the segment."""
        if not self.file.load(count):
            return False
        if self.file.count:
            timestamp, relative = self.file.entry(self.file.count - 1)
            self.last_timestamp = timestamp
            return relative >= 0
        return True

    def last(self) -> tuple[int, int]:
        """(greatest timestamp, offset), (-1, base offset) for none."""
        if not self.file.count:
            return -1, self._base
        timestamp, relative = self.file.entry(self.file.count - 1)
        return timestamp, self._base + relative


class AbortedTransaction(NamedTuple):
    """An aborted transaction of one producer; `last_offset` is its marker's."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int

    @classmethod
    def of(cls, ended: EndedTransaction) -> "AbortedTransaction":
        return cls(ended.producer_id, ended.first_offset, ended.marker_offset, ended.last_stable_offset)


class AbortedIndex:
    """The aborted transactions whose marker stands in the segment, kept in memory: they are few.

    An entry that could not be written (full disk) is written by `trim`, which must succeed before the
    segment may count as recovered.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self.entries: list[AbortedTransaction] = []
        self._disk = disk
        self._path = path
        self._written = 0

    def load(self, count: int | None = None) -> bool:
        """Read the file, or its first `count` entries.

        False when it is missing or damaged: every segment has one, even an empty one.
        """
        self.entries = []
        try:
            data = read_file(self._disk, self._path)
        except FileNotFoundError:
            return False
        if count is not None and len(data) >= count * _ABORTED.size:
            data = data[: count * _ABORTED.size]
        elif count is not None or len(data) % _ABORTED.size:
            return False
        rows = list(_ABORTED.iter_unpack(data))
        self.entries = [AbortedTransaction._make(row[1:]) for row in rows]
        self._written = len(self.entries)
        return all(row[0] == 0 for row in rows)

    def is_within(self, base_offset: int, next_offset: int) -> bool:
        """Whether the entries ascend, each ends after it begins, and their markers stand in the segment."""
        markers = [base_offset - 1, *(entry.last_offset for entry in self.entries), next_offset]
        return all(earlier < later for earlier, later in pairwise(markers)) and all(
            entry.first_offset < entry.last_offset for entry in self.entries
        )

    def add(self, entry: AbortedTransaction) -> None:
        self.entries.append(entry)
        try:
            self._write()
        except OSError:
            return  # `trim` writes it, and reports when it cannot

    def trim(self) -> None:
        """Write what is missing, and cut what a failed write left behind.  Raises OSError."""
        self._write(cut=True)

    def clear(self) -> None:
        self.entries = []
        self._written = 0
        self._write(cut=True)

    def _write(self, *, cut: bool = False) -> None:
        missing = self.entries[self._written :]
        if not missing and not cut:
            return
        fd = self._disk.open(self._path, create=True)
        try:
            content = b"".join(_ABORTED.pack(0, *entry) for entry in missing)
            write_whole(self._disk, fd, content, self._written * _ABORTED.size)
            if cut:
                self._disk.truncate(fd, len(self.entries) * _ABORTED.size)
        finally:
            self._disk.close(fd)
        self._written = len(self.entries)
