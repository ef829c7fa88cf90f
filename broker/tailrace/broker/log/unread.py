"""Record batches of an answer that stay in their file until the client takes them.

A large answer that is read at once goes through memory that no cache holds, and its client waits until all of it
is read.
"""

import struct
from collections.abc import Callable

from tailrace.broker.log.durable import LogFile
from tailrace.broker.log.frames import read_frame
from tailrace.broker.records.batch import HEADER_BYTES


class Unread:
    """Whole batches in [position, position + size) of a log file, which stays open as long as this lives.

    `damaged` is called when the file turns out to hold something else.  On the event loop's thread only.
    """

    __slots__ = ("_damaged", "_end", "_file", "_frame", "_position")

    def __init__(self, file: LogFile, position: int, size: int, damaged: Callable[[], None]) -> None:
        self._file = file
        self._position = self._frame = position  # where to read on, and where the next batch begins
        self._end = position + size
        self._damaged = damaged
        file.pin()

    def __del__(self) -> None:
        self._file.release()

    def __len__(self) -> int:
        """Bytes that were not taken yet."""
        return self._end - self._position

    def take(self, most: int) -> bytes:
        """Read on: at most `most` bytes, at least a batch's header.  Raises OSError; struct.error for damage."""
        position = self._position
        size = min(max(most, HEADER_BYTES), len(self))
        try:
            data = self._file.disk.read(self._file.fd, size, position)
            if len(data) < size:
                raise struct.error(f"{self._file.path} ends at byte {position + len(data)}")
            self._position += self._checked(data)
        except (OSError, struct.error):
            self._damaged()
            raise
        return data if self._position == position + size else data[: self._position - position]

    def _checked(self, data: bytes) -> int:
        """How many of these bytes can be told to be batches: not the part of a header at their end."""
        at, size = self._frame - self._position, len(data)
        while at + HEADER_BYTES <= size:
            at += read_frame(data, at)[0]
        self._frame = self._position + at
        if self._frame > self._end or (self._position + size == self._end != self._frame):
            raise struct.error(f"a record batch of {self._file.path} that does not end at byte {self._end}")
        return min(at, size)
