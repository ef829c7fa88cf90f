"""One segment: a file of whole record batches and its indexes, named by its first offset.

00000000000000004711.log .index .timeindex .txnindex

While a log grows by small pieces its newest file is kept longer than its content, filled with zeros: an fdatasync
that leaves size and blocks of a file as they are does without the journal of the file system, and takes a
fraction of the time (ARCHITECTURE.md).  The zeros are cut when the segment is finished, or by recovery.
"""

import contextlib
import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import LogFile, read_file
from tailrace.broker.log.frames import read_frame
from tailrace.broker.log.index import (
    ENTRY_BYTES,
    INDEX_INTERVAL_BYTES,
    AbortedIndex,
    OffsetIndex,
    TimeIndex,
)
from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.records.batch import HEADER_BYTES, MAGIC, BatchHeader, read_header

INDEX_SUFFIXES = (".index", ".timeindex", ".txnindex")
MAX_RELATIVE_OFFSET = 0x7FFF_FFFF
_SCAN_BYTES = 32 * 1024
ROOM = memoryview(bytes(1 << 20))
ROOM_FROM_BYTES = 64 << 10  # a segment that stays smaller is not worth it
_SMALL_BYTES = 128 << 10  # more than this in one round, and the second write would cost more than the journal


def segment_name(offset: int, suffix: str) -> str:
    """Kafka's file name: the offset in 20 digits."""
    return f"{offset:020d}{suffix}"


def segment_offsets(disk: Disk, directory: Path) -> list[int]:
    """First offset of every segment in a folder, ascending."""
    stems = [name.removesuffix(".log") for name in disk.names(directory) if name.endswith(".log")]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


class IndexedPart(NamedTuple):
    """A part of a segment from its beginning, and how many entries of each index file tell of it."""

    size: int
    offset_entries: int
    time_entries: int
    aborted_entries: int


class Segment:
    """Offsets [base_offset, next_offset) of a partition; only the newest segment grows.

    `size` is what counts as written: bytes beyond it are the rest of a failed append, or zeros.
    `synced_size` tells how much of it is durable, `checked_size` how much a start need not check again
    (`tailrace.broker.log.checked`), `loaded_end` up to which offset the indexes were not built anew.
    """

    def __init__(
        self, disk: Disk, directory: Path, base_offset: int, *, create: bool, created_ms: int
    ) -> None:
        self.disk = disk
        self.directory = directory
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.created_ms = created_ms
        self.first_timestamp = -1
        self.max_timestamp = -1
        self.max_timestamp_offset = base_offset
        self.file = LogFile(disk, self.path(".log"), create=create)
        self.size = 0 if create else disk.size(self.file.fd)
        self.synced_size = self.size
        self._file_size = self.size
        self._may_have_room = True
        self.indexes_synced = False
        self.checked_size = 0
        self.loaded_end = base_offset
        self.offset_index = OffsetIndex(disk, self.path(".index"), base_offset)
        self.time_index = TimeIndex(disk, self.path(".timeindex"), base_offset)
        self.aborted = AbortedIndex(disk, self.path(".txnindex"))
        self._indexed_size = 0

    def path(self, suffix: str) -> Path:
        return self.directory / segment_name(self.base_offset, suffix)

    def create_indexes(self) -> None:
        """Make empty index files, also over the remains of an earlier segment.  Raises OSError."""
        self.offset_index.file.clear()
        self.time_index.file.clear()
        self.time_index.last_timestamp = -1
        self.aborted.clear()
        self._indexed_size = 0

    def restart(self) -> None:
        """Count nothing yet: `noted` builds all up again from the file's batches, then comes `write_indexes`.

        The indexes are not emptied: to free what is needed again at once costs more than to write it.
        """
        self.size = 0
        self.next_offset = self.max_timestamp_offset = self.loaded_end = self.base_offset
        self.first_timestamp = self.max_timestamp = -1
        self.indexes_synced = False
        self.offset_index.file.rewind()
        self.time_index.file.rewind()
        self.time_index.last_timestamp = -1
        self.aborted.clear()
        self._indexed_size = 0

    def restart_aborted(self) -> None:
        """Count no aborted transaction yet: that index may not be durable, and is not seen to be cut short."""
        self.aborted.clear()
        self.indexes_synced = False
        self.loaded_end = self.base_offset

    def write_indexes(self) -> None:
        """Write every index entry, and cut from the files what does not count.  Raises OSError."""
        self.offset_index.file.finish()
        self.time_index.file.finish()
        self.aborted.trim()

    def load_indexes(self, part: IndexedPart | None = None) -> bool:
        """Take over the index files of a finished segment; False when they have to be built anew.

        With `part` only of that: `noted` goes on after it.
        Raises struct.error where an index points at no batch, or the segment holds none.
        """
        size, *counts = part or (self.size, None, None, None)
        if not (
            size <= self.size
            and self.offset_index.is_sane(size, counts[0])
            and self.time_index.is_sane(counts[1])
            and self.aborted.load(counts[2])
        ):
            return False
        first = next(self.headers(end=size), None)
        latest = -1
        if first is not None:
            self.first_timestamp = first[1].max_timestamp
        for _, header in self.headers(self.offset_index.last_position(), size):
            self.next_offset = header.last_offset + 1
            latest = max(latest, header.max_timestamp)
        self.max_timestamp, self.max_timestamp_offset = self.time_index.last()
        if self.time_index.file.count and not self._brought(self.max_timestamp, self.max_timestamp_offset):
            return False
        if self.max_timestamp < latest or not self.aborted.is_within(self.base_offset, self.next_offset):
            return False
        self.size = self._indexed_size = size
        self.loaded_end = self.next_offset
        self.indexes_synced = part is None
        return True

    def write(self, parts: list[Buffer], size: int) -> None:
        """Put the bytes of one batch at the end.  Raises OSError with the segment unchanged.

        `noted` must follow: until then the bytes do not count.
        """
        fd, at = self.file.fd, self.size
        try:
            written = self.disk.write(fd, parts, at)
            if written != size:
                rest = memoryview(b"".join(parts))
                while written < size:  # a full disk is told by the next write, not by the short one
                    written += self.disk.write(fd, [rest[written:]], at + written)
        except OSError:
            self.drop_torn_tail()
            raise

    def noted(self, header: BatchHeader, base_offset: int) -> None:
        """Count the batch that `write` put down, at `base_offset`."""
        position = self.size
        last_offset = base_offset + header.last_offset_delta
        self.size = position + header.size
        self._file_size = max(self._file_size, self.size)
        self.next_offset = last_offset + 1
        if self.first_timestamp < 0:
            self.first_timestamp = header.max_timestamp
        if header.max_timestamp > self.max_timestamp:
            self.max_timestamp = header.max_timestamp
            self.max_timestamp_offset = last_offset
        if self.size - self._indexed_size > INDEX_INTERVAL_BYTES:
            self._index(last_offset, position)

    def _index(self, last_offset: int, position: int) -> None:
        try:
            self.offset_index.add(last_offset, position)
            self.time_index.add(self.max_timestamp, self.max_timestamp_offset)
        except OSError:
            return  # a sparser index is still right; the next batch tries again
        self._indexed_size = self.size

    def make_room(self) -> None:
        """Fill the file with zeros ahead of what will be appended, where the rounds of fdatasync are small.

        A disk that has no place for them is asked no more.
        """
        small = self.size >= ROOM_FROM_BYTES and self.size - self.synced_size <= _SMALL_BYTES
        if not small or not self._may_have_room or self._file_size - self.size > len(ROOM) // 4:
            return
        at, end = self._file_size, self.size + len(ROOM)
        try:
            if self.disk.write(self.file.fd, [ROOM[: end - at]], at) != end - at:
                raise OSError(errno.ENOSPC, "short write")
        except OSError:
            self._may_have_room = False
            self._file_size = end  # as far as it may have come
            with contextlib.suppress(OSError):
                self.trim()
            return
        self._file_size = end

    def trim(self) -> None:
        """Cut the zeros beyond the end.  Raises OSError; durable once the paths of `finish_files` are synced."""
        if self._file_size > self.size:
            self.disk.truncate(self.file.fd, self.size)
            self._file_size = self.size

    def seal(self) -> None:
        """No more appends: the time index gets its last word (a full disk leaves that to `finish_files`)."""
        try:
            self.time_index.add(self.max_timestamp, self.max_timestamp_offset)
        except OSError:
            return

    def finish_files(self) -> list[Path]:
        """Complete the files; once these paths are fsynced, `indexes_synced` may be set.  Raises OSError.

        On the loop, and the fsync elsewhere: look-ups go on meanwhile.
        """
        self.trim()
        return [self.path(".log"), *self.finish_indexes()]

    def finish_indexes(self) -> list[Path]:
        """As `finish_files`, for the indexes of a segment that goes on growing."""
        self.time_index.add(self.max_timestamp, self.max_timestamp_offset)
        self.write_indexes()
        return [self.path(suffix) for suffix in INDEX_SUFFIXES]

    def position_of(self, offset: int) -> int:
        """Position of the batch that contains `offset`, or of the first one after it.

        Raises struct.error where the segment is damaged on the way.
        """
        position = self._indexed_position(offset) if offset > self.base_offset else 0
        while position < self.size:
            frame = self.disk.read(self.file.fd, HEADER_BYTES, position)
            size, last_offset = read_frame(frame, 0)
            if last_offset >= offset:
                break
            position += size
        if position >= self.size and offset < self.next_offset:
            raise struct.error(f"no batch of {self.file.path} holds offset {offset}")
        return position

    def _indexed_position(self, offset: int) -> int:
        """Where to look for `offset`; 0 without an index entry, or with one that is not true."""
        try:
            entry = self.offset_index.entry_before(offset)
            if entry is None:
                return 0
            last_offset, position = entry
            _, found = read_frame(self.disk.read(self.file.fd, HEADER_BYTES, position), 0)
        except (OSError, struct.error):
            return 0  # no descriptor left to open the index, or damage: the batches themselves tell
        return position if found == last_offset else 0

    def offset_before(self, timestamp_ms: int) -> int:
        """An offset at or before the first record that is as late as `timestamp_ms`."""
        try:
            entry = self.time_index.entry_before(timestamp_ms)
        except (OSError, struct.error):
            return self.base_offset  # as in `_indexed_position`
        return entry[1] if entry and self._brought(*entry) else self.base_offset

    def _brought(self, timestamp_ms: int, last_offset: int) -> bool:
        """Whether a batch says what an entry of the time index says of it."""
        try:
            position = self.position_of(last_offset)
            header = read_header(self.disk.read(self.file.fd, HEADER_BYTES, position))
        except (OSError, struct.error):
            return False
        return (header.max_timestamp, header.last_offset) == (timestamp_ms, last_offset)

    def read(self, position: int, max_bytes: int, upper: int, at_least_one: bool) -> tuple[memoryview, int]:
        """Whole batches from `position` with all offsets below `upper`, and the offset that follows them.

        Raises struct.error where something else stands than a batch of this segment.
        """
        want = min(max_bytes, self.size - position)
        data = memoryview(
            self.disk.read(self.file.fd, max(want, min(HEADER_BYTES, self.size - position)), position)
        )
        if at_least_one and len(data) >= HEADER_BYTES:
            first, _ = read_frame(data, 0)
            if first > len(data):
                data = memoryview(self.disk.read(self.file.fd, first, position))
                want = first
            want = max(want, first)
        end, next_offset, limit = 0, self.base_offset, min(want, len(data))
        while end + HEADER_BYTES <= limit:
            size, last_offset = read_frame(data, end)
            if not next_offset <= last_offset < self.next_offset or position + end + size > self.size:
                raise struct.error(f"damaged at byte {position + end} of {self.file.path}")
            if end + size > limit or last_offset >= upper:
                break
            end += size
            next_offset = last_offset + 1
        if 0 < self.size - position - end < HEADER_BYTES:
            raise struct.error(f"damaged at byte {position + end} of {self.file.path}")
        return data[:end], next_offset

    def whole_batches(self, position: int, max_bytes: int, upper: int) -> tuple[int, int] | None:
        """As `read`, and nothing is read but where it ends: bytes of batches from `position`, and the offset after them.

        None where that is not known without a look at each batch.
        """
        if self.next_offset > upper:
            return None
        if self.size - position <= max_bytes:
            return self.size - position, self.next_offset
        try:
            entry = self.offset_index.entry_at(position + max_bytes)
            if entry is None or entry[1] <= position:
                return None
            header = read_header(self.disk.read(self.file.fd, HEADER_BYTES, entry[1]))
        except (OSError, struct.error):
            return None  # as in `_indexed_position`
        return (entry[1] - position, header.base_offset) if header.last_offset == entry[0] else None

    def headers(self, position: int = 0, end: int | None = None) -> Iterator[tuple[int, BatchHeader]]:
        """(position, header) of every batch from `position` to `end`, reading little more than the headers.

        Raises struct.error where no batch stands.
        """
        end = self.size if end is None else end
        while position < end:
            data = self.disk.read(self.file.fd, min(_SCAN_BYTES, end - position), position)
            at = 0
            while at + HEADER_BYTES <= len(data):
                header = read_header(data, at)
                if header.magic != MAGIC or header.size < HEADER_BYTES:
                    raise struct.error(f"no record batch at byte {position + at} of {self.file.path}")
                if position + at + header.size > end:
                    raise struct.error(
                        f"a record batch cut short at byte {position + at} of {self.file.path}"
                    )
                yield position + at, header
                at += header.size
            if at == 0:
                raise struct.error(f"a batch header cut short at byte {position} of {self.file.path}")
            position += at

    def indexed_part(self) -> IndexedPart:
        """All that is written so far, with its index entries."""
        counts = self.offset_index.file.count, self.time_index.file.count, len(self.aborted.entries)
        return IndexedPart(self.size, *counts)

    def indexes_crc(self, part: IndexedPart) -> int:
        """Checksum of the index entries of `part`, as they are in the files.  Raises OSError."""
        crc = 0
        for suffix, count, size in zip(INDEX_SUFFIXES, part[1:], ENTRY_BYTES, strict=True):
            crc = crc32c(read_file(self.disk, self.path(suffix))[: count * size], crc)
        return crc

    def batch_at(self, position: int, size: int) -> bytes:
        return self.disk.read(self.file.fd, size, position)

    def latest_ms(self) -> int:
        """Greatest record timestamp; of records without one, the time of the last write."""
        if self.max_timestamp >= 0:
            return self.max_timestamp
        return self.disk.modified_ns(self.file.fd) // 1_000_000

    def drop_torn_tail(self) -> None:
        """Cut what a failed write left behind the last whole batch.  Raises OSError."""
        self._file_size = max(self._file_size, self.size + 1)  # nobody knows how far it came
        self.trim()

    def truncate(self, size: int) -> None:
        """Cut the file at a batch boundary and make that durable (recovery)."""
        self.disk.truncate(self.file.fd, size)
        self.disk.fdatasync(self.file.fd)
        self.size = self.synced_size = self._file_size = size

    def remove(self) -> None:
        """Close and unlink all files of a segment that never counted."""
        self.close()
        for suffix in (".log", *INDEX_SUFFIXES):
            self.disk.unlink(self.path(suffix))

    def rest_indexes(self) -> None:
        """Give the descriptors of the index files back; a look-up opens them again."""
        self.offset_index.file.close()
        self.time_index.file.close()

    def close(self) -> None:
        """Close all files; a reader or an fdatasync in another thread keeps the log file open until done."""
        self.file.close()
        self.rest_indexes()

    def renamed_away(self, suffix: str = ".deleted") -> list[Path]:
        """Rename the files so that no start takes them for data; returns what is left to unlink."""
        self.close()
        away = []
        for kind in (".log", *INDEX_SUFFIXES):  # the log first: indexes without a log are dropped at start
            path = self.path(kind)
            if self.disk.exists(path):
                away.append(path.with_name(path.name + suffix))
                self.disk.rename(path, away[-1])
        return away
