"""Where the kernel writes what one client sends.

Connections without an unfinished frame share one buffer: a frame that came whole is handled before the next
connection is read.  A frame that comes in pieces gets memory of its own, which the kernel fills in as the
bytes arrive.
"""

import mmap

from tailrace.broker.protocol import Buffer

_SHARED_BYTES = 1 << 16
_KEPT_BYTES = 4 << 20  # a larger buffer is given back when it is empty


class SharedBuffer:
    """The one of all connections that have no unfinished frame."""

    def __init__(self) -> None:
        self.memory = bytearray(_SHARED_BYTES)
        self.view = memoryview(self.memory)


class ReceiveBuffer:
    """The `filled` first bytes of `view` are received and not handled; `frame_began` is when the frame at
    their start began (monotonic seconds; 0: there is none).
    """

    def __init__(self, shared: SharedBuffer) -> None:
        self._shared = shared
        self.memory: Buffer | mmap.mmap = shared.memory
        self.view = shared.view
        self.filled = 0
        self.frame_began = 0.0
        self._grows_to = 0  # bytes, before anything else is received

    def room(self) -> memoryview:
        """Where the bytes go that come next."""
        if self._grows_to:
            self._grow(self._grows_to)
            self._grows_to = 0
        return self.view[self.filled :]

    def share(self) -> None:
        """Give memory of its own back; only while nothing is filled."""
        self.memory, self.view = self._shared.memory, self._shared.view

    def keep_rest(self, start: int, missing: int, now: float) -> None:
        """Move an unfinished frame of `missing` bytes in all (0: not known yet) to where it has room."""
        rest = self.filled - start
        if not rest:
            self.filled = 0
            self.frame_began = 0.0
            if len(self.memory) > _KEPT_BYTES:
                self.share()
            return
        if start or not self.frame_began:
            self.frame_began = now
        capacity = len(self.memory)
        wanted = max(missing, _SHARED_BYTES)
        shared = self.memory is self._shared.memory
        full = missing > capacity and rest >= capacity - capacity // 4
        # It doubles as the bytes arrive, and pages come into being when they are written to: a forged size
        # costs nothing.
        room = max(min(wanted, max(_KEPT_BYTES, 2 * rest)), min(2 * missing, _KEPT_BYTES))
        if shared or (capacity > _KEPT_BYTES and wanted <= _KEPT_BYTES):
            self._move(room, start, self.filled)
        elif start:
            self.view[:rest] = bytes(self.view[start : self.filled])
        if full and not shared:
            self._grows_to = room  # when nobody looks at the memory any more
        self.filled = rest

    def _grow(self, size: int) -> None:
        """Make the memory of its own larger, without a second one beside it."""
        assert isinstance(self.memory, mmap.mmap)
        try:
            self.view.release()
            self.memory.resize(size)
        except (BufferError, SystemError):  # somebody still holds a piece of it, or this system cannot
            self.view = memoryview(self.memory)
            self._move(size, 0, self.filled)
        else:
            self.view = memoryview(self.memory)

    def _move(self, size: int, start: int, end: int) -> None:
        """Take new memory, and what stands between `start` and `end` along."""
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[: end - start] = self.view[start:end]
        self.memory, self.view = memory, memoryview(memory)
