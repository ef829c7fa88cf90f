"""Time for the log: record timestamps are data, everything that expires counts monotonic time.

A wall clock that jumps a year ahead must not make retention delete a year of records, so `now_ms` is
the wall time at start plus the monotonic time since; `monotonic_ms` is for idle times.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What the log layer asks about time; tests bring their own."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, never jumping while the process lives."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since an arbitrary moment, never going back."""
        ...


class SystemClock:
    """The machine's clocks, the wall clock read once."""

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        return self._offset_ms + self.monotonic_ms()

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000
